"""Holds a frame rate by going down a ladder of qualities, and up again where there is room.

    control = Controller(rungs=3, period=1 / 20, at=2)
    rung = control.saw(seconds)         # after every frame; None where it stays as it is

Frames are judged in windows. Down it goes as soon as a quarter of a window's frames come too late. Up it goes where
several windows on end leave room for what the rung above is known to cost more; a rung that has not held is left alone
for longer each time. So on a machine that does not change it comes to rest.
"""

from __future__ import annotations

import numpy as np

WINDOW = 24  # frames that are judged together
SETTLING = 8  # frames after a change that are not judged: the first ones lay out weights
ON_TIME = 0.75  # of a window's frames must come in time
ROOM = 0.85  # of the period may be what the rung above is thought to take
PATIENCE, MOST_PATIENCE = 4, 256  # windows with room before it goes up
MOST_DEARER = 3.0  # a rung costs at most so much more than the one below: a load that came and went looks like more


class Controller:
    """`rungs` qualities from 0, the cheapest; `period`: seconds that a frame may take; `at`: the rung it begins on."""

    def __init__(self, rungs: int, period: float, at: int) -> None:
        self.rungs, self.period, self.at = rungs, period, at
        self._seen: list[float] = []
        self._settling = SETTLING
        self._calm = 0  # windows with room on end
        self._since: float = np.inf  # windows since it last went up
        self._left: float | None = None  # what a frame took on the rung above, when it was left
        self._dearer = [1.0] * rungs  # how much more the rung above takes than this one
        self._patience = [PATIENCE] * rungs

    def saw(self, seconds: float) -> int | None:
        """A frame took so long: the rung to go on with, where that is another one."""
        if self._settling:
            self._settling -= 1
            return None
        self._seen.append(seconds)
        if len(self._seen) < WINDOW:
            return None
        took = float(np.quantile(self._seen, ON_TIME))
        self._seen.clear()
        self._since += 1
        if self._left is not None:
            self._dearer[self.at] = float(np.clip(self._left / took, 1.0, MOST_DEARER))
            self._left = None
        if took > self.period:
            return self._lower(took)
        room = self.at + 1 < self.rungs and took * self._dearer[self.at] < ROOM * self.period
        self._calm = self._calm + 1 if room else 0
        if room and self._calm >= self._patience[self.at]:
            self._since = 0
            return self._go(self.at + 1)
        return None

    def _lower(self, took: float) -> int | None:
        self._calm = 0
        if not self.at:
            return None
        if self._since <= self._patience[self.at - 1]:  # it has only just come up
            self._patience[self.at - 1] = min(2 * self._patience[self.at - 1], MOST_PATIENCE)
        self._left = took
        return self._go(self.at - 1)

    def _go(self, rung: int) -> int:
        self.at, self._calm, self._settling = rung, 0, SETTLING
        return rung
