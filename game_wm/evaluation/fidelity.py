"""Fidelity of the free rollout at frames 1, 4, 16, 64 and 256, beside the tokenizer alone and "repeat the last frame".

    score = Fidelity(FeatureDistance())
    score.add(model, truth, roll(model, truth))
    card["fidelity"] = score.result()

PSNR is that of the mean squared error over all pixels of all episodes; the other figures are means over episodes.
KEY_interval is the 95 % bootstrap interval over episodes. `psnr_by_seed` has the PSNR of each episode. `psnr_seen`
takes only pixels whose surface was on screen in the last 16 frames of the prompt, and at each frame only episodes with
1 % of such pixels. `psnr_moving` takes only pixels that differ from the episode's median picture (`pictures.py`).
`sharpness` is the mean gradient magnitude of the dream over that of the tokenised truth, `ceiling_sharpness` that of
the tokenised truth over the truth's. "Repeat the last frame" shows the prompt's last frame.

Legend: E episodes, K horizons, H height, W width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.rollout import DreamRollout, round_trip
from game_wm.evaluation.truth.plays import Truth
from game_wm.pictures import moving

HORIZONS = (1, 4, 16, 64, 256)
SEEN_SHARE = 0.01  # least share of seen pixels for an episode to count in psnr_seen


class Fidelity:
    """Collects one row per episode; `result` makes the card's `fidelity` object of them."""

    def __init__(self, features: FeatureDistance, horizons: Sequence[int] = HORIZONS) -> None:
        self.features, self.horizons = features, tuple(horizons)
        self.seeds: list[int] = []
        self.rows: dict[str, list[np.ndarray]] = {}

    def add(self, model: Any, truth: Truth, dream: DreamRollout) -> None:
        """Score a batch of episodes (the model is asked for the tokenizer's round trip of the truth)."""
        self.seeds += truth.seeds
        medians = truth.medians
        columns = [self._score(model, truth, dream, h, medians) for h in self.horizons]
        for name in columns[0]:
            self.rows.setdefault(name, []).append(np.stack([c[name] for c in columns], 1))  # (E, K, 1 or 2)

    def _score(
        self, model: Any, truth: Truth, dream: DreamRollout, horizon: int, medians_EHWC: Tensor
    ) -> dict[str, np.ndarray]:
        real, last, made = truth.at(horizon), truth.at(0), dream.at(horizon)
        ceiling = round_trip(model, truth.frames[:, : truth.prompt + horizon])
        nothing = torch.zeros(real.shape[:3], dtype=torch.bool)
        seen = truth.seen.get(horizon, nothing)
        seen = seen & (seen.float().mean((1, 2), keepdim=True) >= SEEN_SHARE)
        moved = moving(real, medians_EHWC)
        distances = self.features.distances(real, made, ceiling, last)
        values: dict[str, Any] = {
            "ssim": metrics.ssim(real, made),
            "feature_distance": distances[0],
            "sharpness": torch.stack([metrics.gradient(made), metrics.gradient(ceiling)], 1),  # (E, 2), the others (E,)
            "ceiling_sharpness": torch.stack([metrics.gradient(ceiling), metrics.gradient(real)], 1),
            "ceiling_feature_distance": distances[1],
            "repeat_feature_distance": distances[2],
        }
        for part, mask in {"": None, "_seen": seen, "_moving": moved}.items():
            for whose, shown in {"": made, "ceiling_": ceiling, "repeat_": last}.items():
                values[f"{whose}psnr{part}"] = metrics.squared_error(real, shown, mask)  # (E, 2)
        there = truth.length >= horizon
        table = {name: np.asarray(value, np.float64).reshape(len(value), -1) for name, value in values.items()}
        return {name: np.where(there[:, None], value, math.nan) for name, value in table.items()}

    def result(self) -> dict[str, Any]:
        """The card's `fidelity` object; what could not be measured is absent."""
        rows = {name: np.concatenate(parts) for name, parts in self.rows.items()}  # (E, K, 1 or 2)
        card: dict[str, Any] = {}
        for name in ("psnr", "psnr_seen", "psnr_moving", "ssim", "feature_distance", "sharpness"):
            self._put(card, name, rows[name])
        card["psnr_by_seed"] = {
            str(seed): {str(h): metrics.pooled_psnr(pair[None]) for h, pair in zip(self.horizons, pairs, strict=True)}
            for seed, pairs in zip(self.seeds, rows["psnr"], strict=True)
        }
        card["ceiling_psnr"] = metrics.pooled_psnr(rows["ceiling_psnr"].reshape(-1, 2))
        card["ceiling_sharpness"] = metrics.ratio(rows["ceiling_sharpness"].reshape(-1, 2))
        card["ceiling_feature_distance"] = metrics.mean(rows["ceiling_feature_distance"])
        for name in ("ceiling_psnr_seen", "ceiling_psnr_moving", "repeat_psnr", "repeat_psnr_moving"):
            self._put(card, name, rows[name])
        self._put(card, "repeat_feature_distance", rows["repeat_feature_distance"])
        return card

    def _put(self, card: dict[str, Any], name: str, rows: np.ndarray) -> None:
        statistic = metrics.pooled_psnr if "psnr" in name else metrics.ratio if name == "sharpness" else metrics.mean
        figures, intervals = {}, {}
        for i, horizon in enumerate(self.horizons):
            value = statistic(rows[:, i])
            if not math.isnan(value):
                figures[str(horizon)] = value
                intervals[str(horizon)] = list(metrics.bootstrap(rows[:, i], statistic))
        if figures:
            card[name], card[f"{name}_interval"] = figures, intervals
