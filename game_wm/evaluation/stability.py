"""Stability: do dreams of 10,000 frames still look like the game, and does standing still leave the picture still?

    card["stability"] = stability(model, game, FeatureDistance(), prompt=64, seeds=range(90000, 90016))

*Fréchet distance*: every 8th frame of the windows 0-500, 5,000-5,500 and 9,500-10,000 of each dream, as EfficientNet-
Lite0 feature vectors on the 64 principal components of real ones, against the same windows of real play on as many
other seeds (the reference). `real_real` is the distance of the real game, on the dreams' own seeds and under the
dreams' own actions, to the same reference: its mean over the three windows. All four compare sets of equal sizes.
Where the real game ends, it is started again on another seed and the actions go on; a predicted end is ignored, the
dream goes on. Intervals are bootstrapped over dreams (basic bootstrap, since resampling makes a Fréchet distance
larger).

*Standing still*: the prompt's last 16 frames and 1,000 more are played by nobody. `idle_psnr` compares the last of
the dreamt frames to the first, over the pixels that do not change in the real game meanwhile (what moves by itself is
masked); of twice as many seeds, those whose real view stays stillest are taken, and only where at least half of it
does.

Legend: S dreams, N frames of a dream, P frames of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect import players
from data_collect.errors import UserError
from game_wm.evaluation import metrics
from game_wm.evaluation.features import FeatureDistance
from game_wm.evaluation.rollout import ATTEMPTS, RealGame, Tick, begin, device_of, no_tick

DREAMS, FRAMES = 16, 10_000
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

    frames: Tensor  # uint8 (P, H, W, 3)
    actions: Tensor  # float32 (P-1+N, A)
    looks: dict[str, Tensor]  # window -> uint8 (n, H, W, 3)
    poses: Tensor | None = None  # float32 (P, 3), where the game tells them


def wander(game: RealGame, seed: int, prompt: int, frames: int, tick: Tick) -> Wander:
    """Random-sticky play for `frames` frames after the prompt; the game is started again where it ends."""
    lead = next(filter(None, (game.lead(seed, attempt, prompt) for attempt in range(ATTEMPTS))), None)
    if lead is None:
        raise UserError(f"the game ends before a prompt of {prompt} frames can be played (seed {seed})")
    spans = windows(frames)
    looks: dict[str, list[np.ndarray]] = {name: [] for name in spans}
    actions, frame, info, again = lead.play.actions, lead.frame, lead.info, 0
    for step in range(1, frames + 1):
        action = lead.follower.act(frame, info)
        actions.append(game.schema.encode(action))
        frame, _, terminated, truncated, info = game.env.step(action)
        for name, span in spans.items():
            if step in span:
                looks[name].append(frame.copy())
        if terminated or truncated:
            again += 1
            frame, info = game.env.reset(seed=seed + 1000 * again)
            lead.follower = players.make("random", game.env, seed + 1000 * again)
            lead.follower.reset(game.env, frame, info)
        if step % 100 == 0:
            tick(100)
    pictures = {name: torch.from_numpy(np.stack(kept)) for name, kept in looks.items()}
    poses = torch.from_numpy(np.stack(lead.play.poses)) if lead.play.poses else None
    return Wander(torch.from_numpy(np.stack(lead.play.frames)), torch.from_numpy(np.stack(actions)), pictures, poses)


@torch.no_grad()
def dream_on(
    model: Any, plays: Sequence[Wander], seeds: Sequence[int], steps: int | None, tick: Tick
) -> dict[str, Tensor]:
    """Dream each play's actions after its prompt; window -> uint8 (S, n, H, W, 3)."""
    prompt, device = len(plays[0].frames), device_of(model)
    actions = torch.stack([play.actions for play in plays])
    known = [play.poses for play in plays if play.poses is not None]
    poses = torch.stack(known) if len(known) == len(plays) else None
    state = begin(model, torch.stack([play.frames for play in plays]), actions[:, : prompt - 1], seeds, poses)
    frames = actions.shape[1] - prompt + 1
    spans = windows(frames)
    looks: dict[str, list[Tensor]] = {name: [] for name in spans}
    for step in range(1, frames + 1):
        outcome, state = model.step(state, actions[:, prompt - 2 + step].to(device), steps)
        for name, span in spans.items():
            if step in span:
                looks[name].append(outcome.frames.cpu())
        tick(len(plays))
    return {name: torch.stack(kept, 1) for name, kept in looks.items()}


@torch.no_grad()
def idle_psnr(
    model: Any, game: RealGame, prompt: int, seeds: Sequence[int], frames: int, steps: int | None, tick: Tick
) -> dict[str, Any]:
    """PSNR of the last of `frames` dreamt frames of standing still to the first; {} where no real view stays still."""
    prompt = max(prompt, IDLE_PROMPT + 1)
    found = []
    for seed in [*seeds, *(seed + len(seeds) for seed in seeds)]:
        play = game.choose(seed, prompt, frames, idle=IDLE_PROMPT)
        after = np.stack(play.frames[prompt:])
        still = torch.from_numpy((after == after[0]).all((0, 3)))  # (H, W)
        if len(after) == frames and still.float().mean() >= 0.5:
            shown = play.frames[:prompt], play.actions[: prompt - 1]
            found.append((float(still.float().mean()), seed, *shown, still, play.poses))
        tick(frames // 2)
    found = sorted(found, key=lambda f: -f[0])[: len(seeds)]
    if not found:
        return {}
    device = device_of(model)
    prompts = torch.from_numpy(np.stack([np.stack(f[2]) for f in found]))
    led = torch.from_numpy(np.stack([np.stack(f[3]) for f in found]))
    poses = torch.from_numpy(np.stack([np.stack(f[5]) for f in found])) if found[0][5] else None
    state = begin(model, prompts, led, [f[1] for f in found], poses)
    nothing = torch.from_numpy(game.schema.encode(game.schema.noop())).expand(len(found), -1).to(device)
    for step in range(frames):
        outcome, state = model.step(state, nothing, steps)
        if step == 0:
            first = outcome.frames.cpu()
        tick(len(found))
    values = metrics.psnr(first, outcome.frames.cpu(), torch.stack([f[4] for f in found])).numpy()
    return {
        "idle_psnr": metrics.mean(values), "idle_psnr_interval": list(metrics.bootstrap(values)),
        "idle_dreams": len(found), "idle_frames": frames,
    }  # fmt: skip


def stability(
    model: Any,
    game: RealGame,
    features: FeatureDistance,
    prompt: int,
    seeds: Sequence[int],
    frames: int = FRAMES,
    steps: int | None = None,
    tick: Tick = no_tick,
) -> dict[str, Any]:
    """The card's `stability` object. `tick` is told of frames, real and dreamt; `budget` says how many to expect."""
    plays = [wander(game, seed, prompt, frames, tick) for seed in seeds]
    others = [wander(game, seed + len(seeds), prompt, frames, tick) for seed in seeds]
    reference = features.vectors(torch.cat([look for play in others for look in play.looks.values()]))
    components = metrics.Components(reference, COMPONENTS)
    reference = components(reference)
    real = {name: _project(components, features, torch.stack([p.looks[name] for p in plays])) for name in NAMES}
    dreamt = dream_on(model, plays, seeds, steps, tick)
    made = {name: _project(components, features, look) for name, look in dreamt.items()}
    card: dict[str, Any] = {}

    def distance(*sets: np.ndarray) -> float:
        return float(np.mean([metrics.frechet(s.reshape(-1, s.shape[-1]), reference) for s in sets]))

    card["real_real"] = distance(*real.values())
    card["real_real_interval"] = _interval(distance, *real.values())
    for name, samples in made.items():
        card[f"frechet_{name}"] = distance(samples)
        card[f"frechet_{name}_interval"] = _interval(distance, samples)
    idle = idle_psnr(model, game, prompt, seeds, min(IDLE_FRAMES, frames // 10), steps, tick)
    return card | idle | {"dreams": len(seeds), "frames": frames}


def budget(dreams: int, frames: int) -> int:
    """The number of frames that `stability` tells `tick` of, about."""
    return 3 * dreams * frames + 2 * dreams * min(IDLE_FRAMES, frames // 10)


def _project(components: metrics.Components, features: FeatureDistance, look: Tensor) -> np.ndarray:
    """(S, n, H, W, 3) -> (S, n, at most 64)."""
    projected = components(features.vectors(look.flatten(0, 1)))
    return projected.reshape(*look.shape[:2], -1)


def _interval(distance: Callable[..., float], *sets: np.ndarray, resamples: int = 200) -> list[float]:
    """Basic bootstrap interval over dreams, the first axis of every set."""
    generator, value = np.random.default_rng(0), distance(*sets)
    picks = (generator.integers(len(sets[0]), size=len(sets[0])) for _ in range(resamples))
    low, high = np.percentile([distance(*(s[pick] for s in sets)) for pick in picks], [2.5, 97.5])
    return [max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low))]
