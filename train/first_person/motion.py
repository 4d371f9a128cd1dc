"""Motion of a player with inertia, learnt on all recorded steps at once.

    python -m train motion --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt \\
        --out runs/motion/geometry/last.ckpt

What actions do where nothing is in the way is learnt from recorded poses alone, before any picture is looked at: most
steps follow exactly from the two before and their actions. `train geometry` begins with that. What pictures say of what
is in the way is learnt there in windows, beside depth; this command goes on with it from the features of all pairs of
frames, which are computed once: the networks that read them are small, and see thousands of steps at a time.

Legend: N steps, A action vector, P past of a step, E features of a pair of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.finite import descend
from game_wm.memory.first_person.geometry import BEFORE, Motion
from game_wm.memory.first_person.pose import relative
from train import commands
from train.checkpoints import load_geometry, read_checkpoint, save_part
from train.data.windows import LatentStore, Span
from train.stages.machine import use_all_cores
from train.stages.report import say

STEPS, BATCH, RATE = 4000, 4096, 1e-2
ALL, SHARP, NEAR = 0.25, 0.8, 0.02  # of the steps: until when all count, and when only what is as near (of a unit) does
ASTRAY = (0.15, 0.15, 0.0)  # of a unit of motion: how far steps are off that were read off pictures
EXACT, FAR, SHARE = (
    0.05,
    1.0,
    (3.0, 0.2),
)  # of a unit: what is as good as right, what is simply wrong; and their weights
HEADS = (6000, 2048, 2e-3)  # steps, batch and learning rate of what reads pictures
PART = 64


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
    optimizer, generator = torch.optim.AdamW(parts, RATE, weight_decay=0.0), torch.Generator().manual_seed(0)
    pasts = motion.past(recorded.before, recorded.led)
    with torch.enable_grad():
        for i in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * (1 - i / steps)
            rows = torch.randint(len(pasts), (BATCH,), generator=generator)
            off = (motion.unhindered(recorded.actions[rows], pasts[rows]) - recorded.steps[rows]) / motion.unit
            square, width = off[:, :2].square().sum(1), max(1 - i / (SHARP * steps), NEAR)
            far = (square + 1e-12).sqrt() if i < ALL * steps else square / (square + width**2)
            loss = far.mean() + off[:, 2].abs().mean()
            descend(optimizer, loss, f"motion: step {i + 1}")
    for p in parts:
        p.requires_grad_(False)
    with torch.no_grad():
        off = ((motion.unhindered(recorded.actions, pasts) - recorded.steps) / motion.unit)[:, :2].norm(dim=1)
    return float(off.median())


def read_off(off: Tensor) -> Tensor:
    """How far what is read off pictures is off (..., 2), in units of motion: what is nearly right counts, what is quite
    wrong counts no more than what is wrong, so that it is the likeliest and not the mean of what may be in the way."""
    square = off.square().sum(-1)
    return (SHARE[0] * square / (square + FAR**2) + SHARE[1] * (square + EXACT**2).sqrt()).mean()


@torch.no_grad()
def pairs(motion: Motion, store: LatentStore, spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Features of the pair of frames before each recorded step and of the pair that it lies between, 16 bits (N, E)."""
    before, between = [], []
    for span in long_enough(spans):
        latents = torch.from_numpy(np.array(store.read("latents", span))).float()
        parts = zip(latents[:-1].split(PART), latents[1:].split(PART), strict=True)
        found = torch.cat([motion.pair(*part) for part in parts]).half()
        before.append(found[BEFORE - 1 : -1])
        between.append(found[BEFORE:])
    return torch.cat(before), torch.cat(between)


def fit_heads(motion: Motion, recorded: Recorded, pairs: tuple[Tensor, Tensor], steps: int = HEADS[0]) -> None:
    """Train what reads pictures, in place: `to_come` on the pair before a step, `led_here` on its own. In half of the
    batches the past is as wrong as play has it."""
    generator = torch.Generator().manual_seed(0)
    for head, seen in zip((motion.next, motion.was), pairs, strict=True):
        optimizer = torch.optim.AdamW(head.requires_grad_(True).parameters(), HEADS[2], weight_decay=0.01)
        for i in range(steps):
            optimizer.param_groups[0]["lr"] = HEADS[2] * min(1.0, 2 * (1 - i / steps))
            rows = torch.randint(len(seen), (HEADS[1],), generator=generator)
            before, led, actions, truth = (x[rows] for x in recorded)
            if i % 2:
                noise = torch.randn(before.shape, generator=generator)
                before = before + torch.tensor(ASTRAY) * motion.unit * noise
            past = motion.past(before, led)
            told = head(torch.cat((seen[rows].float(), actions, past), 1))
            off = ((motion.unhindered(actions, past) - truth) / motion.unit)[:, :2] + told
            loss = read_off(off)
            descend(optimizer, loss, f"motion: step {i + 1}")


def main(arguments: list[str]) -> int:
    """`python -m train motion`."""
    options = commands.motion().parse_args(arguments)
    use_all_cores()
    geometry, store = load_geometry(options.geometry), LatentStore(options.latents)
    if not (geometry.motion.inertia and store.index["pose"]):
        raise UserError(
            "motion is learnt so where poses are recorded, in a geometry that was trained with inertia and exact: true"
        )
    state, motion = read_checkpoint(options.geometry), geometry.motion
    spans = store.split(options.held_out, False)
    recorded = recorded_steps(store, spans)
    off = fit(motion, recorded)
    say(f"{len(recorded.steps)} steps; where nothing is in the way half of them are known to {off / 10:.5f} places")
    fit_heads(motion, recorded, pairs(motion, store, spans))
    save_part(state, "geometry.motion", motion.state_dict(), options.out)
    say(f"wrote {options.out}")
    return 0
