"""In the dream alone: a dreamt view is left, come back to, and compared with what it was before.

    python -m game_wm evaluate checkpoints/maze.safetensors --suite dream
    python -m game_wm evaluate checkpoints/maze.safetensors --suite dream --episodes 4      # a quick look

*Turn round once*: after a prompt, `turn_left` is held until the real game has turned by 360°. `turn_round_psnr`
compares the dream's last frame with the tokenised frame before the turn, over the pixels that are the same in the real
game before and after. *There and back* over 50, 200 and 1,000 frames: the first half is led through the dream, round
what stands there (dream_walk.py), the second half plays the opposite buttons in reverse order. It is compared in the
same way, without what moves by itself at the start. PSNR is that of the mean squared error over all pixels of all
runs that count.

A run counts only if the dream went where it was led, so a frozen dream has no PSNR. At 90°, 180° and 270° its frame
must differ from the first (root mean square) by 0.6 to 1.67 times as much as in the real game. A quarter, a half and
three quarters of the way there and back it must differ as much as a turn in the real game does (trips.py). And the
inverse-dynamics network of the suite control must name 90 % of the actions from the third dreamt frame on. `…_counted`
is the share of runs that count, `…_runs` their number.

*Taken stays taken*, *untouched stays*: the share of counted runs after which a gem that was taken in the dream 300
frames ago is gone, and one that was left alone is there (gems.py). *Pushed stays pushed*: after which a thing is where
it was pushed (pushed.py). `detector`, `pushed_detector`: the accuracy of what finds gems, and things to be pushed, on
real frames that it was not trained on; `…_tokenised`: on the same frames, tokenised.

A game is asked what it can tell: one that is seen from above has no turning round, and its ways there and back are led
without creatures and things to be pushed, where options leave them out, since those do not stand still.

Legend: E runs, P frames of the prompt, N of the trip, H, W pixels, A length of an encoded action.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from game_wm.evaluation import metrics
from game_wm.evaluation.control import Namer
from game_wm.evaluation.places.detector import Detector, Things, around
from game_wm.evaluation.places.dream_walk import NAMED, Guide, go, share_named
from game_wm.evaluation.places.gems import Gem, find_gem, is_there
from game_wm.evaluation.places.pushed import Push, find_push, stays
from game_wm.evaluation.places.trips import Trip, Walk, difference, lacking, strides, turn_round
from game_wm.evaluation.report.sheet import ROWS
from game_wm.evaluation.rollout import begin_each, follow, round_trip
from game_wm.evaluation.truth.game import ATTEMPTS, BATCH, RealGame, Tick, no_tick

LENGTHS = (50, 200, 1000)
WALK_FRAMES, WALKS = 1500, 3  # of real play to find a gem in; walks of a seed
QUESTIONS = {"taken": ("taken_stays_taken", "untouched_stays"), "pushed": ("pushed_stays_pushed",)}
DETECTORS = {"taken": "detector", "pushed": "pushed_detector"}  # by what can be done to what they find: the card's key
MOVERS = ("creatures", "crates")  # options that leave out what does not stand still
OUTLINE = 32  # share of the picture's height by which an outline changes
AS_MUCH = 0.6  # least and (its inverse) greatest ratio of differences, dream over real


def counts(trip: Trip, dream_NHWC: Tensor, before_HWC: Tensor, namer: Namer) -> bool:
    """Whether the dream went where it was led; `before` is the frame before it as the tokenizer shows it."""
    for mark in trip.marks:
        ratio = difference(dream_NHWC[mark - 1].numpy(), before_HWC.numpy())
        ratio /= difference(trip.frames[mark - 1], trip.prompt.frames[-1])
        if not AS_MUCH <= ratio <= 1 / AS_MUCH:
            return False
    return share_named(namer, dream_NHWC, torch.from_numpy(trip.actions)) >= NAMED


class Runs:
    """Collects runs of one kind: whether each counts, and its squared error."""

    def __init__(self) -> None:
        self.counted: list[float] = []
        self.errors: list[np.ndarray] = []  # (2,) each, NaN where the run does not count
        self.ways: list[tuple[int, np.ndarray, np.ndarray]] = []  # for the sheet: seed, frame before, frames

    def add(self, model: Any, trips: Sequence[Trip], namer: Namer, steps: int | None) -> None:
        actions = torch.from_numpy(np.stack([trip.actions for trip in trips]))
        dreams = follow(model, begin_each(model, [trip.prompt for trip in trips]), actions, steps)
        before = round_trip(model, torch.from_numpy(np.stack([trip.prompt.frames[-3:] for trip in trips])))
        still = torch.from_numpy(np.stack([trip.still for trip in trips]))
        errors = metrics.squared_error(before, dreams[:, -1], still)
        for trip, frames, frame, error in zip(trips, dreams, before, errors, strict=True):
            self._note(counts(trip, frames, frame, namer), error)

    def lead(
        self, model: Any, game: RealGame, guide: Guide, seed: int, prompt: int, half: int, steps: int | None
    ) -> None:
        """Dream a way there and back, if the game has a prompt for it."""
        starts = (game.lead(seed, attempt, prompt) for attempt in range(ATTEMPTS))
        if (found := next(filter(None, starts), None)) is None:
            return
        way, before = go(model, guide, found.prompt, half, steps)
        if way is None:
            self._note(False, np.full(2, np.nan))
            return
        if len(self.ways) < ROWS:
            self.ways.append((seed, before.numpy(), way.frames.numpy()))
        surface = found.info.get("surface")
        still = np.ones(before.shape[:2], bool) if surface is None else np.asarray(surface) >= 0
        if guide.strides:  # whoever walks in the middle of the picture may look another way at the end
            still = ~around(~still, OUTLINE)
        self._note(True, metrics.squared_error(before[None], way.frames[-1:], torch.from_numpy(still)[None])[0])

    def _note(self, counts: bool, error: np.ndarray) -> None:
        self.counted.append(float(counts))
        self.errors.append(error if counts else np.full(2, np.nan))

    def result(self) -> dict[str, Any]:
        """psnr (absent when no run counts), counted, runs."""
        if not self.counted:
            return {}
        errors, share = np.stack(self.errors), np.array(self.counted)
        card = metrics.figure("counted", share) | {"runs": len(share)}
        return card | (metrics.figure("psnr", errors, metrics.pooled_psnr) if share.any() else {})


class Walks:
    """Real walks and the things of one kind on them, each played once."""

    def __init__(self, game: RealGame, things: Things, prompt: int) -> None:
        self.game, self.things, self.prompt = game, things, prompt
        self.played = cache(self._play)

    def _play(self, seed: int, attempt: int) -> tuple[Walk, np.ndarray]:
        walk = Walk.record(self.game, seed, attempt, self.prompt, self.prompt + WALK_FRAMES)
        return walk, self.things.masks(walk)

    def gem(self, guide: Guide, taken: bool, seed: int) -> Gem | None:
        found = (find_gem(self.game, self.things, guide, *self.played(seed, i), taken) for i in range(WALKS))
        return next(filter(None, found), None)

    def push(self, seed: int) -> Push | None:
        found = (find_push(self.game, self.things, *self.played(seed, i)) for i in range(WALKS))
        return next(filter(None, found), None)


class Answers:
    """Of one question about things: how many runs it had, and the answers of those that count."""

    def __init__(self) -> None:
        self.runs, self.right = 0, list[bool]()

    def add(self, answer: bool | None) -> None:
        self.runs += 1
        self.right += [] if answer is None else [answer]

    def result(self, key: str) -> tuple[dict[str, Any], list[str]]:
        """The card's figures, and why the first is absent if it is."""
        card = metrics.figure(key, np.array(self.right, float)) if self.right else {}
        if self.runs:
            card |= {f"{key}_counted": len(self.right) / self.runs, f"{key}_runs": self.runs}
        return card, [] if self.right else [f"{key} is absent: {_why(self.runs)}"]


def dream(
    model: Any, game: RealGame, namer: Namer, seeds: Sequence[int], prompt: int,
    things: Mapping[str, tuple[Things, Detector]] = {}, lengths: Sequence[int] = LENGTHS, steps: int | None = None,
    tick: Tick = no_tick,
) -> tuple[dict[str, Any], list[str], list[tuple[int, np.ndarray, np.ndarray]]]:  # fmt: skip
    """The card's `dream` object, {} where the game allows none of it, sentences that say what is absent and why, and
    for the sheet some of the longest ways there and back.

    `things`: what can be "taken" and "pushed", with what finds it. `tick` is told of runs, `budget` in all.
    """
    if reason := lacking(game):
        return {}, [f"absent, for {reason}"], []
    guide = Guide(namer, strides(game))
    turns, trips = Runs(), {length: Runs() for length in lengths}
    still = game.without(*MOVERS) if guide.strides else game
    answers = {name: Answers() for kind in things for name in QUESTIONS[kind]}

    def gather(make: Callable[..., Any]) -> Iterator[Any]:
        for seed in part:
            if run := make(seed):
                yield run
            tick(1)

    for first in range(0, len(seeds), BATCH):
        part = seeds[first : first + BATCH]
        if not guide.strides and (batch := list(gather(lambda seed: turn_round(game, seed, prompt)))):
            turns.add(model, batch, namer, steps)
        for length, runs in trips.items():
            for seed in part:
                runs.lead(model, still, guide, seed, prompt, length // 2, steps)
                tick(1)
        for kind, (told, detector) in things.items():
            walks = Walks(game, told, prompt)
            if kind == "pushed":
                for push in gather(walks.push):
                    answers["pushed_stays_pushed"].add(stays(model, guide, push, detector, steps))
                continue
            for name, taken in (("taken_stays_taken", True), ("untouched_stays", False)):
                for gem in gather(partial(walks.gem, guide, taken)):
                    there = is_there(model, guide, gem, detector, taken, steps)
                    answers[name].add(None if there is None else there != taken)
    return *_card(model, turns, trips, answers, things, bool(guide.strides)), trips[max(lengths)].ways


def _card(
    model: Any, turns: Runs, trips: dict[int, Runs], answers: dict[str, Answers],
    things: Mapping[str, tuple[Things, Detector]], from_above: bool,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    card, notes = {f"turn_round_{key}": value for key, value in turns.result().items()}, list[str]()
    if "turn_round_psnr" not in card and not from_above:
        notes.append(f"turn_round_psnr is absent: {_why(len(turns.counted))}")
    for length, runs in trips.items():
        result = runs.result()
        for key, value in result.items():
            card.setdefault(f"there_and_back_{key}", {})[str(length)] = value
        if "psnr" not in result:
            notes.append(f"there_and_back_psnr over {length} frames is absent: {_why(len(runs.counted))}")
    for name, answer in answers.items():
        figures, why = answer.result(name)
        card |= figures
        notes += why
    for kind, (_, detector) in things.items():
        key, (frames, masks) = DETECTORS[kind], detector.held_out
        card[key] = detector.right(frames, masks)
        card[f"{key}_tokenised"] = detector.right(round_trip(model, frames[:, None]), masks)
    if "taken" not in things:
        notes.append(
            "taken_stays_taken and untouched_stays are absent: the game has no option `gems` and marks nothing in "
            "info['surface'] that can be taken"
        )
    return card, notes


def _why(runs: int) -> str:
    return f"none of {runs} runs counts" if runs else "the real game allows no such run"


def budget(seeds: int, kinds: Collection[str] = (), turns: bool = True, lengths: Sequence[int] = LENGTHS) -> int:
    return seeds * (turns + len(lengths) + sum(len(QUESTIONS[kind]) for kind in kinds))
