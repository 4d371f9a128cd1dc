"""Gems: does one that was taken stay taken in the dream, and is one that was left alone still there?

    detector = gem_detector(game, "maze", cache=Path("runs/evaluation"))
    detector(frames_BHWC)                       # bool (B, H, W): pixels that show a gem

The detector is a small convolutional network trained on real frames. The game itself tells where gems are: it is played
twice under the same seed and actions, the second time with the option `gems=0`; the pictures differ where a gem is. Its
accuracy is measured on other mazes: the mean of how often it finds a gem where at least `LEAST` of the pixels show one,
and none where none does.

A gem's way is 350 frames there and back, led in the dream (dream_walk.py) from where the gem was seen best. *Taken*: it
begins with the 12 to 48 real steps that take the gem, at least 300 frames before the end. Where the dream still shows
it after them, it was not taken there and does not count. *Untouched*: it begins where no gem is close, is led around
them, and does not count where one was always in view. A gem is there at the end when, within a tenth of the picture's
height of its place, a quarter as many pixels show one as in the tokenised frame before the way. A gem that the
tokenizer loses is not judged.

Legend: B frames, P of a prompt, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.guest.match import Leg
from data_collect.schema import ActionSchema
from game_wm.evaluation.control import Namer, fit, trained
from game_wm.evaluation.first_person.dream_walk import go
from game_wm.evaluation.first_person.trips import Walk, reversed_actions
from game_wm.evaluation.truth.game import RealGame, Tick, no_tick
from game_wm.evaluation.truth.plays import Prompt

VERSION = 1
FIRST_DETECTOR_SEED = 70_000
WALKS, WALK_FRAMES, STRIDE = 200, 96, 4  # many mazes: their colours are what gems must be told from
UPDATES, BATCH = 2000, 32
LEAST = 0.004  # share of a frame's pixels
CHANGE = 24  # grey levels by which a gem changes a pixel
CLOSE = 0.02  # share of a frame that a gem has from about a cell away
HALF, STEPS, SOON = 175, 12, 48  # frames there, and the least and the most of them before a gem is taken
EVERY, TRIES = 4, 8  # frames from one start to the next, and how many of them are tried on one walk


def has_gems(game: RealGame) -> bool:
    """Whether the game can be played without its gems."""
    return "gems" in game.options


def raw_actions(schema: ActionSchema, actions: Sequence[np.ndarray]) -> list[Leg]:
    """Encoded actions as a leg to be played."""
    rows = [schema.raw(schema.decode(action)) for action in actions]
    return [Leg(np.array(rows, schema.dtype).reshape(len(rows), schema.width))]


class Bare:
    """The same game without gems: `masks` tells where the gems of a play were."""

    def __init__(self, game: RealGame) -> None:
        self.env = game.make(gems=0)
        self.schema = game.schema

    def masks(self, seed: int, frames: list[np.ndarray], actions: list[np.ndarray]) -> np.ndarray:
        """Bool (T, H, W) for T frames from the episode's first one on; shorter where it ends."""
        played = self.env.play(raw_actions(self.schema, actions), seed)
        return np.stack([self.mask(frame, step[4]) for frame, step in zip(frames, played)])

    @staticmethod
    def mask(frame: np.ndarray, bare: np.ndarray) -> np.ndarray:
        return (abs(frame.astype(np.int16) - bare) > CHANGE).any(-1)


class Detector(nn.Module):
    """Frames uint8 (B, H, W, 3) -> where they show a gem, as logits (B, H, W); called in play: bool."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.SiLU())
        self.coarse = nn.Sequential(
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=2, dilation=2), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Conv2d(48, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 1))
        self.held_out = (torch.zeros(0), torch.zeros(0))  # frames and masks that it was not trained on

    def logits(self, frames_BHWC: Tensor) -> Tensor:
        fine = self.fine(frames_BHWC.permute(0, 3, 1, 2).float().div(127.5) - 1)
        coarse = F.interpolate(self.coarse(fine), fine.shape[-2:], mode="bilinear")
        return self.head(torch.cat((fine, coarse), 1))[:, 0]

    @torch.no_grad()
    def forward(self, frames_BHWC: Tensor) -> Tensor:
        """Bool (B, H, W)."""
        return torch.cat([self.logits(part) > 0 for part in frames_BHWC.split(64)])

    def right(self, frames_BHWC: Tensor, masks_BHW: Tensor) -> float:
        """Balanced accuracy of "a gem is in view" on frames whose gems are known; of one kind of frame if all are."""
        shown, found = (x.float().mean((1, 2)) for x in (masks_BHW, self(frames_BHWC)))
        sees = found >= LEAST / 3
        kinds = (sees[shown >= LEAST], ~sees[shown == 0])
        return float(torch.stack([kind.float().mean() for kind in kinds]).nanmean())


def gem_detector(
    game: RealGame, game_id: str, cache: Path | None = None, tick: Tick = no_tick, walks: int = WALKS,
    updates: int = UPDATES,
) -> Detector:  # fmt: skip
    """Train the detector on real play, or take it from `cache` where the same one was trained before.

    `tick` is told of each walk recorded and each update made.
    """
    bare = Bare(game)

    def record(seeds: range) -> Iterator[tuple[Tensor, Tensor]]:
        for seed in seeds:
            walk = Walk.record(game, seed, 0, 1, WALK_FRAMES)
            masks = bare.masks(seed, walk.frames, walk.actions)
            tick(1)
            yield torch.from_numpy(np.stack(walk.frames[::STRIDE])), torch.from_numpy(masks[::STRIDE])

    held = max(1, walks // 5)
    held_out = [torch.cat(part) for part in zip(*record(range(FIRST_DETECTOR_SEED, FIRST_DETECTOR_SEED + held)))]
    torch.manual_seed(0)
    detector = Detector()
    recipe = [VERSION, game_id, walks, WALK_FRAMES, STRIDE, updates, BATCH]

    def train() -> None:
        first = FIRST_DETECTOR_SEED + held
        frames, masks = (torch.cat(part) for part in zip(*record(range(first, first + walks))))
        shown = masks.flatten(1).any(1)
        kinds = [kind for kind in (torch.nonzero(shown)[:, 0], torch.nonzero(~shown)[:, 0]) if len(kind)]
        draw = torch.Generator().manual_seed(0)

        def error(_: int) -> Tensor:
            # as many frames with a gem as without
            picked = torch.cat([k[torch.randint(len(k), (BATCH // len(kinds),), generator=draw)] for k in kinds])
            return F.binary_cross_entropy_with_logits(detector.logits(frames[picked]), masks[picked].float())

        fit(detector, "gem detector", 4e-3, updates, error, tick)

    if not trained(detector, "gems", cache, recipe, held_out[0][:8], train):
        tick(walks + updates)
    detector.eval().requires_grad_(False)
    detector.held_out = (held_out[0], held_out[1])
    return detector


@dataclass
class Gem:
    """A gem, and where the way begins that asks for it."""

    start: Prompt
    given: list[np.ndarray]  # real steps (A,) that follow the prompt
    pixels: np.ndarray  # bool (H, W) of the gem in the last frame of the prompt
    left: np.ndarray  # bool (H, W) of the gems that are in view after the given steps


def around(mask_HW: np.ndarray) -> np.ndarray:
    """The mask and what lies within a tenth of the picture's height of it."""
    reach = max(1, mask_HW.shape[0] // 10)
    wide = F.max_pool2d(torch.from_numpy(mask_HW).float()[None], 2 * reach + 1, 1, reach)
    return wide[0].bool().numpy()


def still_there(detected_HW: np.ndarray, gem_HW: np.ndarray) -> bool:
    """Whether a frame with these gem pixels shows the gem that had those."""
    return bool((detected_HW & around(gem_HW)).sum() >= gem_HW.sum() / 4)


def find_gem(game: RealGame, bare: Bare, walk: Walk, masks: np.ndarray, taken: bool) -> Gem | None:
    """A gem of the kind on a walk, from where it is seen best; `masks` (T, H, W) are the walk's gems."""
    least = LEAST * masks[0].size
    sizes, events = masks.sum((1, 2)), np.flatnonzero(walk.rewards > 0)
    hindered = np.append(0, np.cumsum(~walk.clean))
    found = []
    for s in range(walk.prompt - 1, len(walk.actions), EVERY):
        after = next((int(e) + 1 for e in events if s <= e < s + SOON), None)  # the frame after the gem was taken
        if sizes[s] < least or taken != (after is not None) or (not taken and close_ahead(masks[s])):
            continue
        if after and (after < s + STEPS or hindered[after] > hindered[s]):
            continue
        found.append((sizes[s], s, after or s))
    for _, s, after in sorted(found, reverse=True)[:TRIES]:
        first, gem = s - walk.prompt + 1, masks[s]
        if taken:
            left = _without(game, bare, walk, s, after)
            gem = gem & ~left
            if (around(gem) & left).any():
                continue
        if gem.sum() >= least:
            start = Prompt(walk.seed, np.stack(walk.frames[first : s + 1]), np.stack(walk.actions[first:s]))
            return Gem(start, walk.actions[s:after], gem, masks[after])
    return None


def _without(game: RealGame, bare: Bare, walk: Walk, start: int, after: int) -> np.ndarray:
    """The gems (H, W) in view when the walk has gone from one frame to another and the same way back."""
    back = reversed_actions(game.schema, walk.actions[start:after])
    legs = raw_actions(game.schema, [*walk.actions[:after], *back])
    frame, without = (list(env.play(legs, walk.seed))[-1][4] for env in (game.env, bare.env))
    return bare.mask(frame, without)


def is_there(model: Any, namer: Namer, gem: Gem, detector: Detector, taken: bool, steps: int | None) -> bool | None:
    """Whether the gem is there after a way that was led from it; None where the way does not count."""

    def shuns(frame_HWC: Tensor) -> bool:
        return not taken and close_ahead(detector(frame_HWC[None])[0].numpy())

    way, before = go(model, namer, gem.start, HALF, steps, given=gem.given, shuns=shuns)
    pixels = detector(before[None])[0].numpy() & around(gem.pixels)
    if way is None or pixels.mean() < LEAST:
        return None
    seen = detector(way.frames).numpy()
    judged = was_taken(seen[len(gem.given) - 1], gem) if taken else out_of_view(seen)
    return still_there(seen[-1], pixels) if judged else None


def close_ahead(detected_HW: np.ndarray) -> bool:
    """Whether a gem is so near that the next steps may take it."""
    return bool(detected_HW.mean() > CLOSE)


def was_taken(detected_HW: np.ndarray, gem: Gem) -> bool:
    """Whether a frame after the given steps shows no gem but those that the real game has there."""
    return bool((detected_HW & ~around(gem.left)).mean() < LEAST / 3)


def out_of_view(detected_NHW: np.ndarray) -> bool:
    """Whether one of the frames shows no gem."""
    return bool((detected_NHW.mean((1, 2)) < LEAST / 3).any())
