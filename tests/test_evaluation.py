"""Evaluation: exact metrics, and fake models whose rank is known."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from fakes import SIZE, TrueGame
from played import Played
from torch import Tensor

from data_collect import games
from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from game_wm.evaluation import evaluate, metrics, stability, suites
from game_wm.evaluation.control import InverseDynamics, groups, named, right, triples
from game_wm.evaluation.control import loss as inverse_loss
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.options import Options
from game_wm.evaluation.outcomes import Outcomes
from game_wm.evaluation.report import card as cards
from game_wm.evaluation.report import page as page_of
from game_wm.evaluation.rollout import roll
from game_wm.evaluation.truth import game as truth_game
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import stack

COMMITTED = Path(__file__).parents[1] / "checkpoints"
BUTTONS = ("left", "right", "up", "down")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]


class Toy(Played, gymnasium.Env):
    """A torus with a texture of its seed's own, seen through a window; the first pixel tells where the window is."""

    def __init__(self, ends: bool = False, surface: bool = False) -> None:
        self.ends, self.surface = ends, surface
        self.action_schema = ActionSchema("multibinary", BUTTONS, fps=20)
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.paid = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        self.texture = np.kron(coarse, np.ones((4, 4, 1), np.uint8))
        self.x, self.y = 10, 10
        return self.frame(), self._info()

    def frame(self) -> np.ndarray:
        frame = np.roll(self.texture, (-self.y, -self.x), (0, 1))[:SIZE, :SIZE].copy()
        frame[0, 0] = self.x, self.y, 0
        return frame

    def _info(self) -> dict[str, Any]:
        if not self.surface:
            return {}
        numbers = np.arange(64 * 64).reshape(64, 64)
        return {"surface": np.roll(numbers, (-self.y, -self.x), (0, 1))[:SIZE, :SIZE]}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        left, right_, up, down = (int(v) for v in action)
        self.x, self.y = (self.x + right_ - left) % 64, (self.y + down - up) % 64
        reward = float(self.x % 8 == 0 and right_ != left)
        return self.frame(), reward, self.ends and self.x == 16, False, self._info()


class Fake(TrueGame):
    """Dreams the torus ("perfect") or shows the last frame for ever ("frozen")."""

    def __init__(self, frozen: bool, ends: bool = False) -> None:
        super().__init__()
        self.frozen, self.ends = frozen, ends

    def game(self, seed: int, last: np.ndarray) -> Toy:
        game = Toy(self.ends)
        game.reset(seed=seed)
        game.x, game.y = int(last[0, 0, 0]), int(last[0, 0, 1])
        return game


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "option_names", lambda game_id: ("ends", "surface"))
    monkeypatch.setattr(
        truth_game, "Forgiving", lambda game_id, tally, frame, **options: Toy("ends" in game_id, **options)
    )


def checkpoint(model: Fake, path: Path | None = None) -> Any:
    return SimpleNamespace(
        contexts_frames=torch.zeros(1, 5, 1, 1, 3),
        model=model, schema=Toy().action_schema, game="toy", name="toy", parameters=5_000_000,
        trained={"frames": 1000, "hours": 0.5, "machine": "2 cores"}, path=path, check_steps=lambda steps: None,
    )  # fmt: skip


# --- metrics ----------------------------------------------------------------------------------------------------------


def frames(*values: int) -> Tensor:
    return torch.stack([torch.full((16, 16, 3), v, dtype=torch.uint8) for v in values])


def test_psnr_is_exact() -> None:
    values = metrics.psnr(frames(100, 100, 0), frames(100, 110, 255))
    assert values.tolist() == pytest.approx([metrics.PSNR_CAP, 20 * math.log10(25.5), 0.0])


def test_psnr_within_a_mask() -> None:
    a, b = frames(100, 100), frames(100, 100)
    b[:, :8] = 110
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, :4] = True
    values = metrics.psnr(a, b, mask)
    assert values[0].item() == pytest.approx(20 * math.log10(25.5))
    assert math.isnan(values[1].item())


def test_pooled_psnr_is_not_flattered_by_equal_pictures() -> None:
    errors = metrics.squared_error(frames(100, 100, 100), frames(100, 110, 110))
    assert metrics.pooled_psnr(errors) == pytest.approx(20 * math.log10(255) - 10 * math.log10(200 / 3))
    missing = np.vstack([errors[1:2], [[math.nan, math.nan]], [[0, 0]]])
    assert metrics.pooled_psnr(missing) == pytest.approx(20 * math.log10(25.5))
    assert math.isnan(metrics.pooled_psnr(missing[1:]))


def test_blur_lowers_ssim_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    sharp = torch.randint(0, 256, (2, 32, 32, 3), generator=generator, dtype=torch.uint8)
    image = torch.nn.functional.avg_pool2d(metrics.unit(sharp), 3, 1, 1)
    blurred = (image * 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert metrics.ssim(sharp, sharp).tolist() == pytest.approx([1, 1])
    assert (metrics.ssim(sharp, blurred) < 0.9).all()
    assert (metrics.gradient(blurred) < metrics.gradient(sharp)).all()
    assert metrics.gradient(frames(7)).item() == 0


def test_bootstrap_covers_the_mean_and_skips_missing_episodes() -> None:
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = metrics.bootstrap(np.append(values, math.nan))
    assert low < values.mean() < high and 0.2 < high - low < 0.4
    assert metrics.bootstrap(np.full(4, 3.0)) == (3.0, 3.0)
    assert math.isnan(metrics.bootstrap(np.array([math.nan]))[0])
    assert metrics.ratio(np.array([[1.0, 2.0], [3.0, 4.0], [math.nan, 1.0]])) == pytest.approx(4 / 6)


def test_frechet_distance() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(500, 6))
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet(a, a + 2.0) == pytest.approx(6 * 4, rel=1e-9)  # moved by 2 in six dimensions
    assert metrics.frechet(a, a * 3) == pytest.approx(  # σ and 3σ differ by 2σ, the means by twice a's
        4 * np.trace(np.cov(a.T)) + 4 * np.square(a.mean(0)).sum(), rel=1e-6
    )
    components = metrics.Components(generator.normal(size=(50, 8)) * np.arange(8), 3)
    assert components(np.zeros((5, 8))).shape == (5, 3)


def test_every_interval_contains_its_figure() -> None:
    generator = np.random.default_rng(0)
    for draw in range(60):
        count = int(generator.integers(1, 9))
        pairs = np.exp(generator.normal(0, 3, (count, 2)))  # skewed, as squared errors are
        pairs[generator.random(count) < 0.2] = math.nan
        flags = (generator.random((count, 1)) < 0.3).astype(float)
        for values, statistic in (
            (pairs, metrics.pooled_psnr),
            (pairs, metrics.ratio),
            (pairs[:, :1], metrics.mean),
            (flags, metrics.mean),
            (np.full((count, 1), 0.1), metrics.mean),  # whose mean is not 0.1 to the last bit
        ):
            low, high = metrics.bootstrap(values, statistic, 40, seed=draw)
            point = statistic(values)
            assert low <= point <= high or (math.isnan(low) and (~np.isnan(values[:, 0])).sum() < 2)


def groups_of(generator: np.random.Generator, count: int, moved: float, spread: float, size: int = 6) -> np.ndarray:
    """Groups (S, N, D) whose samples resemble each other, and are of N(moved, spread²) all the same."""
    shared = generator.normal(size=(count, 1, 8)) * math.sqrt(0.7)
    return moved + spread * (shared + generator.normal(size=(count, size, 8)) * math.sqrt(0.3))


@pytest.mark.parametrize(("moved", "spread"), [(0.0, 1.0), (0.5, 1.0), (0.0, 1.6)])
def test_kernel_distance_is_unbiased_and_its_interval_right(moved: float, spread: float) -> None:
    generator = np.random.default_rng(1)
    a, a_again = moved + spread * generator.normal(size=(2, 1, 3000, 8))
    b, b_again = generator.normal(size=(2, 1, 3000, 8))
    true = metrics.kernel_means(a, a_again) + metrics.kernel_means(b, b_again) - 2 * metrics.kernel_means(a, b)
    true = 0.0 if (moved, spread) == (0, 1) else true.item()
    found, covered, frechets = [], [], []
    for _ in range(300):
        dreams, plays = groups_of(generator, 8, moved, spread), groups_of(generator, 8, 0, 1)
        frechets.append(metrics.frechet(dreams.reshape(-1, 8), plays.reshape(-1, 8)))
        kernels = [metrics.kernel_means(*pair) for pair in ((dreams, dreams), (plays, plays), (dreams, plays))]

        def distance(s: np.ndarray, t: np.ndarray, kernels: list[np.ndarray] = kernels) -> float:
            return metrics.kernel_distance(kernels[0][np.ix_(s, s)], kernels[1][np.ix_(t, t)], kernels[2][np.ix_(s, t)])

        every = np.arange(8)
        found.append(distance(every, every))
        without = [np.delete(every, i) for i in every]
        low, high = metrics.jackknife(
            found[-1], [distance(s, every) for s in without], [distance(every, t) for t in without]
        )
        assert low <= found[-1] <= high
        covered.append(low <= true <= high)
    assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / math.sqrt(300) + 0.03 * true)
    assert np.mean(covered) >= 0.92
    if not true:
        assert np.mean(frechets) > 3  # where the kernel distance is 0


def test_students_t() -> None:
    assert [round(metrics.student(n), 2) for n in (1, 3, 10, 15, 30, 120)] == [12.71, 3.18, 2.23, 2.13, 2.04, 1.98]


def test_feature_distance_ranks_damage(features: FeatureDistance) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.from_numpy(np.stack([Toy().reset(seed=s)[0] for s in range(3)]))
    slightly = (truth.float() + 4 * torch.randn(truth.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    other = torch.from_numpy(np.stack([Toy().reset(seed=s + 10)[0] for s in range(3)]))
    same, near, far = features.distances(truth, truth, slightly, other)
    assert same.tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert (near < far).all() and (near > 0).all()
    assert features.distance(truth, other).tolist() == pytest.approx(far.tolist(), rel=1e-4)
    assert features.vectors(truth).shape == (3, 512)


def test_features_are_frozen_and_differentiable(features: FeatureDistance) -> None:
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    features.network.train()
    assert not features.network.net.training
    features.network.distance(image, torch.rand(1, 3, 64, 64)).sum().backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in features.network.parameters())


# --- truth ------------------------------------------------------------------------------------------------------------


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


# --- suites -----------------------------------------------------------------------------------------------------------


def measured(checkpoint: Any, options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and pictures of all the suites together."""
    results, pictures = dict[str, Any](), dict[str, Any]()
    for found in suites.measure(checkpoint, options):
        results |= found.results
        pictures |= found.pictures
    return results, pictures


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
        return stability.Wander(0, frames[:0], torch.zeros(0, 4), parts)

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
    outcomes.add(np.array([n, 30]), real, made, ends > 0, called)
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


# --- the card ---------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, frozen: bool = False) -> dict[str, Any]:
    """`evaluate` from its command line with a fake model in place of the file's."""
    path = tmp_path / "toy.safetensors"
    if not path.exists():
        path.write_bytes(b"weights")
    monkeypatch.setattr("game_wm.checkpoint.load", lambda p, device="cpu": checkpoint(Fake(frozen), Path(p)))
    monkeypatch.setattr("game_wm.evaluation.cost.measure", lambda *a, **k: {"fps_median": 70.0, "frames": a[1]})
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(path), *arguments]) == 0
    return json.loads((tmp_path / "toy.json").read_text())


def test_card_keeps_the_suites_of_the_same_weights(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = run(tmp_path, monkeypatch, "--suite", "cost", "--episodes", "2", "--json", "-")
    assert json.loads(capsys.readouterr().out) == card
    assert card["cost"] == {"fps_median": 70.0, "frames": 1250}
    assert not {"fidelity", "control", "stability", "reward", "termination", "seeds", "teacher"} & set(card)

    card = run(tmp_path, monkeypatch, "--suite", "fidelity", "--episodes", "2", "--json", str(tmp_path / "copy.json"))
    expected = {
        "checkpoint",
        "game",
        "parameters",
        "tokens_per_frame",
        "calls_per_frame",
        "trained",
        "weights",
        "command",
    }
    assert expected | {"seeds", "fidelity", "reward", "termination", "cost", "runs"} == set(card)
    expected = {"psnr", "psnr_seen", "ssim", "feature_distance", "sharpness", "psnr_by_seed", "ceiling_psnr"}
    assert expected | {"repeat_psnr", "repeat_feature_distance", "psnr_interval"} <= set(card["fidelity"])
    assert card["seeds"] == "90000-90001" and card["parameters"] == 5_000_000 and card["tokens_per_frame"] == 7
    assert card["command"].endswith("--suite fidelity,cost --episodes 2")
    assert json.loads((tmp_path / "copy.json").read_text()) == card
    page = (tmp_path / "toy.md").read_text()
    assert "## Fidelity" in page and "## Cost" in page and "## Control" not in page and "toy.png" in page
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")

    card = run(tmp_path, monkeypatch, "--suite", "stability", "--episodes", "2", "--frames", "160")
    assert {"real_real", "frechet_start", "frechet_middle", "frechet_end", "idle_psnr"} <= set(card["stability"])
    assert card["command"].endswith("--suite stability --episodes 2 --frames 160") and " && " in card["command"]
    assert card["seeds"] == "90000-90003" and "fidelity" in card and "cost" in card
    assert "## Stability" in (tmp_path / "toy.md").read_text()

    (tmp_path / "toy.safetensors").write_bytes(b"other weights")
    card = run(tmp_path, monkeypatch, "--suite", "cost", "--episodes", "2")
    assert "fidelity" not in card and "cost" in card


def test_two_evaluations_at_a_time_keep_what_both_found(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = suites.measure

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(suites, "measure", measure)
        run(tmp_path, monkeypatch, "--suite", "cost", "--episodes", "2")
        return measure(*arguments)

    monkeypatch.setattr(suites, "measure", meanwhile)
    card = run(tmp_path, monkeypatch, "--suite", "fidelity", "--episodes", "2")
    assert "fidelity" in card and "cost" in card


def test_a_smaller_sample_leaves_a_larger_one_alone(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = run(tmp_path, monkeypatch, "--suite", "fidelity,cost", "--episodes", "3")
    names = ("toy.json", "toy.md", "toy.png")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    capsys.readouterr()

    assert run(tmp_path, monkeypatch, "--suite", "fidelity", "--episodes", "2", "--json", "copy.json") == card
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    out, err = capsys.readouterr()
    assert "## Fidelity" in out and "toy.2-episodes.json" in err and "toy.json has a larger sample" in err
    assert "--replace" in err
    aside = json.loads((tmp_path / "toy.2-episodes.json").read_text())
    assert aside["fidelity"]["episodes"] == 2 and "cost" not in aside and aside["checkpoint"] == "toy"
    page = (tmp_path / "toy.2-episodes.md").read_text()
    assert "(toy.2-episodes.png)" in page and (tmp_path / "toy.2-episodes.png").exists()
    copy = json.loads((tmp_path / "copy.json").read_text())  # what was measured now, and what there is besides
    assert copy["fidelity"] == aside["fidelity"] and copy["cost"] == card["cost"]

    monkeypatch.setattr("game_wm.evaluation.control.PLAYS", 24)
    monkeypatch.setattr("game_wm.evaluation.control.UPDATES", 40)
    card = run(tmp_path, monkeypatch, "--suite", "control", "--episodes", "2")  # of which there was none
    assert "control" in card and card["fidelity"]["episodes"] == 3
    assert card["seeds"] == "90000-90002"

    card = run(tmp_path, monkeypatch, "--suite", "fidelity", "--episodes", "2", "--replace")
    assert card["fidelity"] == aside["fidelity"] and "control" in card
    assert not list(tmp_path.glob("toy.2-episodes*"))  # it is in the card now

    run(tmp_path, monkeypatch, "--suite", "cost", "--frames", "10", "--episodes", "2")
    assert json.loads((tmp_path / "toy.2-episodes.json").read_text())["cost"]["frames"] == 10
    run(tmp_path, monkeypatch, "--suite", "cost", "--frames", "2000", "--episodes", "2")
    assert json.loads((tmp_path / "toy.json").read_text())["cost"]["frames"] == 2000
    assert not list(tmp_path.glob("toy.2-episodes*"))


def test_other_calls_a_frame_have_a_card_of_their_own(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(tmp_path, monkeypatch, "--suite", "cost,fidelity", "--episodes", "2")
    assert run(tmp_path, monkeypatch, "--suite", "cost", "--episodes", "2", "--steps", "4") == before
    other = json.loads((tmp_path / "toy.4-calls.json").read_text())
    assert other["calls_per_frame"] == 4 and "fidelity" not in other and other["command"].endswith("--steps 4")


def test_figures_are_written_as_soon_as_they_are_there(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed later keeps the suites before, and of stability the windows before."""
    arguments = ("--suite", "fidelity,control,stability", "--episodes", "3", "--frames", "400")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("game_wm.evaluation.control.trained_namer", interrupt)
        run(tmp_path, monkeypatch, *arguments)
    card = json.loads((tmp_path / "toy.json").read_text())
    assert "fidelity" in card and "control" not in card

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stability, "idle_psnr", interrupt)
        run(tmp_path, monkeypatch, "--suite", "stability", *arguments[2:])
    card = json.loads((tmp_path / "toy.json").read_text())
    assert {"frechet_start", "frechet_end", "kernel_end"} <= set(card["stability"]) and "fidelity" in card
    assert card["stability"]["dreamt"] == 396
    whole = run(tmp_path, monkeypatch, "--suite", "stability", *arguments[2:])
    assert "dreamt" not in whole["stability"] and "idle_psnr" in whole["stability"]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # again: less than there is
        patch.setattr(stability, "idle_psnr", interrupt)
        run(tmp_path, monkeypatch, "--suite", "stability", *arguments[2:])
    assert json.loads((tmp_path / "toy.json").read_text()) == whole
    assert json.loads((tmp_path / "toy.3-episodes.json").read_text())["stability"]["dreamt"] == 396


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_networks_that_measure_are_trained_in_proportion_to_the_sample() -> None:
    assert [Options(episodes=count).share(3000) for count in (64, 24, 8, 4, 2, 1)] == [3000, 3000, 3000, 1500, 750, 375]
    assert [Options(episodes=count).share(8) for count in (64, 8, 2, 1)] == [8, 8, 2, 1]


def test_a_command_in_a_card_can_be_pasted(toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "my cards"
    run(tmp_path, monkeypatch, "--suite", "cost", "--episodes", "2")
    assert evaluate.main(["toy.safetensors", "--suite", "cost", "--episodes", "2", "--out", str(out)]) == 0
    words = shlex.split(json.loads((out / "toy.json").read_text())["command"])
    assert words[:5] == ["python", "-m", "game_wm", "evaluate", "toy.safetensors"] and words[-1] == str(out)


def test_commands_with_different_options_are_both_told() -> None:
    runs = {
        "fidelity": {"command": "evaluate x --suite {suites}", "seeds": "90000-90063"},
        "control": {"command": "evaluate x --suite {suites}", "seeds": "90000-90063"},
        "stability": {"command": "evaluate x --suite {suites} --episodes 4", "seeds": "90000-90007"},
    }
    assert cards.command(runs) == "evaluate x --suite fidelity,control && evaluate x --suite stability --episodes 4"
    assert cards.seeds(runs) == "90000-90063"
    assert cards.seeds({**runs, "revisit": {"seeds": "91000-91005"}}) == "90000-90063, 91000-91005"
    assert cards.seeds({"cost": {}}) == ""


def figures_with_intervals(card: dict[str, Any]) -> list[tuple[str, float, list[float]]]:
    """Every figure of a card that has an interval beside it."""
    found = []
    for name, value in card.items():
        interval = card.get(f"{name}_interval")
        if isinstance(interval, list):
            found.append((name, value, interval))
        elif isinstance(interval, dict):
            found += [(f"{name} {key}", value[key], interval[key]) for key in value]
        elif isinstance(value, dict):
            found += figures_with_intervals(value)
    return found


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.json")), ids=lambda path: path.stem)
def test_committed_cards_agree_with_themselves(path: Path) -> None:
    card = json.loads(path.read_text())
    assert card["command"] == cards.command(card["runs"]) and card["seeds"] == cards.seeds(card["runs"])
    assert path.with_suffix(".md").read_text() == page_of.markdown(card, path)
    found = figures_with_intervals(card)
    assert len(found) > 20
    assert [row for row in found if not row[2][0] <= row[1] <= row[2][1]] == []


def test_an_interval_beside_its_figure_is_not_shown() -> None:
    figures = {"dreams": 16, "frames": 10_000, "real_real": 63.4, "real_real_interval": [0, 46], "frechet_start": 594.0}
    page = "\n".join(page_of.section({"stability": figures}, "stability"))
    assert "| real against real | 63.4 |" in page and "±" not in page and "kernel" not in page
    judged = figures | {"kernel_real_real": 0.01, "kernel_real_real_interval": [-0.02, 0.04], "dreamt": 500}
    page = "\n".join(page_of.section({"stability": judged}, "stability"))
    assert "| real against real | 63.4 | 0.010 ± 0.030 |" in page and "| dream, start | 594.0 | – |" in page
    assert "10,000 frames, 500 of them dreamt so far" in page


def test_what_is_no_number_is_absent() -> None:
    assert cards.tidy({"a": math.nan, "b": {"c": 1.23456789}, "d": (1, 2)}) == {"b": {"c": 1.2346}, "d": [1, 2]}
    assert cards.tidy({"a_interval": [math.nan, math.nan], "e": [1.0, 2.0]}) == {"e": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "speed"], "unknown suite speed"),
        (["--suite", ""], "unknown suite"),
        (["--episodes", "0"], "--episodes"),
        (["--first-seed", "-1"], "--first-seed"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        evaluate.main([str(tmp_path / "x.safetensors"), *arguments])


def test_files_that_are_no_checkpoint_or_no_card_are_refused(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        evaluate.main([str(tmp_path / "missing.safetensors")])
    with pytest.raises(UserError, match="another folder with --out"):
        run(tmp_path, monkeypatch, "--suite", "cost", "--out", str(tmp_path / "toy.safetensors"))
    with pytest.raises(UserError, match="another folder with --json"):
        run(tmp_path, monkeypatch, "--suite", "cost", "--json", str(tmp_path / "toy.safetensors" / "card.json"))
    with pytest.raises(UserError, match=r"none\.safetensors: no such file"):
        run(tmp_path, monkeypatch, "--suite", "cost,revisit", "--window", str(tmp_path / "none.safetensors"))
    assert not (tmp_path / "toy.json").exists()
    (tmp_path / "toy.json").write_text("[]")
    with pytest.raises(UserError, match=r"toy\.json is not a card"):
        run(tmp_path, monkeypatch, "--suite", "cost")
