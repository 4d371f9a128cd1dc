"""The process of a game, seen from ours: it is asked, and answers.

    host = Host("maze", {"frame": None}, seconds=60.0)
    host.ask("the reset", "reset", 0, seed, None)       # calls `Inside.reset(0, seed, None)` over there

Frames come through shared memory where the system has it to give, else through the pipe. The process has SDL's dummy
drivers for display and sound, so that no window of its own comes up (the variable GAME_VIDEODRIVER names another), and
prints to standard error.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium
import numpy as np

from data_collect import games, players
from data_collect.errors import Fault, UserError
from data_collect.guest.child import Child
from data_collect.guest.inside import SLOTS, STOPPED

MAKE_FACTOR = 5  # a game may take so many times as long to be made as for a step
CLOSE_SECONDS = 2.0  # that a game has to close
MAX_MESSAGE = 1 << 28  # bytes of one answer
POLL_SECONDS = 1.0  # between looks at whether a process that says nothing still runs


class Host:
    """The process of a game, seen from here: it is asked, and answers. `UserError` as in `Guest`.

    Anything but an answer is a `Fault`; the process has then `ended`.
    """

    def __init__(self, game_id: str, options: dict[str, Any], seconds: float) -> None:
        self.game, self.seconds, self.ended = game_id, seconds, False
        self.dropped: list[int] = []  # copies that nothing refers to any more
        self.stream: object = None  # the episode that is being played
        drivers = {"SDL_VIDEODRIVER": os.environ.get("GAME_VIDEODRIVER", "dummy"), "SDL_AUDIODRIVER": "dummy"}
        with _shared() as file:
            files = [] if file is None else [file]
            self.child = Child("data_collect.guest.inside:serve", {"PYGAME_HIDE_SUPPORT_PROMPT": "1", **drivers}, files)
            try:
                asked = "make", game_id, options, _registered(game_id), file
                self.about = self.ask("its beginning", *asked, seconds=MAKE_FACTOR * seconds)
            except BaseException as error:
                self.end()
                if isinstance(error, Fault):  # what it is, not when
                    raise Fault(str(error).removesuffix(" (its beginning)")) from error
                raise
            slots, shape = self.about["slots"], self.about["shape"]
            self.slots, self.ring = slots or SLOTS, None
            if slots and file is not None:
                memory = mmap.mmap(file, slots * math.prod(shape))
                self.ring = np.frombuffer(memory, np.uint8).reshape(slots, *shape)

    def ask(self, where: str, *message: Any, seconds: float | None = None) -> Any:
        """The answer to a message; `where` tells in a sentence what it was about."""
        self.end_stream(stop=True)
        self.post(*message)
        answer = self.hear(where, seconds)
        return self.step(answer, 0) if message[0] in ("reset", "step") else answer

    def post(self, *message: Any) -> None:
        """Send a message without waiting. A process that has died is noticed by the next `hear`."""
        with suppress(OSError):
            self.child.pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def hear(self, where: str, seconds: float | None = None) -> Any:
        try:
            said = self._receive(where, seconds or self.seconds)
            try:
                kind, value = pickle.loads(said)
            except Exception:  # the game has written into our pipe
                raise Fault(f"the game {self.game!r} has written into what is not its own ({where})") from None
        except BaseException:
            self.end()
            raise
        if kind == "fault":
            self.end(CLOSE_SECONDS)
            raise Fault(f"{value} ({where})")
        if kind == "bug":
            self.end()
            raise RuntimeError(f"the process of the game {self.game!r} failed:\n{value}")
        if kind == "user":
            raise UserError(value)
        if kind == "quit":
            raise players.Quit
        return value

    def begin_stream(self, stream: object, *message: Any) -> None:
        """Have an episode played: `hear` gives its steps, and None at its end."""
        self.end_stream(stop=True)
        self.stream = stream
        self.post("play", *message)

    def end_stream(self, stop: bool) -> None:
        """Forget the episode being played, if any; `stop` it where it is not over. What it played ahead is lost."""
        stream, self.stream = self.stream, None
        if stream is None or self.ended or not stop:
            return
        self.post("stop")
        with suppress(Fault):
            while True:
                with suppress(players.Quit):
                    if self.hear("its end") == STOPPED:
                        return

    def _receive(self, where: str, seconds: float) -> bytes:
        pipe, until = self.child.pipe, time.monotonic() + seconds
        try:
            while not pipe.poll(min(POLL_SECONDS, max(0.0, until - time.monotonic()))):
                # What the game has started may hold its end of the pipe.
                if not self.child.running() and not pipe.poll(0):
                    raise EOFError
                if time.monotonic() > until:
                    raise Fault(
                        f"the game {self.game!r} did not answer within {seconds:g} seconds ({where}); "
                        f"set GAME_SECONDS to wait longer than {self.seconds:g}"
                    )
            return pipe.recv_bytes(MAX_MESSAGE)
        except (EOFError, OSError):
            raise Fault(f"the game {self.game!r} {self.child.died()} ({where})") from None

    def step(self, answer: Any, number: int) -> Any:
        """The step that an answer holds; its picture lies in the ring where it does not hold it itself."""
        *rest, frame, info = answer
        if frame is None:
            assert self.ring is not None
            frame = self.ring[number % self.slots].copy()
        return *rest, frame, info

    def end(self, seconds: float = 0.0) -> None:
        """Let it close within so many seconds, then end it."""
        self.ended = True
        self.child.end(seconds)


@contextmanager
def _shared() -> Iterator[int | None]:
    """An empty file in memory for two processes to map; None where there is none."""
    file = None
    with suppress(OSError):
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("frames")
        elif sys.platform != "win32":
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def _registered(game_id: str) -> bytes | None:
    """What this process knows of an id that the program has registered itself, where it can be sent."""
    name = games.parse(game_id)[0].removeprefix("gym:")
    spec = gymnasium.registry.get(name)
    if spec is None or not game_id.startswith("gym:"):
        return None
    if getattr(spec.entry_point, "__module__", "") == "__main__":
        raise UserError(
            f"{name} is registered in the program that runs: put it into a module of its own, and call it "
            f"gym:MODULE:{name}"
        )
    with suppress(Exception):  # what cannot be sent is looked for there by its id
        return pickle.dumps(spec)
    return None
