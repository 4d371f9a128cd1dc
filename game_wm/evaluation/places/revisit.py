"""Revisit: does what has left the picture look the same when it comes back? Quality by the age of what is seen.

    python -m game_wm evaluate checkpoints/maze.safetensors --suite revisit
    python -m game_wm evaluate checkpoints/maze.safetensors --suite revisit --episodes 8 --prompts 1024   # a quick look

The explorer leads prompts of 256, 1,024 and 4,096 real frames; then come free rollouts of 32 frames: each turn (where
nobody turns, each button that walks) held all the time, and the explorer's own way on. returns.py says what a pixel's
age is and when a rollout begins. Each figure is of one prompt length ("1024") and one span of the rollout ("1-8",
"9-32"), so that ages are compared at equal positions, with its 95 % bootstrap interval over mazes (KEY_interval).

`psnr`: of the mean squared error over all pixels of an age in all mazes. `feature_distance`: the mean over the pixels
of an age (`FeatureDistance.local`), on every fourth frame. A maze counts for an age when 1 % of a span's pixels are of
it; `mazes` says how many do. An age without a maze is absent. `ceiling_psnr`: the tokenised truth. `window_only`: the
same prompts and actions dreamt by a model of the same size and training time without long memory.

Legend: E episodes (mazes), R rollouts of each, P frames of the prompt, N frames of a rollout, H, W pixels, A length of
an encoded action.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.places.returns import SPANS, Visit, buckets, come_back, held, of_age
from game_wm.evaluation.rollout import begin_each, follow, in_threes, round_trip
from game_wm.evaluation.truth.game import RealGame, Tick, no_tick

PROMPTS = (256, 1024, 4096)
LEAST = 0.01  # share of a span's pixels that must be of an age for a maze to count
FEATURE_STRIDE = 4
PLAYERS, PROMPT_FRAMES = 16, 16_384  # at most, in one batch: they bound the memory


class ByAge:
    """Collects the errors of one model's pictures by span and age, one row a maze."""

    def __init__(self, names: Sequence[str], features: FeatureDistance | None) -> None:
        self.names, self.features, self.seen = names, features, 0  # seen: mazes
        self.errors: dict[str, list[np.ndarray]] = {span: [] for span in SPANS}  # (ages, 2): squared error, values
        self.distances: dict[str, list[np.ndarray]] = {span: [] for span in SPANS}  # (ages, 2): distance, pixels

    def add(self, truth_RNHWC: Tensor, made_RNHWC: Tensor, ages_RNHW: np.ndarray) -> None:
        """Score one maze."""
        self.seen += 1
        masks = {name: torch.from_numpy(of_age(ages_RNHW, name)) for name in self.names}
        for span, part in SPANS.items():
            truth, made = truth_RNHWC[:, part], made_RNHWC[:, part]
            shown = {name: mask[:, part] if _share(mask[:, part]) >= LEAST else None for name, mask in masks.items()}
            rows = [[math.nan, math.nan]] * len(shown)
            for i, mask in enumerate(shown.values()):
                if mask is not None:
                    error = metrics.squared_error(*(x.flatten(0, 1) for x in (truth, made, mask)))
                    rows[i] = error.sum(0).tolist()
            self.errors[span].append(np.array(rows))
            if self.features is not None:
                some = slice(FEATURE_STRIDE - 1, None, FEATURE_STRIDE)
                local = self.features.local(truth[:, some].flatten(0, 1), made[:, some].flatten(0, 1)).numpy()
                rows = [[math.nan, math.nan]] * len(shown)
                for i, mask in enumerate(shown.values()):
                    if mask is not None and (there := mask[:, some].flatten(0, 1)).any():
                        rows[i] = [float(local[there.numpy()].sum(dtype=np.float64)), float(there.sum())]
                self.distances[span].append(np.array(rows))

    def result(self, span: str) -> dict[str, Any]:
        """`psnr`, `feature_distance` and their intervals, by age."""
        card: dict[str, Any] = {}
        kinds = (("psnr", self.errors, metrics.pooled_psnr), ("feature_distance", self.distances, metrics.ratio))
        for key, table, statistic in kinds:
            if not table[span]:
                continue
            rows = np.stack(table[span])  # (E, ages, 2)
            for i, name in enumerate(self.names):
                if not math.isnan(value := statistic(rows[:, i])):
                    card.setdefault(key, {})[name] = value
                    card.setdefault(f"{key}_interval", {})[name] = list(metrics.bootstrap(rows[:, i], statistic))
        return card

    def mazes(self, span: str) -> dict[str, int]:
        """How many mazes each age has; ages without one are absent."""
        counts = (~np.isnan(np.stack(self.errors[span])[..., 0])).sum(0)
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / mask.numel()


@torch.no_grad()
def dream(model: Any, visits: Sequence[Visit], steps: int | None = None) -> Tensor:
    """The rollouts of several visits, each a player: uint8 (E, R, N, H, W, 3). A prompt is read once."""
    state = begin_each(model, [visit.prompt for visit in visits])
    actions = torch.from_numpy(np.stack([[branch.actions for branch in visit.branches] for visit in visits]))
    return torch.stack([follow(model, copy.deepcopy(state), branch, steps) for branch in actions.unbind(1)], 1)


def visits(game: RealGame, seeds: Sequence[int], prompt: int, tick: Tick) -> Iterator[list[Visit]]:
    """Visits in batches small enough for their prompts to fit into memory; none of seeds that end before."""
    players = max(1, min(PLAYERS, PROMPT_FRAMES // prompt))
    for first in range(0, len(seeds), players):
        batch = []
        for seed in seeds[first : first + players]:
            batch += [visit] if (visit := come_back(game, seed, prompt)) else []
            tick(1)
        if batch:
            yield batch


def revisit(
    model: Any, game: RealGame, features: FeatureDistance, seeds: Sequence[int], prompts: Sequence[int] = PROMPTS,
    window: Any = None, steps: int | None = None, tick: Tick = no_tick,
    kept: dict[int, list[list[Visit]]] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """The card's `revisit` object (without prompts that no seed's game lasts for) and, for the sheet, some returns from
    the longest prompt of at most 1,024 frames.

    `window`: the model without long memory to compare with. `tick` is told of visits and of mazes dreamt, `budget` in
    all. `kept`: visits by prompt, for who measures several models; those not there yet are played and added.

    A return is {"seed", "prompt", "ages" (N, H, W), "before" (H, W, 3), "truth", "dream" and, with a window-only model,
    "window" (N, H, W, 3)}.
    """
    card, returns = dict[str, Any](), list[dict[str, Any]]()
    shown = max((p for p in prompts if p <= 1024), default=min(prompts))
    for prompt in prompts:
        names = buckets(prompt)
        ours, theirs, ceiling = ByAge(names, features), ByAge(names, features), ByAge(names, None)
        if kept is not None and prompt not in kept:
            kept[prompt] = list(visits(game, seeds, prompt, tick))
        for batch in kept[prompt] if kept else visits(game, seeds, prompt, tick):
            made = dream(model, batch, steps)
            other = dream(window, batch) if window is not None else None
            for i, visit in enumerate(batch):
                truth = torch.from_numpy(np.stack([branch.frames for branch in visit.branches]))
                ages = np.stack([branch.ages for branch in visit.branches])
                ours.add(truth, made[i], ages)
                ceiling.add(truth, round_trip(model, in_threes(truth)).unflatten(0, truth.shape[:2]), ages)
                if other is not None:
                    theirs.add(truth, other[i], ages)
                if prompt == shown:
                    r = int(np.argmax([of_return(branch.ages) for branch in visit.branches]))
                    returns.append(
                        {"seed": visit.prompt.seed, "prompt": prompt, "ages": ages[r],
                         "before": visit.prompt.frames[-1], "truth": truth[r].numpy(), "dream": made[i, r].numpy()}
                        | ({"window": other[i, r].numpy()} if other is not None else {})
                    )  # fmt: skip
                tick(1)
        for span in SPANS if ours.seen else ():
            entry = ours.result(span)
            if window is not None:
                entry["window_only"] = theirs.result(span)
            entry["ceiling_psnr"] = ceiling.result(span).get("psnr", {})
            card[f"{prompt}/{span}"] = entry | {"mazes": ours.mazes(span), "held": held(game.schema)}
    returns.sort(key=lambda found: -of_return(found["ages"]))
    return card, returns


def of_return(ages: np.ndarray) -> float:
    """Share of pixels that come back after more than 64 frames."""
    return float(sum(of_age(ages, name).mean() for name in ("65-256", "257-1024", ">1024")))


def budget(episodes: int, prompts: Sequence[int]) -> int:
    return 2 * episodes * len(prompts)
