"""The window on a real X11 display, as somebody at a desktop has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import tiny_checkpoint  # noqa: E402
from xvfb import ROOT, Xvfb, until  # noqa: E402

from game_wm.doctor import llvms  # noqa: E402
from game_wm.play.window.paint import AMBER  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("x11") / "tiny.safetensors", side=16, endless=True)


def test_a_window_opens_and_hears_keys(path: Path, x11: Xvfb) -> None:
    with x11.play(path, "--quality", "balanced") as playing:
        window = playing.wait_for_window()
        assert "tiny – game_wm" in x11.properties(window) and x11.size_of(window) == (640, 640)
        until(lambda: x11.screenshot().std() > 40, "noise, which is what a model of random weights dreams")
        x11.press("h")
        until(lambda: 5 < x11.screenshot().std() < 30, "the sheet of keys on it, which dims it")
        x11.press("h")
        until(lambda: x11.screenshot().std() > 40, "play again")
        assert playing.process.poll() is None and playing.said == ""


def test_the_gallery_opens_and_is_left(path: Path, x11: Xvfb, tmp_path: Path) -> None:
    mine = tmp_path / "runs" / "tiny" / "tiny.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(path.read_bytes())

    def chosen() -> bool:
        """Whether a tile has the frame of the chosen one."""
        return (x11.screenshot() == AMBER).all(-1).sum() > 500

    with x11.start(sys.executable, ROOT / "play.py", "--quality", "balanced", cwd=tmp_path) as playing:
        window = playing.wait_for_window()
        assert "game_wm" in x11.properties(window) and x11.size_of(window) == (904, 678)
        until(chosen, "the gallery")
        x11.press("Down", "Down", "Down", "Return")  # below what came with the program: the user's own
        playing.until(lambda: "tiny – game_wm" in x11.properties(playing.wait_for_window()), "play", 120)
        until(lambda: not chosen(), "play")
        x11.press("Escape")
        until(chosen, "the gallery")
        x11.press("Escape")
        assert playing.wait() == 0, playing.said


def test_full_screen_and_back_an_icon_and_a_window_that_is_closed(path: Path, x11: Xvfb, tmp_path: Path) -> None:
    plain = {"SDL_FRAMEBUFFER_ACCELERATION": "0"}  # with GL, SDL makes the window anew now and then
    with x11.start(sys.executable, ROOT / "play.py", path, "--quality", "balanced", cwd=tmp_path, **plain) as playing:

        def has(size: tuple[int, int]) -> bool:
            return x11.size_of(playing.wait_for_window()) == size

        playing.wait_for_window()
        until(lambda: x11.screenshot().std() > 40, "play")
        window = playing.wait_for_window()
        assert "_NET_WM_ICON" in x11.properties(window)
        x11.xdotool("windowsize", "--sync", window, "500", "420")
        until(lambda: has((500, 420)), "the size that somebody gives it")
        for _ in range(2):
            x11.press("F11")
            until(lambda: has(x11.size), "full screen")
            x11.press("F11")
            until(lambda: has((500, 420)), "the size from before")
        x11.close(playing.wait_for_window())
        assert playing.wait() == 0, playing.said
    assert len(list(tmp_path.glob("recordings/tiny-*-left.dream"))) == 1


@pytest.mark.parametrize("layout", ["ru", "fr"])
def test_other_keyboards_walk(layout: str, path: Path, x11: Xvfb, tmp_path: Path) -> None:
    """What was pressed is in the actions that are saved: forward, by the key above S."""
    subprocess.run(["setxkbmap", layout], env=x11.environment(), check=True)
    (tmp_path / "keys.yaml").write_text("game: {w: forward, s: back, a: turn_left, d: turn_right}")
    flags = ("--quality", "balanced", "--keys", "keys.yaml")
    with x11.start(sys.executable, ROOT / "play.py", path, *flags, cwd=tmp_path) as playing:
        playing.wait_for_window()
        until(lambda: x11.screenshot().std() > 40, "play")
        x11.hold("25")  # the key's number on X, whatever it types
        until(lambda: x11.press("46") or walked(tmp_path), "L saves the actions")
        x11.release("25")
        until(lambda: x11.press("Escape") or playing.process.poll() is not None, "the end")
        assert playing.wait() == 0, playing.said


def walked(folder: Path) -> bool:
    """Whether somebody has walked in an action file that was saved there."""
    return any(np.load(log)["actions"][:, 0].any() for log in folder.glob("recordings/*.npz"))


# The player as it is, which says what plays whenever that changes, and what of the compiler has been imported.
PLAY = """
import sys
from game_wm.play import app, window

class Told(window.Window):
    label = ""
    def advance(self):
        super().advance()
        if self.session.quality.label != self.label:
            self.label = self.session.quality.label
            print("now", self.label, *{"torch._inductor", "torch._dynamo", "triton"} & set(sys.modules), flush=True)

window.Window = Told
sys.exit(app.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("accelerated", [None, "1"], ids=["as it comes", "GL forced"])
def test_to_compiled_and_back_ten_times(
    accelerated: str | None, compiled_code: Path, tmp_path: Path, x11: Xvfb
) -> None:
    """Two LLVMs in one process end it: Mesa's, with which GL draws the window, and the one of PyTorch's compiler."""
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", endless=True)
    options = ("--quality", "balanced", "--precision", "32", "--threads", torch.get_num_threads())
    environment = {"SDL_FRAMEBUFFER_ACCELERATION": accelerated, "GAME_WM_CACHE": str(compiled_code)}
    with x11.start(sys.executable, "-c", PLAY, path, *options, **environment) as playing:
        playing.wait_for_window()
        playing.wait_for_words("now balanced")
        for times in range(1, 11):
            x11.press("q", "q", "q")  # best, auto, fast
            playing.wait_for_words("now fast, compiled", times, seconds=240)
            x11.press("q")
            playing.wait_for_words("now balanced", times + 1)
        until(lambda: len(np.unique(x11.screenshot())) > 100, "a picture")
        assert "triton" not in playing.said and "torch._" not in playing.said
        there = llvms(playing.mapped())
        assert [name.partition("-")[0] for name in there] == (["libLLVM"] if accelerated else [])
        until(lambda: x11.press("Escape") or playing.process.poll() is not None, "the end")
        assert playing.wait() == 0, playing.said
