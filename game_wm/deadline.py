"""A moment by which work is to be over: what does not fit before it is left out, and told.

deadline = Deadline(90)                          # seconds from now; Deadline() is never
steps = deadline.fits(3000, lambda: loss(0).backward())
for episode in deadline.each(episodes, least=2): ...
deadline.check()                                 # `OutOfTime` once it has passed
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

TRIALS, SECONDS = 5, 1.0  # trials of a piece of work, at most: until they have taken so long


Piece = TypeVar("Piece")


class OutOfTime(Exception):
    """Work has reached its deadline."""


class Deadline:
    """`seconds` from now."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self.ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, 0 when it has passed."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def never(self) -> bool:
        return math.isinf(self.seconds)

    def part(self, share: float) -> Deadline:
        """That of a part of what is left."""
        return Deadline(share * self.left)

    def check(self) -> None:
        """`OutOfTime` once it has passed."""
        if not self.left:
            raise OutOfTime

    def fits(self, count: int, trial: Callable[[], object], least: int = 1, together: int = 1) -> int:
        """How many of `count` pieces of work end in time, as fast as `trial` does one: `least` of them in any case.
        `together`: how many are done at once."""
        if self.never:
            return count
        took = list[float]()
        while len(took) < TRIALS and sum(took) < SECONDS:
            began = time.monotonic()
            trial()
            took.append(max(time.monotonic() - began, 1e-6))
        return max(min(least, count), min(count, int(together * self.left / min(took))))

    def each(
        self, pieces: Iterable[Piece], least: int, size: Callable[[Piece], float] = lambda _: 1.0
    ) -> Iterator[Piece]:
        """The pieces of work, as long as one more, as fast as those before, ends in time: `least` in any case."""
        began, done = time.monotonic(), 0.0
        for number, piece in enumerate(pieces):
            pace = (time.monotonic() - began) / done if done else 0.0
            if number >= least and not self.never and self.left < pace * size(piece):
                return
            yield piece
            done += size(piece)


NEVER = Deadline()


def left_out(what: str, kept: int, count: int, unit: str) -> str:
    """The line that tells of work that did not fit."""
    return f"{what}: {kept} of {count} {unit}, for more there is no time: some {count / max(1, kept):.1f} times the " \
           "--minutes hold all"  # fmt: skip
