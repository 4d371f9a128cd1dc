"""The suites revisit and dream on a game that is seen from above: the isles, dreamt well and by who forgets."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fakes import Playing, TrueGame
from torch import Tensor

from data_collect.games import MARKS
from data_collect.games.isles.env import BUTTONS, Isles
from data_collect.games.isles.sprites import BAR, PALETTE
from data_collect.guest.match import Leg, Match, Steps
from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.places import detector as detectors
from game_wm.evaluation.places import dream, gems, pushed, returns, revisit, trips
from game_wm.evaluation.places import dream_walk as led
from game_wm.evaluation.truth import game as truth_game
from game_wm.evaluation.truth.game import RealGame
from game_wm.world import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]
HALF = 90  # steps from what was taken or pushed until the way back
COLOURS = {"taken": "pPq", "pushed": "oOn"}  # letters of the sprites' colours


class Noted(Isles):
    """Isles whose first two pixels tell the pose, and that know how each of their frames came about."""

    known: ClassVar[dict[bytes, tuple[int, list[Any], dict[str, Any]]]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(size=32, **options)
        self.options, self.match = options, Match(self)

    def play(self, legs: list[Leg], env_seed: int | None = None) -> Steps:
        return self.match.play(legs, env_seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.seed, self.done = seed or 0, list[Any]()
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.done.append(action)
        return super().step(action)

    def _look(self) -> None:
        super()._look()
        self.frame[0, :2] = (self.x % 256, self.x // 256, 0), (self.y % 256, self.y // 256, self.crate_count)
        self.known[self.frame.tobytes()] = self.seed, list(self.done), self.options

    def __deepcopy__(self, memo: dict[int, Any]) -> Noted:
        """What an episode never writes to is shared."""
        other = copy.copy(self)
        other.crates, other.done, other._rng = list(self.crates), list(self.done), copy.deepcopy(self._rng)
        other.match = copy.deepcopy(self.match, {id(self): other})
        return other


class Dream(TrueGame):
    """Plays on what the game does; if `forgetful`, it shows gems and crates where they were at first after a while."""

    def __init__(self, forgetful: bool = False) -> None:
        super().__init__()
        self.height = self.width = 64
        self.forgetful = forgetful

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor, poses: Tensor | None = None) -> Playing:
        played = []
        for last in frames[:, -1].numpy():
            seed, done, options = Noted.known[last.tobytes()]
            game = Noted(**options)
            game.reset(seed=seed)
            for action in done:
                game.step(action)
            game.first, game.age = (game.gems.copy(), list(game.crates)), 0
            played.append(game)
        return Playing(played, frames[:, -1].clone())

    def step(self, state: Playing, action: Tensor, steps: int | None = None) -> tuple[Outcome, Playing]:
        outcome, state = super().step(state, action, steps)
        for i, game in enumerate(state.games if self.forgetful else ()):
            game.age += 1
            if game.age > HALF:
                shown = copy.copy(game)
                shown.gems, shown.crates = game.first
                shown._look()
                outcome.frames[i] = torch.from_numpy(shown.frame)
        return outcome, state


class Namer:
    """Names the buttons from the poses that the frames tell."""

    schema = Noted().action_schema

    def network(self, views: Tensor) -> Tensor:
        places = views[:, :, 0, :2, 0].long() + 256 * views[:, :, 0, :2, 1].long()  # (B, 3, 2)
        x, y = (places[:, 2] - places[:, 1]).unbind(1)
        return torch.stack([x < 0, x > 0, y < 0, y > 0, x != x], 1).float() * 20 - 10


def finder(kind: str, walk: trips.Walk, things: detectors.Things) -> detectors.Detector:
    """Finds things by their colours."""
    found, colours = detectors.Detector(), torch.tensor([PALETTE[letter] for letter in COLOURS[kind]])

    def forward(frames: Tensor) -> Tensor:
        shown = (frames[..., None, :] == colours).all(-1).any(-1)
        shown[:, :BAR] = False
        return torch.from_numpy(np.stack([detectors.around(mask, 64) for mask in shown.numpy()]))  # with the rim

    found.forward = forward  # type: ignore[method-assign]
    found.held_out = torch.from_numpy(np.stack(walk.frames)), torch.from_numpy(things.masks(walk))
    return found


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    Noted.known.clear()
    monkeypatch.setattr(truth_game, "Forgiving", lambda game_id, tally, frame, **options: Noted(**options))
    monkeypatch.setattr(returns, "CUTS", 5)
    monkeypatch.setattr(returns, "SPARE", 128)
    monkeypatch.setattr(dream, "WALK_FRAMES", 600)
    monkeypatch.setattr(gems, "HALF", HALF)
    monkeypatch.setattr(pushed, "HALF", HALF)


def dreamt(model: Dream) -> dict[str, Any]:
    with RealGame("isles") as game:
        things = detectors.told_things(game)
        assert set(things) == set(MARKS)
        walk = trips.Walk.record(game, 1, 0, 1, 200)
        found = {kind: (told, finder(kind, walk, told)) for kind, told in things.items()}
        return dream.dream(model, game, Namer(), range(90000, 90002), 16, found, lengths=(40,))[0]  # type: ignore


def test_a_perfect_dream_keeps_what_was_taken_and_pushed() -> None:
    card = dreamt(Dream())
    assert not [key for key in card if key.startswith("turn_round")]
    assert set(card["there_and_back_counted"].values()) == {1}
    assert all(value == pytest.approx(metrics.PSNR_CAP) for value in card["there_and_back_psnr"].values())
    assert card["taken_stays_taken"] == card["untouched_stays"] == card["pushed_stays_pushed"] == 1
    assert card["detector"] > 0.9 and card["pushed_detector"] > 0.9


def test_who_forgets_has_everything_where_it_was() -> None:
    card = dreamt(Dream(forgetful=True))
    assert card["taken_stays_taken"] == 0 and card["pushed_stays_pushed"] == 0 and card["untouched_stays"] == 1


def test_strides_and_what_scrolls() -> None:
    with RealGame("isles") as game:
        assert trips.lacking(game) is None
        assert trips.strides(game) == {"left": (-2, 0), "right": (2, 0), "up": (0, -2), "down": (0, 2)}
        env = game.without(*dream.MOVERS).env
        first, _ = env.reset(seed=3)
        frames = [torch.from_numpy(frame) for frame in (first, *(env.step([0, 1, 0, 0, 0])[0] for _ in range(2)))]
    where = torch.ones(64, 64, dtype=torch.bool)
    where[:BAR] = False
    assert led.scrolled(frames[1], frames[2], (2, 0), where) == (env.x > 0)
    assert not led.scrolled(frames[1], frames[1], (2, 0), where)
    assert not led.scrolled(frames[1], frames[2], (0, 2), where)
    assert not led.scrolled(frames[0], frames[2], (8, 0), where)


def test_what_lies_ahead_is_where_the_button_leads() -> None:
    mask = np.zeros((64, 64), bool)
    mask[30:36, 45:48] = True
    strides = {"left": (-2, 0), "right": (2, 0), "up": (0, -2), "down": (0, 2)}
    assert [name for name, stride in strides.items() if led.ahead(mask, stride)] == ["right"]


def test_each_button_that_walks_is_a_way_on_to_be_revisited(features: FeatureDistance) -> None:
    with RealGame("isles") as game:
        visit = returns.come_back(game, 90000, 80, spare=64)
        assert visit is not None and len(visit.branches) == 5
        for branch, name in zip(visit.branches[1:], BUTTONS):
            assert (branch.actions == [button == name for button in BUTTONS]).all()
        card, _ = revisit.revisit(Dream(), game, features, range(90000, 90002), (80,))
    assert all(v == pytest.approx(metrics.PSNR_CAP) for entry in card.values() for v in entry["psnr"].values())
    assert {"17-64", "never"} <= set(card["80/9-32"]["psnr"])
    assert card["80/9-32"]["held"] == list(BUTTONS[:4])
