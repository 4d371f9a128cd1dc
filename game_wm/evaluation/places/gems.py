"""Does what was taken stay taken in the dream, and is what was left alone still there?

A way of 350 frames there and back is led in the dream (dream_walk.py) from where a gem was seen best. *Taken*: it
begins with the 12 to 48 real steps that take the gem, at least 300 frames before the end. Where the dream still shows
it after them, it was not taken there and does not count. *Untouched*: it begins where no gem is close, is led around
them, and does not count where one was always in view. A gem is there at the end when, within a tenth of the picture's
height of its place, a quarter as many pixels show one as in the tokenised frame before the way. A gem that the
tokenizer loses is not judged. detector.py finds gems, or whatever it is that the game lets one take.

Legend: P frames of a prompt, H height, W width in pixels, A length of an encoded action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from game_wm.evaluation.places.detector import LEAST, Detector, Things, around
from game_wm.evaluation.places.dream_walk import Guide, Way, ahead, go, leaves_view
from game_wm.evaluation.places.trips import Walk, reversed_actions
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import Prompt

CLOSE = 0.02  # share of a frame that a gem has from about a cell away
HALF, STEPS, SOON = 175, 12, 48  # frames there, and the least and the most of them before a gem is taken
EVERY, TRIES = 4, 8  # frames from one start to the next, and how many of them are tried on one walk


@dataclass
class Gem:
    """A gem, and where the way begins that asks for it."""

    start: Prompt
    given: list[np.ndarray]  # real steps (A,) that follow the prompt
    pixels: np.ndarray  # bool (H, W) of the gem in the last frame of the prompt
    left: np.ndarray  # bool (H, W) of the gems that are in view after the given steps


def prompt_at(walk: Walk, s: int) -> Prompt:
    """The prompt that ends with frame number s of a walk."""
    first = s - walk.prompt + 1
    return Prompt(walk.seed, np.stack(walk.frames[first : s + 1]), np.stack(walk.actions[first:s]))


def there_and_back(game: RealGame, walk: Walk, s: int, after: int) -> list[np.ndarray]:
    """The actions of a walk to frame number `after`, and then the same way back to frame number s."""
    return [*walk.actions[:after], *reversed_actions(game.schema, walk.actions[s:after])]


def still_there(detected_HW: np.ndarray, gem_HW: np.ndarray) -> bool:
    """Whether a frame with these gem pixels shows the gem that had those."""
    return bool((detected_HW & around(gem_HW)).sum() >= gem_HW.sum() / 4)


def find_gem(
    game: RealGame, things: Things, guide: Guide, walk: Walk, masks: np.ndarray, taken: bool
) -> Gem | None:  # fmt: skip
    """A gem of the kind on a walk, from where it is seen best; `masks` (T, H, W) are the walk's gems."""
    least = LEAST * masks[0].size
    sizes, events = masks.sum((1, 2)), np.flatnonzero(walk.rewards > 0)
    hindered = np.append(0, np.cumsum(~walk.clean))
    found = []
    for s in range(walk.prompt - 1, len(walk.actions), EVERY):
        after = next((int(e) + 1 for e in events if s <= e < s + SOON), None)  # the frame after the gem was taken
        if sizes[s] < least or taken != (after is not None) or (not taken and close_ahead(guide, masks[s])):
            continue
        if after and (after < s + STEPS or hindered[after] > hindered[s]):
            continue
        found.append((sizes[s], s, after or s))
    for _, s, after in sorted(found, reverse=True)[:TRIES]:
        gem = masks[s]
        if taken:
            left = things.after(walk.seed, there_and_back(game, walk, s, after))
            gem = gem & ~left
            if (around(gem) & left).any():
                continue
        if gem.sum() >= least:
            return Gem(prompt_at(walk, s), walk.actions[s:after], gem, masks[after])
    return None


def is_there(model: Any, guide: Guide, gem: Gem, detector: Detector, taken: bool, steps: int | None) -> bool | None:
    """Whether the gem is there after a way that was led from it; None where the way does not count."""

    def shuns(frame_HWC: Tensor, name: str) -> bool:
        return not taken and close_ahead(guide, detector(frame_HWC[None])[0].numpy(), name)

    way, before = go(model, guide, gem.start, HALF, steps, given=gem.given, shuns=shuns)
    pixels = detector(before[None])[0].numpy() & around(gem.pixels)
    if way is None or pixels.mean() < LEAST:
        return None
    seen = detector(way.frames).numpy()
    judged = was_taken(seen[len(gem.given) - 1], gem) if taken else out_of_view(guide, way, gem, seen)
    return still_there(seen[-1], pixels) if judged else None


def close_ahead(guide: Guide, detected_HW: np.ndarray, name: str | None = None) -> bool:
    """Whether a gem is so near that the next steps by a button (None: by any) may take it."""
    if guide.strides:
        return any(ahead(detected_HW, stride) for button, stride in guide.strides.items() if name in (None, button))
    return name in (None, "forward") and bool(detected_HW.mean() > CLOSE)


def was_taken(detected_HW: np.ndarray, gem: Gem) -> bool:
    """Whether a frame after the given steps shows no gem but those that the real game has there."""
    return bool((detected_HW & ~around(gem.left)).mean() < LEAST / 3)


def out_of_view(guide: Guide, way: Way, gem: Gem, detected_NHW: np.ndarray) -> bool:
    """Whether the gem was out of view: it scrolled out of it, or one of the frames shows none."""
    if guide.strides:
        return leaves_view(guide, way, gem.pixels)
    return bool((detected_NHW.mean((1, 2)) < LEAST / 3).any())
