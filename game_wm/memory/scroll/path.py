"""The way of the screen through the frames of a prompt, read off the pictures.

Legend: B players, P frames, H, W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from game_wm.memory.scroll.registration import CUT, FEWER, alike, observe_steps

PART = 64  # pairs of pictures that are compared at once
EDGE = 1 / 6  # of the screen's side, in which a player is before it flips, and after
FAR = 2**13  # pixels from a place to another one that is not known to be connected with it


class Path(NamedTuple):
    """The `steps` (B, P - 1, 2) between successive pictures, and which of them are `doubtful`, bool (B, P - 1): the
    second picture may be of another place."""

    steps: Tensor
    doubtful: Tensor


def observe_path(pictures_BPHWC: Tensor, fixed_HW: Tensor) -> Path:
    """The path through pictures uint8: whole pixels, a whole screen where it flips, `FAR` to a place that is not known
    to be connected."""
    shape = len(pictures_BPHWC), pictures_BPHWC.shape[1] - 1
    if not shape[1]:
        nothing = torch.zeros(*shape, 2, device=fixed_HW.device)
        return Path(nothing, nothing[..., 0] > 0)
    pairs = zip(*(x.flatten(0, 1).split(PART) for x in (pictures_BPHWC[:, :-1], pictures_BPHWC[:, 1:])), strict=True)
    found = [observe_steps(before, now, fixed_HW) for before, now in pairs]
    steps = torch.cat([each.steps for each in found]).view(*shape, 2).float()
    agreement = torch.cat([each.agreement for each in found]).view(shape)
    steps[agreement < CUT] = FAR
    doubtful = (agreement < CUT) | (agreement < agreement.median(1, keepdim=True).values - FEWER)
    for player, t in doubtful.nonzero().tolist():
        around = pictures_BPHWC[player, max(0, t - 1) : t + 3]
        if len(around) == 4 and (step := crossing(around, fixed_HW)).any():
            steps[player, t] = step.float()
    return Path(steps, doubtful)


def crossing(pictures_4HWC: Tensor, fixed_HW: Tensor) -> Tensor:
    """The step (2,) of a screen that flips, a whole one, between the second and the third of successive pictures: who
    leaves it at one edge comes in at the opposite one. Zero where nobody does."""
    before, after = (
        ~alike(pictures_4HWC[i], pictures_4HWC[i + 1]) & ~fixed_HW for i in (0, 2)
    )  # where something moves
    height, width = fixed_HW.shape
    down, right = round(EDGE * height), round(EDGE * width)
    first, last = (slice(down), slice(None)), (slice(height - down, None), slice(None))
    left, far = (slice(None), slice(right)), (slice(None), slice(width - right, None))
    ways = {(height, 0): (last, first), (-height, 0): (first, last), (0, width): (far, left), (0, -width): (left, far)}
    moved = torch.stack([torch.minimum(before[out].sum(), after[come].sum()) for out, come in ways.values()])
    most = moved.argmax()
    return torch.tensor(list(ways), device=fixed_HW.device)[most] * (2 * moved[most] > moved.sum())
