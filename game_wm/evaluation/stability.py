"""Stability: do dreams of 10,000 frames still look like the game, and does standing still leave the picture still?

    card["stability"] = stability(model, game, FeatureDistance(), prompt=64, seeds=range(90000, 90016))

Every 8th frame is looked at in three windows of each dream: 0-500, 5,000-5,500 and 9,500-10,000. Its EfficientNet-Lite0
features are projected on the 64 principal components of real ones. They are compared with real play on as many other
seeds, the *reference*. So is the real game on the dreams' own seeds and actions: "real against real". Where the real
game ends, it starts again on another seed and the actions go on. Where a dream predicts its end, it goes on.

`kernel_*` is the figure to judge by: the unbiased kernel distance (`metrics.kernel_distance`), its groups the dreams
and the plays. Features are divided by the reference's root mean square, so that games can be compared. It is 0 where
dream and game look alike. `kernel_end_over_real` says how much further from the reference the dreams' end is than the
real game in that window: its interval lies above 0 where dreams have drifted away. `kernel_real_real` is the mean over
the windows. Intervals leave out one dream at a time (with the real play under its actions), and one play of the
reference.

`frechet_*` and `real_real` are Fréchet distances of the same features to all windows of the reference. At this sample
size they are biased upwards, real against real too; all four compare sets of equal sizes.

*Standing still*: nobody plays the prompt's last 16 frames, nor 1,000 more. `idle_psnr` compares the last dreamt frame
with the first, over the pixels that do not change in the real game meanwhile. Of twice as many seeds those are taken
whose real view stays stillest, and only where at least half of it does.

Legend: S dreams, N frames of a dream, P frames of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.guest.match import Leg
from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.rollout import begin_each, device_of
from game_wm.evaluation.truth.game import ATTEMPTS, RealGame, Tick, TooShort, no_tick
from game_wm.evaluation.truth.plays import Prompt

FRAMES = 10_000
STRIDE = 8
COMPONENTS = 64
IDLE_FRAMES, IDLE_PROMPT = 1_000, 16
NAMES = ("start", "middle", "end")


def windows(frames: int) -> dict[str, range]:
    """The frames (1 is the first dreamt one) that are looked at: every 8th of 5 % at the start, middle and end."""
    length = max(frames // 20, STRIDE)
    firsts = {"start": 0, "middle": frames // 2, "end": frames - length}
    return {name: range(first + STRIDE, first + length + 1, STRIDE) for name, first in firsts.items()}


@dataclass
class Wander:
    """Long real play: a prompt, the actions after it, and the frames of each window."""

    prompt: Prompt
    actions: np.ndarray  # float32 (N, A)
    looks: dict[str, Tensor]  # window -> uint8 (n, H, W, 3)


def wanders(game: RealGame, seeds: Sequence[int], prompt: int, frames: int, tick: Tick) -> list[Wander]:
    """Of each seed of which a prompt can be played; `TooShort` when there is none."""
    found = [play for seed in seeds if (play := wander(game, seed, prompt, frames, tick))]
    if not found:
        raise TooShort(game.game_id, prompt, game.pace, game.lasted)
    return found


def wander(game: RealGame, seed: int, prompt: int, frames: int, tick: Tick) -> Wander | None:
    """Random-sticky play for `frames` frames after the prompt; the game is started again where it ends."""
    lead = next(filter(None, (game.lead(seed, attempt, prompt) for attempt in range(ATTEMPTS))), None)
    if lead is None:
        tick(frames)
        return None
    spans = windows(frames)
    looks: dict[str, list[np.ndarray]] = {name: [] for name in spans}
    actions, begins, follower = list[np.ndarray](), None, lead.follower
    while len(actions) < frames:
        for raw, *_, frame, _ in game.env.play([replace(follower, steps=frames - len(actions))], begins):
            if raw is None:
                continue
            actions.append(game.schema.encode(raw))
            for name, span in spans.items():
                if len(actions) in span:
                    looks[name].append(frame.copy())
            if len(actions) % 100 == 0:
                tick(100)
        begins = (seed if begins is None else begins) + 1000  # the episode is over
        follower = Leg("random", begins)
    pictures = {name: torch.from_numpy(np.stack(kept)) for name, kept in looks.items()}
    return Wander(lead.prompt, np.stack(actions), pictures)


def dream_on(model: Any, plays: Sequence[Wander], steps: int | None, tick: Tick) -> Iterator[tuple[str, Tensor]]:
    """Dream each play's actions after its prompt; gives each window, as uint8 (S, n, H, W, 3), when it is full."""
    state, device = begin_each(model, [play.prompt for play in plays]), device_of(model)
    actions = torch.from_numpy(np.stack([play.actions for play in plays]))
    spans = windows(actions.shape[1])
    looks: dict[str, list[Tensor]] = {name: [] for name in spans}
    for step, action in enumerate(actions.unbind(1), 1):
        with torch.no_grad():  # not around the whole, which is left at every yield
            outcome, state = model.step(state, action.to(device), steps)
        tick(len(plays))
        for name, span in spans.items():
            if step in span:
                looks[name].append(outcome.frames.cpu())
            if step == span[-1]:
                yield name, torch.stack(looks[name], 1)


@torch.no_grad()
def idle_psnr(
    model: Any, game: RealGame, prompt: int, seeds: Sequence[int], frames: int, steps: int | None, tick: Tick
) -> dict[str, Any]:
    """PSNR of the last of `frames` dreamt frames of standing still to the first; {} where no real view stays still."""
    prompt, frames = game.pace.cut(max(prompt, IDLE_PROMPT + 1), frames)
    found, idle = [], min(IDLE_PROMPT, prompt - 1)
    for seed in [*seeds, *(seed + len(seeds) for seed in seeds)] if idle else ():
        tick(frames // 2)
        play = game.find(seed, prompt, frames, idle=idle)
        if play is None:
            continue
        after = np.stack(play.frames[prompt:])
        still = torch.from_numpy((after == after[0]).all((0, 3)))  # (H, W)
        if len(after) == frames and still.float().mean() >= 0.5:
            found.append((play.prompt(prompt), still))
    found = sorted(found, key=lambda each: -float(each[1].float().mean()))[: len(seeds)]
    if not found:
        return {}
    state = begin_each(model, [begins for begins, _ in found])
    nothing = torch.from_numpy(game.schema.encode(game.schema.noop())).expand(len(found), -1).to(device_of(model))
    for step in range(frames):
        outcome, state = model.step(state, nothing, steps)
        if step == 0:
            first = outcome.frames.cpu()
        tick(len(found))
    values = metrics.psnr(first, outcome.frames.cpu(), torch.stack([still for _, still in found]))
    return metrics.figure("idle_psnr", values) | {"idle_dreams": len(found), "idle_frames": frames}


Kernels = tuple[np.ndarray, np.ndarray]  # kernel means within a set (S, S) and between it and the reference (S, T)


class Look:
    """The three windows of S dreams or plays as features, scored against T plays of the reference."""

    def __init__(self, features: FeatureDistance, others: Sequence[Wander]) -> None:
        self.features = features
        vectors = features.vectors(torch.cat([play.looks[name] for play in others for name in NAMES]))
        self.components = metrics.Components(vectors, COMPONENTS)
        self.reference_TMD = self.components(vectors).reshape(len(others), -1, min(COMPONENTS, *vectors.shape))
        self.scale = float(np.sqrt(np.square(self.reference_TMD).mean())) or 1.0
        self.others_TT = self._kernel(self.reference_TMD, self.reference_TMD)

    def _kernel(self, a_SND: np.ndarray, b_TMD: np.ndarray) -> np.ndarray:
        return metrics.kernel_means(a_SND / self.scale, b_TMD / self.scale)

    def project(self, look_SNHWC: Tensor) -> np.ndarray:
        """(S, N, H, W, 3) -> features (S, N, at most 64)."""
        return self.components(self.features.vectors(look_SNHWC.flatten(0, 1))).reshape(*look_SNHWC.shape[:2], -1)

    def frechet(self, *sets_SND: np.ndarray) -> float:
        """Mean of the sets' Fréchet distances to the reference."""
        every = self.reference_TMD.reshape(-1, self.reference_TMD.shape[-1])
        return float(np.mean([metrics.frechet(found.reshape(-1, found.shape[-1]), every) for found in sets_SND]))

    def kernels(self, samples_SND: np.ndarray) -> Kernels:
        return self._kernel(samples_SND, samples_SND), self._kernel(samples_SND, self.reference_TMD)

    def distance(self, *sets: Kernels) -> tuple[float, list[float]]:
        """Mean kernel distance of the sets to the reference, and its interval."""
        return self._estimate(lambda *kept: float(np.mean([self._of(found, *kept) for found in sets])), sets[0])

    def excess(self, found: Kernels, real: Kernels) -> tuple[float, list[float]]:
        """How much further from the reference it is than real play of the same seeds and actions, and its interval."""
        return self._estimate(lambda *kept: self._of(found, *kept) - self._of(real, *kept), found)

    def _of(self, found: Kernels, some_s: np.ndarray, some_t: np.ndarray) -> float:
        within, between = found[0][np.ix_(some_s, some_s)], found[1][np.ix_(some_s, some_t)]
        return metrics.kernel_distance(within, self.others_TT[np.ix_(some_t, some_t)], between)

    def _estimate(
        self, statistic: Callable[[np.ndarray, np.ndarray], float], found: Kernels
    ) -> tuple[float, list[float]]:
        all_s, all_t = (np.arange(count) for count in found[1].shape)
        point = statistic(all_s, all_t)
        without_s = [statistic(np.delete(all_s, i), all_t) for i in all_s]
        without_t = [statistic(all_s, np.delete(all_t, i)) for i in all_t]
        return point, list(metrics.jackknife(point, without_s, without_t))


def stability(
    model: Any, game: RealGame, features: FeatureDistance, prompt: int, seeds: Sequence[int], frames: int = FRAMES,
    steps: int | None = None, tick: Tick = no_tick,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The card's `stability` object, given again with more in it after each window and, at last, standing still.

    `tick` is told of frames, real and dreamt; `budget` says how many to expect.
    """
    plays = wanders(game, seeds, prompt, frames, tick)
    look = Look(features, wanders(game, [seed + len(seeds) for seed in seeds], prompt, frames, tick))
    real = [look.project(torch.stack([play.looks[name] for play in plays])) for name in NAMES]
    kernels = [look.kernels(found) for found in real]
    card: dict[str, Any] = {"dreams": len(plays), "frames": frames, "real_real": look.frechet(*real)}
    _put(card, "kernel_real_real", look.distance(*kernels))
    for name, dreamt in dream_on(model, plays, steps, tick):
        found = look.project(dreamt)
        card[f"frechet_{name}"] = look.frechet(found)
        _put(card, f"kernel_{name}", look.distance(look.kernels(found)))
        if name == NAMES[-1]:
            _put(card, "kernel_end_over_real", look.excess(look.kernels(found), kernels[-1]))
        yield card | {"dreamt": windows(frames)[name][-1]}
    yield card | idle_psnr(model, game, prompt, seeds, min(IDLE_FRAMES, frames // 10), steps, tick)


def _put(card: dict[str, Any], name: str, found: tuple[float, list[float]]) -> None:
    """A figure, which takes two dreams, and its interval, which takes three."""
    value, interval = found
    card |= {} if np.isnan(value) else {name: value}
    card |= {} if np.isnan(interval).any() else {f"{name}_interval": interval}


def budget(dreams: int, frames: int) -> int:
    """The number of frames that `stability` tells `tick` of, about."""
    return 3 * dreams * frames + 2 * dreams * min(IDLE_FRAMES, frames // 10)
