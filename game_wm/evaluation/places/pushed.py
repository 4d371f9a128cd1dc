"""Does what was pushed stay where it was pushed in the dream?

A way of 350 frames there and back begins with the 12 to 48 real steps that push a thing, at least 300 frames before the
end, and is led on around such things (dream_walk.py). Where the dream does not show it pushed after them, it does not
count. It stayed when at the end a detector finds a quarter of the place where the real game has it then, and a larger
share of that than of where it was at first. A thing that the tokenizer loses is not judged.

Legend: H height, W width in pixels, A length of an encoded action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from game_wm.evaluation.places.detector import LEAST, Detector, Things, around
from game_wm.evaluation.places.dream_walk import Guide, go
from game_wm.evaluation.places.gems import EVERY, HALF, SOON, STEPS, TRIES, close_ahead, prompt_at, there_and_back
from game_wm.evaluation.places.trips import Walk
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import Prompt

MOVED = 0.01  # share of a frame's pixels that must come to show a thing, and as many that must cease to


@dataclass
class Push:
    """A thing that is pushed, and where the way begins that asks for it: pixels bool (H, W) of such things."""

    start: Prompt
    given: list[np.ndarray]  # real steps (A,) that follow the prompt
    first: np.ndarray  # in the last frame of the prompt
    last: np.ndarray  # in the same view, when it has been pushed
    unmoved: np.ndarray  # after the given steps, had it not moved
    moved: np.ndarray  # after the given steps


def find_push(game: RealGame, things: Things, walk: Walk, masks: np.ndarray) -> Push | None:
    """A push on a walk that is seen from above; `masks` (T, H, W) are the walk's things to be pushed."""
    hindered = np.append(0, np.cumsum(~walk.clean))
    ends = [int(t) + 1 for t in np.flatnonzero(walk.pushed) if not walk.pushed[t + 1 : t + SOON // 4].any()]
    tried = 0
    for s in range(walk.prompt - 1, len(walk.actions), EVERY):
        after = next((end for end in ends if s + STEPS <= end < s + SOON), None)
        if after is None or hindered[after] > hindered[s] or masks[s].mean() < LEAST or tried == TRIES:
            continue
        tried += 1
        first, last = masks[s], things.after(walk.seed, there_and_back(game, walk, s, after))
        if min((first & ~last).mean(), (last & ~first).mean()) >= MOVED:
            across, down = (int(n) for n in np.subtract(walk.places[after], walk.places[s])[:2])
            unmoved = np.roll(first, (-down, -across), (0, 1))
            return Push(prompt_at(walk, s), walk.actions[s:after], first, last, unmoved, masks[after])
    return None


def stays(model: Any, guide: Guide, push: Push, detector: Detector, steps: int | None) -> bool | None:
    """Whether it is where it was pushed after a way that was led from there; None where the way does not count."""

    def shuns(frame_HWC: Tensor, name: str) -> bool:
        return close_ahead(guide, detector(frame_HWC[None])[0].numpy(), name)

    way, before = go(model, guide, push.start, HALF, steps, given=push.given, shuns=shuns)
    if way is None or (detector(before[None])[0].numpy() & around(push.first)).mean() < LEAST:
        return None
    pushed, seen = (detector(way.frames[i][None])[0].numpy() for i in (len(push.given) - 1, -1))
    return is_at(seen, push.last, push.first) if is_at(pushed, push.moved, push.unmoved) else None


def is_at(detected_HW: np.ndarray, here_HW: np.ndarray, not_there_HW: np.ndarray) -> bool:
    """Whether things are detected at the one place rather than at the other."""
    here, there = here_HW & ~not_there_HW, not_there_HW & ~here_HW
    found = detected_HW[here].mean() if here.any() else 0.0
    return bool(found >= 0.25 and found > (detected_HW[there].mean() if there.any() else 0.0))
