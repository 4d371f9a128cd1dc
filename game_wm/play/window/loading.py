"""Loading: a thread makes the session while a bar fills in the window.

found = load(surface, "maze", lambda report: Session(...))      # a Session, or what was asked for meanwhile
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pygame

from game_wm.play.window import display

if TYPE_CHECKING:
    from game_wm.play.session import Session

Report = Callable[[str, float], None]  # what is being done, and how much of all is done by then, 0 to 1
Load = Callable[[Report], "Session"]


def load(surface: pygame.Surface, name: str, make: Load) -> Session | Literal["quit", "back"]:
    """The session that `make` makes; "quit" when the window was closed meanwhile, "back" after Esc.

    Raises the errors of `make`.
    """
    stage, done = ("Starting", 0.0), 0.0
    failure: list[BaseException] = []
    made: list[Session] = []

    def report(text: str, fraction: float) -> None:
        nonlocal stage
        stage = (text, fraction)

    def work() -> None:
        try:
            made.append(make(report))
        except BaseException as error:  # raised again below, in the thread that can tell the user
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return "quit"
            if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
                return "back"
        done += (stage[1] - done) * 0.12
        display.loading(surface, name, stage[0], done)
        pygame.display.flip()
        thread.join(1 / 30)
    if failure:
        raise failure[0]
    return made[0]
