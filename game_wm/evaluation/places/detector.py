"""What can be taken or pushed in a game, where a real picture shows it, and a network that finds it in any picture.

    things = told_things(game)                  # {"taken": ..., "pushed": ...}, as far as the game tells
    masks = things["taken"].masks(walk)         # bool (T, H, W): the pixels of a real walk that show one
    detector = thing_detector(game, "isles", things["taken"], cache=Path("runs/evaluation"))
    detector(frames_BHWC)                       # bool (B, H, W)

A game tells by marks in `info["surface"]` (`data_collect.games.MARKS`), or else by its option `gems`: it is played
twice under the same seed and actions, the second time with `gems=0`; the pictures differ where a gem is. The detector
is a small convolutional network trained on real frames. Its accuracy is measured on other worlds: the mean of how often
it finds a thing where at least `LEAST` of the pixels show one, and none where none does.

Legend: B frames, T of a walk, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.games import MARKS
from data_collect.guest.match import Leg
from data_collect.players import seen_from_above
from data_collect.schema import ActionSchema
from game_wm.evaluation.control import fit, trained
from game_wm.evaluation.places.trips import Walk
from game_wm.evaluation.truth.game import RealGame, Tick, no_tick

VERSION = 1
FIRST_DETECTOR_SEED = 70_000
WALKS, WALK_FRAMES, STRIDE = 200, 96, 4  # many worlds: their colours are what things must be told from
UPDATES, BATCH = 2000, 32
LEAST = 0.004  # share of a frame's pixels
CHANGE = 24  # grey levels by which a gem changes a pixel
LOOK_FRAMES = 300  # of a walk on which a game shows what it has


class Things(Protocol):
    """Things of one kind."""

    recipe: list[int]  # what their detector's training depends on, beside the game

    def masks(self, walk: Walk) -> np.ndarray:
        """Where they are in the frames of a walk: bool (T, H, W)."""

    def after(self, seed: int, actions: Sequence[np.ndarray]) -> np.ndarray:
        """Where they are after these encoded actions from the episode's first frame on: bool (H, W)."""


def has_gems(game: RealGame) -> bool:
    """Whether the game can be played without its gems."""
    return "gems" in game.options


def told_things(game: RealGame) -> dict[str, Things]:
    """What there is to be taken and, in a game seen from above, to be pushed, as far as the game tells."""
    if has_gems(game):
        return {"taken": Bare(game)}
    marks = Walk.record(game, FIRST_DETECTOR_SEED, 0, 1, LOOK_FRAMES).marks
    shown = {name: mark for name, mark in MARKS.items() if any((part == mark).any() for part in marks)}
    if not seen_from_above(game.schema):
        shown.pop("pushed", None)
    return {name: Marked(game, mark) for name, mark in shown.items()}


def raw_actions(schema: ActionSchema, actions: Sequence[np.ndarray]) -> list[Leg]:
    """Encoded actions as a leg to be played."""
    rows = [schema.raw(schema.decode(action)) for action in actions]
    return [Leg(np.array(rows, schema.dtype).reshape(len(rows), schema.width))]


class Bare:
    """The gems of a game that can be played without them."""

    recipe: list[int] = []

    def __init__(self, game: RealGame) -> None:
        self.game, self.env = game, game.make(gems=0)

    def masks(self, walk: Walk) -> np.ndarray:
        played = self.env.play(raw_actions(self.game.schema, walk.actions), walk.seed)
        return np.stack([self._mask(frame, step[4]) for frame, step in zip(walk.frames, played)])

    def after(self, seed: int, actions: Sequence[np.ndarray]) -> np.ndarray:
        legs = raw_actions(self.game.schema, actions)
        frame, without = (list(env.play(legs, seed))[-1][4] for env in (self.game.env, self.env))
        return self._mask(frame, without)

    @staticmethod
    def _mask(frame: np.ndarray, bare: np.ndarray) -> np.ndarray:
        return (abs(frame.astype(np.int16) - bare) > CHANGE).any(-1)


class Marked:
    """The things that a game marks in `info["surface"]`."""

    def __init__(self, game: RealGame, mark: int) -> None:
        self.game, self.mark, self.recipe = game, mark, [mark]

    def masks(self, walk: Walk) -> np.ndarray:
        return np.stack(walk.marks) == self.mark

    def after(self, seed: int, actions: Sequence[np.ndarray]) -> np.ndarray:
        last = list(self.game.env.play(raw_actions(self.game.schema, actions), seed))[-1]
        return last[5]["surface"] == self.mark


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


def thing_detector(
    game: RealGame, game_id: str, things: Things, cache: Path | None = None, tick: Tick = no_tick, walks: int = WALKS,
    updates: int = UPDATES,
) -> Detector:  # fmt: skip
    """Train the detector on real play, or take it from `cache` where the same one was trained before.

    `tick` is told of each walk recorded and each update made.
    """

    def record(seeds: range) -> Iterator[tuple[Tensor, Tensor]]:
        for seed in seeds:
            walk = Walk.record(game, seed, 0, 1, WALK_FRAMES)
            masks = things.masks(walk)
            tick(1)
            yield torch.from_numpy(np.stack(walk.frames[::STRIDE])), torch.from_numpy(masks[::STRIDE])

    held = max(1, walks // 5)
    held_out = [torch.cat(part) for part in zip(*record(range(FIRST_DETECTOR_SEED, FIRST_DETECTOR_SEED + held)))]
    torch.manual_seed(0)
    detector = Detector()
    recipe = [VERSION, game_id, walks, WALK_FRAMES, STRIDE, updates, BATCH, *things.recipe]

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


def around(mask_HW: np.ndarray, share: int = 10) -> np.ndarray:
    """The mask and what lies within a tenth (or another share) of the picture's height of it."""
    reach = max(1, mask_HW.shape[0] // share)
    wide = F.max_pool2d(torch.from_numpy(mask_HW).float()[None], 2 * reach + 1, 1, reach)
    return wide[0].bool().numpy()
