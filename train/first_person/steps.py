"""Recorded steps of a player with inertia, and what is learnt from them alone: where a step leads that nothing stops.

Most steps follow exactly from the two before and their actions. Those that do not were stopped by something; the loss
lets go of them little by little.

Legend: B windows, T steps of a window, N steps, A action vector, P past of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from game_wm.deadline import NEVER, Deadline
from game_wm.memory.first_person.geometry import BEFORE, Motion
from game_wm.memory.first_person.pose import relative
from game_wm.training import affordable, descend
from train.data.latents import LatentStore
from train.data.spans import Span

STEPS, BATCH, RATE = 4000, 4096, 1e-2
ALL = 0.25  # of the training: until then every step counts
SHARP = 0.8  # of the training: from then on only steps within `CLOSEST` count
CLOSEST = 0.02  # units of motion
READ_ERROR = (0.15, 0.15, 0.0)  # units of motion: deviation of steps that were read off pictures
EXACT = 0.05  # units of motion: as good as right
FAR = 1.0  # units of motion: simply wrong
LIKELIEST, MEDIAN = 3.0, 0.2  # weights of the bounded error and of the absolute one


class Recorded(NamedTuple):
    """Steps (N, 3), actions (N, A), and those of the `BEFORE` steps before each: (N, BEFORE, 3) and (N, BEFORE, A)."""

    before: Tensor
    previous_actions: Tensor
    actions: Tensor
    steps: Tensor


def recorded_steps(store: LatentStore, spans: Sequence[Span]) -> Recorded:
    """All steps of these episodes that have `BEFORE` before them."""
    found: list[tuple[Tensor, ...]] = []
    for span in long_enough(spans):
        pose, actions = store.tensors(span, "pose", "actions")
        steps, actions = relative(pose[:-1], pose[1:]), actions[:-1]
        before, previous = (x.unfold(0, BEFORE, 1)[:-1].mT for x in (steps, actions))
        found.append((before, previous, actions[BEFORE:], steps[BEFORE:]))
    return Recorded(*(torch.cat(x) for x in zip(*found, strict=True)))


def long_enough(spans: Sequence[Span]) -> list[Span]:
    """Those that have a step with `BEFORE` before it."""
    return [span for span in spans if span.frames >= BEFORE + 2]


def fit(motion: Motion, recorded: Recorded, steps: int = STEPS, deadline: Deadline = NEVER) -> float:
    """Train the free step and the turns, in place, on what most steps agree in: a step that is far off was blocked, and
    how far does not count (the loss of Geman and McClure, 1987, ever sharper).

    Returns the median error of the steps, in units of motion.
    """
    assert motion.free is not None
    parts = [p for part in (motion.free, motion.turn) for p in part.requires_grad_(True).parameters()]
    generator = torch.Generator().manual_seed(0)
    pasts = motion.past(recorded.before, recorded.previous_actions)

    def loss(i: int) -> Tensor:
        rows = torch.randint(len(pasts), (BATCH,), generator=generator)
        off = (motion.unhindered(recorded.actions[rows], pasts[rows]) - recorded.steps[rows]) / motion.unit
        square, width = off[:, :2].square().sum(1), max(1 - i / (SHARP * steps), CLOSEST)
        far = (square + 1e-12).sqrt() if i < ALL * steps else square / (square + width**2)
        return far.mean() + off[:, 2].abs().mean()

    with torch.enable_grad():
        optimizer = torch.optim.AdamW(parts, RATE, weight_decay=0.0)
        steps = affordable("motion", steps, loss, deadline)
        descend("motion", optimizer, steps, loss, lambda i: RATE * (1 - i / steps))
    for p in parts:
        p.requires_grad_(False)
    with torch.no_grad():
        off = ((motion.unhindered(recorded.actions, pasts) - recorded.steps) / motion.unit)[:, :2].norm(dim=1)
    return float(off.median())


def read_off(off: Tensor) -> Tensor:
    """The loss of steps that are off by so much (..., 2), in units of motion. It is bounded, so that networks learn the
    likeliest step and not the mean of a blocked and a free one."""
    square = off.square().sum(-1)
    return (LIKELIEST * square / (square + FAR**2) + MEDIAN * (square + EXACT**2).sqrt()).mean()


def usual_loss(motion: Motion, actions_BTA: Tensor, past_BTP: Tensor, steps_BT3: Tensor) -> Tensor:
    """L1 between steps and their action's usual step, in units of motion: its minimum is the median step."""
    usual = motion.unhindered(actions_BTA.flatten(0, 1), past_BTP.flatten(0, 1)).view_as(steps_BT3)
    return ((usual - steps_BT3) / motion.unit)[..., :2].abs().mean()
