"""The suites revisit and dream: exact bookkeeping, and fake models whose rank is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from fakes import SIZE, Playing, TrueGame
from played import Played
from torch import Tensor

from data_collect import games
from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from game_wm.evaluation import evaluate, metrics, suites
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.first_person import dream as dreams
from game_wm.evaluation.first_person import dream_walk as led
from game_wm.evaluation.first_person import gems, plot, returns, revisit, trips
from game_wm.evaluation.report.ages import MOVING, NEVER
from game_wm.evaluation.truth import game as truth_game
from game_wm.evaluation.truth.game import RealGame
from game_wm.world import Outcome

WORLD, STEP = 96, 4  # 24 turns are 360 degrees
WALL = 12  # rows from one wall to the next
BUTTONS = ("forward", "back", "turn_left", "turn_right")
GEM = (255, 40, 132)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]


class Ring(Played, gymnasium.Env):
    """A textured torus: turning shifts the view sideways, walking up and down. One gem, taken by walking over its row.

    The first pixels of a frame tell where the view is and whether the gem was taken.
    """

    metadata = {"render_fps": 20.0}

    def __init__(self, surface: bool = False, gems: int = 1) -> None:
        self.surface, self.gems = surface, gems
        self.action_schema = ActionSchema("multibinary", BUTTONS, fps=20)
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 120, (WORLD // 8, WORLD // 8, 3)).astype(np.uint8)
        self.texture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        self.row, self.column = (int(n) for n in generator.integers(WORLD, size=2))
        self.x, self.y, self.far, self.taken = 0, 0, 0, False
        return self.frame(), self.info()

    def view(self, world: np.ndarray) -> np.ndarray:
        return np.roll(world, (-self.y, -self.x), (0, 1))[:SIZE, :SIZE].copy()

    def frame(self) -> np.ndarray:
        world = self.texture.copy()
        if self.gems and not self.taken:
            rows, columns = (np.arange(n, n + 8) % WORLD for n in (self.row, self.column))
            world[np.ix_(rows, columns)] = GEM
        frame = self.view(world)
        frame[0, 0] = self.x, self.y, self.taken
        return frame

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = {"pose": (self.far * 0.1, 0.0, -math.tau * self.x / WORLD)}
        if self.surface:
            told["surface"] = self.view(np.arange(WORLD * WORLD).reshape(WORLD, WORLD))
        return told

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        forward, back, left, right = (int(v) for v in action)
        self.x, self.y = (self.x + STEP * (right - left)) % WORLD, (self.y + forward - back) % WORLD
        self.far += forward - back
        near = (self.row - self.y) % WORLD == SIZE // 2 and (self.column - self.x) % WORLD < SIZE - 8
        took = bool(self.gems and near and not self.taken and forward)
        self.taken |= took
        return self.frame(), float(took), False, False, self.info()


class Fake(TrueGame):
    """Dreams the ring ("perfect"), with a wall across it ("walled"), or shows the last frame for ever ("frozen")."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.frozen = kind, kind == "frozen"

    def game(self, seed: int, last: np.ndarray) -> Ring:
        game = Ring()
        game.reset(seed=seed)
        game.x, game.y, game.taken = (int(v) for v in last[0, 0])
        return game

    def step(self, state: Playing, action: Tensor, steps: int | None = None) -> tuple[Outcome, Playing]:
        if self.kind == "walled":
            held = torch.tensor([game.y % WALL == 5 for game in state.games])
            action = action.clone()
            action[held, 0] = 0  # nobody walks ahead from these rows
        outcome, state = super().step(state, action, steps)
        nothing = torch.zeros(len(action))
        return Outcome(outcome.frames, nothing, nothing), state


class Namer:
    """Names every action from two frames of the ring: a network is not what is tested here."""

    schema = Ring().action_schema

    def network(self, views: Tensor) -> Tensor:
        x, y = views[:, 1:, 0, 0, 0].long().diff(dim=1)[:, 0], views[:, 1:, 0, 0, 1].long().diff(dim=1)[:, 0]
        x, y = ((v + WORLD // 2) % WORLD - WORLD // 2 for v in (x, y))
        return torch.stack([y > 0, y < 0, x < 0, x > 0], 1).float() * 20 - 10


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "option_names", lambda game_id: ("surface", "gems"))
    monkeypatch.setattr(truth_game, "Forgiving", lambda game_id, tally, frame, **options: Ring(**options))
    monkeypatch.setattr(returns, "CUTS", 5)  # fewer copies of the game than in earnest
    monkeypatch.setattr(returns, "SPARE", 128)


# --- ages -------------------------------------------------------------------------------------------------------------


def test_ages_are_exact() -> None:
    sightings = returns.Sightings()
    for time, patches in enumerate([[0, 1], [1, 2], [-1, 3], [3, 3]]):
        sightings.see(np.array([patches]), time)
    # the prompt is frames 1 to 3, the last one on screen is frame 3, this is the second frame after it
    ages = sightings.ages(np.array([[0, 1, 2, 3, 9, -1]]), now=5, first=1)
    assert ages.tolist() == [[NEVER, 4, 4, 2, NEVER, MOVING]]
    assert sightings.ages(np.array([[0]]), now=5, first=0).tolist() == [[5]]


def test_every_age_above_16_is_in_one_bucket() -> None:
    ages = np.array([MOVING, 1, 16, 17, 64, 65, 256, 257, 1024, 1025, 5000, NEVER])
    found = {name: ages[returns.of_age(ages, name)].tolist() for name in returns.AGES}
    assert found == {
        "17-64": [17, 64], "65-256": [65, 256], "257-1024": [257, 1024], ">1024": [1025, 5000], "never": [NEVER],
    }  # fmt: skip
    assert returns.buckets(256) == ["17-64", "65-256", "never"]
    assert returns.buckets(1024) == ["17-64", "65-256", "257-1024", "never"]
    assert ">1024" in returns.buckets(4096)


def test_a_visit_is_aligned_repeats_and_comes_back(ring: None) -> None:
    with RealGame("ring") as game:
        visit, again = (returns.come_back(game, 90000, 80, spare=64) for _ in range(2))
    assert visit.frames.shape == (80, SIZE, SIZE, 3) and visit.actions.shape == (79, 4) and len(visit.branches) == 3
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(visit.branches, again.branches, strict=True))
    assert (visit.branches[1].actions == [0, 0, 1, 0]).all() and (visit.branches[2].actions == [0, 0, 0, 1]).all()
    env = Ring(surface=True)
    env.reset(seed=90000)
    env.x, env.y, env.taken = (int(v) for v in visit.frames[0, 0, 0])
    last: dict[int, int] = dict.fromkeys(env.info()["surface"].ravel(), 0)
    for t, action in enumerate(visit.actions):
        frame, *_, info = env.step(action)
        assert np.array_equal(frame, visit.frames[t + 1])
        last |= dict.fromkeys(info["surface"].ravel(), t + 1)
    for n, action in enumerate(visit.branches[0].actions):
        frame, *_, info = env.step(action)
        assert np.array_equal(frame, visit.branches[0].frames[n])
        expected = [80 + n - last[patch] if patch in last else NEVER for patch in info["surface"].ravel()]
        assert visit.branches[0].ages[n].ravel().tolist() == expected
    ages = np.stack([branch.ages for branch in visit.branches])
    assert returns.of_age(ages, "17-64").any() and returns.of_age(ages, "never").any()


# --- revisit ----------------------------------------------------------------------------------------------------------


def test_local_feature_distance_averages_to_the_distance(features: FeatureDistance) -> None:
    a, b = (torch.from_numpy(np.stack([Ring().reset(seed=s)[0] for s in seeds])) for seeds in ((1, 2), (3, 4)))
    local = features.local(a, b)
    assert local.shape == a.shape[:3]
    assert local.mean((1, 2)).tolist() == pytest.approx(features.distance(a, b).tolist(), rel=1e-4)
    half = a.clone()
    half[:, :, SIZE // 2 :] = b[:, :, SIZE // 2 :]
    where = features.local(a, half)
    assert where[:, :, SIZE // 2 :].mean() > 2 * where[:, :, : SIZE // 2].mean()


def test_a_perfect_model_revisits_at_the_cap_and_a_blind_one_below(ring: None, features: FeatureDistance) -> None:
    with RealGame("ring") as game:
        perfect, found = revisit.revisit(
            Fake("perfect"), game, features, range(90000, 90003), (80,), window=Fake("frozen")
        )
    for entry in perfect.values():
        other = entry["window_only"]
        assert set(entry["psnr"]) == set(entry["mazes"]) == set(other["psnr"]) <= {"17-64", "65-256", "never"}
        assert all(v == pytest.approx(metrics.PSNR_CAP) for v in entry["psnr"].values())
        assert entry["ceiling_psnr"] == entry["psnr"]
        assert all(v == pytest.approx(0, abs=1e-6) for v in entry["feature_distance"].values())
        assert all(v < 25 for v in other["psnr"].values()) and all(v > 0.1 for v in other["feature_distance"].values())
        assert all(0 < count <= 3 for count in entry["mazes"].values())
        low, high = other["psnr_interval"]["17-64"]
        assert low <= other["psnr"]["17-64"] <= high
    assert list(perfect) == ["80/1-8", "80/9-32"]
    assert plot.plot(perfect).width == 2 * plot.WIDTH
    assert plot.sheet(found).height > 3 * 3 * SIZE


def test_a_maze_with_too_few_pixels_of_an_age_does_not_count() -> None:
    errors = revisit.ByAge(["17-64", "65-256"], None)
    truth, made = (
        torch.zeros(1, 32, 10, 10, 3, dtype=torch.uint8),
        torch.full((1, 32, 10, 10, 3), 10, dtype=torch.uint8),
    )
    ages = np.full((1, 32, 10, 10), 1)
    ages[:, 0, 0, :8] = 17  # exactly 1 % of the first eight frames
    ages[:, 0, 1, :7] = 65  # less
    errors.add(truth, made, ages)
    assert errors.mazes("1-8") == {"17-64": 1} and errors.mazes("9-32") == {}
    assert errors.result("1-8")["psnr"] == {"17-64": pytest.approx(20 * math.log10(25.5))}
    assert errors.result("9-32") == {}


# --- trips ------------------------------------------------------------------------------------------------------------


def test_a_turn_comes_back_in_the_real_game_and_a_walk_can(ring: None) -> None:
    with RealGame("ring") as game:
        turn = trips.turn_round(game, 90000, 8)
        walk = trips.Walk.record(game, 90000, 0, 8, 200)
    assert turn is not None and len(turn.frames) == WORLD // STEP and turn.marks == (6, 12, 18)
    assert np.array_equal(turn.frames[-1], turn.prompt[-1]) and turn.still.all()
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


# --- dream ------------------------------------------------------------------------------------------------------------


def dreamt(kind: str) -> tuple[dict[str, Any], list[str], list[Any]]:
    with RealGame("ring") as game:
        detector = gems.Detector()
        detector.forward = lambda frames: (frames == torch.tensor(GEM, dtype=torch.uint8)).all(-1)  # type: ignore
        bare = gems.Bare(game)
        walk = trips.Walk.record(game, 1, 0, 1, 64)
        masks = bare.masks(1, walk.frames, walk.actions)
        detector.held_out = (torch.from_numpy(np.stack(walk.frames)), torch.from_numpy(masks))
        seeds = range(90000, 90004)
        return dreams.dream(Fake(kind), game, Namer(), seeds, 8, (bare, detector), lengths=(40, 100))  # type: ignore


def test_a_perfect_dream_comes_back_and_a_frozen_one_scores_nothing(
    ring: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreams, "WALK_FRAMES", 500)
    monkeypatch.setattr(dreams, "HALF", 100)
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
        play = game.lead(90000, 0, 8).play  # type: ignore[union-attr]
    start = led.Start(90000, np.stack(play.frames), np.stack(play.actions))
    ways = [led.lead(Fake("walled"), Namer(), start, half=60) for _ in range(2)]  # type: ignore[arg-type]
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
        play = game.lead(90000, 0, 8).play  # type: ignore[union-attr]
    given = [np.array(button, np.float32) for button in ((1, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0))]
    start = led.Start(90000, np.stack(play.frames), np.stack(play.actions), given)
    way = led.lead(Fake("perfect"), Namer(), start, 40, shuns=lambda _: True)  # type: ignore[arg-type]
    assert way is not None and len(way.actions) == len(way.frames) == 80
    assert np.array_equal(way.actions[:3], given) and way.actions[3:-3, :2].sum() == 0  # he turns all the time
    assert np.array_equal(way.actions[-3:], [given[1], given[0], given[1]])


def test_a_gem_is_found_before_it_is_taken_and_from_where_it_is_left(ring: None) -> None:
    with RealGame("ring") as game:
        bare = gems.Bare(game)
        walk = trips.Walk.record(game, 90005, 0, 8, 500)
        masks = bare.masks(90005, walk.frames, walk.actions)
        taken, left = (gems.find_gem(game, bare, walk, masks, kind) for kind in (True, False))
        assert taken is not None and left is not None and not len(left.start.given)
        assert 0 < len(taken.start.given) <= gems.SOON and walk.rewards.sum() > 0
        for gem in (taken, left):
            assert gem.pixels.any() and (gem.start.frames[-1][gem.pixels] == GEM).all()
            at = next(t for t in range(7, 500) if np.array_equal(walk.frames[t], gem.start.frames[-1]))
            game.env.reset(seed=90005)
            rewards = [game.env.step(game.schema.decode(a))[1] for a in [*walk.actions[:at], *gem.start.given]]
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
        assert gems.has_gems(game)
        detector, again = (gems.gem_detector(game, "ring", tmp_path, walks=10, updates=60) for _ in range(2))
    assert detector.right(*detector.held_out) > 0.9
    assert torch.equal(detector(detector.held_out[0]), again(again.held_out[0]))
    assert len(list(tmp_path.glob("gems-*.safetensors"))) == 1


# --- the card ---------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    path = tmp_path / "ring.safetensors"
    path.write_bytes(b"weights")

    def load(path: Any, device: Any = "cpu") -> Any:
        model = Fake("frozen" if "window" in Path(path).stem else "perfect")
        return SimpleNamespace(
            contexts_frames=torch.zeros(1, 5, 1, 1, 3),
            model=model,
            schema=Ring().action_schema,
            game="ring",
            name="ring",
            parameters=1,
            trained={},
            path=Path(path),
        )

    monkeypatch.setattr("game_wm.checkpoint.load", load)
    monkeypatch.setattr(suites, "_namer", lambda *_: Namer())
    monkeypatch.setattr("game_wm.evaluation.first_person.dream.LENGTHS", (40,))
    monkeypatch.setattr(gems, "gem_detector", lambda *_: gems.Detector())
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(path), *arguments]) == 0
    file = tmp_path / "ring.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_both_suites_write_the_card_and_its_pictures(
    ring: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ring-window.safetensors").write_bytes(b"window")
    monkeypatch.setattr(gems, "has_gems", lambda game: False)
    arguments = ("--suite", "revisit,dream", "--episodes", "2", "--prompts", "40")
    card = run(tmp_path, monkeypatch, *arguments)
    assert set(card["revisit"]) == {"40/1-8", "40/9-32"}
    expected = {"psnr", "psnr_interval", "feature_distance", "feature_distance_interval", "ceiling_psnr", "mazes"}
    assert set(card["revisit"]["40/1-8"]) == expected | {"window_only"}
    assert {"turn_round_psnr", "turn_round_counted", "there_and_back_psnr"} <= set(card["dream"])
    assert not {"taken_stays_taken", "untouched_stays", "detector"} & set(card["dream"])
    assert (tmp_path / "ring-ways.png").exists()
    assert "the game has no option `gems`" in capsys.readouterr().err
    assert card["command"].endswith("--suite revisit,dream --episodes 2 --prompts 40")
    assert card["runs"]["revisit"]["window"] == "ring-window.safetensors" and card["seeds"] == "90000-90001"
    page = (tmp_path / "ring.md").read_text()
    assert "## Revisit" in page and "## Dream" in page and "window only" in page
    assert all((tmp_path / f"ring-{name}.png").exists() for name in ("revisit", "returns"))
    (tmp_path / "ring-window.safetensors").unlink()
    card = run(tmp_path, monkeypatch, "--suite", "revisit", "--episodes", "1", "--prompts", "40", "--replace")
    assert "window_only" not in card["revisit"]["40/1-8"] and "dream" in card


def test_a_game_without_surfaces_leaves_both_out(
    ring: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Ring, "info", lambda self: {})
    card = run(tmp_path, monkeypatch, "--suite", "revisit,dream", "--episodes", "1")
    assert card == {}  # nothing was measured, so no card
    said = capsys.readouterr().err
    assert "revisit: left out" in said and "dream: left out" in said and "tells no pose" in said


@pytest.mark.parametrize("arguments", [("--prompts", "a"), ("--prompts", "0"), ("--window", "missing.safetensors")])
def test_wrong_arguments_are_refused(
    ring: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=arguments[0]):
        run(tmp_path, monkeypatch, "--suite", "revisit", *arguments)
