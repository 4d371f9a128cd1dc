"""Depth with labels, for a game that can give the depth of its pictures.

    python -m train depth --latents DIR --geometry CKPT --out FILE

The game gives the depth at recorded poses (its method `depth`; Doom computes it from its level's lines). None of it is
stored, and the model plays without. `train geometry` learns depth without labels, for any game, but less exactly
(docs/decisions/doom-depth.md).

Legend: B frames, C channels, h, w latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.guest.guest import Guest
from game_wm.deadline import NEVER, Deadline
from game_wm.memory.first_person.geometry import FARTHEST, FINER, NEAREST, Depth, Geometry
from game_wm.training import affordable, descend
from train.data.latents import LatentStore
from train.data.spans import Span
from train.report.console import say

BATCH, RATE, DECAY = 64, 1e-3, 0.01  # frames a step, learning rate, weight decay
AVERAGE = 0.005  # share of the current weights in each update of the averaged ones
NOISE = 0.3  # largest deviation of noise on latents: generated ones are not as clean as encoded ones
SLOPES = 0.5  # weight of the error of the logarithm's slopes, which keeps edges sharp
JUDGED = 512  # held-out frames

Known = Callable[[np.ndarray], Tensor]  # poses (B, 3) -> disparity (B, 4h, 4w), one over the depth in places


def known_disparity(game: object, place: float, height: int, width: int) -> Known:
    """The game's depth as disparity, in the units of `Depth`. `UserError` where the game has none."""
    depth = getattr(game, "depth", None)
    if depth is None:
        raise UserError("this game does not know how deep its world looks: learn it from frames, with train geometry")

    def known(poses: np.ndarray) -> Tensor:
        found = torch.from_numpy(depth(poses, FINER * height, FINER * width))
        return (place / found).clamp(FARTHEST, FARTHEST + NEAREST)

    return known


class Frames:
    """Random frames (B, C, h, w) of some episodes, with the disparity that the game gives at their poses."""

    def __init__(self, store: LatentStore, spans: Sequence[Span], known: Known) -> None:
        self.store, self.known, self.chance = store, known, np.random.default_rng(0)
        self.rows = [Span(span.episode, span.start + t, 1) for span in spans for t in range(span.frames)]

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        rows = [self.rows[i] for i in self.chance.integers(len(self.rows), size=size)]
        latents, poses = (np.concatenate([self.store.read(name, row) for row in rows]) for name in ("latents", "pose"))
        return torch.from_numpy(latents.astype(np.float32)), self.known(poses)


def fit(depth: Depth, frames: Frames, steps: int, deadline: Deadline = NEVER) -> Depth:
    """Train on the absolute error of the logarithm (a squared one would blur edges), and return averaged weights."""
    depth.train().requires_grad_(True)
    averaged = deepcopy(depth).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(depth.parameters(), RATE, (0.9, 0.99), weight_decay=DECAY)

    def loss(i: int) -> Tensor:
        latents, truth = frames.batch(BATCH)
        latents = latents + NOISE * torch.rand(len(latents), 1, 1, 1).square() * torch.randn_like(latents)
        with torch.autocast("cpu", torch.bfloat16):
            found = depth(latents)
        off = found.log() - truth.log()
        return off.abs().mean() + SLOPES * (off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean())

    @torch.no_grad()
    def average(step: int, value: Tensor) -> None:
        for mean, now in zip(averaged.parameters(), depth.parameters(), strict=True):
            mean.lerp_(now, max(AVERAGE, 1 / step))
        if step % 500 == 0:
            say(f"depth: step {step} of {steps}, loss {float(value):.3f}")

    steps = affordable("depth", steps, loss, deadline)
    rate: Callable[[int], float] = lambda i: RATE * min(1.0, (i + 1) / 50, (1 - i / steps) / 0.6)  # noqa: E731
    descend("depth", optimizer, steps, loss, rate, clip=1.0, after=average)
    return averaged


@torch.no_grad()
def off_by(depth: Depth, frames: Frames) -> list[float]:
    """Relative error of depth on held-out frames: its median, upper quartile and upper decile."""
    latents, truth = frames.batch(JUDGED)
    off = (depth(latents).log() - truth.log()).abs().flatten().numpy()
    return [float(x) for x in np.expm1(np.quantile(off, [0.5, 0.75, 0.9]))]


def learn_depth(
    geometry: Geometry, store: LatentStore, held_out: float, steps: int, deadline: Deadline = NEVER
) -> dict[str, Tensor]:
    """Depth learnt from what the game knows: its weights. `UserError` without poses."""
    if not store.index["pose"]:
        raise UserError(f"{store.directory} has no poses: depth is asked for where the player stood")
    config = geometry.config
    with Guest(store.game) as game:
        known = known_disparity(game, config.place, config.height, config.width)
        learnt, judged = (Frames(store, store.split(held_out, held), known) for held in (False, True))
        before = off_by(geometry.depth, judged)
        depth = fit(geometry.depth, learnt, steps, deadline)
        after = off_by(depth, judged)
    for when, off in (("before", before), ("now", after)):
        half, more, most = (f"{100 * x:.1f} %" for x in off)
        say(f"depth, held-out episodes, {when}: half within {half}, three quarters {more}, nine in ten {most}")
    return depth.state_dict()
