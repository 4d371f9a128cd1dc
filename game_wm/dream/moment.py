"""A frame of an episode and what is known of it, real or dreamt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ENDED = 0.5  # termination probability above which an episode has ended


@dataclass(frozen=True)
class Moment:
    """The picture uint8 (H, W, 3), the raw action (D,) that led to it, and the reward of that step.

    `score` sums the rewards of the episode's `frames` frames; `termination` is the probability that it has ended (0 or
    1 in a real game), `pose` (3,) where the player stands, where the game tells it.
    """

    picture: np.ndarray
    action: np.ndarray
    score: float = 0.0
    frames: int = 0
    termination: float = 0.0
    reward: float = 0.0
    pose: np.ndarray | None = None

    @property
    def ended(self) -> bool:
        return self.termination > ENDED

    @property
    def nbytes(self) -> int:
        return self.picture.nbytes + self.action.nbytes
