"""The window on a real X11 display, as somebody at a desktop has it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tiny import tiny_checkpoint  # noqa: E402
from xvfb import Xvfb, until  # noqa: E402


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
