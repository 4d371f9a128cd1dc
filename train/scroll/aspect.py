"""Whether the picture of a recording turns in its plane, and how much wider than high its pixels are then: a game's
picture may have been squeezed, and only the right shape turns as a whole.

Legend: H, W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.scroll.alignment import observe_turns
from train.camera.evidence import ROTATES, evidence
from train.camera.pairs import Pairs, pairs_of, stretches
from train.data.recordings import Recording
from train.scroll.fixed import corners, fixed_pixels

ASPECTS = (0.67, 0.75, 0.8, 0.83, 1.0, 1.2, 1.25, 1.33, 1.5)
PAIRS = 32  # that are compared


def aspect_of(recordings: list[Recording]) -> float:
    """Of a pixel, width by height; 0 where the picture does not turn."""
    try:
        learnt, judged = stretches(recordings)
    except UserError:  # too few frames to tell
        return 0.0
    if evidence(learnt, judged).kind != ROTATES:
        return 0.0
    pairs = pairs_of([*learnt, *judged], PAIRS)
    fixed = torch.zeros(learnt[0].shape[1:3], dtype=torch.bool)
    for _ in range(2):  # with what is fixed, a turn explains little
        found = best(pairs, fixed)
        steps = [observe_turns(frames[:-1], frames[1:], fixed, found).places for frames in learnt]
        fixed = fixed_pixels(learnt, [corners(each) for each in steps], found)
    return best(pairs, fixed)


def best(pairs: Pairs, fixed_HW: Tensor) -> float:
    """The aspect with which turns explain most."""
    off = {each: float(observe_turns(*pairs, fixed_HW, each).off.sum()) for each in ASPECTS}
    return min(off, key=lambda each: off[each])
