"""Motion of a player with inertia, learnt on all recorded steps at once.

    python -m train motion --latents DIR --geometry CKPT --out FILE

The free step is learnt from recorded poses alone (`steps.py`); `train geometry` begins with it too. What the pictures
say about obstacles is learnt there in windows, together with depth. This command continues from the features of all
pairs of frames, computed once: the heads that read them are small, and train on thousands of steps at a time.

Legend: N steps, A action vector, P past of a step, E features of a pair of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.deadline import NEVER, Deadline, left_out
from game_wm.memory.first_person.geometry import BEFORE, Geometry, Motion
from game_wm.training import affordable, descend
from train.data.frames import mixed
from train.data.latents import LatentStore
from train.data.spans import Span
from train.first_person.steps import READ_ERROR, Recorded, fit, long_enough, read_off, recorded_steps
from train.report.console import say

HEADS_STEPS, HEADS_BATCH, HEADS_RATE = 6000, 2048, 2e-3
PART = 64
READING = 0.3  # of the time that there is, for the pictures, and of what is then left for the free step


@torch.no_grad()
def pairs(motion: Motion, store: LatentStore, spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Features of the pair of frames before each recorded step and of the pair that it lies between, 16 bits (N, E)."""
    before, between = [], []
    for span in long_enough(spans):
        (latents,) = store.tensors(span, "latents")
        parts = zip(latents[:-1].split(PART), latents[1:].split(PART), strict=True)
        found = torch.cat([motion.pair(*part) for part in parts]).half()
        before.append(found[BEFORE - 1 : -1])
        between.append(found[BEFORE:])
    return torch.cat(before), torch.cat(between)


def fit_heads(
    motion: Motion, recorded: Recorded, pairs: tuple[Tensor, Tensor], steps: int = HEADS_STEPS,
    deadline: Deadline = NEVER,
) -> None:  # fmt: skip
    """Train the heads that read pictures, in place: the predicted step on the pair of frames before it, the observed
    one on its own pair. In half of the batches the past has the errors of play."""
    generator = torch.Generator().manual_seed(0)
    for part, head, seen in zip((0.5, 1.0), (motion.forecast, motion.observed), pairs, strict=True):

        def loss(i: int, head: nn.Module = head, seen: Tensor = seen) -> Tensor:
            rows = torch.randint(len(seen), (HEADS_BATCH,), generator=generator)
            before, led, actions, truth = (x[rows] for x in recorded)
            if i % 2:
                noise = torch.randn(before.shape, generator=generator)
                before = before + torch.tensor(READ_ERROR) * motion.unit * noise
            past = motion.past(before, led)
            found = head(torch.cat((seen[rows].float(), actions, past), 1))
            return read_off(((motion.unhindered(actions, past) - truth) / motion.unit)[:, :2] + found)

        optimizer = torch.optim.AdamW(head.requires_grad_(True).parameters(), HEADS_RATE, weight_decay=0.01)
        count = affordable("motion", steps, loss, deadline.part(part))
        descend("motion", optimizer, count, loss, lambda i, n=count: HEADS_RATE * min(1.0, 2 * (1 - i / n)))  # type: ignore[misc]


def learn_motion(
    geometry: Geometry, store: LatentStore, held_out: float, steps: int, deadline: Deadline = NEVER
) -> dict[str, Tensor]:
    """Motion learnt on all recorded steps: its weights. `UserError` without poses or inertia."""
    if not (geometry.motion.inertia and store.index["pose"]):
        raise UserError(
            "motion is learnt so where poses are recorded, in a geometry trained with inertia and two_step_inertia"
        )
    motion, spans = geometry.motion, long_enough(store.split(held_out, False))
    kept = deadline.part(READING).fits(len(spans), lambda: pairs(motion, store, spans[:1]))
    if kept < len(spans):
        say(left_out("motion", kept, len(spans), "episodes"))
        spans = [spans[i] for i in mixed(len(spans), kept)]
    recorded = recorded_steps(store, spans)
    off = fit(motion, recorded, deadline=deadline.part(READING))
    say(f"{len(recorded.steps)} steps; where nothing is in the way half of them are known to {off / 10:.5f} places")
    fit_heads(motion, recorded, pairs(motion, store, spans), steps, deadline)
    return motion.state_dict()
