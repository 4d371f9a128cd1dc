"""Real play that comes back: a prompt, several ways on from it, and the age of every pixel that they show.

    with RealGame("maze") as game:
        visit = come_back(game, seed=90000, prompt=1024)
        visit.branches[0].ages      # (N, H, W): frames since the patch behind a pixel was on screen in the prompt

The *age* of a pixel is the number of frames since the surface patch behind it (`info["surface"]`) was last on screen in
the prompt, however few of its pixels were: n frames after the prompt, a patch of its last frame has the age n. `NEVER`:
it was not on screen in the prompt. `MOVING`: no patch, something that moves by itself.

The leader plays (the explorer where the game has a map). At `CUTS` moments, evenly spread over the `spare` frames after
the first `prompt` ones, the game is copied and goes on for N frames in several ways: each button `turn_…` held all the
time (where nobody turns, each button that walks), and the leader's own way. The moment is kept from which the most ages
come into view: the sum, over both spans and all ages, of the share of pixels of that age, each counted up to `ENOUGH`,
ages above 256 one and a half times.

Legend: N frames of a rollout, H height, W width in pixels, A length of an encoded action.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np

from data_collect.guest.match import LEADER, Leg
from data_collect.schema import ActionSchema
from game_wm.evaluation.places.trips import OPPOSITE
from game_wm.evaluation.report.ages import AGES, MOVING, NEVER
from game_wm.evaluation.truth.game import ATTEMPTS, RealGame
from game_wm.evaluation.truth.plays import Prompt

SPANS = {"1-8": slice(0, 8), "9-32": slice(8, 32)}  # of the rollout's frames, the first of which is number 1
FRAMES = 32
CUTS, SPARE = 33, 512
ENOUGH = {"1-8": 0.015, "9-32": 0.05}


@dataclass
class Branch:
    """One way on from the prompt: actions float32 (N, A), frames uint8 (N, H, W, 3), ages int32 (N, H, W)."""

    actions: np.ndarray
    frames: np.ndarray
    ages: np.ndarray


@dataclass
class Visit:
    """A prompt, without its poses, and the ways on from its last frame."""

    prompt: Prompt
    branches: list[Branch]


class Sightings:
    """When each surface patch was last on screen."""

    def __init__(self) -> None:
        self.last = np.full(1, -1, np.int64)

    def _reach(self, surface: np.ndarray) -> None:
        missing = int(surface.max()) + 1 - len(self.last)
        if missing > 0:
            self.last = np.append(self.last, np.full(missing, -1, np.int64))

    def see(self, surface: np.ndarray, time: int) -> None:
        """The patches (H, W) on screen at a frame, number `time` >= 0."""
        self._reach(surface)
        self.last[surface[surface >= 0]] = time

    def ages(self, surface: np.ndarray, now: int, first: int) -> np.ndarray:
        """Ages int32 (H, W) at frame `now` of what is on screen, for a prompt whose first frame is number `first`."""
        self._reach(surface)
        last = self.last[surface.clip(min=0)]
        return np.where(surface < 0, MOVING, np.where(last < first, NEVER, now - last)).astype(np.int32)


def of_age(ages: np.ndarray, bucket: str) -> np.ndarray:
    """Which pixels belong to a bucket of `AGES`: bool, in the shape of `ages`."""
    low, high = AGES[bucket]
    return (ages >= low) & (ages <= high)


def buckets(prompt: int) -> list[str]:
    """The buckets that a prompt of so many frames can fill."""
    return [name for name, (low, _) in AGES.items() if low <= prompt or low == NEVER]


def come_back(game: RealGame, seed: int, prompt: int, spare: int | None = None) -> Visit | None:
    """Play until a good moment to cut has been found; None when the game ends before any.

    The cut lies within `spare` frames after the prompt: 512, or a quarter of a longer prompt than 2,048.
    """
    spare = max(SPARE, prompt // 4) if spare is None else spare
    tries = (_attempt(game, seed, attempt, prompt, spare) for attempt in range(ATTEMPTS))
    return next(filter(None, tries), None)


def _attempt(game: RealGame, seed: int, attempt: int, prompt: int, spare: int) -> Visit | None:
    schema, leader = game.schema, int(np.random.default_rng((seed, attempt)).integers(2**31))
    cuts = sorted({prompt - 1 + round(i * spare / (CUTS - 1)) for i in range(CUTS)})
    sightings, frames, actions = Sightings(), list[np.ndarray](), list[np.ndarray]()
    best, most = (0, list[Branch]()), -math.inf
    for last, cut in zip([None, *cuts], cuts):
        leg = Leg(LEADER, leader, cut) if last is None else Leg(None, steps=cut - last)
        for raw, _, terminated, truncated, frame, info in game.env.play([leg], seed if last is None else None):
            if terminated or truncated:
                break
            sightings.see(info["surface"], len(frames))
            frames.append(frame.copy())
            actions += [] if raw is None else [schema.encode(raw)]
        if len(frames) <= cut:
            break
        branches = _branches(game, sightings, cut, cut - prompt + 1)
        if branches and (worth := _worth(branches, prompt)) > most:
            best, most = (cut, branches), worth
    cut, branches = best
    if not branches:
        return None
    first = cut - prompt + 1
    led = np.stack(actions[first:cut]) if prompt > 1 else np.zeros((0, schema.size), np.float32)
    return Visit(Prompt(seed, np.stack(frames[first : cut + 1]), led), branches)


def _branches(game: RealGame, sightings: Sightings, now: int, first: int) -> list[Branch]:
    """The ways on from here, in copies of the game; [] when it ends in one of them."""
    branches = []
    for leg in _ways(game.schema):
        actions, frames, ages = [], [], []
        for raw, _, terminated, truncated, frame, info in copy.deepcopy(game.env).play([leg]):
            if terminated or truncated:
                return []
            actions.append(game.schema.encode(raw))
            frames.append(frame.copy())
            ages.append(sightings.ages(info["surface"], now + len(frames), first))
        branches.append(Branch(np.stack(actions), np.stack(frames), np.stack(ages)))
    return branches


def _ways(schema: ActionSchema) -> list[Leg]:
    """What chooses the actions of each way on: the leader, and buttons that are held."""
    ways = [Leg(None, steps=FRAMES)]
    for name in held(schema):
        raw = schema.raw(schema.decode(np.array([n == name for n in schema.names], np.float32)))
        ways.append(Leg(np.tile(raw, (FRAMES, 1))))
    return ways


def held(schema: ActionSchema) -> list[str]:
    """The buttons that a way on may hold all the time."""
    turns = [name for name in schema.names if name.startswith("turn_")]
    names = turns or [name for name in schema.names if name in OPPOSITE]
    return names if schema.kind in ("multibinary", "discrete") else []


def _worth(branches: list[Branch], prompt: int) -> float:
    ages, worth = np.stack([branch.ages for branch in branches]), 0.0
    for name in buckets(prompt):
        weight = 1.5 if 256 < AGES[name][0] < NEVER else 1
        for span, part in SPANS.items():
            worth += weight * min(1.0, of_age(ages[:, part], name).mean() / ENOUGH[span])
    return worth
