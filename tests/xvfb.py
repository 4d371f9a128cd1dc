"""A real X11 display without a screen: Xvfb, keys as from a keyboard, pictures of what is on it.

    def test_it_walks(x11: Xvfb, path: Path) -> None:               # the fixture of conftest.py
        with x11.play(path, "--fps", 20) as playing:                # python play.py, in a window
            playing.wait_for_window()
            x11.hold("Up")                                          # names of X keysyms: xdotool's
            x11.release("Up")
            x11.press("q", "ctrl+s")
            x11.screenshot(tmp_path / "seen.png")                   # (H, W, 3) uint8 too
            x11.press("Escape", "Escape")
            assert playing.wait() == 0, playing.said

SDL draws with its x11 driver and Mesa's software GL. There is no window manager: windows stand in the middle, without a
frame, and full screen is what SDL makes of it alone. Debian's packages: `make packages`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageGrab

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("Xvfb", "xdotool", "xprop")
SIZE = (1280, 800)
SOON = 60.0  # seconds for whatever must happen on a busy machine; a few are usual


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def until(true: Callable[[], Any], what: str, seconds: float = SOON, so_far: Callable[[], str] = str) -> Any:
    """What `true` gives as soon as that is true; fails after `seconds`, with what `so_far` tells."""
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds:g} s\n{so_far()}")
        time.sleep(0.02)
    return found


class ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent, padded to the size of an XEvent."""

    _fields_ = [
        ("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int), ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong), ("message_type", ctypes.c_ulong), ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5), ("padding", ctypes.c_long * 16),
    ]  # fmt: skip


class Xvfb:
    """A display of its own, on a number that is free; `with` ends it."""

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        self.size = size
        self.name = ""

    def __enter__(self) -> Xvfb:
        read, write = os.pipe()
        screen = ["-screen", "0", f"{self.size[0]}x{self.size[1]}x24"]
        command = ["Xvfb", "-displayfd", str(write), *screen, "-nolisten", "tcp", "-noreset"]
        self._server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as number:
            self.name = f":{number.readline().strip()}"
        if self.name == ":":
            pytest.fail(f"Xvfb ended with {self._server.wait()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait()

    def environment(self, **changes: str | None) -> dict[str, str]:
        """For programs that are to open their windows here; None takes a name away."""
        ours = {
            "DISPLAY": self.name,
            "WAYLAND_DISPLAY": None,
            "SDL_VIDEODRIVER": "x11",
            "SDL_AUDIODRIVER": "dummy",
            "SDL_FRAMEBUFFER_ACCELERATION": None,  # tests of windows in this process may have set it
            "PYTHONPATH": str(ROOT),
        }
        return {k: v for k, v in {**os.environ, **ours, **changes}.items() if v is not None}

    def start(self, *command: Any, cwd: Path = ROOT, **changes: str | None) -> Program:
        """Run a program with its windows here."""
        return Program(self, [str(word) for word in command], cwd, self.environment(**changes))

    def play(self, *arguments: Any, **changes: str | None) -> Program:
        """`python play.py ARGUMENTS` in a window."""
        return self.start(sys.executable, ROOT / "play.py", *arguments, **changes)

    # --- keyboard and mouse ----------------------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        """Down and up again, one key after the other, in the window under the pointer."""
        self.xdotool("key", "--delay", "40", *keys)

    def hold(self, *keys: str) -> None:
        self.xdotool("keydown", *keys)

    def release(self, *keys: str) -> None:
        self.xdotool("keyup", *keys)

    def point(self, x: int, y: int) -> None:
        """Move the pointer to this place of the screen."""
        self.xdotool("mousemove", "--sync", str(x), str(y))

    def click(self, button: int = 1) -> None:
        self.xdotool("click", str(button))

    def xdotool(self, *words: str, check: bool = True) -> str:
        """What any other command of xdotool prints (`getwindowgeometry`, `windowsize`, …)."""
        done = subprocess.run(
            ["xdotool", *words], env=self.environment(), capture_output=True, text=True, timeout=SOON, check=check
        )
        return done.stdout

    def close(self, window: str) -> None:
        """Ask a window to close, as a window manager does when its cross is clicked."""
        x = ctypes.CDLL("libX11.so.6")
        x.XOpenDisplay.restype, x.XInternAtom.restype = ctypes.c_void_p, ctypes.c_ulong
        display = ctypes.c_void_p(x.XOpenDisplay(self.name.encode()))
        event = ClientMessage(type=33, window=int(window), format=32)
        event.message_type, event.data[0] = (
            x.XInternAtom(display, name, False) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        )
        x.XSendEvent(display, ctypes.c_ulong(int(window)), False, ctypes.c_long(0), ctypes.byref(event))
        x.XCloseDisplay(display)

    # --- what is to be seen ----------------------------------------------------------------------------------------

    def size_of(self, window: str) -> tuple[int, int]:
        words = self.xdotool("getwindowgeometry", "--shell", window).split()
        width, height = (
            int(next(w for w in words if w.startswith(f"{name}=")).split("=")[1]) for name in ("WIDTH", "HEIGHT")
        )
        return width, height

    def properties(self, window: str) -> str:
        """Title, icon, … of a window: what xprop prints."""
        command = ["xprop", "-id", window, "-notype"]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=True).stdout

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """The whole screen (H, W, 3) uint8, also as a PNG file."""
        picture = ImageGrab.grab(xdisplay=self.name).convert("RGB")
        if path is not None:
            picture.save(path)
        return np.asarray(picture)


class Program:
    """A program on the display; `with` ends it."""

    def __init__(self, display: Xvfb, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.display = display
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(command, cwd=cwd, env=env, stdout=self._log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def said(self) -> str:
        """All that it has printed, on either stream."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(SOON)

    def wait_for_words(self, words: str, times: int = 1, seconds: float = SOON) -> None:
        """Until it has printed this so many times."""
        self.until(lambda: self.said.count(words) >= times, f"{words!r}", seconds)

    def wait_for_window(self) -> str:
        """The number of its window as soon as that is seen; the pointer is put on it, for keys go to where that is."""
        mine = ("search", "--onlyvisible", "--all", "--pid", str(self.process.pid), "--class", ".")
        window = self.until(lambda: self.display.xdotool(*mine, check=False).split(), "a window")[-1]
        self.display.xdotool("mousemove", "--window", window, "2", "2")
        return window

    def mapped(self) -> str:
        """The files that its memory holds, a line each, as Linux tells."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def until(self, true: Callable[[], Any], what: str, seconds: float = SOON) -> Any:
        """What `true` gives as soon as that is true; fails, with what the program has said, when it ends first."""

        def alive() -> Any:
            status = self.process.poll()
            return true() or (status is not None and pytest.fail(f"{what}: it ended with {status}:\n{self.said}"))

        return until(alive, what, seconds, lambda: self.said)
