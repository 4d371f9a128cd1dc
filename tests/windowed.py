"""A window under SDL's dummy driver, and the keys that somebody presses in it; to be imported before pygame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"

pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

import av  # noqa: E402
from fakes import fake  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import Window  # noqa: E402

W, A, S, D, Q, Z, H = 26, 4, 22, 7, 20, 29, 11  # SDL's scancodes of a US keyboard's keys


def nudge(frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """A scripted player: forward and left."""
    return np.array([1, 0, 1, 0], np.int8)


def broken(frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """A scripted player of another game."""
    return np.array([7])


def key(*names: str, up: bool = False) -> None:
    for name in names:
        kind = pygame.KEYUP if up else pygame.KEYDOWN
        mod = pygame.KMOD_LCTRL if name.startswith("ctrl+") else pygame.KMOD_NONE
        pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(name.removeprefix("ctrl+")), mod=mod))


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def stroke(letter: str, scancode: int, up: bool = False, ctrl: bool = False) -> None:
    """A key of some layout: what it types, and its place."""
    kind, mod = pygame.KEYUP if up else pygame.KEYDOWN, pygame.KMOD_LCTRL if ctrl else pygame.KMOD_NONE
    pygame.event.post(pygame.event.Event(kind, key=ord(letter), scancode=scancode, mod=mod))


def opening(monkeypatch: pytest.MonkeyPatch, recordings: Path) -> Iterator[Any]:
    """What opens a window on a checkpoint, past its loading page; its files go to a folder.

    Whatever goes wrong in it, nobody is told to type a flag or to run a command.
    """
    monkeypatch.setattr(folder, "FOLDER", recordings)
    said: list[str] = []
    fail = Window.fail

    def failed(self: Window, error: UserError) -> None:
        said.append(str(error))
        fail(self, error)

    def make(checkpoint: Any = None, **options: Any) -> Window:
        checkpoint = checkpoint or fake()
        made = Window("fake", lambda report: Session(checkpoint, **options))
        assert made.load()
        made.begin()
        made.pump()
        return made

    monkeypatch.setattr(Window, "fail", failed)
    yield make
    pygame.display.quit()
    for words in said:
        assert not re.search(r"--[a-z]|play\.py|python -m|the same command", words), words
