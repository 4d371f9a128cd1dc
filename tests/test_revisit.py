"""The suite revisit: exact bookkeeping, models whose rank is known, and the card of both first-person suites."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import SIZE
from ring import Fake, Namer, Ring

from data_collect.errors import UserError
from game_wm.evaluation import evaluate, metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.places import detector, plot, returns, revisit
from game_wm.evaluation.report.ages import MOVING, NEVER
from game_wm.evaluation.truth.game import RealGame

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]


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
    assert visit.prompt.frames.shape == (80, SIZE, SIZE, 3) and visit.prompt.actions.shape == (79, 4)
    assert len(visit.branches) == 3
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(visit.branches, again.branches, strict=True))
    assert (visit.branches[1].actions == [0, 0, 1, 0]).all() and (visit.branches[2].actions == [0, 0, 0, 1]).all()
    env = Ring(surface=True)
    env.reset(seed=90000)
    env.x, env.y, env.taken = (int(v) for v in visit.prompt.frames[0, 0, 0])
    last: dict[int, int] = dict.fromkeys(env.info()["surface"].ravel(), 0)
    for t, action in enumerate(visit.prompt.actions):
        frame, *_, info = env.step(action)
        assert np.array_equal(frame, visit.prompt.frames[t + 1])
        last |= dict.fromkeys(info["surface"].ravel(), t + 1)
    for n, action in enumerate(visit.branches[0].actions):
        frame, *_, info = env.step(action)
        assert np.array_equal(frame, visit.branches[0].frames[n])
        expected = [80 + n - last[patch] if patch in last else NEVER for patch in info["surface"].ravel()]
        assert visit.branches[0].ages[n].ravel().tolist() == expected
    ages = np.stack([branch.ages for branch in visit.branches])
    assert returns.of_age(ages, "17-64").any() and returns.of_age(ages, "never").any()


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
    monkeypatch.setattr("game_wm.evaluation.control.trained_namer", lambda *_: Namer())
    monkeypatch.setattr("game_wm.evaluation.places.dream.LENGTHS", (40,))
    monkeypatch.setattr(detector, "thing_detector", lambda *_: detector.Detector())
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(path), *arguments]) == 0
    file = tmp_path / "ring.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_both_suites_write_the_card_and_its_pictures(
    ring: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ring-window.safetensors").write_bytes(b"window")
    monkeypatch.setattr(detector, "has_gems", lambda game: False)
    arguments = ("--suite", "revisit,dream", "--episodes", "2", "--prompts", "40")
    card = run(tmp_path, monkeypatch, *arguments)
    assert set(card["revisit"]) == {"40/1-8", "40/9-32"}
    expected = {
        "psnr",
        "psnr_interval",
        "feature_distance",
        "feature_distance_interval",
        "ceiling_psnr",
        "mazes",
        "held",
    }
    assert set(card["revisit"]["40/1-8"]) == expected | {"held", "window_only"}
    assert {"turn_round_psnr", "turn_round_counted", "there_and_back_psnr"} <= set(card["dream"])
    assert not {"taken_stays_taken", "untouched_stays", "detector"} & set(card["dream"])
    assert (tmp_path / "ring-ways.png").exists()
    assert "the game has no option `gems`" in capsys.readouterr().err
    assert card["command"].endswith("--suite revisit,dream --episodes 2 --prompts 40")
    assert card["runs"]["revisit"]["window"] == "ring-window.safetensors" and card["seeds"] == "90000-90001"
    page = (tmp_path / "ring.md").read_text()
    assert "## Revisit" in page and "## Dream" in page and "window only" in page
    assert "The rollouts hold `turn_left` or `turn_right` or follow the explorer." in page
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
