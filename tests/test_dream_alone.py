"""The suite dream: turning round, there and back, gems that are taken or left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import SIZE
from ring import GEM, STEP, WORLD, Fake, Namer, Ring

from game_wm.evaluation import metrics
from game_wm.evaluation.places import detector as detectors
from game_wm.evaluation.places import dream as dreams
from game_wm.evaluation.places import dream_walk as led
from game_wm.evaluation.places import gems, plot, trips
from game_wm.evaluation.truth.game import RealGame

GUIDE = led.Guide(Namer())  # type: ignore[arg-type]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]


def test_a_turn_comes_back_in_the_real_game_and_a_walk_can(ring: None) -> None:
    with RealGame("ring") as game:
        turn = trips.turn_round(game, 90000, 8)
        walk = trips.Walk.record(game, 90000, 0, 8, 200)
    assert turn is not None and len(turn.frames) == WORLD // STEP and turn.marks == (6, 12, 18)
    assert np.array_equal(turn.frames[-1], turn.prompt.frames[-1]) and turn.still.all()
    assert walk.clean.all() and (np.stack(walk.actions).sum(1) <= 1).all()


def test_steps_against_a_wall_are_not_clean() -> None:
    forward, left = (np.array(b, np.float32) for b in ((1, 0, 0, 0), (0, 0, 1, 0)))
    poses = np.array([(0, 0, 0), (1, 0, 0), (2, 0, 0), (2.4, 0, 0), (3.4, 0, 0), (3.4, 0, 0.1), (3.4, 0, 0.2)])
    clean = trips.clean_steps(poses, [forward] * 4 + [left] * 2)
    assert clean.tolist() == [True, True, False, True, True, True]


def test_one_button_and_its_opposite() -> None:
    schema = Ring().action_schema
    held = [trips.one_button(schema, np.array(a)).tolist() for a in ((1, 0, 1, 0), (1, 1, 0, 1), (1, 1, 0, 0))]
    assert held == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    turned = trips.reversed_actions(schema, [np.array([1, 0, 0, 0]), np.array([0, 0, 1, 0])])
    assert [a.tolist() for a in turned] == [[0, 0, 0, 1], [0, 1, 0, 0]]


def dreamt(kind: str) -> tuple[dict[str, Any], list[str], list[Any]]:
    with RealGame("ring") as game:
        detector = detectors.Detector()
        detector.forward = lambda frames: (frames == torch.tensor(GEM, dtype=torch.uint8)).all(-1)  # type: ignore
        bare = detectors.Bare(game)
        walk = trips.Walk.record(game, 1, 0, 1, 64)
        masks = bare.masks(walk)
        detector.held_out = (torch.from_numpy(np.stack(walk.frames)), torch.from_numpy(masks))
        seeds = range(90000, 90004)
        return dreams.dream(Fake(kind), game, Namer(), seeds, 8, {"taken": (bare, detector)}, lengths=(40, 100))  # type: ignore


def test_a_perfect_dream_comes_back_and_a_frozen_one_scores_nothing(
    ring: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreams, "WALK_FRAMES", 500)
    monkeypatch.setattr(gems, "HALF", 100)
    perfect, notes, ways = dreamt("perfect")
    assert not notes
    assert [seed for seed, *_ in ways] == [90000, 90001, 90002, 90003] and ways[0][2].shape == (100, SIZE, SIZE, 3)
    assert plot.ways(ways).height > 8 * SIZE
    assert perfect["turn_round_psnr"] == pytest.approx(metrics.PSNR_CAP) and perfect["turn_round_counted"] == 1
    assert perfect["there_and_back_psnr"] == {n: pytest.approx(metrics.PSNR_CAP) for n in ("40", "100")}
    assert perfect["taken_stays_taken"] == perfect["untouched_stays"] == 1
    assert perfect["detector"] == perfect["detector_tokenised"] == 1
    frozen, notes, ways = dreamt("frozen")
    assert not ways
    assert frozen["turn_round_counted"] == 0 and set(frozen["there_and_back_counted"].values()) == {0}
    absent = {"turn_round_psnr", "there_and_back_psnr", "taken_stays_taken", "untouched_stays"}
    assert not absent & set(frozen)
    assert len(notes) == 5 and all("none of" in note for note in notes)


def test_a_way_is_led_past_the_walls_of_the_dream(ring: None) -> None:
    with RealGame("ring") as game:
        start = game.lead(90000, 0, 8).prompt  # type: ignore[union-attr]
    ways = [led.lead(Fake("walled"), GUIDE, start, half=60) for _ in range(2)]  # type: ignore[arg-type]
    way = ways[0]
    assert way is not None and len(way.actions) == 120 and torch.equal(way.frames, ways[1].frames)
    assert np.array_equal(way.actions[60:], trips.reversed_actions(Ring().action_schema, list(way.actions[:60])))
    # Without walls the same actions show the same: no step was taken that one of them would have held up.
    env = Ring(gems=0)
    env.reset(seed=90000)
    env.x, env.y = (int(v) for v in start.frames[-1][0, 0][:2])
    for action, frame in zip(way.actions, way.frames.numpy(), strict=True):
        assert np.array_equal(env.step(action)[0][0, 0, :2], frame[0, 0, :2])
    assert len({int(frame[0, 0, 1]) for frame in way.frames}) > 3  # it walked as well as turned


def test_a_way_goes_on_from_given_steps_and_not_into_what_is_shunned(ring: None) -> None:
    with RealGame("ring") as game:
        start = game.lead(90000, 0, 8).prompt  # type: ignore[union-attr]
    given = [np.array(button, np.float32) for button in ((1, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0))]
    way = led.lead(Fake("perfect"), GUIDE, start, 40, None, given, lambda _, name: name == "forward")
    assert way is not None and len(way.actions) == len(way.frames) == 80
    assert np.array_equal(way.actions[:3], given) and way.actions[3:-3, :2].sum() == 0  # he turns all the time
    assert np.array_equal(way.actions[-3:], [given[1], given[0], given[1]])


def test_a_gem_is_found_before_it_is_taken_and_from_where_it_is_left(ring: None) -> None:
    with RealGame("ring") as game:
        bare = detectors.Bare(game)
        walk = trips.Walk.record(game, 90005, 0, 8, 500)
        masks = bare.masks(walk)
        taken, left = (gems.find_gem(game, bare, GUIDE, walk, masks, kind) for kind in (True, False))
        assert taken is not None and left is not None and not left.given
        assert 0 < len(taken.given) <= gems.SOON and walk.rewards.sum() > 0
        for gem in (taken, left):
            assert gem.pixels.any() and (gem.start.frames[-1][gem.pixels] == GEM).all()
            at = next(t for t in range(7, 500) if np.array_equal(walk.frames[t], gem.start.frames[-1]))
            game.env.reset(seed=90005)
            rewards = [game.env.step(game.schema.decode(a))[1] for a in [*walk.actions[:at], *gem.given]]
            assert (sum(rewards[at:]) > 0) == (gem is taken)


def test_a_gem_counts_where_it_was() -> None:
    gem, seen = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    gem[10:14, 10:14] = True
    seen[16:18, 11:13] = True  # four of sixteen pixels, three rows below
    assert gems.still_there(seen, gem)
    assert not gems.still_there(np.roll(seen, 10, 1), gem)
    seen[16, 11] = False
    assert not gems.still_there(seen, gem)


def test_the_detector_learns_what_the_game_without_gems_lacks(ring: None, tmp_path: Path) -> None:
    with RealGame("ring") as game:
        bare = detectors.told_things(game)["taken"]
        detector, again = (
            detectors.thing_detector(game, "ring", bare, tmp_path, walks=10, updates=60) for _ in range(2)
        )
    assert detector.right(*detector.held_out) > 0.9
    assert torch.equal(detector(detector.held_out[0]), again(again.held_out[0]))
    assert len(list(tmp_path.glob("gems-*.safetensors"))) == 1
