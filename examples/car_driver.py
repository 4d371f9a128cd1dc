"""A player of one's own: drives CarRacing round its track, and leaves it now and then.

    python -m data_collect record --game gym:CarRacing-v3 --player policy:examples.car_driver:drive --frames 5000 \\
        --out data/car

A policy is any callable `f(frame, info) -> action`; one with an attribute `reset` hears of each new episode. This one
looks at the game's own track. Every few seconds it does something at random, since a model has to see what the actions
do beside the road, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

AHEAD = 4  # tiles of the track
SLOW, FAST = 20.0, 45.0  # speeds in bends, on straights


class Driver:
    """Steers to a point of the track ahead; random actions for 0.3 to 1.5 seconds from time to time."""

    def reset(self, env: Any, frame: np.ndarray, info: dict[str, Any]) -> None:
        self.game = env.env.unwrapped
        self.track = np.array(self.game.track)[:, 2:4]
        # Seeded by the track, so that the same recording is the same again.
        self.rng = np.random.default_rng(int(abs(self.track).sum()))
        self.whim, self.left = np.zeros(3, np.float32), 0

    def __call__(self, frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """[steer, gas, brake] as float32."""
        if self.left == 0 and self.rng.random() < 0.02:
            self.left = int(self.rng.integers(5, 26))
            self.whim = self.rng.uniform([-1, -0.3, -2], [1, 1, 0.6]).astype(np.float32).clip([-1, 0, 0], 1)
        if self.left:
            self.left -= 1
            return self.whim
        car = self.game.car.hull
        nearest = int(np.hypot(*(self.track - tuple(car.position)).T).argmin())
        steer = -1.8 * self._bearing(nearest + AHEAD) + 0.05 * self.rng.normal()
        target = SLOW + (FAST - SLOW) * max(0.0, 1 - 2 * abs(self._bearing(nearest + 4 * AHEAD)))
        speed = math.hypot(*car.linearVelocity)
        gas, brake = (0.5, 0.0) if speed < target else (0.0, 0.3 if speed > 1.3 * target else 0.0)
        return np.array([steer, gas, brake], np.float32).clip([-1, 0, 0], 1)

    def _bearing(self, tile: int) -> float:
        """Radians from the car's nose to a tile of the track, to the left positive."""
        x, y = self.game.car.hull.GetLocalPoint(self.track[tile % len(self.track)].tolist())
        return math.atan2(-x, y)


drive = Driver()
