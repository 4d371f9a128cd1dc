"""How long frames of several models take, measured so that they can be compared: each in turn with one and the same.

    took, beside = in_turn(tick, default, frames=100, seconds=15)       # medians in milliseconds
    (took,) = in_turn(tick, frames=100, seconds=15)

A machine's speed drifts. So frames of a row and of the default take turns, and the ratio of their medians counts.
Nothing else should run meanwhile: `cores_in_use` says whether something does.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable

from data_collect.system import proc

WARM_UP = 5
BUSY_CORES = 0.3  # in use from here on, something else must be running

Tick = Callable[[], object]


def in_turn(*ticks: Tick, frames: int, seconds: float) -> tuple[float, ...]:
    """Medians in milliseconds of each, over so many of each, or as many (3 at least) as fit into so many seconds."""
    took = tuple(list[float]() for _ in ticks)
    for _ in range(WARM_UP):
        for make in ticks:
            make()
    end = time.perf_counter() + seconds
    for count in range(frames):
        if count >= 3 and time.perf_counter() > end:
            break
        for make, kept in zip(ticks, took, strict=True):
            began = time.perf_counter()
            make()
            kept.append(1e3 * (time.perf_counter() - began))
    return tuple(statistics.median(kept) for kept in took)


def cores_in_use(seconds: float = 2.0) -> float:
    """How many cores other programs keep busy while this one waits so long; the load where that is not known, NaN on
    Windows, which has neither."""
    before = _ticks()
    time.sleep(seconds)
    if before is None or (after := _ticks()) is None or after[1] == before[1]:
        if sys.platform == "win32":
            return math.nan
        return os.getloadavg()[0]
    return (after[0] - before[0]) / (after[1] - before[1]) * (os.cpu_count() or 1)


def _ticks() -> tuple[int, int] | None:
    """Time of all cores together: in use, and all of it."""
    if not (words := proc("stat")):
        return None
    ticks = [int(x) for x in words.split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, and idle for a disk
