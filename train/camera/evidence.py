"""Which camera a recording was taken with, and what says so.

    python -m train camera --data runs/mine/data

Of the change between two neighbouring pictures, how much does a camera explain? Repeating the picture explains 0 %.
Pictures count between which some camera explains something, and those which change as much: the others tell of sprites.
What belongs to a camera for good (the screen's own parts, horizon, focal length) is found in other episodes than those
that are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.scroll.registration import observe_steps
from game_wm.pictures import median_picture, moving
from train.camera.fields import BLOCK, FOCALS, HORIZONS, Field
from train.camera.pairs import Pairs, pairs_of, stretches
from train.commands import tools
from train.data.recordings import Recording, open_recordings
from train.report.console import say
from train.report.machine import use_all_cores
from train.scroll.fixed import fixed_pixels

STATIC, SCROLLS, ROTATES, FIRST_PERSON, NONE = "static", "scrolls", "rotates", "first person", "none of these"
LEARNT, JUDGED = 48, 96  # pairs
EXPLAINED = 0.1  # of the change: a camera that explains less has not moved
MOVING = 0.03  # of the pairs: where it has moved in fewer, it stands
LEAST = {SCROLLS: 0.4, ROTATES: 0.18, FIRST_PERSON: 0.14}  # of the change, for a camera to be named
CLEAR = 1.1  # times as much as the simpler camera, for another one to be named
STANDS = 0.1  # of the pixels, that differ from their episode's median picture: in a static game no more do
FILLED = 0.06  # of them: in a first-person game more do, since all of the picture changes


class Evidence(NamedTuple):
    """Of held-out episodes: the share of pairs between which some camera moves (`moving`), how much of the change in
    these each explains (`shares`, by its name), and the share of pixels `differing` from their episode's median."""

    moving: float
    shares: dict[str, float]
    differing: float

    @property
    def kind(self) -> str:
        """The simplest camera that explains enough, unless another one explains clearly more."""
        if self.moving < MOVING:
            return STATIC if self.differing < STANDS else NONE
        best = max(self.shares, key=lambda name: self.shares[name])
        found = SCROLLS if self.shares[best] < CLEAR * self.shares[SCROLLS] else best
        enough = self.shares[found] >= LEAST[found] and (found != FIRST_PERSON or self.differing >= FILLED)
        return found if enough else NONE

    def __str__(self) -> str:
        if self.moving < MOVING:
            return f"no camera that moves explains a change; {self.differing:.0%} of the pixels ever differ"
        scrolls, rotates, first_person = self.shares.values()
        return (f"between {self.moving:.0%} of the pictures a camera moves: one that scrolls explains {scrolls:.0%} of "
                f"the change, one that turns as well {rotates:.0%}, a first-person one {first_person:.0%}")  # fmt: skip


def look(folders: Sequence[str | Path]) -> Evidence:
    """What some hundred frames of recordings say. `UserError` where they hold too few."""
    return evidence(*stretches(open_recordings(folders)))


@torch.no_grad()
def evidence(learnt_THWC: Sequence[Tensor], judged_THWC: Sequence[Tensor]) -> Evidence:
    """What stretches of frames, uint8, say of the second of them."""
    field = Field(pairs_of(learnt_THWC, LEARNT), nothing := torch.zeros(learnt_THWC[0].shape[1:3], dtype=torch.bool))
    lenses = list(product(HORIZONS, FOCALS))
    lens = lenses[int(torch.stack([field.first_person(*each).sum() for each in lenses]).argmin())]
    steps = [observe_steps(frames[:-1], frames[1:], nothing).steps for frames in learnt_THWC]
    fixed = fixed_pixels(learnt_THWC, [torch.cat((each[:1] * 0, each.cumsum(0))) for each in steps])
    pairs = pairs_of(judged_THWC, JUDGED)
    field = Field(pairs, fixed)
    moved = field.scrolling() < (1 - EXPLAINED) * field.repeated
    if share_of(field.scrolling()[moved], field.repeated[moved]) < LEAST[SCROLLS]:
        field = Field(pairs, nothing)  # steps of a screen that does not scroll tell nothing of what is fixed
    repeated, costs = field.repeated, torch.stack((field.scrolling(), field.turning()[0], field.first_person(*lens)))
    moved = (costs < (1 - EXPLAINED) * repeated).any(0)
    named = dict.fromkeys(LEAST, 0.0)
    if moved.any():
        counted = moved | ((changed := large_change(pairs)) >= changed[moved].median())
        named = {name: share_of(cost[counted], repeated[counted]) for name, cost in zip(LEAST, costs)}
    differing = [moving(each, torch.from_numpy(median_picture(each.numpy()))).float().mean() for each in judged_THWC]
    return Evidence(float(moved.float().mean()), named, float(torch.stack(differing).mean()))


def large_change(pairs: Pairs) -> Tensor:
    """By how many grey levels (N,) the means of blocks change: noise and sprites hardly matter."""
    change = (pairs.now.float() - pairs.before.float()).movedim(3, 1)
    return F.avg_pool2d(change, BLOCK).abs().mean((1, 2, 3))


def refuse_others(recordings: Sequence[Recording]) -> None:
    """`UserError` where recordings show that their camera is no first-person one."""
    found = evidence(*stretches(list(recordings)))
    if found.kind in (STATIC, SCROLLS, ROTATES):
        folders = ", ".join(str(recording.dataset.folder) for recording in recordings)
        raise UserError(f"{folders}: the camera is no first-person one ({found.kind}: {found}), so a first-person "
                        "memory has nothing to learn; train it all the same with --model.any_camera true")  # fmt: skip


def share_of(cost_N: Tensor, repeated_N: Tensor) -> float:
    """How much of the change a camera explains."""
    return float(1 - cost_N.sum() / repeated_N.sum().clamp_min(1e-6))


def main(arguments: list[str]) -> int:
    use_all_cores()
    found = look(tools.camera().parse_args(arguments).data)
    say(f"{found.kind}: {found}")
    return 0
