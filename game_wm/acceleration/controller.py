"""A controller that holds a frame rate by going down a ladder of qualities, and up again where there is room.

    control = Controller(rungs=3, period=1 / 20, at=2)
    rung = control.record_frame_time(seconds)     # after every frame; None where the rung stays

Frames are judged in windows. The controller goes down as soon as a quarter of a window's frames are late. It goes up
after several windows in a row with room for what the rung above costs more. A rung that did not hold is tried again
after twice as many windows each time, so that on a machine whose load is constant the controller comes to rest.
"""

from __future__ import annotations

import numpy as np

WINDOW = 24  # frames that are judged together
SETTLING = 8  # frames after a change that are not judged: the first ones lay out weights
ON_TIME = 0.75  # share of a window's frames that must be on time
ROOM = 0.85  # share of the period that the rung above may be expected to take
PATIENCE, MOST_PATIENCE = 4, 256  # windows with room before the controller goes up
MOST_COST_RATIO = 3.0  # of a rung over the one below; a load that came and went would look like more


class Controller:
    """`rungs`: how many qualities, 0 is the cheapest; `period`: seconds that a frame may take; `at`: the first rung."""

    def __init__(self, rungs: int, period: float, at: int) -> None:
        self.rungs, self.period, self.at = rungs, period, at
        self._seconds: list[float] = []  # of this window's frames
        self._settling = SETTLING
        self._calm = 0  # windows in a row with room
        self._since: float = np.inf  # windows since the controller last went up
        self._above: float | None = None  # seconds of a frame on the rung above, when it was left
        self._cost_ratio = [1.0] * rungs  # of the rung above over this one
        self._patience = [PATIENCE] * rungs

    def record_frame_time(self, seconds: float) -> int | None:
        """Judge another frame; the rung to go on with, where that is another one."""
        if self._settling:
            self._settling -= 1
            return None
        self._seconds.append(seconds)
        if len(self._seconds) < WINDOW:
            return None
        took = float(np.quantile(self._seconds, ON_TIME))
        self._seconds.clear()
        self._since += 1
        if self._above is not None:
            self._cost_ratio[self.at] = float(np.clip(self._above / took, 1.0, MOST_COST_RATIO))
            self._above = None
        if took > self.period:
            return self._lower(took)
        room = self.at + 1 < self.rungs and took * self._cost_ratio[self.at] < ROOM * self.period
        self._calm = self._calm + 1 if room else 0
        if room and self._calm >= self._patience[self.at]:
            self._since = 0
            return self._go(self.at + 1)
        return None

    def _lower(self, took: float) -> int | None:
        self._calm = 0
        if not self.at:
            return None
        if self._since <= self._patience[self.at - 1]:  # went up only just now
            self._patience[self.at - 1] = min(2 * self._patience[self.at - 1], MOST_PATIENCE)
        self._above = took
        return self._go(self.at - 1)

    def _go(self, rung: int) -> int:
        self.at, self._calm, self._settling = rung, 0, SETTLING
        return rung
