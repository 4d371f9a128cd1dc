"""The screen's own parts, found in a recording: what does not move while the world does.

Pictures of one episode are compared that lie some pixels of the world apart: a pixel is the screen's own where it is
better explained by the same place of the screen than by the same place of the world. A player who is always in the
middle of the screen is found so, too.

Legend: N pairs, T frames of an episode, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from game_wm.memory.scroll.alignment import after_turn
from game_wm.memory.scroll.plane import moved, step_between
from game_wm.memory.scroll.registration import CAPPED, shifted

LAGS = (2, 4, 8, 16, 32)  # frames between the pictures of a pair
PAIRS = 4000  # that are compared, at most
NEAREST, FARTHEST = 6, 0.5  # pixels, and share of the screen's side: how far apart the world lies in a pair
LEAST_PAIRS = 32  # that tell of a pixel
RATIO, LESS = 0.8, 2.0  # the error of the screen's place, of that of the world's, and grey levels between them


def fixed_pixels(episodes_THWC: Sequence[Tensor], corners_T2: Sequence[Tensor], aspect: float = 0) -> Tensor:
    """Bool (H, W). Episodes are uint8; `corners` int64: where the screen was in each frame; of one that turns in its
    plane and has an `aspect`, its places (T, 3)."""
    height, width = episodes_THWC[0].shape[1:3]
    pairs = _pairs(corners_T2, (height, width))
    of_screen, of_world, count = torch.zeros(3, height, width)
    for episode, first, second in pairs.tolist():
        then, now = episodes_THWC[episode][first], episodes_THWC[episode][second]
        here, there = (corners_T2[episode][frame : frame + 1] for frame in (first, second))
        if aspect:
            seen, inside = after_turn(then[None], step_between(here, there), aspect)
        else:
            seen, inside = shifted(then[None], there - here)
        of_screen += _off(then, now) * inside[0]
        of_world += _off(seen[0], now) * inside[0]
        count += inside[0]
    of_screen, of_world = of_screen / count.clamp_min(1), of_world / count.clamp_min(1)
    return (count >= LEAST_PAIRS) & (of_screen < RATIO * of_world) & (of_world - of_screen > LESS)


def corners(steps_T2: Tensor) -> Tensor:
    """Where the screen is in each frame, int64 (T + 1, 2); the places (T + 1, 3) of one that turns."""
    if steps_T2.shape[1] == 3:
        return torch.cat(list(accumulate(steps_T2.split(1), moved, initial=torch.zeros_like(steps_T2[:1]))))
    steps_T2 = steps_T2.long()
    return torch.cat((torch.zeros_like(steps_T2[:1]), steps_T2.cumsum(0)))


def _off(then_HWC: Tensor, now_HWC: Tensor) -> Tensor:
    """How far the pixels of two pictures are apart (H, W), in grey levels, at most `CAPPED`."""
    return (then_HWC.short() - now_HWC.short()).abs().amax(2).clamp_max(CAPPED)


def _pairs(corners_T2: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Int64 (N, 3): episode and two of its frames, `PAIRS` at most of all that the world lies well apart in."""
    found = [torch.zeros(0, 3, dtype=torch.long)]
    for episode, corners in enumerate(corners_T2):
        for lag in LAGS:
            away = (corners[lag:] - corners[:-lag])[:, :2].abs()
            fits = (away.amax(1) >= NEAREST) & (away <= torch.tensor(size) * FARTHEST).all(1)
            first = fits.nonzero()
            found.append(torch.cat((torch.full_like(first, episode), first, first + lag), 1))
    pairs = torch.cat(found)
    return pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:PAIRS]]
