"""The process of a pygame program: the program as it is, and what it believes to be a screen, a clock and a keyboard.

`serve` runs it once. Whenever a picture is due, the program stands still in its `flip` or its wait: the picture is
sent, and it goes on with the inputs that come back.
"""

from __future__ import annotations

import os
import random
import runpy
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygame

from data_collect.program import clock as clocks
from data_collect.program import inputs as controls

SECOND = clocks.SECOND
HASTE = 8  # a picture may be drawn in so many parts; a program that draws more often without a wait waits for none
PATIENCE = 60 * SECOND  # of its own time in which a program must have shown a picture
MOST_SAID = 300  # letters of an exception's own words


@dataclass(frozen=True)
class Setup:
    """What a program is run with: its file and seed, nanoseconds between two pictures and between two rounds of its
    loop, whether a joystick is plugged in, and whether what it prints is dropped."""

    path: Path
    seed: int
    period: int
    beat: int = 0
    joystick: bool = False
    quiet: bool = False


class Blank(BaseException):
    """The program shows no picture."""


class Stage:
    """The screen of a program, and the pipe to whoever looks at it."""

    def __init__(self, pipe: Any, setup: Setup) -> None:
        self.pipe, self.setup = pipe, setup
        self.clock = clocks.Clock(setup.seed, self._overdue, self._hand_over)
        self.inputs = controls.Inputs(self.clock, setup.joystick)
        self.front: pygame.Surface | None = None  # what is on the screen, whatever is being drawn
        self.flips = [0, 0, 0]  # as the clock's beats
        self.last = 0  # when the last picture was handed over
        self.hasty = 0  # times that the screen was drawn without a wait

    def install(self) -> None:
        """Take the place of pygame's functions, of the clock's and of chance."""
        clocks.install(self.clock)
        controls.install(self.inputs)
        self._seed()
        display, event = pygame.display, pygame.event
        poll, flip = event.poll, display.flip

        def wait(timeout: int = 0) -> pygame.event.Event:
            until = self.clock.now + timeout * clocks.MILLI
            while True:
                self.inputs.reading()
                found = poll()
                if found.type != pygame.NOEVENT or (timeout and self.clock.now >= until):
                    return found
                self.clock.wait(clocks.MILLI)

        show = lambda *_: self._show() if display.get_surface() else flip()  # noqa: E731
        reads = {name: self._reading(getattr(event, name)) for name in ("get", "poll", "pump")}
        clocks.put(display, flip=show, update=show)
        clocks.put(event, wait=wait, **reads)
        _silence()

    def _reading(self, function: Any) -> Any:
        """A function of the program's that reads its events."""

        def read(*kinds: Any, **how: Any) -> Any:
            self.clock.pass_(clocks.POLL)
            self.inputs.reading()
            return function(*kinds, **how)

        return read

    def _seed(self) -> None:
        """Have everything that is drawn by chance follow from the seed: what asks the system for chance, and numpy and
        `random.seed()` do, is told ours."""
        chance = random.Random(self.setup.seed)
        seed, inner = random.Random.seed, random.seed.__self__  # type: ignore[attr-defined]
        clocks.put(random, _urandom=chance.randbytes)
        clocks.put(os, urandom=chance.randbytes)
        clocks.put(
            random.Random,
            seed=lambda own, a=None, version=2: seed(own, chance.getrandbits(64) if a is None else a, version),
        )
        clocks.put(random, seed=inner.seed)
        random.seed(self.setup.seed)

    def _show(self) -> None:
        """The program has drawn a picture, or a part of one."""
        if threading.current_thread() is not threading.main_thread():
            return
        surface = pygame.display.get_surface()
        assert surface is not None
        begins = self.front is None
        if self.front is None or self.front.get_size() != surface.get_size():
            self.front = pygame.Surface(surface.get_size(), 0, 32)
        self.front.blit(surface, (0, 0))
        self.hasty, self.clock.waited = 0 if self.clock.waited else self.hasty + 1, False
        if not 0 < self.hasty <= HASTE:
            self.flips = clocks.counted(self.flips, self.clock.now)
        if begins or self.clock.now - self.last >= self.setup.period - self.setup.beat // 2:
            self._hand_over()
        if self.hasty > HASTE:
            self.clock.pass_(clocks.VSYNC)

    def _overdue(self) -> int | None:
        """When a picture must be handed over though the program has shown no new one."""
        if self.front is None:
            return PATIENCE
        return self.last + self.setup.period + self.setup.beat // 2

    def _hand_over(self) -> None:
        if self.front is None:
            raise Blank
        self.last = self.clock.now
        self.tell("picture")
        while (held := self.pipe.recv()) is None:
            self.pipe.send(self._files())
        self.inputs.hold(held, self.front.get_size())

    def tell(self, what: str, why: str = "") -> None:
        """Send what happened, how often the program has waited and shown a picture, and the picture."""
        size = self.front.get_size() if self.front else (0, 0)
        self.pipe.send((what, why, self.clock.beats, self.flips, size))
        self.pipe.send_bytes(self.front.get_buffer().raw if self.front else b"")

    def _files(self) -> list[str]:
        """The program's own modules, as far as they are imported."""
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        here = f"{self.setup.path.parent}{os.sep}"
        return sorted({file for file in files if file and file.startswith(here) and file.endswith(".py")})


def serve(pipe: Any) -> None:
    """Run the program that the pipe tells of, to its end."""
    try:
        setup = pipe.recv()
        if setup.quiet:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.dup2(2, 1)
        stage = Stage(pipe, setup)
        stage.install()
        told = ("end", "")
        try:
            _run(setup.path)
        except (EOFError, ConnectionError):
            return
        except SystemExit as end:
            told = ("end", str(end.code) if end.code else "")
        except Blank:
            told = ("blank", "")
        except BaseException as error:
            told = ("failed", _said(error, setup.path))
        stage.tell(*told)
        pipe.recv()  # nobody answers: the end of this process is the other side's to choose
    except (EOFError, OSError):
        pass


def _run(path: Path) -> None:
    """Run a file as `python FILE` does, or, where it is part of a package, as `python -m PACKAGE.FILE`."""
    os.chdir(path.parent)
    sys.argv = [str(path)]
    top, names = path.parent, [path.stem]
    while (top / "__init__.py").exists():
        names.insert(0, top.name)
        top = top.parent
    sys.path[:0] = [str(path.parent), *([str(top)] if len(names) > 1 else [])]
    if len(names) > 1:
        runpy.run_module(".".join(names), run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(path), run_name="__main__")


def _silence() -> None:
    """Nothing is ever playing: the sound card that nobody hears plays by the real clock."""
    mixer = pygame.mixer
    channel = type("Channel", (mixer.Channel,), {"play": lambda *_, **__: None})
    sound = type("Sound", (mixer.Sound,), {"play": lambda *_, **__: channel(0)})
    clocks.put(mixer, get_busy=lambda: False, Channel=channel, Sound=sound)
    clocks.put(mixer.music, play=lambda *_, **__: None, get_busy=lambda: False)


def _said(error: BaseException, path: Path) -> str:
    """Where the program failed, and what it said."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(path.parent))]
    where = f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""
    said = " ".join(" ".join(traceback.format_exception_only(error)).split())
    return f"fails{where}: {said[:MOST_SAID]}"
