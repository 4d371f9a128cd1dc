"""The recipes of what ships, tiny: all stages run, from nothing to a card, and a second run finds nothing to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from game_wm.checkpoint import load
from tests.test_pipeline import SMALL
from train.__main__ import main
from train.pipeline.flags import parse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONFIGS = Path(__file__).parent.parent / "configs"
COUNTS = {"doom": ["--motion", "2", "--depth", "2", "--atlas", "4", "--obstacles", "2"], "maze": []}


def small(game: str, runs: Path) -> list[str]:
    """Flags of the recipe that make everything as little as it can be; what it consists of stays."""
    file = str(CONFIGS / game / "ships.yaml")
    plan = parse(["--config", file])
    recordings: dict[str, Any] = {
        name: {**differs, "frames": 240, "episode_frames": 30} for name, differs in plan.recordings.items()
    }
    flags = ["pipeline", "--config", file, "--runs", str(runs), "--wandb", "off", "--contexts", "2", "--prompt", "20"]
    flags += ["--recordings", json.dumps(recordings), "--record.workers", "1", *COUNTS[game]]
    flags += ["--evaluate.suites", "[cost]" if game == "maze" else "[]", "--evaluate.episodes", "1"]
    for name in plan.trained:
        training = plan.training(name)
        words = [*SMALL[name.partition("_")[0]], "--warmup", "1", "--sample_minutes", "100"]
        if name != "distill":  # which keeps the processes that the recipe gives it
            words += ["--trainer.devices", "1", "--trainer.strategy", "auto"]
        words += ["--data.length", "12"] if name != "tokenizer" else []
        given = dict(zip(words[::2], words[1::2], strict=True))
        flags += [word for flag, value in given.items() for word in (f"--{name}.{flag[2:]}", value)]
        flags += [f"--{name}.steps", "2", f"--{name}.minutes", "null"]
        assert training.minutes
    return flags


@pytest.mark.parametrize("game", ["maze", "doom"])
def test_what_ships_is_one_command(game: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = small(game, tmp_path)
    assert main(flags) == 0
    run, model = tmp_path / game, load(tmp_path / game / f"{game}.safetensors").model
    assert model.config.memory is not None and model.config.dynamics.recall and model.config.dynamics.warp
    geometry = model.memory.geometry
    assert (geometry.obstacles is not None, geometry.atlas is not None) == (game == "doom",) * 2
    assert game == "doom" or "cost" in json.loads((run / "maze.json").read_text())
    capfd.readouterr()
    assert main(flags) == 0
    told = capfd.readouterr().out
    parts = ["motion", "depth", "atlas", "obstacles"] if game == "doom" else ["evaluate"]
    for name in ["tokenizer", "geometry", "geometry_motion", "dynamics", "distill", "export", *parts]:
        assert f"{name}: complete, skipped" in told
    assert told.count("up to date") == (3 if game == "doom" else 2)
