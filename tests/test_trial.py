"""Trials: candidates trained, judged, tabled; what is finished is skipped."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import MAZE_BUTTONS, tiny_world

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from game_wm.checkpoint import load
from game_wm.evaluation.report import sheet
from train.__main__ import main
from train.data.encode import tokenizer_hash, write_synthetic
from train.lab import player_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture
def protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A protocol of seconds: random latents that pass for the maze's, a random tokenizer, a tiny network."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tokenizer = tiny_world().tokenizer
    weights = {f"tokenizer.{k}": v for k, v in tokenizer.state_dict().items()}
    card = {"stage": "tokenizer", "game": "maze"}
    torch.save(
        {"game_wm": card, "config": asdict(tokenizer.config), "state_dict": weights}, tmp_path / "tokenizer.ckpt"
    )
    write_synthetic(tmp_path / "latents", (4, *tokenizer.config.grid), 4, episodes=8, frames=40)
    index = json.loads((tmp_path / "latents" / "index.json").read_text())
    schema = ActionSchema("multibinary", MAZE_BUTTONS).to_json()
    index |= {"game": "maze", "schema": schema, "tokenizer": tokenizer_hash(tokenizer)}
    (tmp_path / "latents" / "index.json").write_text(json.dumps(index))
    flags = {"model.dynamics.blocks": [1, 1], "model.dynamics.window": 8, "model.dynamics.context_width": 32,
             "data.length": 12, "data.batch_size": 2, "model.targets": 2, "trainer.log_every_n_steps": 2,
             "trainer.limit_val_batches": 0, "steps": 6}  # fmt: skip
    content = {
        "config": "configs/maze/dynamics.yaml", "latents": str(tmp_path / "latents"), "runs": str(tmp_path / "runs"),
        "tokenizer": str(tmp_path / "tokenizer.ckpt"), "minutes": 5, "episodes": 2, "horizons": [1, 3], "prompt": 6,
        "flags": flags, "candidates": [
            {"name": "small", "why": "cheap", "overrides": {"model.dynamics.widths": [16, 32], "model.lr": 5e-4}},
            {"name": "broken", "why": "a flag that is none", "overrides": {"model.colour": "blue"}},
            {"name": "later", "why": "not asked for"},
        ],
    }  # fmt: skip
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_candidates_are_trained_judged_and_tabled(protocol: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs = protocol.parent / "runs"
    assert main(["trial", str(protocol), "--only", "small", "broken"]) == 1
    assert "broken: left out: its training failed" in capfd.readouterr().out

    result = json.loads((runs / "trials" / "small.json").read_text())
    assert result["steps"] == 6 and result["flow"] > 0 and result["samples_per_second"] > 0
    assert set(result["fidelity"]["psnr"]) == set(result["fidelity"]["feature_distance"]) == {"1", "3"}
    checkpoint = load(runs / "trial-small" / "small.safetensors")
    assert checkpoint.model.config.dynamics.widths == (16, 32) and len(checkpoint.contexts_frames) == 2
    assert result["parameters"] == sum(p.numel() for p in checkpoint.model.dynamics.parameters())
    alone, beside = (np.array(Image.open(runs / "trials" / f"{name}.png")) for name in ("small", "table"))
    alone, beside = alone[sheet.TOP :, sheet.LABEL :], beside[sheet.TOP :, sheet.NAME :]
    pair, row = len(alone) // 2, (len(alone) // 2 - sheet.GAP) // 2  # two episodes: truth and dream
    for at, there in ((0, 0), (row, row), (pair, pair + sheet.GAP), (pair + row, pair + row + sheet.GAP)):
        assert np.array_equal(alone[at : at + row], beside[there : there + row])
    rows = [line for line in (runs / "trials" / "table.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| *") for row in rows[2:4]] == [
        "repeat the last frame", f"ceiling of {protocol.parent / 'tokenizer.ckpt'}",
    ]  # fmt: skip
    assert [row.split(" | ")[0].strip("| ") for row in rows[4:]] == ["small", "broken", "later"]
    assert "(not run)" in rows[5] and len({row.count(" | ") for row in rows}) == 1

    # Again: nothing is trained or judged, not even the truth is played; the table is told.
    times = {
        path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.suffix in (".json", ".pt", ".safetensors")
    }
    assert main(["trial", str(protocol), "--only", "small"]) == 0
    assert "| small | cheap |" in capfd.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in times}

    # For other minutes: in a folder of its own, and what was trained for longer stays.
    assert main(["trial", str(protocol), "--only", "small", "--minutes", "4"]) == 0
    assert (runs / "4-minutes" / "trial-small" / "small.safetensors").exists()
    assert "4 minutes each" in (runs / "4-minutes" / "trials" / "table.md").read_text()
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert "5 minutes each" in (runs / "trials" / "table.md").read_text()

    # Judged otherwise: the trained candidate is judged anew without training.
    content = yaml.safe_load(protocol.read_text())
    protocol.write_text(yaml.safe_dump(content | {"horizons": [2]}))
    assert main(["trial", str(protocol), "--only", "small"]) == 0
    assert set(json.loads((runs / "trials" / "small.json").read_text())["fidelity"]["psnr"]) == {"2"}
    file = runs / "trial-small" / "small.safetensors"
    assert file.stat().st_mtime_ns == times[file]


def test_candidates_may_have_memories_and_are_judged_by_returns(
    protocol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tiny_world(recall=True)
    weights = {f"geometry.{k}": v for k, v in world.memory.geometry.state_dict().items()}
    config = {"geometry": asdict(world.memory.geometry.config)}
    geometry = protocol.parent / "geometry.ckpt"
    torch.save({"game_wm": {"stage": "geometry", "game": "maze"}, "config": config, "state_dict": weights}, geometry)
    latents = protocol.parent / "latents"
    np.save(latents / "views-00000.npy", np.zeros((8 * 40, 16, 8, 8), np.float16))
    drawn = {"key": json.loads((latents / "index.json").read_text())["key"] + "-foreseen-", "shards": 1}
    (latents / "views.json").write_text(json.dumps(drawn))
    monkeypatch.setattr(player_run, "revisit", lambda model, *_, **__: ({"1024/1-8": {"psnr": {"17-64": 9.0}}}, []))
    content = yaml.safe_load(protocol.read_text())
    flags = content["flags"] | {"model.dynamics.widths": [16, 32]}
    bank = {
        "name": "bank",
        "why": "all of it",
        "overrides": {"model.dynamics.recall": True},
        "memory": {"unbounded": True},
    }
    warp = {"name": "warp", "why": "no memory", "overrides": {"model.dynamics.warp": True}}
    more = {"geometry": str(geometry), "revisit": 1, "candidates": [bank, warp], "flags": flags}
    protocol.write_text(yaml.safe_dump(content | more))
    assert main(["trial", str(protocol)]) == 0
    played = {
        name: load(protocol.parent / "runs" / f"trial-{name}" / f"{name}.safetensors").model.config
        for name in ("bank", "warp")
    }
    assert played["bank"].memory is not None and played["bank"].memory.unbounded and played["bank"].dynamics.recall
    assert played["warp"].memory is not None and not played["warp"].memory.unbounded and played["warp"].dynamics.warp
    table = (protocol.parent / "runs" / "trials" / "table.md").read_text()
    assert "returns 1024/1-8, PSNR at ages 17-64" in table and table.count("| 9.0 |") == 2


def test_errors_are_one_sentence(protocol: Path) -> None:
    with pytest.raises(UserError, match="called nobody"):
        main(["trial", str(protocol), "--only", "nobody"])
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        main(["trial", "nowhere.yaml"])
    content = yaml.safe_load(protocol.read_text())
    for wrong, words in (
        ({"minutes": "many"}, "minutes"),
        ({"colour": 1}, "colour"),
        ({"config": "no.yaml"}, "no.yaml"),
        ({"minutes": 0}, "more than 0"),
    ):
        protocol.write_text(yaml.safe_dump(content | wrong))
        with pytest.raises(UserError, match=words):
            main(["trial", str(protocol)])
    protocol.write_text("- a list")
    with pytest.raises(UserError, match="is no configuration file"):
        main(["trial", str(protocol)])
    (protocol.parent / "runs" / "trial-small").mkdir(parents=True)
    protocol.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="no trial's"):
        main(["trial", str(protocol), "--only", "small"])
