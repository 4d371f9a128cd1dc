"""A game that does one thing to its process: `gym:rude_game:Rude-v0?deed=exit&at=5&when=step`.

`at` is the step of an episode (0: its reset), or with `when=init` the making of the game; `seeds` limits it to episodes
whose seed leaves no remainder by it. The seed 0, which a game is looked at with, is never one of them.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tiny_game import Tiny

GAME = "gym:rude_game:Rude-v0?width=16&height=16"


def rude(deed: str, at: int = 5, **options: Any) -> str:
    """The id of the game that does this deed in that step."""
    return "&".join([GAME, f"deed={deed}", f"at={at}", *(f"{name}={value}" for name, value in options.items())])


class Rude(Tiny):
    """The tiny game for `length` steps, without its pose; `left`: the file of the deed `start`."""

    def __init__(
        self, render_mode: str = "rgb_array", deed: str = "", at: int = 5, when: str = "step", seeds: int = 1,
        length: int = 20, left: str = "",
    ) -> None:  # fmt: skip
        super().__init__(render_mode, shortest=length, longest=length, told=False)
        self.deed, self.at, self.when, self.seeds, self.pid_file = deed, at, when, seeds, left
        self.thread = threading.get_ident()
        if when == "init":
            self._do()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        frame, info = super().reset(seed=seed)
        self.seed = seed or 0
        self._deed_at(0)
        return frame, info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        frame, _, ended, _, _ = super().step(action)
        info = self._deed_at(self.steps) or {}
        reward = float("nan") if info == "nan" else float(self.x)
        return frame, reward, ended, False, info if isinstance(info, dict) else {}

    def _deed_at(self, step: int) -> Any:
        if self.when == "step" and step == self.at and self.seed and self.seed % self.seeds == 0:
            return self._do()
        if self.deed == "thread":
            self._thread()
        return None

    def _do(self) -> Any:
        return getattr(self, f"_{self.deed}")() if self.deed else None

    # --- deeds that end it ------------------------------------------------------------------------------------------

    def _raise(self) -> None:
        raise ZeroDivisionError("rare bug")

    def _exit(self) -> None:
        raise SystemExit

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

    def _leave(self) -> None:
        raise GeneratorExit

    def _stop(self) -> None:
        raise StopIteration

    def _quit(self) -> None:
        os._exit(3)

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def _babble(self) -> None:
        """Writes into whatever is open: a message that is none."""
        for number in map(int, os.listdir("/proc/self/fd")):  # the pipe keeps the number that it has in the host
            if number < 3:
                continue
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(number).st_mode) or stat.S_ISFIFO(os.fstat(number).st_mode):
                    os.write(number, struct.pack("!i", 8) + b"nonsense")

    def _endless(self) -> None:
        while True:
            time.sleep(0.01)

    def _fork(self) -> None:
        """A child that holds all that is open; then it dies itself."""
        self._start()
        if not os.fork():
            time.sleep(600)
        os._exit(4)

    def _nan(self) -> str:
        return "nan"

    # --- deeds after which it plays on ------------------------------------------------------------------------------

    def _start(self) -> None:
        """A program that nobody ends; its number goes into the file `pid_file`."""
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        if self.pid_file:
            Path(self.pid_file).write_text(str(sleeper.pid))

    def _thread(self) -> None:
        assert threading.get_ident() == self.thread

    def _chdir(self) -> None:
        os.chdir("/")

    def _pygame(self) -> None:
        import pygame

        pygame.init()
        pygame.display.set_mode((32, 32))
        pygame.display.set_caption("mine")
        pygame.event.clear()
        pygame.quit()

    def _doubles(self) -> None:
        import torch

        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)

    def _state(self) -> None:
        """Whatever else of a process is everybody's."""
        random.seed(0)
        np.random.seed(0)
        np.seterr(all="raise")
        warnings.simplefilter("error")
        os.environ["SDL_VIDEODRIVER"] = "nonsense"
        os.environ.pop("PATH", None)
        sys.path.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        atexit.register(print, "leaving")

    def _print(self) -> None:
        print("x" * 100_000)
        sys.stdout = None  # type: ignore[assignment]

    def _threads(self) -> None:
        threading.Thread(target=time.sleep, args=(600,)).start()

    def _info(self) -> dict[str, Any]:
        """What cannot be sent, and much of it."""
        return {"self": lambda: self, "noise": np.zeros((1000, 1000)), "pose": (1.0, 2.0, 0.5), "map": "no map"}


gymnasium.register("Rude-v0", entry_point=Rude)


def nonsense(frame: np.ndarray, info: dict[str, Any]) -> int:
    """A policy of another game."""
    return 77
