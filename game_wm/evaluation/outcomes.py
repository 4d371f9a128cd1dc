"""Reward and termination: how well a free rollout predicts what the real game pays and when it ends.

A reward is an *event* when it differs from the usual one (the median) by more than half of what events typically do; a
living cost paid at every frame is none. `accuracy` counts every frame. Events are rare, so recall and precision say
more: a real event is found when the dream has one of the same sign within four frames.

Legend: E episodes, N frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from game_wm.evaluation.metrics import figure
from game_wm.evaluation.rollout import DreamRollout
from game_wm.evaluation.truth.plays import Truth

NEAR = 4  # frames by which a prediction may be early or late


class Outcomes:
    """Collects rewards and terminations, real and dreamt."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, truth: Truth, dream: DreamRollout) -> None:
        """Episodes of one batch; the dream calls an end where it is likelier than not."""
        for i, n in enumerate(truth.length):
            rewards = truth.rewards[i, :n], dream.rewards[i, :n]
            self.rows.append((*rewards, truth.terminated[i, :n], dream.terminated[i, :n] > 0.5))

    def reward(self) -> dict[str, Any]:
        """The card's `reward` object: accuracy, mean absolute error, and recall and precision of the events."""
        every = np.concatenate([row[0] for row in self.rows])
        usual = float(np.median(every))
        away = np.abs(every - usual)
        events = away[away > 1e-3 * max(1e-9, away.max())]
        threshold = 0.5 * float(np.median(events)) if events.size else 0.5
        signs = [(_sign(real - usual, threshold), _sign(made - usual, threshold)) for real, made, _, _ in self.rows]
        error = float(np.concatenate([np.abs(real - made) for real, made, _, _ in self.rows]).mean())
        return _agreement(signs) | {"absolute_error": error}

    def termination(self) -> dict[str, Any]:
        """The card's `termination` object: the same of the end of an episode, and false alarms per 1,000 frames."""
        pairs = [(real.astype(np.int8), made.astype(np.int8)) for _, _, real, made in self.rows]
        alarms = sum(int((made > 0).sum()) - _found(made, real) for real, made in pairs)
        frames = sum(len(real) for real, _ in pairs)
        return _agreement(pairs) | {"false_alarms_per_1000": 1000 * alarms / frames}


def _sign(offset: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(np.abs(offset) > threshold, np.sign(offset), 0).astype(np.int8)


def _found(wanted: np.ndarray, given: np.ndarray) -> int:
    """How many events of `wanted` (N,) have one of the same sign within `NEAR` frames in `given` (N,)."""
    count = 0
    for i in np.flatnonzero(wanted):
        count += int((given[max(0, i - NEAR) : i + NEAR + 1] == wanted[i]).any())
    return count


def _agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    accuracy = np.array([(real == made).mean() for real, made in pairs])
    real_events, made_events = (sum(int((p[i] != 0).sum()) for p in pairs) for i in (0, 1))
    card: dict[str, Any] = figure("accuracy", accuracy)
    card |= {"events": real_events, "frames": sum(len(real) for real, _ in pairs)}
    if real_events:
        card["recall"] = sum(_found(real, made) for real, made in pairs) / real_events
    if made_events:
        card["precision"] = sum(_found(made, real) for real, made in pairs) / made_events
    return card
