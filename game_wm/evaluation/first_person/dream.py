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
frames ago is gone, and one that was left alone is there (gems.py). `detector`: the gem detector's accuracy on real
frames that it was not trained on; `detector_tokenised`: on the same frames, tokenised.

Legend: E runs, P frames of the prompt, N of the trip, H, W pixels, A length of an encoded action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from game_wm.evaluation import metrics
from game_wm.evaluation.control import Namer
from game_wm.evaluation.first_person.dream_walk import NAMED, go, share_named
from game_wm.evaluation.first_person.gems import Bare, Detector, Gem, find_gem, is_there
from game_wm.evaluation.first_person.trips import Trip, Walk, difference, lacking, turn_round
from game_wm.evaluation.report.sheet import ROWS
from game_wm.evaluation.rollout import begin_each, follow, round_trip
from game_wm.evaluation.truth.game import ATTEMPTS, BATCH, RealGame, Tick, no_tick

LENGTHS = (50, 200, 1000)
WALK_FRAMES, WALKS = 1500, 3  # of real play to find a gem in; walks of a seed
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
        self, model: Any, game: RealGame, namer: Namer, seed: int, prompt: int, half: int, steps: int | None
    ) -> None:
        """Dream a way there and back, if the game has a prompt for it."""
        starts = (game.lead(seed, attempt, prompt) for attempt in range(ATTEMPTS))
        if (found := next(filter(None, starts), None)) is None:
            return
        way, before = go(model, namer, found.prompt, half, steps)
        if way is None:
            self._note(False, np.full(2, np.nan))
            return
        if len(self.ways) < ROWS:
            self.ways.append((seed, before.numpy(), way.frames.numpy()))
        surface = found.info.get("surface")
        still = np.ones(before.shape[:2], bool) if surface is None else np.asarray(surface) >= 0
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


def gems_on_walks(game: RealGame, bare: Bare, prompt: int) -> Callable[[int, bool], Gem | None]:
    """Finds a gem to set out from, for a seed and whether it is to be taken; each walk is played once."""

    @cache
    def walk(seed: int, attempt: int) -> tuple[Walk, np.ndarray]:
        walked = Walk.record(game, seed, attempt, prompt, prompt + WALK_FRAMES)
        return walked, bare.masks(seed, walked.frames, walked.actions)

    def find(seed: int, taken: bool) -> Gem | None:
        return next(filter(None, (find_gem(game, bare, *walk(seed, i), taken) for i in range(WALKS))), None)

    return find


def dream(
    model: Any, game: RealGame, namer: Namer, seeds: Sequence[int], prompt: int,
    gems: tuple[Bare, Detector] | None = None, lengths: Sequence[int] = LENGTHS, steps: int | None = None,
    tick: Tick = no_tick,
) -> tuple[dict[str, Any], list[str], list[tuple[int, np.ndarray, np.ndarray]]]:  # fmt: skip
    """The card's `dream` object, {} where the game allows none of it, sentences that say what is absent and why, and
    for the sheet some of the longest ways there and back.

    `gems`: the game without gems and the detector, where it has any. `tick` is told of runs, `budget` in all.
    """
    if reason := lacking(game):
        return {}, [f"absent, for {reason}"], []
    turns, trips = Runs(), {length: Runs() for length in lengths}
    found: dict[bool, list[bool]] = {True: [], False: []}  # taken? -> whether the gem is there after each counted run
    tried = {True: 0, False: 0}

    def gather(make: Callable[..., Any], *arguments: Any) -> list[Any]:
        made = []
        for seed in part:
            if run := make(seed, *arguments):
                made.append(run)
            tick(1)
        return made

    for first in range(0, len(seeds), BATCH):
        part = seeds[first : first + BATCH]
        if batch := gather(partial(turn_round, game), prompt):
            turns.add(model, batch, namer, steps)
        for length, runs in trips.items():
            for seed in part:
                runs.lead(model, game, namer, seed, prompt, length // 2, steps)
                tick(1)
        if gems is None:
            continue
        find = gems_on_walks(game, gems[0], prompt)
        for taken in (True, False):
            for gem in gather(find, taken):
                tried[taken] += 1
                there = is_there(model, namer, gem, gems[1], taken, steps)
                found[taken] += [] if there is None else [there]
    return *_card(model, turns, trips, found, tried, gems), trips[max(lengths)].ways


def _card(
    model: Any, turns: Runs, trips: dict[int, Runs], found: dict[bool, list[bool]], tried: dict[bool, int],
    gems: tuple[Bare, Detector] | None,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    card, notes = {f"turn_round_{key}": value for key, value in turns.result().items()}, list[str]()
    if "turn_round_psnr" not in card:
        notes.append(f"turn_round_psnr is absent: {_why(len(turns.counted))}")
    for length, runs in trips.items():
        result = runs.result()
        for key, value in result.items():
            card.setdefault(f"there_and_back_{key}", {})[str(length)] = value
        if "psnr" not in result:
            notes.append(f"there_and_back_psnr over {length} frames is absent: {_why(len(runs.counted))}")
    if gems is None:
        return card, [*notes, "taken_stays_taken and untouched_stays are absent: the game has no option `gems`"]
    for key, taken in (("taken_stays_taken", True), ("untouched_stays", False)):
        if found[taken]:
            values = np.array([there != taken for there in found[taken]], float)
            card |= metrics.figure(key, values)
        else:
            notes.append(f"{key} is absent: {_why(tried[taken])}")
        if tried[taken]:
            card[f"{key}_counted"], card[f"{key}_runs"] = len(found[taken]) / tried[taken], tried[taken]
    frames, masks = gems[1].held_out
    card["detector"] = gems[1].right(frames, masks)
    card["detector_tokenised"] = gems[1].right(round_trip(model, frames[:, None]), masks)
    return card, notes


def _why(runs: int) -> str:
    return f"none of {runs} runs counts" if runs else "the real game allows no such run"


def budget(seeds: int, lengths: Sequence[int] = LENGTHS, gems: bool = True) -> int:
    return seeds * (1 + len(lengths) + 2 * gems)
