"""The pygame window: `Window("maze", load=lambda report: Session(...)).run()`."""

from game_wm.play.window.window import Window

__all__ = ["Window"]
