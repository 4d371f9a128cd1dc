"""How much of something is allowed: some at once, and so much a second in the long run.

messages = Bucket(rate=120, burst=600)
if not messages.take(): await asyncio.sleep(messages.wait())
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MANY = 1024  # addresses; of more, those that have been quiet are forgotten


class Bucket:
    """Holds `burst`, and fills by `rate` a second."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self.queue = asyncio.Lock()  # for those who wait, so that they come in the order in which they came
        self._clock = clock
        self._left, self._at = burst, clock()

    def take(self, amount: float = 1.0) -> bool:
        """Take so much out, if there is so much."""
        self._fill()
        if self._left < amount:
            return False
        self._left -= amount
        return True

    def wait(self, amount: float = 1.0) -> float:
        self._fill()
        return max(0.0, (amount - self._left) / self.rate)

    @property
    def full(self) -> bool:
        self._fill()
        return self._left >= self.burst

    def _fill(self) -> None:
        now = self._clock()
        self._left, self._at = min(self.burst, self._left + self.rate * (now - self._at)), now


class Buckets:
    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._of: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._of)

    def of(self, address: str) -> Bucket:
        if address not in self._of and len(self._of) >= MANY:
            self._of = {known: bucket for known, bucket in self._of.items() if not bucket.full}
        return self._of.setdefault(address, Bucket(self.rate, self.burst))
