"""The model card: which sample of a suite it keeps, what it says, and what is refused."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from toy import run

from data_collect.errors import UserError
from game_wm.evaluation import evaluate, stability, suites
from game_wm.evaluation.options import Options
from game_wm.evaluation.report import card as cards
from game_wm.evaluation.report import page as page_of
from game_wm.library import BASE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_32_bits")]


COMMITTED = Path(__file__).parents[1] / "checkpoints"


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


def test_the_line_that_somebody_wrote_stays() -> None:
    new = {"checkpoint": "toy", "weights": "new", "calls_per_frame": 1, "game": "toy", "runs": {}}
    assert cards.merge({"line": "A toy.", "weights": "old", "fidelity": {}, "runs": {}}, new)["line"] == "A toy."


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


@pytest.mark.parametrize(
    "path", sorted({*COMMITTED.glob("*.json")} - {COMMITTED / f"{BASE}.json"}), ids=lambda path: path.stem
)
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
