"""When the next frame is due, and how long frames and key presses took."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from data_collect.system import proc

NOTICE = 1.6  # seconds that the end of an episode is shown
_IMPORTED = time.perf_counter()


class Timings:
    """The last `size` durations in seconds; constant memory."""

    def __init__(self, size: int = 256) -> None:
        self._ring = np.zeros(size)
        self.count = 0

    def add(self, seconds: float) -> None:
        self._ring[self.count % len(self._ring)] = seconds
        self.count += 1

    def last(self, count: int) -> np.ndarray:
        """The last `count` durations in seconds, or as many as there are, in order."""
        kept = np.arange(max(0, self.count - min(count, len(self._ring))), self.count)
        return self._ring[kept % len(self._ring)]

    def quantile_ms(self, q: float) -> float | None:
        """The q-quantile in milliseconds, None before the first duration."""
        kept = self._ring[: self.count]
        return float(np.quantile(kept, q)) * 1e3 if len(kept) else None

    def mean(self) -> float | None:
        """The mean in seconds, None before the first duration."""
        kept = self._ring[: self.count]
        return float(kept.mean()) if len(kept) else None


class Pacer:
    """Frames at a steady rate; after a frame that came too late the next one is not hurried. `fps` 0 means unpaced."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self._due = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next frame is due; 0 when it is due already."""
        return max(0.0, self._due - now) if self.fps else 0.0

    def advance(self, now: float) -> None:
        period = 1 / self.fps if self.fps else 0.0
        on_time = now - self._due < period
        self._due = (self._due if on_time else now) + period


def process_age() -> float:
    """Seconds since this process started (Linux: to 10 ms; elsewhere: since this module was imported)."""
    age = time.perf_counter() - _IMPORTED
    if sys.platform == "linux" and (words := proc("self/stat")):
        ticks = int(words.rsplit(")", 1)[1].split()[19])  # field 22, starttime after boot
        age = max(age, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    return age
