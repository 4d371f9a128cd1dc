"""Evaluation: fake models whose rank is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import SIZE
from torch import Tensor
from toy import BUTTONS, Fake, Toy, checkpoint, measured

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from game_wm.deadline import Deadline
from game_wm.evaluation import metrics, stability, suites
from game_wm.evaluation.control import InverseDynamics, groups, named, right, triples
from game_wm.evaluation.control import loss as inverse_loss
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.options import Options
from game_wm.evaluation.outcomes import Outcomes
from game_wm.evaluation.rollout import roll
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import Prompt, stack

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]


def test_truth_is_aligned_and_repeats(toy: None) -> None:
    with RealGame("toy") as game:
        truth = next(game.truths(range(90000, 90003), 8, 20, horizons=(1, 16)))
        again = next(game.truths(range(90000, 90003), 8, 20, horizons=(1, 16)))
    assert truth.frames.shape == (3, 28, SIZE, SIZE, 3) and truth.actions.shape == (3, 27, 4)
    assert torch.equal(truth.frames, again.frames) and torch.equal(truth.actions, again.actions)
    env = Toy()
    for i, seed in enumerate(truth.seeds):
        env.reset(seed=seed)
        env.x, env.y = int(truth.frames[i, 0, 0, 0, 0]), int(truth.frames[i, 0, 0, 0, 1])
        for t, action in enumerate(truth.actions[i].numpy()):
            assert np.array_equal(env.step(action)[0], truth.frames[i, t + 1].numpy())
    assert truth.seen[1].float().mean() > 0.9  # a step of one pixel shows little that is new
    assert torch.equal(truth.at(0), truth.frames[:, 7]) and torch.equal(truth.at(1), truth.after[:, 0])


def test_truth_does_not_end_where_another_action_seed_helps(toy: None) -> None:
    with RealGame("toy ends") as game:
        plays = [game.choose(seed, 8, 60) for seed in range(90000, 90008)]
    assert any(len(play.rewards) == 60 for play in plays)
    assert game.ended and all(play.terminated and len(play.rewards) <= 60 for play in game.ended)
    truth = stack(game.ended[:2], 8, 60)
    assert truth.terminated[0, truth.length[0] - 1] and truth.terminated.sum() == len(truth.seeds)


def test_frames_of_another_size_are_refused(toy: None) -> None:
    model = Fake(frozen=True)
    model.height = 48
    with RealGame("toy") as game, pytest.raises(UserError, match="32x48"):
        roll(model, next(game.truths([90000], 8, 4)))


@pytest.fixture
def results(toy: None, tmp_path: Path) -> dict[str, tuple[dict[str, Any], Any]]:
    options = Options(
        ("fidelity", "control"), episodes=3, cache=tmp_path / "cache", inverse_plays=12, inverse_updates=120
    )
    return {name: measured(checkpoint(Fake(frozen=name == "frozen")), options) for name in ("perfect", "frozen")}


def test_a_perfect_model_outranks_a_frozen_one(results: dict[str, tuple[dict[str, Any], Any]], tmp_path: Path) -> None:
    perfect, frozen = results["perfect"][0], results["frozen"][0]
    good, bad = perfect["fidelity"], frozen["fidelity"]
    assert good["psnr"] == {h: pytest.approx(metrics.PSNR_CAP) for h in ("1", "4", "16", "64", "256")}
    assert good["ssim"]["256"] == pytest.approx(1) and good["sharpness"]["64"] == pytest.approx(1)
    assert good["feature_distance"]["64"] == pytest.approx(0, abs=1e-6)
    assert good["ceiling_sharpness"] == pytest.approx(1)  # its tokenizer loses nothing
    assert good["psnr_seen"]["1"] == pytest.approx(metrics.PSNR_CAP)
    assert good["psnr_moving"] == bad["ceiling_psnr_moving"] == good["psnr"]
    assert bad["psnr_moving"] == bad["repeat_psnr_moving"] and bad["psnr_moving"]["16"] < bad["psnr"]["16"]
    assert bad["psnr"] == bad["repeat_psnr"] and bad["feature_distance"] == bad["repeat_feature_distance"]
    assert bad["psnr"]["64"] < 20 and bad["feature_distance"]["64"] > 0.1
    assert good["repeat_psnr"] == bad["repeat_psnr"]
    low, high = bad["psnr_interval"]["16"]
    assert low <= bad["psnr"]["16"] <= high
    by_seed = np.array([bad["psnr_by_seed"][str(seed)]["16"] for seed in (90000, 90001, 90002)])
    assert bad["psnr"]["16"] == pytest.approx(-10 * np.log10(np.mean(10 ** (-by_seed / 10))))

    assert perfect["control"]["dream"] == perfect["control"]["real"] == frozen["control"]["real"]
    assert frozen["control"]["dream"] < frozen["control"]["real"] - 0.2
    assert perfect["control"]["real"] > perfect["control"]["chance"] + 0.2
    assert (
        perfect["control"]["ratio"]
        == perfect["control"]["tokenised_ratio"]
        == frozen["control"]["tokenised_ratio"]
        == 1
    )
    assert set(perfect["control"]["parts"]) == set(BUTTONS)

    assert perfect["reward"]["accuracy"] == 1 and perfect["reward"]["recall"] == 1
    assert frozen["reward"]["recall"] == 0 and "precision" not in frozen["reward"]
    assert perfect["termination"]["false_alarms_per_1000"] == 0
    sheet = results["frozen"][1][""]
    assert sheet.width > 10 * 128 and sheet.height > 6 * 128
    assert len(list((tmp_path / "cache").glob("inverse-*.safetensors"))) == 1


def test_what_does_not_fit_into_the_time_is_left_out(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a fake clock, on which an episode takes ten seconds: fewer episodes, and no network that names actions."""
    now = 0.0

    def slowly(*given: Any) -> Any:
        nonlocal now
        now += 10
        return roll(*given)

    def train(*given: Any) -> None:
        nonlocal now
        now += 10
        given[5](1)  # it tells of a play

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(suites, "roll", slowly)
    monkeypatch.setattr(suites, "FEW", 1)
    options = Options(("fidelity", "control"), 5, cache=tmp_path / "cache", deadline=Deadline(25))
    monkeypatch.setattr("game_wm.evaluation.control.inverse_dynamics", train)
    found = list(suites.measure(checkpoint(Fake(frozen=True)), options))
    assert [each.suite for each in found] == ["fidelity"] and found[0].episodes == 2
    assert list(found[0].results["fidelity"]["psnr_by_seed"]) == ["90000", "90001"]
    told = capsys.readouterr().err
    assert "rollouts: 2 of 5 episodes, for more there is no time" in told
    assert "control: left out, for there is no time: `python -m game_wm evaluate None --suite control`" in told


def test_other_seeds_are_other_episodes(toy: None, tmp_path: Path) -> None:
    options = Options(("fidelity",), episodes=2, cache=tmp_path / "cache", first=70_000)
    fidelity = measured(checkpoint(Fake(frozen=True)), options)[0]["fidelity"]
    assert list(fidelity["psnr_by_seed"]) == ["70000", "70001"]


def test_stability_ranks_perfect_and_frozen(toy: None, features: FeatureDistance) -> None:
    cards_ = {}
    for frozen in (False, True):
        with RealGame("toy") as game:
            *parts, cards_[frozen] = stability.stability(
                Fake(frozen), game, features, 8, range(90000, 90003), frames=400
            )
        assert [part["dreamt"] for part in parts] == [16, 216, 396]  # each window is told of when it is there
        assert {"real_real", "kernel_real_real", "frechet_start"} <= set(parts[0])
        assert "frechet_middle" not in parts[0] and "dreamt" not in cards_[frozen]
    perfect, frozen_ = cards_[False], cards_[True]
    own = [perfect[f"frechet_{name}"] for name in stability.NAMES]
    assert np.mean(own) == pytest.approx(perfect["real_real"])  # it dreams what the real game does
    assert frozen_["real_real"] == perfect["real_real"]
    assert frozen_["frechet_end"] > perfect["frechet_end"]
    assert perfect["kernel_end_over_real"] == 0 and perfect["kernel_end_over_real_interval"] == [0, 0]
    for name in ("kernel_real_real", *(f"kernel_{name}" for name in stability.NAMES)):
        low, high = perfect[f"{name}_interval"]
        assert low < perfect[name] < high
    assert perfect["idle_psnr"] == pytest.approx(metrics.PSNR_CAP)  # and so does a frozen dream of standing still
    assert perfect["dreams"] == 3 and perfect["frames"] == 400


def test_a_drift_of_dreams_is_told_from_chance() -> None:
    """Sixteen plays of one world each, sixteen dreams of their own: as varied as the game, or darker by a fifth."""
    generator = torch.Generator().manual_seed(0)

    def plays(brightness: float) -> Tensor:
        worlds = torch.randint(40, 200, (16, 1, 2, 2, 3), generator=generator)
        return ((worlds + torch.randint(0, 50, (16, 12, 2, 2, 3), generator=generator)) * brightness).to(torch.uint8)

    def look(frames: Tensor) -> Any:
        parts = dict(zip(stability.NAMES, frames.split(4), strict=True))
        return stability.Wander(Prompt(0, np.zeros(0), np.zeros(0)), np.zeros(0), parts)

    class Plain:
        def vectors(self, frames: Tensor) -> np.ndarray:
            return frames.flatten(1).double().numpy()

    found = stability.Look(Plain(), [look(play) for play in plays(1.0)])  # type: ignore[arg-type]
    real, alike, darker = (found.kernels(found.project(plays(brightness))) for brightness in (1.0, 1.0, 0.8))
    value, (low, high) = found.excess(alike, real)
    assert low < 0 < high and low < value < high
    value, (low, high) = found.excess(darker, real)
    assert 0 < low < value < high
    value, (low, high) = found.distance(real)
    assert low < 0 < high and abs(value) < 0.5 * found.distance(darker)[0]
    assert found.excess(real, real) == (0, [0, 0])


def test_windows_are_those_of_the_protocol() -> None:
    spans = stability.windows(10_000)
    assert [(s[0], s[-1], len(s)) for s in spans.values()] == [(8, 496, 62), (5008, 5496, 62), (9508, 9996, 62)]


def test_outcomes_count_events_near_in_time() -> None:
    outcomes, n = Outcomes(), 40
    real, made, ends, called = (np.zeros((2, n), np.float32) for _ in range(4))
    real[:] = made[:] = -0.1  # a living cost is no event
    real[0, 10] = real[0, 30] = 3.0
    made[0, 12] = 2.5  # two frames late: found; the second is missed
    made[1, 20] = -4.0  # never happened
    ends[1, 29] = 1
    called[1, 28] = 0.9
    truth = SimpleNamespace(length=np.array([n, 30]), rewards=real, terminated=ends > 0)
    outcomes.add(truth, SimpleNamespace(rewards=made, terminated=called))  # type: ignore[arg-type]
    reward, termination = outcomes.reward(), outcomes.termination()
    assert (reward["events"], reward["recall"], reward["precision"]) == (2, 0.5, 0.5)
    assert reward["accuracy"] == pytest.approx(np.mean([37 / 40, 29 / 30]))
    assert (termination["events"], termination["recall"], termination["precision"]) == (1, 1, 1)
    assert termination["false_alarms_per_1000"] == 0 and termination["frames"] == 70


@pytest.mark.parametrize(
    "schema",
    [
        ActionSchema("discrete", ("noop", "fire", "left")),
        ActionSchema("multidiscrete", ("a", "b", "c", "d", "e"), nvec=(2, 3)),
        ActionSchema("box", ("steer", "gas"), low=(-1, 0), high=(1, 1)),
        ActionSchema("multibinary", ("jump", "run")),
    ],
)
def test_inverse_dynamics_speaks_every_kind_of_action(schema: ActionSchema) -> None:
    space = schema.space()
    space.seed(0)
    actions = torch.from_numpy(np.stack([schema.encode(space.sample()) for _ in range(6)]))
    network = InverseDynamics(48, 160, schema.size)
    output = network(torch.randint(0, 256, (6, 3, 48, 160, 3), dtype=torch.uint8))
    inverse_loss(schema, output, actions).backward()
    said = named(schema, output)
    assert said.shape == actions.shape and right(schema, said, actions).shape == (6, len(groups(schema)))
    assert right(schema, named(schema, actions if schema.kind == "box" else actions * 2 - 1), actions).all()
    if schema.kind != "box":
        schema.decode(said.numpy())  # what is named is an action


def test_triples_are_successive() -> None:
    numbers = torch.arange(6).reshape(1, 6, 1, 1, 1)
    assert triples(numbers)[0, :, :, 0, 0, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
