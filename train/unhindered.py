"""What actions do where nothing is in the way, learnt from recorded poses alone, before any picture is looked at.

fit(motion, *recorded_steps(store, spans))

Of a player with inertia most steps follow exactly from the two before and their actions, so they are learnt exactly, in
seconds; pictures then tell the motion network what is in the way.

Legend: N steps, A action vector, P past of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from game_wm.memory.geometry import BEFORE, Motion
from game_wm.memory.pose import relative
from train.windows import LatentStore, Span

STEPS, BATCH, RATE = 4000, 4096, 1e-2
ALL, SHARP, NEAR = 0.25, 0.8, 0.02  # of the steps: until when all count, and when only what is as near (of a unit) does


def recorded_steps(motion: Motion, store: LatentStore, spans: Sequence[Span]) -> tuple[Tensor, Tensor, Tensor]:
    """Of all steps of these episodes that follow on `BEFORE` others their pasts (N, P), the actions that led to them
    (N, A) and the steps (N, 3)."""
    found: list[tuple[Tensor, ...]] = []
    for span in spans:
        if span.frames < BEFORE + 2:
            continue
        pose, actions = (torch.from_numpy(np.array(store.read(name, span))).float() for name in ("pose", "actions"))
        steps, actions = relative(pose[:-1], pose[1:]), actions[:-1]
        pasts = motion.pasts(steps[None], actions[None])[0, BEFORE:-1]
        found.append((pasts, actions[BEFORE:], steps[BEFORE:]))
    pasts, actions, steps = (torch.cat(x) for x in zip(*found, strict=True))
    return pasts, actions, steps


def fit(motion: Motion, pasts_NP: Tensor, actions_NA: Tensor, steps_N3: Tensor, steps: int = STEPS) -> float:
    """Train `unhindered` and turns, in place, on what most steps agree in: a step that is far off was stopped by
    something, and how far does not count (the loss of Geman and McClure, 1987, made sharper and sharper).

    Returns how many units of motion the median of the steps is off.
    """
    assert motion.free is not None
    parts = [p for part in (motion.free, motion.turn) for p in part.requires_grad_(True).parameters()]
    optimizer, generator = torch.optim.AdamW(parts, RATE, weight_decay=0.0), torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for i in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * (1 - i / steps)
            rows = torch.randint(len(steps_N3), (BATCH,), generator=generator)
            off = (motion.unhindered(actions_NA[rows], pasts_NP[rows]) - steps_N3[rows]) / motion.unit
            square, width = off[:, :2].square().sum(1), max(1 - i / (SHARP * steps), NEAR)
            far = (square + 1e-12).sqrt() if i < ALL * steps else square / (square + width**2)
            loss = far.mean() + off[:, 2].abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for p in parts:
        p.requires_grad_(False)
    with torch.no_grad():
        off = ((motion.unhindered(actions_NA, pasts_NP) - steps_N3) / motion.unit)[:, :2].norm(dim=1)
    return float(off.median())
