"""How processes that train together are started: by torchrun, srun or the pipeline; what cannot be is one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import VARIABLES, started_by
from stage_runs import ROOT, stage_flags
from test_pipeline import own

from data_collect.errors import UserError
from game_wm.checkpoint import load
from train.__main__ import main
from train.checkpoints import read_checkpoint
from train.report.figures import read_figures
from train.stages.cli import run_stage


@pytest.mark.parametrize(
    ("variables", "flags", "words"),
    [({"WORLD_SIZE": "2"}, [], "WORLD_SIZE says that 2 processes were started, but 1 would train together"),
     ({"OMPI_COMM_WORLD_SIZE": "4"}, [], "OMPI_COMM_WORLD_SIZE says that 4 processes"),
     (started_by("torchrun", 0, 2, "1"), ["--trainer.devices", "4"], "--trainer.devices 4 and .* leave both out"),
     (started_by("torchrun", 0, 2, "1"), ["--trainer.num_nodes", "2"], "--trainer.num_nodes 2 .* leave both out"),
     (started_by("torchrun", 0, 3, "1") | {"LOCAL_WORLD_SIZE": "2"}, [], "3 processes are not as many on each machine"),
     (started_by("srun", 0, 1, "1"), ["--trainer.devices", "2"], "--trainer.devices 2 and .* leave both out"),
     ({"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NNODES": "1"}, [], "--ntasks-per-node=2")],
)  # fmt: skip
def test_processes_that_the_trainer_does_not_know_of_are_refused(
    variables: dict[str, str], flags: list[str], words: str, latents: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        run_stage("dynamics", [*stage_flags(latents, tmp_path, "twin"), "--steps", "1", *flags])
    assert not list((tmp_path / "twin").rglob("*.*"))


def test_a_pipeline_is_started_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in started_by("torchrun", 0, 2, "1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"start one alone, with --dynamics\.trainer\.devices 2"):
        main(own(tmp_path, "twin", "--record.game", "maze"))


def stopped(command: list[str], folder: Path) -> int:
    """Start a command, send it SIGTERM after some steps of the run in this folder; its exit status."""
    variables = {k: v for k, v in os.environ.items() if k not in VARIABLES} | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", *command], env=variables, cwd=ROOT)
    try:
        while process.poll() is None and len(read_figures(folder, "loss") if figures_in(folder) else []) < 3:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        return process.wait(120)
    finally:
        process.kill()


def figures_in(folder: Path) -> bool:
    return (folder / "metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torchrun_starts_stops_and_goes_on(latents: Path, tmp_path: Path) -> None:
    together = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train", "dynamics"]
    flags, folder = [*stage_flags(latents, tmp_path, "run"), "--sample_minutes", "100"], tmp_path / "run" / "dynamics"
    assert stopped([*together, *flags, "--steps", "100000"], folder) != 0
    step = read_checkpoint(folder / "last.ckpt")["global_step"]
    command = [sys.executable, "-m", *together, *flags, "--resume", "--trainer.devices", "2", "--steps", str(step + 2)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(f"dynamics: {step + 2} steps") == 1
    assert [line for line, _ in read_figures(folder, "loss")] == list(range(step + 2))
    trained = read_checkpoint(folder / "last.ckpt")["game_wm"]["trained"]
    assert trained["frames"] == (step + 2) * 2 * 4 * 16


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pipeline_trains_by_two_processes(recording: Path, tmp_path: Path) -> None:
    """SIGTERM to it stops both, and it goes on."""
    plain = own(tmp_path, "two", "--data", str(recording), "--distill.config", "")
    flags = ["train", *plain, "--memory", "none", "--dynamics.trainer.devices", "2"]
    flags += ["--dynamics.trainer.log_every_n_steps", "1"]
    folder = tmp_path / "two" / "dynamics"
    assert stopped([*flags, "--dynamics.steps", "100000"], folder) == 143
    step = read_checkpoint(folder / "last.ckpt")["global_step"]
    command = [sys.executable, "-m", *flags, "--dynamics.steps", str(step + 2)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "tokenizer: complete, skipped" in done.stdout
    trained = read_checkpoint(folder / "last.ckpt")["game_wm"]["trained"]
    assert trained["steps"] == step + 2
    stages = load(tmp_path / "two" / "two.safetensors").trained["stages"]  # for the card
    assert [(made["from_step"], made["processes"]) for made in stages["dynamics"]["made"]] == [(0, 2), (step, 2)]
    assert stages["tokenizer"]["made"][0]["processes"] == 1 and stages["tokenizer"]["settings"]["seed_everything"] == 0
