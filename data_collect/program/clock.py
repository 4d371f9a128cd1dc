"""A program's time is ours: it passes when the program waits, and nothing waits.

    clock = Clock(seed, pause)
    install(clock)              # `time` and `pygame.time` now tell it

A second of it is as long as the program makes it: 60 calls of `tick(60)`. What does not wait is charged a little, so
that a loop which looks at the time until it has passed comes to its end.
"""

from __future__ import annotations

import datetime
import subprocess
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pygame

SECOND, MILLI = 10**9, 10**6  # nanoseconds
READ, POLL = SECOND // 100_000, SECOND // 10_000  # that a look at the time costs, and one for events
VSYNC = SECOND // 60  # that a picture costs in a program that never waits
BEGIN, SPREAD = 1_600_000_000, 100_000_000  # seconds since 1970 at which programs start, by their seed


class Clock:
    """Nanoseconds since the program began. `due()` is when `pause()` must be called; None: at no time.

    `beats` counts rounds of a steady loop (`tick`), with the first and the last time of one; `waited`: the program has.
    """

    def __init__(self, seed: int, due: Callable[[], int | None], pause: Callable[[], None]) -> None:
        self.now, self.waited = 0, False
        self.begin = (BEGIN + seed % SPREAD) * SECOND
        self.beats = [0, 0, 0]
        self.timers: dict[Any, list[Any]] = {}  # by event type: [event, period, next, times left]
        self._due, self._pause, self._thread = due, pause, threading.get_ident()

    def pass_(self, nanoseconds: int) -> None:
        """Let time pass, with the pauses that fall into it. In other threads than the program's own, none does."""
        if threading.get_ident() != self._thread:
            return
        end = self.now + nanoseconds
        while True:
            due, timer = self._due(), min((timer[2] for timer in self.timers.values()), default=end + 1)
            if due is not None and due <= min(end, timer):
                self.now = max(self.now, due)
                self._pause()
            elif timer <= end:
                self.now = max(self.now, timer)
                self._ring()
            else:
                break
        self.now = end

    def wait(self, nanoseconds: float) -> None:
        """The program waits so long, or not at all where that is over."""
        self.waited = True
        self.pass_(max(0, int(nanoseconds)))

    def read(self) -> int:
        self.pass_(READ)
        return self.now

    def milliseconds(self) -> int:
        return self.read() // MILLI

    def set_timer(self, event: Any, millis: int, loops: int = 0) -> None:
        """As `pygame.time.set_timer`."""
        kind = event if isinstance(event, int) else event.type
        self.timers.pop(kind, None)
        if millis > 0:
            shown = pygame.event.Event(event) if isinstance(event, int) else event
            self.timers[kind] = [shown, millis * MILLI, self.now + millis * MILLI, loops or None]

    def _ring(self) -> None:
        for kind, timer in list(self.timers.items()):
            if timer[2] <= self.now:
                post(timer[0])
                timer[2] += timer[1]
                timer[3] = timer[3] and timer[3] - 1
                if timer[3] == 0:
                    del self.timers[kind]


def post(event: pygame.event.Event) -> None:
    """Post an event, unless the program has left too many unread."""
    try:
        pygame.event.post(event)
    except pygame.error:
        pygame.event.clear()


def install(clock: Clock) -> None:
    """Have `time` and `pygame.time` tell this clock."""
    real = time.sleep

    def sleep(seconds: float) -> None:
        if threading.get_ident() == clock._thread:
            clock.wait(seconds * SECOND)
        else:
            real(seconds)

    def wait(milliseconds: int) -> int:
        clock.wait(milliseconds * MILLI)
        return int(milliseconds)

    for name in ("monotonic", "perf_counter", "process_time"):
        put(time, **{name: lambda: clock.read() / SECOND, f"{name}_ns": clock.read})
    put(
        time,
        time=lambda: (clock.begin + clock.read()) / SECOND,
        time_ns=lambda: clock.begin + clock.read(),
        sleep=sleep,
    )
    put(subprocess, time=SimpleNamespace(sleep=real))  # other processes are waited for in truth: SysFont starts one
    put(datetime, datetime=_dates(clock))
    put(pygame, Clock=(ticker := ticking(clock)))
    put(pygame.time, Clock=ticker, get_ticks=clock.milliseconds, wait=wait, delay=wait, set_timer=clock.set_timer)


def _dates(clock: Clock) -> type:
    """A class that stands for `datetime.datetime`."""

    class Dates(datetime.datetime):
        pass

    moment = lambda tz=None: Dates.fromtimestamp((clock.begin + clock.read()) / SECOND, tz)  # noqa: E731
    put(Dates, now=moment, today=moment, utcnow=lambda: moment(datetime.UTC).replace(tzinfo=None))
    return Dates


def counted(beats: list[int], now: int) -> list[int]:
    """How many there were, with the first and the last time of one: one more, now."""
    return [beats[0] + 1, beats[1] if beats[0] else now, now]


def put(place: Any, **replacements: Any) -> None:
    """Put these in the place of what a module or a class has under their names."""
    for name, replacement in replacements.items():
        setattr(place, name, replacement)


def ticking(clock: Clock) -> type:
    """A class that stands for `pygame.time.Clock`."""

    class Ticking:
        def __init__(self) -> None:
            self.last, self.spent, self.raw = clock.now, 0, 0

        def tick(self, framerate: float = 0) -> int:
            last, self.raw = self.last, (clock.now - self.last) // MILLI
            if framerate > 0:
                clock.wait(last + SECOND / framerate - clock.now)
                clock.beats = counted(clock.beats, clock.now)
            self.last = clock.now
            self.spent = clock.now // MILLI - last // MILLI
            return self.spent

    put(
        Ticking, tick_busy_loop=Ticking.tick, get_time=lambda own: own.spent, get_rawtime=lambda own: own.raw,
        get_fps=lambda own: 1000 / own.spent if own.spent else 0.0,
    )  # fmt: skip
    return Ticking
