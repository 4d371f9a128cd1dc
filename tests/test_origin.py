"""What a run says of what made it, and that it goes on as the same run at Weights & Biases."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from stage_runs import ROOT, stage_flags

from train.checkpoints import read_checkpoint
from train.report.origin import commit
from train.stages.cli import run_stage


def test_a_checkpoint_names_what_made_it(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[dict[str, Any]]()
    wandb: Any = types.ModuleType("wandb")
    run = types.SimpleNamespace(define_metric=lambda *_, **__: None, log=lambda *_: None, finish=lambda: None)
    wandb.Settings, wandb.init = dict, lambda **about: begun.append(about) or run
    wandb.Image = wandb.Video = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    flags = [*stage_flags(latents, tmp_path, "run"), "--wandb", "online", "--resume", "--seed_everything", "7"]
    for name, steps in (("run", "2"), ("run", "3"), ("other", "1")):
        assert run_stage("dynamics", [*flags, "--name", name, "--steps", steps]) == 0
    about = read_checkpoint(tmp_path / "run" / "dynamics" / "last.ckpt")["game_wm"]
    assert [made["from_step"] for made in about["made"]] == [0, 2]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    for made in about["made"]:
        assert made["commit"] == commit() and commit().removesuffix("-dirty") == head.stdout.strip()
        assert {"python", "torch", "lightning"} <= made["packages"].keys()
        assert made["machine"] and made["processes"] == 1
    settings = about["settings"]
    assert (settings["seed_everything"], settings["data"]["seed"], settings["model"]["targets"]) == (7, 0, 4)
    first, again, other = begun
    assert first["id"] == again["id"] != other["id"] and again["resume"] == "allow"
    assert again["config"]["made"] == about["made"]
