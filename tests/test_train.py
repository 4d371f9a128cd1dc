"""Stages of training: a run that is killed and resumed has the same losses; where it starts; its configuration."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stage_runs import TINY, stage_flags

from data_collect.errors import UserError
from data_collect.lock import folder_lock
from game_wm.acceleration import pruning
from game_wm.checkpoint import load, save
from game_wm.memory.first_person.geometry import MemoryConfig
from game_wm.model.config import build
from game_wm.world import WorldModel
from tests.tiny import tiny_checkpoint
from train.__main__ import main
from train.checkpoints import read_checkpoint, weights_hash
from train.data import encode
from train.lab.bench import attention, stages
from train.pipeline.flags import parse
from train.report.figures import read_figures
from train.report.machine import MatrixRate, count_flops
from train.stages.callbacks import Budget, Saver, Schedule
from train.stages.cli import run_stage
from train.stages.configuration import STAGES, StageCLI, read_stage, read_yaml
from train.stages.distill import DistillModule
from train.stages.dynamics import read_objective

ROOT = Path(__file__).parent.parent


def test_a_stage_takes_values_as_well_as_flags_which_win(tmp_path: Path) -> None:
    path = tmp_path / "dynamics.yaml"
    path.write_text("model: {lr: 0.5, targets: 3}\ndata: {batch_size: 7, latents: some}\nminutes: 4\n")
    values = {"model.targets": 5, "data.batch_size": 8, "minutes": None, "resume": True, "init": None, "name": "mine"}
    values |= {"model.dynamics.widths": [16, 32], "model.objective": {"kind": "flow", "finest": 4}}
    config = read_stage("dynamics", ["--data.batch_size", "9"], path, values)
    assert (config.model.lr, config.model.targets, config.data.batch_size) == (0.5, 5, 9)
    assert (config.minutes, config.resume, config.init, config.name) == (None, True, None, "mine")
    assert config.model.dynamics.widths == (16, 32) and config.model.objective["finest"] == 4
    assert not read_stage("dynamics", config=path, values={"resume": False}).resume
    with pytest.raises(UserError, match="targets"):
        read_stage("dynamics", config=path, values={"model.targets": "many"})


def test_entries_under_older_names_are_read(tmp_path: Path) -> None:
    """In files, in flags, in what a checkpoint says of itself."""
    path, flags = tmp_path / "dynamics.yaml", ["--model.dynamics.glance=5"]
    path.write_text("model: {dynamics: {glance: 3, window: 8}}\ndata: {latents: some}\n")
    for given, glance in (([], 3), (flags, 5), (["--model.dynamics", '{"glance": 7}'], 7)):
        assert read_stage("dynamics", given, path).model.dynamics.bottleneck_window == glance
    assert (
        read_stage("dynamics", config=path, values={"model.dynamics.glance": 6}).model.dynamics.bottleneck_window == 6
    )
    assert read_yaml(str(path))["model"]["dynamics"] == {"bottleneck_window": 3, "window": 8}
    path.write_text(
        "model: {tokenizer: some, geometry: {inertia: true, exact: true, growing: true}}\ndata: {latents: x}\n"
    )
    for found in (
        read_stage("geometry", config=path).model.geometry,
        build(MemoryConfig, {"exact": True, "growing": True}),
    ):
        assert found.two_step_inertia and found.unbounded
    with pytest.raises(UserError, match="glances"):
        read_stage("dynamics", ["--model.dynamics.glances=5"])


class Killed(Exception):
    """Stands for a process that is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dynamics", "distill", "progressive"])
def test_killed_and_resumed_has_the_same_losses(
    kind: str, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = "dynamics" if kind == "dynamics" else "distill"
    teacher, half_steps = [], ["--model.objective.bootstrap", "0.25"]
    if stage == "distill":
        assert run_stage("dynamics", [*stage_flags(latents, tmp_path, "teacher"), "--steps", "2"]) == 0
        teacher = ["--init", str(tmp_path / "teacher" / "dynamics" / "last.ckpt"), "--model.teacher_steps", "2"]
        teacher += ["--model.distribution", "0.5", "--model.adversarial", "0.03", "--model.unseen", "0.1"]
    if kind == "distill":
        another = [*stage_flags(latents, tmp_path, "another"), "--seed_everything", "1", "--steps", "2"]
        assert run_stage("dynamics", another) == 0
        teacher += ["--teacher", str(tmp_path / "another" / "dynamics" / "last.ckpt")]
    if kind == "progressive":
        teacher = [*teacher[:2], "--model.progressive", "true", "--model.teacher_steps", "4"]

    def run(name: str, *flags: str) -> int:
        flags = (*teacher, *half_steps, "--steps", "9", *flags)
        return run_stage(stage, [*stage_flags(latents, tmp_path, name, stage), *flags])

    run("whole")
    finish = Saver.on_train_batch_end

    def die(saver: Saver, trainer: Any, module: Any, *rest: Any) -> None:
        if trainer.global_step == 4:
            saver.save(trainer)
        if trainer.global_step == 6:
            raise Killed

    monkeypatch.setattr(Saver, "on_train_batch_end", die)
    with pytest.raises(Killed):
        run("cut")
    monkeypatch.setattr(Saver, "on_train_batch_end", finish)
    run("cut", "--resume")

    folders = [tmp_path / name / stage for name in ("whole", "cut")]
    losses = [read_figures(folder, "loss") for folder in folders]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == list(range(9))
    if kind == "progressive":  # two rounds: of 4 steps 2, of 2 one
        assert [calls for _, calls in read_figures(folders[1], "calls")] == [2] * 5 + [1] * 4
    ends = [torch.load(folder / "last.ckpt", weights_only=True) for folder in folders]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())
    assert any(not torch.equal(v, ends[0]["current_model_state"][k]) for k, v in ends[0]["state_dict"].items())
    assert [end["game_wm"]["trained"]["frames"] for end in ends] == [9 * 4 * 16] * 2
    if kind == "distill":
        named = torch.load(tmp_path / "another" / "dynamics" / "last.ckpt", weights_only=True)["state_dict"]
        taught = {k.removeprefix("teacher."): v for k, v in ends[0]["state_dict"].items() if k.startswith("teacher.")}
        assert taught and all(torch.equal(v, named[f"dynamics.{k}"]) for k, v in taught.items())


def test_a_step_is_one_graph_on_a_cuda_device(latents: Path, tmp_path: Path) -> None:
    flags = [*stage_flags(latents, tmp_path, "graphs"), "--steps", "6", "--graphs", "true"]
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="graphs are for CUDA devices"):
            run_stage("dynamics", flags)
        return
    assert run_stage("dynamics", [*flags, "--trainer.accelerator", "cuda"]) == 0
    assert read_checkpoint(tmp_path / "graphs" / "dynamics" / "last.ckpt")["global_step"] == 6
    with pytest.raises(UserError, match="cannot be resumed"):
        run_stage("dynamics", [*flags, "--resume"])


@pytest.mark.slow
def test_a_signal_saves_and_stops(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Signal(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("train.stages.cli.Bar", lambda *_: Signal())
    flags = stage_flags(latents, tmp_path, "stopped")
    assert run_stage("dynamics", [*flags, "--steps", "9"]) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert read_checkpoint(tmp_path / "stopped" / "dynamics" / "last.ckpt")["global_step"] == 4

    with pytest.raises(UserError, match="add --resume"):
        run_stage("dynamics", [*flags, "--steps", "9"])
    monkeypatch.setattr("data_collect.lock.LOCK_SECONDS", 0.1)
    with folder_lock(tmp_path / "stopped" / "dynamics"), pytest.raises(UserError, match="another process is writing"):
        run_stage("dynamics", [*flags, "--steps", "9", "--resume"])
    encode.write_synthetic(tmp_path / "other", (4, 4, 4), actions=3, episodes=10, frames=50)
    index = json.loads((tmp_path / "other" / "index.json").read_text())
    (tmp_path / "other" / "index.json").write_text(json.dumps({**index, "game": "doom"}))
    with pytest.raises(UserError, match="the recording is of doom"):
        run_stage("dynamics", [*stage_flags(tmp_path / "other", tmp_path, "stopped"), "--steps", "9", "--resume"])
    (tmp_path / "stopped" / "dynamics" / "last.ckpt").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="damaged"):
        run_stage("dynamics", [*flags, "--steps", "9", "--resume"])


@pytest.mark.slow
def test_a_signal_breaks_off_a_film(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on the way, and the last one is not begun."""
    made = list[str]()

    def sample(*_: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        made.append("film")
        return torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8)

    monkeypatch.setattr("train.stages.dynamics.DynamicsModule.sample", sample)
    flags = [*stage_flags(latents, tmp_path, "filmed"), "--steps", "9", "--sample_minutes", "0"]
    assert run_stage("dynamics", flags) == 128 + signal.SIGTERM
    assert not made and not list((tmp_path / "filmed").rglob("samples/*"))
    assert read_checkpoint(tmp_path / "filmed" / "dynamics" / "last.ckpt")["global_step"] == 1


@pytest.mark.slow
def test_start_from_other_weights(latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    playable = tiny_checkpoint(tmp_path / "tiny.safetensors")
    encode.write_synthetic(tmp_path / "latents", (4, 8, 8), actions=4, episodes=10, frames=40)
    index = json.loads((tmp_path / "latents" / "index.json").read_text())
    index["schema"]["names"] = list(load(playable).schema.names)
    (tmp_path / "latents" / "index.json").write_text(json.dumps(index))
    flags = stage_flags(tmp_path / "latents", tmp_path, "tuned")
    mine = [flag for i, flag in enumerate(flags) if "--model.dynamics." not in flag + flags[i - 1]]
    flags = [*mine, "--steps", "1", "--model.lr", "0", "--init", str(playable)]
    assert run_stage("dynamics", flags) == 0
    last = tmp_path / "tuned" / "dynamics" / "last.ckpt"
    weights = read_checkpoint(last)["state_dict"]
    again = [*mine, "--steps", "2", "--init", str(last), "--name", "again", "--model.tokenizer", str(playable)]
    assert run_stage("dynamics", again) == 0
    assert "was not encoded with" in capsys.readouterr().err  # the latents are chance
    trained = read_checkpoint(tmp_path / "again" / "dynamics" / "last.ckpt")["game_wm"]["trained"]
    assert trained["steps"] == 3 and trained["frames"] == 3 * read_checkpoint(last)["game_wm"]["trained"]["frames"]
    for name, value in load(playable).model.dynamics.state_dict().items():
        assert torch.allclose(weights[f"dynamics.{name}"], value, atol=1e-6)
    with pytest.raises(UserError, match="does not fit this configuration"):
        run_stage("dynamics", [*flags, "--name", "misfit", "--model.dynamics.widths", "[32,32]"])


@pytest.mark.slow
def test_a_pruned_model_is_healed(tmp_path: Path) -> None:
    """Trained on and distilled with the widths that pruning left, without naming them."""
    given, pruned = tiny_checkpoint(tmp_path / "tiny.safetensors", prompt=12), tmp_path / "pruned.safetensors"
    whole = load(given)
    sizes = replace(whole.model.config.dynamics, hidden=(32, 32))
    whole.model = WorldModel(replace(whole.model.config, dynamics=sizes))
    save(given, whole)
    assert pruning.main([str(given), "--share", "0.5", "--out", str(pruned)]) == 0
    encode.write_synthetic(tmp_path / "latents", (4, 8, 8), actions=4, episodes=10, frames=40)
    index = json.loads((tmp_path / "latents" / "index.json").read_text())
    index["schema"]["names"] = list(whole.schema.names)
    (tmp_path / "latents" / "index.json").write_text(json.dumps(index))
    for stage in ("dynamics", "distill"):
        flags = stage_flags(tmp_path / "latents", tmp_path, "healed", stage)
        mine = [flag for i, flag in enumerate(flags) if "--model.dynamics." not in flag + flags[i - 1]]
        assert run_stage(stage, [*mine, "--steps", "1", "--init", str(pruned)]) == 0
        last = read_checkpoint(tmp_path / "healed" / stage / "last.ckpt")
        before = load(pruned).model.dynamics.state_dict()
        assert tuple(last["config"]["dynamics"]["hidden"]) == (16, 16)
        trained = {k.removeprefix("dynamics."): v for k, v in last["current_model_state"].items()}
        moved = [name for name, value in before.items() if not torch.equal(trained[name], value)]
        assert "denoiser.down.0.0.conv1.weight" in moved and "context.positions" in moved


@pytest.mark.slow
def test_all_processes_agree_on_which_steps_are_own_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [DistillModule((4, 4, 4), actions=3, own=0.4) for _ in range(2)]
    said = []
    for step in range(400):
        monkeypatch.setattr(DistillModule, "global_step", step)
        for number, module in enumerate(processes):
            torch.manual_seed(2 * step + number)
            said.append(module.on_own_rollout())
    assert said[::2] == said[1::2] and 120 < sum(said[::2]) < 200


@pytest.mark.slow
def test_bench_tells_what_a_context_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CONTEXTS", (1, 64))
    assert main(["bench", "attention", "--json", "--plot", str(tmp_path / "cost.png")]) == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table) == set(attention.KINDS) and all(row["1"] > 0 and row["64"] > 0 for row in table.values())
    assert np.asarray(Image.open(tmp_path / "cost.png")).std() > 5


@pytest.mark.slow
def test_bench_speaks_of_rates(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LOADER_SECONDS", 0.1)
    flags = ["--synthetic", "--steps", "12", *TINY[:-6], "--data.game", "null"]
    assert main(["bench", "dynamics", *flags]) == 0
    told = capsys.readouterr().out
    assert "matrix fraction:" in told and "x training" in told


def test_budget_adds_up_over_resumes() -> None:
    class Trainer:
        global_step = 30

    budget = Budget(minutes=2, steps=100)
    budget.load_state_dict({"seconds": 90.0})
    assert budget.progress(Trainer()) == 0.75  # type: ignore[arg-type]
    assert Budget(steps=100).progress(Trainer()) == 0.3  # type: ignore[arg-type]
    schedule = Schedule(warmup=10, decay=0.5, final=0.1)
    factors = [schedule.factor(step, progress) for step, progress in [(0, 0), (9, 0.1), (50, 0.5), (75, 0.75), (99, 1)]]
    assert factors == pytest.approx([0.1, 1, 1, 0.55, 0.1])


def test_arithmetic_is_counted_forward_and_backward() -> None:
    query = torch.zeros(1, 2, 16, 8, requires_grad=True)
    with count_flops() as counter:
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    assert counter.get_total_flops() >= 3 * 4 * 2 * 16 * 16 * 8
    assert MatrixRate().sample(1).median > 1e6


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_configurations_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stage = next((name for name in STAGES if path.stem.startswith(name)), None)
    if path.parent.name == "lab":  # named after what they try
        stage = read_yaml(str(path)).get("row", {}).get("stage")
    if stage:
        monkeypatch.setattr(StageCLI, "instantiate_classes", lambda self: None)
        # A size lies on top of a game's file.
        game = ["--config", str(ROOT / "configs" / "maze" / f"{stage}.yaml")]
        config = StageCLI(stage, [*game, "--config", str(path)]).config
        assert config.name
        if stage == "dynamics":
            assert read_objective(config.model.objective or {})
    elif path.stem in ("quick", "ships"):
        plan = parse(["--config", str(path)])
        assert all(Path(plan.training(name).config).is_file() for name in plan.trained)


def test_weights_under_older_names_are_read(latents: Path, tmp_path: Path) -> None:
    """A run from before a renaming goes on as itself, and a playable file plays on."""
    runs = {name: stage_flags(latents, tmp_path, name) for name in ("new", "old")}
    assert run_stage("dynamics", [*runs["new"], "--steps", "2"]) == 0
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    last = tmp_path / "old" / "dynamics" / "last.ckpt"
    before = weights_hash(last)
    state = torch.load(last, weights_only=True)
    for part in ("state_dict", "current_model_state"):
        state[part] = {older(name): value for name, value in state[part].items()}
    torch.save(state, last)
    assert weights_hash(last) != before  # of the file as it is
    for flags in runs.values():
        assert run_stage("dynamics", [*flags, "--steps", "4", "--resume"]) == 0
    new, old = (read_figures(tmp_path / name / "dynamics", "loss") for name in runs)
    assert len(new) == 4 and new == old

    path = tiny_checkpoint(tmp_path / "tiny.safetensors")
    with safe_open(path, "pt") as file:
        about = {name: value for name, value in file.metadata().items() if name != "sha256"}
    tensors = {older(name): value for name, value in load_file(path).items()}
    assert "model.dynamics.denoiser.enter.weight" in tensors
    save_file(tensors, tmp_path / "old.safetensors", about)
    weights = (load(tmp_path / f"{name}.safetensors").model.state_dict() for name in ("tiny", "old"))
    assert all(torch.equal(*pair) for pair in zip(*(each.values() for each in weights), strict=True))


def older(name: str) -> str:
    """What a weight was called once."""
    return name.replace(".conv_in.", ".enter.").replace(".conv_out.", ".leave.").replace(".forecast.", ".next.")
