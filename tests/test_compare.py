"""Comparisons: rows trained, judged, timed and put into one table; what is finished is skipped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from tiny import tiny_checkpoint, tiny_world

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.__main__ import main
from game_wm.checkpoint import load
from train.__main__ import main as train
from train.checkpoints import load_tokenizer
from train.data.encode import encode
from train.lab import compare as comparison
from train.lab import player_run, runs
from train.lab.played import reconfigured
from train.lab.plot import frontier
from train.lab.rows import FAMILIES, read_rows
from train.lab.table import add_ratios
from train.lab.timing import cores_in_use, in_turn
from train.report.figures import read_figures

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SMALL = {"encoder_widths": [16, 16, 16], "decoder_widths": [16, 16, 16], "decoder_blocks": 1}
DYNAMICS = {"widths": [32, 32], "blocks": [1, 1], "heads": 2, "window": 8, "context_width": 32}
ROWS: dict[str, dict[str, Any]] = {
    "base": {"row": {"family": "modelling", "method": "flow", "why": "default", "stage": "dynamics"}},
    "codes": {"row": {"family": "tokenizer", "method": "codes", "why": "discrete", "stage": "tokenizer"},
              "name": "other", "model": {"tokenizer": {"channels": 3, "levels": [5, 5, 5], "temporal": True}}},
    "masked": {"row": {"family": "modelling", "method": "masked", "why": "parallel", "stage": "dynamics",
                       "tokens": "codes"},
               "data": {"latents": "nowhere"}, "model": {"objective": {"kind": "masked", "steps": 2}}},
    "merged": {"row": {"family": "inference", "method": "merging", "why": "fewer tokens", "from": "masked",
                       "play": {"merge": 0.25}}},
    "pair": {"row": {"family": "inference", "method": "two players", "why": "at once", "from": "base",
                     "play": {"players": 2}}},
    "pruned": {"row": {"family": "inference", "method": "half", "why": "smaller", "from": "base", "prune": 0.5}},
    "ships": {"row": {"family": "combined", "method": "16 bits", "why": "it ships",
                      "checkpoint": str(ROOT / "checkpoints" / "maze.safetensors")}},
    "twice": {"row": {"family": "modelling", "method": "two calls", "why": "sharper", "from": "base", "calls": 2}},
}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of rows and a protocol of seconds, on a tiny recording; stages are trained in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(comparison, "cores_in_use", lambda: cores_in_use(0.05))
    monkeypatch.setattr(runs, "run_process", lambda command: train(command[3:]))
    monkeypatch.setattr(
        player_run, "revisit", lambda *_, **__: ({"1024/1-8": {"psnr": {"17-64": 1.0, "65-256": 9.0}}}, [])
    )
    record(tmp_path / "data", "maze?size=7", "random", 320, seed=3, episode_frames=40)
    tokenizer = tiny_world().tokenizer
    weights = {f"tokenizer.{k}": v for k, v in tokenizer.state_dict().items()}
    card = {"stage": "tokenizer", "game": "maze"}
    torch.save(
        {"game_wm": card, "config": asdict(tokenizer.config), "state_dict": weights}, tmp_path / "tokenizer.ckpt"
    )
    encode([str(tmp_path / "data")], load_tokenizer(tmp_path / "tokenizer.ckpt"), tmp_path / "latents")
    stages = {
        "dynamics": {"data": {"latents": "", "length": 12, "batch_size": 2},
                     "model": {"dynamics": DYNAMICS, "targets": 2}},
        "tokenizer": {"data": {"data": [], "batch_size": 4}, "model": {"tokenizer": SMALL, "perceptual": 0.0}},
    }  # fmt: skip
    for stage, content in stages.items():
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(content))
    flags = {"trainer.log_every_n_steps": 1, "trainer.limit_val_batches": 0, "steps": 5, "sample_minutes": 1000}
    protocol = {
        "config": str(tmp_path / "dynamics.yaml"), "tokenize": str(tmp_path / "tokenizer.yaml"),
        "latents": str(tmp_path / "latents"), "tokenizer": str(tmp_path / "tokenizer.ckpt"), "revisit": 1,
        "runs": str(tmp_path / "runs"), "minutes": 5, "episodes": 2, "horizons": [1, 2, 3], "prompt": 10, "timed": 4,
        "flags": flags, "default": "base", "defaults": {"tokenizer": "codes", "combined": "ships"},
    }  # fmt: skip
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "protocol.yaml").write_text(yaml.safe_dump(protocol))
    shipped = str(tiny_checkpoint(tmp_path / "ships.safetensors"))
    for name, content in ROWS.items():
        row = content["row"] | ({"checkpoint": shipped} if "checkpoint" in content["row"] else {})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | {"row": row}))
    return folder


def compare(lab: Path, *flags: str) -> int:
    files = sorted(str(path) for path in lab.glob("*.yaml"))
    return main(["compare", *files, "--out", str(lab.parent / "docs" / "efficiency"), *flags])


def stopped_at(steps: int) -> Callable[[list[str]], int]:
    """`runs.run_process` of a stage that is told to save and end after so many steps."""

    def run(command: list[str]) -> int:
        train([*command[3:], "--steps", str(steps)])
        raise SystemExit(143)

    return run


def test_rows_are_trained_judged_and_timed_and_an_interrupted_comparison_continues(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lab.parent / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "run_process", stopped_at(2))
        with pytest.raises(SystemExit):
            compare(lab, "--only", "base")
    assert compare(lab) == 0
    assert [step for step, _ in read_figures(folder / "trial-base" / "dynamics", "loss")] == [0, 1, 2, 3, 4]

    entries = {row["name"]: row for row in json.loads((lab.parent / "docs" / "efficiency.json").read_text())}
    assert set(entries) == set(ROWS) and all(row["status"] == "measured" for row in entries.values())
    for name, row in entries.items():
        assert (row["family"], row["config"]) == (ROWS[name]["row"]["family"], str(lab / f"{name}.yaml"))
        assert row["sample"]["episodes"] == 2 and row["sample"]["machine"]
    base, pair, codes = entries["base"], entries["pair"], entries["codes"]
    ships = entries["ships"]
    assert "minutes" not in ships and ships["ratio"]["psnr"] == dict.fromkeys("123", 1.0) and ships["megabytes"] > 0
    players = [row for row in entries.values() if row not in (codes, ships)]
    for row in players:
        assert set(row["psnr"]) == set(row["sharpness"]) == set(row["feature_distance"]) == {"1", "2", "3"}
        assert row["revisit_psnr"] == 9.0 and row["ms_per_frame"] > 0 and row["megabytes"] > 0
        assert row["ratio"]["psnr"]["3"] == pytest.approx(row["psnr"]["3"] / base["psnr"]["3"], rel=1e-3)
    assert base["ratio"]["parameters"] == base["ratio"]["psnr"]["1"] == 1 and base["training_frames_per_second"] > 0
    assert [entries[name]["calls_per_frame"] for name in ("base", "twice", "masked", "merged")] == [1, 2, 2, 2]
    assert entries["twice"]["sharpness"] != base["sharpness"] and entries["pruned"]["ratio"]["parameters"] < 1
    assert "quality_of" not in entries["merged"] and entries["merged"]["parameters"] == entries["masked"]["parameters"]
    assert pair["quality_of"] == "base" and pair["psnr"] == base["psnr"] and pair["players"] == 2
    assert pair["frames_per_second"] == pytest.approx(2e3 / pair["ms_per_frame"], rel=1e-3)
    assert "training_frames_per_second" not in pair and pair["minutes"] == base["minutes"] == 5
    assert codes["tokens_per_frame"] == 64 and codes["reconstruction_psnr"] > 0 and codes["ms_to_decode"] > 0
    assert load(folder / "trial-masked" / "masked.safetensors").model.config.tokenizer.levels == (5, 5, 5)
    page = lab.parent / "docs" / "efficiency.md"
    for words in ("2 held-out episodes", "(×1.00)", "frames as those of base", "## Combined"):
        assert words in page.read_text()
    assert Image.open(lab.parent / "docs" / "efficiency.png").width == 1120

    # Again: nothing is trained or judged.
    monkeypatch.setattr(runs, "run_process", stopped_at(0))
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json") if path.parent.name == "trials"}
    assert compare(lab, "--measure") == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_remarks_stay_and_rows_that_are_missing_or_fail_are_reported(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(lab, "--only", "masked") == 0
    page = lab.parent / "docs" / "efficiency.md"

    # What people have written stays. A row that is added is not run with --measure, and stays in the table.
    remarks = "\n\n## What was learnt\n\nThat two are better than one.\n"
    page.write_text(page.read_text().rstrip() + remarks)
    later = {"row": ROWS["base"]["row"] | {"method": "later"}}
    (lab / "later.yaml").write_text(yaml.safe_dump(later))
    assert compare(lab, "--measure") == 0
    entries = {row["name"]: row for row in json.loads((lab.parent / "docs" / "efficiency.json").read_text())}
    assert entries["later"]["status"] == "not run" and "psnr" not in entries["later"]
    assert "**not run**" in page.read_text() and page.read_text().endswith(f"|{remarks}")

    # A row that cannot be played so is reported, and so is one whose training fails, and one that needs it.
    fused = {"row": ROWS["merged"]["row"] | {"from": "base"}}
    (lab / "fused.yaml").write_text(yaml.safe_dump(fused))
    assert compare(lab, "--only", "fused") == 1
    entries = {row["name"]: row for row in json.loads((lab.parent / "docs" / "efficiency.json").read_text())}
    assert "all tokens of a frame at once" in entries["fused"]["note"] and entries["fused"]["status"] == "not run"
    monkeypatch.setattr(runs, "run_process", lambda command: 1)
    more = {"row": ROWS["twice"]["row"] | {"from": "later"}}
    (lab / "more.yaml").write_text(yaml.safe_dump(more))
    assert compare(lab, "--only", "more") == 1
    entries = {row["name"]: row for row in json.loads((lab.parent / "docs" / "efficiency.json").read_text())}
    assert entries["later"]["note"] == "its training failed" and "needs later" in entries["more"]["note"]


def test_a_smaller_table_never_replaces_a_larger_one(tmp_path: Path) -> None:
    def table(names: str, minutes: float = 6.0, episodes: int = 24) -> list[dict[str, Any]]:
        sample = {"minutes_a_row": minutes, "episodes": episodes}
        return [{"name": name, "sample": sample} for name in names] + [{"name": "failed", "status": "not run"}]

    out = tmp_path / "v1.0"  # a name with a dot keeps it
    assert comparison.beside(out, table("ab")) == out
    (tmp_path / "v1.0.json").write_text(json.dumps(table("abc")))
    assert comparison.beside(out, table("abc")) == comparison.beside(out, table("abcd", 10)) == out
    assert comparison.beside(out, table("ab")).name == "v1.0-2-rows-6-minutes"
    assert comparison.beside(out, table("abc", 0.5)).name == "v1.0-3-rows-0.5-minutes"
    assert comparison.beside(out, table("abd", 10)).name == "v1.0-3-rows-10-minutes"  # c would be lost
    assert comparison.beside(out, table("abc", episodes=2)) != out
    (tmp_path / "v1.0.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"v1\.0\.json is no table of a comparison"):
        comparison.beside(out, table("abc"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rows": {"family": "modelling"}}, "no entry `row`"),
        ({"row": {"family": "cooking", "method": "m", "why": "w", "stage": "dynamics"}}, "family"),
        ({"row": ROWS["base"]["row"] | {"colour": "blue"}}, "colour"),
        ({"row": ROWS["twice"]["row"] | {"from": "nobody"}}, "needs nobody"),
        ({"row": {"family": "inference", "method": "m", "why": "w"}}, "begins with nothing"),
        ({"row": ROWS["twice"]["row"], "model": {"lr": 1.0}}, "no use for model.lr"),
        ({"row": ROWS["twice"]["row"] | {"from": "codes"}}, "name that one as `tokens`"),
        ({"row": ROWS["masked"]["row"] | {"tokens": "base"}}, "no tokenizer's"),
        ({"row": ROWS["base"]["row"] | {"stage": "distill"}}, "needs a teacher"),
        ({"row": ROWS["merged"]["row"] | {"play": {"merge": 0.5, "compiled": True}}}, "it can have one"),
        ({"row": ROWS["twice"]["row"] | {"from": "wrong"}}, "rows that need it"),
        ({"row": ROWS["twice"]["row"] | {"checkpoint": "maze.safetensors"}}, "leave `stage`, `from` and `tokens` out"),
        ({"row": ROWS["ships"]["row"] | {"checkpoint": "nowhere.safetensors"}}, "nowhere.safetensors: no such file"),
    ],
)
def test_wrong_rows_are_one_sentence(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    (tmp_path / "protocol.yaml").write_text(yaml.safe_dump({"config": "c", "latents": "l", "tokenizer": "t"}))
    for name, content in {**ROWS, "wrong": wrong}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=words) as caught:
        main(["compare", *(str(path) for path in tmp_path.glob("*.yaml"))])
    assert "wrong.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_names_and_protocols_are_one_sentence(tmp_path: Path) -> None:
    files = sorted(str(path) for path in (ROOT / "configs" / "lab").glob("*.yaml"))
    with pytest.raises(UserError, match="no row is called nobody: there are "):
        main(["compare", *files, "--only", "nobody"])
    with pytest.raises(UserError, match="the default base is not among the files"):
        main(["compare", str(ROOT / "configs" / "lab" / "masked.yaml")])
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        main(["compare", "nowhere.yaml"])
    words = (ROOT / "configs" / "lab" / "protocol.yaml").read_text()
    (tmp_path / "protocol.yaml").write_text(words.replace("{tokenizer:", "{tokeniser:"))
    with pytest.raises(UserError, match="defaults: tokeniser is no family; there are modelling, "):
        main(["compare", *files, "--protocol", str(tmp_path / "protocol.yaml")])
    (tmp_path / "protocol.yaml").write_text("colour: blue")
    with pytest.raises(UserError, match=r"protocol\.yaml.*colour"):
        main(["compare", *files, "--protocol", str(tmp_path / "protocol.yaml")])


def test_the_rows_that_come_along_fit_together() -> None:
    lab, rows = read_rows(sorted(str(path) for path in (ROOT / "configs" / "lab").glob("*.yaml")))
    assert {row.family for row in rows} == set(FAMILIES)
    for at, row in enumerate(rows):
        assert set(row.needs) <= {earlier.name for earlier in rows[:at]}
    assert lab.default in {row.name for row in rows} and (ROOT / lab.config).exists()


def test_what_stands_above_the_rows_that_come_along_trains_them() -> None:
    for row in read_rows(sorted(str(path) for path in (ROOT / "configs" / "lab").glob("*.yaml")))[1]:
        above = Path(row.file).read_text().split("\nrow:")[0]
        named = re.findall(r"(?:configs|game_wm|train)/[\w/.-]+\.(?:yaml|py)", above)
        assert all((ROOT / path).exists() for path in named)
        commands = [line for line in above.splitlines() if f"# python -m train {row.stage} " in line]
        own = str(Path(row.file).relative_to(ROOT))
        if row.overrides:
            last = commands[-1].replace(",", " ").replace(";", " ").split()
            assert own in last and ("--name" not in last or last[last.index("--name") + 1] == row.name)
            assert (row.stage == "distill") == ("--init" in last)


def test_a_checkpoint_is_judged_under_another_configuration(tmp_path: Path) -> None:
    model = load(tiny_checkpoint(tmp_path / "tiny.safetensors")).model
    assert reconfigured(model, {"dynamics": {"window": 20}}, "row.yaml").window == 20
    for judged, words in (
        ({"dynamics": {"widths": [64, 64]}}, "state_dict"),
        ({"dynamics": {"colour": 1}}, "colour"),
        ({"shape": {}}, "no part"),
        ({"objective": {"sampler": "heun"}}, "no option"),
    ):
        with pytest.raises(UserError, match=rf"row\.yaml.*{words}"):
            reconfigured(model, judged, "row.yaml")


def test_the_frontier_holds_what_no_other_row_beats() -> None:
    assert frontier([(12.0, 20.0), (14.0, 19.0), (10.0, 18.0), (20.0, 25.0), (12.0, 19.5)]) == [2, 0, 3]
    assert frontier([]) == []


def test_times_are_medians_in_turn_and_ratios_those_of_the_default() -> None:
    order: list[str] = []
    took, usual = in_turn(lambda: order.append("row"), lambda: order.append("default"), frames=4, seconds=60)
    assert order == ["row", "default"] * (len(order) // 2) and took >= 0 <= usual
    found = {"status": "measured", "psnr": {"1": 20.0}, "parameters": 5, "ms_per_frame": 3.0, "players": 2,
             "ratio": {"ms_per_frame": 1.6}}  # fmt: skip
    add_ratios(found, {"status": "measured", "psnr": {"1": 25.0}, "parameters": 10, "ms_per_frame": 2.0, "players": 1})
    assert found["ratio"] == {
        "ms_per_frame": 1.6, "parameters": 0.5, "psnr": {"1": 0.8}, "frames_per_second": 1.25
    }  # fmt: skip
