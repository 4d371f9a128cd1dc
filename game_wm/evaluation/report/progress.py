"""How far a measurement is, on standard error: a bar in a terminal, a line every ten seconds elsewhere.

with progress("rollouts", total=64) as tick:
    tick(1)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from game_wm.deadline import NEVER, Deadline, OutOfTime
from game_wm.evaluation.truth.game import Tick

EVERY = 10.0  # seconds between two lines
KNOWN = 2.0  # seconds after which it is known how fast work goes


@contextmanager
def progress(title: str, total: int, deadline: Deadline = NEVER, whole: bool = True) -> Iterator[Tick]:
    """Yields the function to call with the number of pieces done. The bar disappears at the end.

    The function raises `OutOfTime` at the deadline, or where all of it cannot end by then, if only the `whole` counts.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    started = told = time.monotonic()
    done = 0

    def tick(count: int) -> None:
        nonlocal done, told
        done += count
        bar.advance(task, count)
        now = time.monotonic()
        deadline.check()
        if whole and now - started > KNOWN and deadline.left < (now - started) / max(done, 1) * (total - done):
            raise OutOfTime
        if bar.disable and now - told > EVERY:
            told = now
            left = (now - started) / max(done, 1) * max(total - done, 0)
            console.print(f"{title}: {done:,} of {total:,}, {left:,.0f} s left", highlight=False, soft_wrap=True)

    with bar:
        task = bar.add_task(title, total=total)
        yield tick
