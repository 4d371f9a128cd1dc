"""One run of a pygame program, seen from outside: it is told what is held, and shows what comes of it.

run = Run(game, Setup(path, seed, period, beat))
run.hold({"left": 1.0})             # a step; run.picture is what it shows then
run.close()
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from data_collect.errors import Fault
from data_collect.guest.child import Child
from data_collect.program.stage import Setup

# No window, no sound; and sets of names in the same order each time.
VARIABLES = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYTHONHASHSEED": "0",
             "PYGAME_HIDE_SUPPORT_PROMPT": "1"}  # fmt: skip
HOMES = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
PICTURE_SECONDS = 20.0  # for the first picture, by our clock


class Run:
    """A program from its first picture on. `picture` is uint8 (H, W, 3) of the program's own `size`, (W, H); `pixels`
    are its bytes. `over`: the program has ended.

    Raises `Fault` where the program fails, or shows no picture. `child` is a process that waits (`waiting`).
    """

    def __init__(self, game: str, setup: Setup, child: Child | None = None) -> None:
        self.game, self.over = game, False
        self.pixels, self.size = b"", (0, 0)
        self.rate: float | None = None  # rounds of its loop in a second of its time
        self.child = child or waiting()
        try:
            self.child.pipe.send(setup)
            if not self.child.pipe.poll(PICTURE_SECONDS):
                raise Fault(f"{game!r} shows no picture within {PICTURE_SECONDS:g} seconds: {_HOW}")
            self._hear()
        except BaseException:
            self.close()
            raise

    def hold(self, values: Mapping[str, float]) -> None:
        """One step in which this is held, by the names of inputs."""
        self.child.pipe.send(dict(values))
        self._hear()

    def files(self) -> list[Path]:
        """The program's own modules."""
        self.child.pipe.send(None)
        return list(map(Path, self.child.pipe.recv()))

    @property
    def picture(self) -> np.ndarray:
        return np.asarray(Image.frombuffer("RGB", self.size, self.pixels, "raw", "BGRX", 0, 1))

    def close(self) -> None:
        self.child.end()

    def _hear(self) -> None:
        try:
            what, why, *counts, (width, height) = self.child.pipe.recv()
            pixels = self.child.pipe.recv_bytes()
        except (EOFError, OSError):
            raise Fault(f"{self.game!r} {self.child.died()}") from None
        if what == "failed":
            raise Fault(f"{self.game!r} {why}")
        if not pixels:
            ended = "ends before it shows a picture" if what == "end" else "shows no picture in a minute of its time"
            raise Fault(f"{self.game!r} {ended}{f' ({why})' if why else ''}: {_HOW}")
        self.over = what == "end"
        self.pixels, self.size = pixels, (width, height)
        steady = next(((count - 1) / (last - first) for count, first, last in counts if last > first), None)
        self.rate = steady and round(1e9 * steady, 3)


_HOW = "it must draw on pygame's display, and call pygame.display.flip() or update()"


def waiting() -> Child:
    """A process that waits for a program to run: what every program needs is imported already.

    Where programs keep their scores and settings is a folder of its own, so that none is met again, nor is the user's.
    """
    home = tempfile.mkdtemp(prefix="program-")
    child = Child("data_collect.program.stage:serve", VARIABLES | dict.fromkeys(HOMES, home))
    weakref.finalize(child, shutil.rmtree, home, ignore_errors=True)
    return child
