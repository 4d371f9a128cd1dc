"""Fidelity of the free rollout at frames 1, 4, 16, 64 and 256, beside "repeat the last frame" and the tokenizer.

    score = Fidelity(FeatureDistance())
    for truth in game.truths(...):
        score.add(model, truth, roll(model, truth))
    card["fidelity"] = score.result()

Every figure is a mean over episodes, with the 95 % bootstrap interval over episodes under KEY_interval. `psnr_seen`
is taken over the pixels whose surface was on screen in the last 16 frames of the prompt; an episode with less than 1
% of such pixels is not counted at that frame. `sharpness` is the mean gradient magnitude of the dream over that of
the truth sent through the tokenizer. "Repeat the last frame" shows the last frame of the prompt for ever.

Legend: E episodes, K horizons, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from game_wm.evaluation import metrics
from game_wm.evaluation.features import FeatureDistance
from game_wm.evaluation.rollout import Dream, Truth, device_of

HORIZONS = (1, 4, 16, 64, 256)
SEEN_SHARE = 0.01  # least share of seen pixels for an episode to count in psnr_seen


class Fidelity:
    """Collects one row per episode; `result` makes the card's `fidelity` object of them."""

    def __init__(self, features: FeatureDistance, horizons: Sequence[int] = HORIZONS) -> None:
        self.features, self.horizons = features, tuple(horizons)
        self.seeds: list[int] = []
        self.rows: dict[str, list[np.ndarray]] = {}

    def add(self, model: Any, truth: Truth, dream: Dream) -> None:
        """Score a batch of episodes (the model is asked for the tokenizer's round trip of the truth)."""
        self.seeds += truth.seeds
        columns = [self._score(model, truth, dream, h) for h in self.horizons]
        for name in columns[0]:
            self.rows.setdefault(name, []).append(np.stack([c[name] for c in columns], 1))  # (E, K)

    def _score(self, model: Any, truth: Truth, dream: Dream, horizon: int) -> dict[str, np.ndarray]:
        real, last, made = truth.at(horizon), truth.at(0), dream.at(horizon)
        with torch.no_grad():
            ceiling = model.decode(model.encode(real.to(device_of(model)))).cpu()
        nothing = torch.zeros(real.shape[:3], dtype=torch.bool)
        seen = truth.seen.get(horizon, nothing)
        seen = seen & (seen.float().mean((1, 2), keepdim=True) >= SEEN_SHARE)
        distances = self.features.distances(real, made, ceiling, last)
        values: dict[str, Tensor] = {
            "psnr": metrics.psnr(real, made),
            "psnr_seen": metrics.psnr(real, made, seen),
            "ssim": metrics.ssim(real, made),
            "feature_distance": distances[0],
            "gradient": metrics.gradient(made),
            "ceiling_gradient": metrics.gradient(ceiling),
            "ceiling_psnr": metrics.psnr(real, ceiling),
            "ceiling_psnr_seen": metrics.psnr(real, ceiling, seen),
            "ceiling_feature_distance": distances[1],
            "repeat_psnr": metrics.psnr(real, last),
            "repeat_feature_distance": distances[2],
        }
        there = truth.length >= horizon
        return {name: np.where(there, value.double().numpy(), math.nan) for name, value in values.items()}

    def result(self) -> dict[str, Any]:
        """The card's `fidelity` object; what could not be measured is absent."""
        rows = {name: np.concatenate(parts) for name, parts in self.rows.items()}
        sharpness = np.stack([rows.pop("gradient"), rows.pop("ceiling_gradient")], 2)  # (E, K, 2)
        card: dict[str, Any] = {}
        for name in ("psnr", "psnr_seen", "ssim", "feature_distance"):
            self._put(card, name, rows[name], metrics.mean)
        self._put(card, "sharpness", sharpness, metrics.ratio)
        by_seed = {
            str(seed): {str(h): float(v) for h, v in zip(self.horizons, row, strict=True) if not math.isnan(v)}
            for seed, row in zip(self.seeds, rows["psnr"], strict=True)
        }
        card["psnr_by_seed"] = by_seed
        for name in ("ceiling_psnr", "ceiling_feature_distance"):
            card[name] = metrics.mean(rows[name])
        for name in ("ceiling_psnr_seen", "repeat_psnr", "repeat_feature_distance"):
            self._put(card, name, rows[name], metrics.mean)
        return card

    def _put(
        self, card: dict[str, Any], name: str, values: np.ndarray, statistic: Callable[[np.ndarray], float]
    ) -> None:
        figures, intervals = {}, {}
        for i, horizon in enumerate(self.horizons):
            value = statistic(values[:, i])
            if not math.isnan(value):
                figures[str(horizon)] = value
                intervals[str(horizon)] = list(metrics.bootstrap(values[:, i], statistic))
        if figures:
            card[name], card[f"{name}_interval"] = figures, intervals
