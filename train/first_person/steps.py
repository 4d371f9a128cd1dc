"""Recorded steps of a player with inertia, and what is learnt from them alone: where a step leads that nothing stops.

Most steps follow exactly from the two before and their actions. Those that do not were stopped by something; the loss
lets go of them little by little.

Legend: B windows, T steps of a window, N steps, A action vector, P past of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from game_wm.memory.first_person.geometry import BEFORE, Motion
from game_wm.memory.first_person.pose import relative
from game_wm.training import descend
from train.data.windows import LatentStore, Span

STEPS, BATCH, RATE = 4000, 4096, 1e-2
ALL = 0.25  # of the training: until then every step counts
SHARP = 0.8  # of the training: from then on only steps within `CLOSEST` count
CLOSEST = 0.02  # units of motion
ASTRAY = (0.15, 0.15, 0.0)  # units of motion: the deviation of steps that were read off pictures
EXACT = 0.05  # units of motion: as good as right
FAR = 1.0  # units of motion: simply wrong
LIKELIEST, MEDIAN = 3.0, 0.2  # weights of the bounded error and of the absolute one


class Recorded(NamedTuple):
    """Steps that follow on `BEFORE` others: these (N, BEFORE, 3) and their actions (N, BEFORE, A), the actions that led
    to them (N, A), and the steps (N, 3)."""

    before: Tensor
    led: Tensor
    actions: Tensor
    steps: Tensor


def recorded_steps(store: LatentStore, spans: Sequence[Span]) -> Recorded:
    """All of these episodes."""
    found: list[tuple[Tensor, ...]] = []
    for span in long_enough(spans):
        pose, actions = (torch.from_numpy(np.array(store.read(name, span))).float() for name in ("pose", "actions"))
        steps, actions = relative(pose[:-1], pose[1:]), actions[:-1]
        before, led = (x.unfold(0, BEFORE, 1)[:-1].mT for x in (steps, actions))
        found.append((before, led, actions[BEFORE:], steps[BEFORE:]))
    return Recorded(*(torch.cat(x) for x in zip(*found, strict=True)))


def long_enough(spans: Sequence[Span]) -> list[Span]:
    """Those with a step that follows on others."""
    return [span for span in spans if span.frames >= BEFORE + 2]


def fit(motion: Motion, recorded: Recorded, steps: int = STEPS) -> float:
    """Train `unhindered` and turns, in place, on what most steps agree in: a step that is far off was stopped by
    something, and how far does not count (the loss of Geman and McClure, 1987, made sharper and sharper).

    Returns how many units of motion the median of the steps is off.
    """
    assert motion.free is not None
    parts = [p for part in (motion.free, motion.turn) for p in part.requires_grad_(True).parameters()]
    generator = torch.Generator().manual_seed(0)
    pasts = motion.past(recorded.before, recorded.led)

    def loss(i: int) -> Tensor:
        rows = torch.randint(len(pasts), (BATCH,), generator=generator)
        off = (motion.unhindered(recorded.actions[rows], pasts[rows]) - recorded.steps[rows]) / motion.unit
        square, width = off[:, :2].square().sum(1), max(1 - i / (SHARP * steps), CLOSEST)
        far = (square + 1e-12).sqrt() if i < ALL * steps else square / (square + width**2)
        return far.mean() + off[:, 2].abs().mean()

    with torch.enable_grad():
        optimizer = torch.optim.AdamW(parts, RATE, weight_decay=0.0)
        descend("motion", optimizer, steps, loss, lambda i: RATE * (1 - i / steps))
    for p in parts:
        p.requires_grad_(False)
    with torch.no_grad():
        off = ((motion.unhindered(recorded.actions, pasts) - recorded.steps) / motion.unit)[:, :2].norm(dim=1)
    return float(off.median())


def read_off(off: Tensor) -> Tensor:
    """How far what is read off pictures is off (..., 2), in units of motion: what is nearly right counts, what is quite
    wrong counts no more than what is wrong, so that it is the likeliest and not the mean of what may be in the way."""
    square = off.square().sum(-1)
    return (LIKELIEST * square / (square + FAR**2) + MEDIAN * (square + EXACT**2).sqrt()).mean()


def usual_loss(motion: Motion, actions_BTA: Tensor, past_BTP: Tensor, steps_BT3: Tensor) -> Tensor:
    """How far steps are from the one that their action mostly leads to, in units of motion: L1, so that it learns the
    median."""
    usual = motion.unhindered(actions_BTA.flatten(0, 1), past_BTP.flatten(0, 1)).view_as(steps_BT3)
    return ((usual - steps_BT3) / motion.unit)[..., :2].abs().mean()
