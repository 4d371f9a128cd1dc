"""Training that goes wrong: each mistake is one sentence, and no file is lost or spoilt."""

from __future__ import annotations

import errno
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stage_runs import small_tokenizer, stage_flags

from data_collect.errors import UserError, main_guard
from game_wm.checkpoint import load, save
from game_wm.training import descend
from tests.tiny import tiny_checkpoint
from train.__main__ import main
from train.checkpoints import load_dynamics, read_checkpoint
from train.data import encode
from train.report.figures import read_figures
from train.stages.callbacks import Saver
from train.stages.cli import run_stage
from train.stages.dynamics import DynamicsModule

pytestmark = pytest.mark.slow


def test_what_the_user_gets_wrong(latents: Path, tmp_path: Path) -> None:
    flags = stage_flags(latents, tmp_path, "wrong")
    student = [*stage_flags(latents, tmp_path, "wrong", "distill"), "--steps", "1"]
    for command, words in [
        (["dynamics", *flags], "how long"),
        (["dynamics", *flags, "--steps", "1", "--data.latents", str(tmp_path)], "holds no encoded frames"),
        (["dynamics", *flags, "--steps", "1", "--data.game", "doom"], "not of doom"),
        (["dynamics", *flags, "--steps", "1", "--colour", "red"], "colour"),
        (["dynamics", *flags, "--steps", "1", "--model.objective.kind", "paint"], "the kinds are flow, diffusion"),
        (["dynamics", *flags, "--steps", "1", "--model.objective.finest", "6"], "power of two"),
        (["distill", *student, "--model.objective.kind", "diffusion"], "distillation is of flow matching alone"),
        (["distill", *student, "--model.distribution", "1", "--model.objective.finest", "1"], "compares noise levels"),
        (["distill", *student, "--model.progressive", "true", "--model.teacher_steps", "6"], "powers of two"),
        (["distill", *student, "--model.progressive", "true", "--model.adversarial", "1"], "a loss of its own"),
        (["distill", *student, "--model.progressive", "true", "--model.near", "0.1"], "a loss of its own"),
        (["distill", *student, "--model.student_steps", "4"], "student_steps must be 1 or 2, not 4"),
        (["dynamics", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["dynamics", *flags, "--minutes", "-1"], "--minutes must be more than 0"),
        (["dynamics", *flags, "--steps", "1", "--model.lr", "-1"], "lr must be at least 0"),
        (["dynamics", *flags, "--steps", "-1"], "--steps must be more than 0"),
        (["dynamics", *flags, "--steps", "1", "--model.targets", "0"], "--model.targets must be at least 1"),
        (["dynamics", *flags, "--steps", "1", "--model.dynamics.aligned", "true"], "set warp to true"),
        (["dynamics", *flags, "--steps", "1", "--model.perceptual", "1"], "needs the decoder"),
        (["dynamics", *flags, "--steps", "1", "--warmup", "-5"], "--warmup must be at least 0"),
        (["dynamics", *flags, "--steps", "1", "--decay", "2"], "--decay must be from 0 to 1"),
        (["dynamics", *flags, "--steps", "1", "--seed_everything", "-1"], "from 0 up"),
        (["dynamics", *flags, "--steps", "1", "--name", "a/b"], "must be a word without any of"),
        (["pipeline", "--record.game", "maze", "--name", "a%b"], "must be a word without any of"),
        (["dynamics", *flags, "--steps", "1", "--data.batch_size", "0"], "batch_size must be at least 1"),
        (["dynamics", *flags, "--steps", "1", "--data.length", "0"], "length must be at least 2"),
        (["dynamics", *flags, "--steps", "1", "--data.length", "4"], "too short for a history of 4"),
        (["dynamics", *flags, "--steps", "1", "--model.rollout", "16"], "give at least 17"),
        (["dynamics", *flags, "--steps", "1", "--data.length", "4"], "for shorter episodes --init none has"),
        (["dynamics", *flags, "--steps", "1", "--model.dynamics.heads", "3"], "3 heads"),
        (["dynamics", *flags, "--steps", "1", "--trainer.accelerator", "none"], "--trainer: "),
        (
            ["encode", "--data", "d", "--tokenizer", "t", "--out", "o", "--device", "none"],
            "device 'none' cannot be used",
        ),
        (["dynamics", *flags, "--steps", "1", "--init", str(tmp_path / "none.ckpt")], "does not exist"),
        (["distill", *student], "--init"),
        (["tokenizer", "--steps", "1", "--data.data", str(tmp_path / "nothing")], "holds no recording"),
        (["paint"], "no command"),
        (["bench", "paint"], "no command 'bench paint'"),
        (["export", "--run", str(tmp_path)], "does not exist"),
    ]:
        with pytest.raises(UserError, match=words):
            main(command)


def test_a_run_goes_on_only_as_what_it_was(latents: Path, tmp_path: Path) -> None:
    flags = [*stage_flags(latents, tmp_path, "own"), "--steps", "2"]
    assert run_stage("dynamics", [*flags, "--data.length", "5", "--model.rollout", "0"]) == 0
    folder = tmp_path / "own" / "dynamics"
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for other in (
        ["--model.dynamics.widths", "[32,32]"],
        ["--model.objective.kind", "diffusion"],
        ["--model.optimizer", "muon"],
    ):
        with pytest.raises(UserError, match="another network, objective or optimizer"):
            run_stage("dynamics", [*flags, "--resume", *other])
    assert kept == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(UserError, match="is a checkpoint of dynamics, not of tokenizer"):
        run_stage("tokenizer", ["--steps", "1", "--data.data", "none", "--init", str(folder / "last.ckpt")])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"\0\xff}\n{}\n")  # as a power cut may leave it
    assert run_stage("dynamics", [*flags, "--resume", "--steps", "3"]) == 0
    assert [step for step, _ in read_figures(folder, "loss")] == [0, 1, 2]
    state = read_checkpoint(folder / "last.ckpt")
    torch.save({k: v for k, v in state.items() if k != "current_model_state"}, folder / "graphs.ckpt")
    (folder / "graphs.ckpt").replace(folder / "last.ckpt")
    with pytest.raises(UserError, match="trained by graphs"):
        run_stage("dynamics", [*flags, "--resume"])
    torch.save({"game_wm": {}}, folder / "last.ckpt")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(folder / "last.ckpt")


def test_a_run_on_other_latents_is_not_exported(latents: Path, tmp_path: Path) -> None:
    """Its network would not fit the tokenizer."""
    playable = tiny_checkpoint(tmp_path / "tiny.safetensors")
    assert run_stage("dynamics", [*stage_flags(latents, tmp_path, "own"), "--steps", "1"]) == 0
    encode.write_synthetic(tmp_path / "latents", (4, 8, 8), actions=4, episodes=10, frames=40)
    index = json.loads((tmp_path / "latents" / "index.json").read_text())
    index["tokenizer"] = encode.tokenizer_hash(load(playable).model.tokenizer)
    (tmp_path / "latents" / "index.json").write_text(json.dumps(index))
    export = ["export", "--run", str(tmp_path / "own"), "--latents", str(tmp_path / "latents"), "--name", "new"]
    with pytest.raises(UserError, match="name what it was trained on with --latents"):
        main([*export, "--base", str(playable), "--out", str(tmp_path)])
    assert not (tmp_path / "new.safetensors").exists()


def test_a_loss_that_is_not_finite_ends_the_run(latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Status 2, one sentence, and the checkpoint as it was; with a lower rate the run goes on."""
    flags = [*stage_flags(latents, tmp_path, "nan"), "--warmup", "1"]
    assert run_stage("dynamics", [*flags, "--steps", "3"]) == 0
    last = tmp_path / "nan" / "dynamics" / "last.ckpt"
    kept = last.read_bytes()
    wild = [*flags, "--steps", "60", "--resume", "--model.lr", "1e18"]
    assert main_guard(lambda: run_stage("dynamics", wild)) == 2
    assert "such as --model.lr 2.5e+17" in capsys.readouterr().err and last.read_bytes() == kept
    assert run_stage("dynamics", [*flags, "--steps", "6", "--resume", "--model.lr", "1e-4"]) == 0
    assert read_checkpoint(last)["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-4  # not what the checkpoint had


@pytest.mark.parametrize("gradient", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_reaches_no_weight(
    gradient: float, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it where the loss is finite."""
    stepped, weights = DynamicsModule.training_step, list[torch.Tensor]()

    def spoilt(module: DynamicsModule, batch: Any, index: int) -> torch.Tensor:
        weights[:] = [module.dynamics.context.positions.detach().clone()]
        loss = stepped(module, batch, index)
        if module.global_step == 2:
            module.dynamics.context.positions.register_hook(lambda given: torch.full_like(given, gradient))
        return loss

    monkeypatch.setattr(DynamicsModule, "training_step", spoilt)
    with pytest.raises(UserError, match="at step 2 the loss is"):
        run_stage("dynamics", [*stage_flags(latents, tmp_path, "spoilt"), "--steps", "5"])
    assert weights[0].isfinite().all() and not (tmp_path / "spoilt" / "dynamics" / "last.ckpt").exists()


def test_weights_that_are_not_finite_are_neither_read_nor_written(latents: Path, tmp_path: Path) -> None:
    flags = stage_flags(latents, tmp_path, "broken")
    assert run_stage("dynamics", [*flags, "--steps", "1"]) == 0
    last = tmp_path / "broken" / "dynamics" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    for part, words in (("current_model_state", "for one dynamics"), ("state_dict", "for one dynamics")):
        state[part]["dynamics.context.positions"][0] = float("inf")
        torch.save(state, last)
        with pytest.raises(UserError, match=words):
            run_stage("dynamics", [*flags, "--steps", "2", "--resume"])
    with pytest.raises(UserError, match="its training diverged"):
        load_dynamics(last)  # as export does
    with pytest.raises(UserError, match="its training diverged"):
        run_stage("distill", [*stage_flags(latents, tmp_path, "no", "distill"), "--steps", "1", "--init", str(last)])

    good = load(tiny_checkpoint(tmp_path / "good.safetensors"))
    for value in (float("nan"), 1e6):  # the second is more than 16 bits hold
        good.model.dynamics.context.positions.data[0] = value
        with pytest.raises(UserError, match=r"bad\.safetensors is not written: 1 of its tensors"):
            save(tmp_path / "bad.safetensors", good)
    tensors = load_file(tmp_path / "good.safetensors")
    with safe_open(tmp_path / "good.safetensors", "pt") as file:
        about = {k: v for k, v in file.metadata().items() if k != "sha256"}
    tensors["model.dynamics.context.positions"][0] = float("nan")
    save_file(tensors, tmp_path / "bad.safetensors", about)
    with pytest.raises(UserError, match="its training diverged"):
        load(tmp_path / "bad.safetensors")


def test_what_is_trained_by_hand_stops_at_what_is_not_finite() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], 1.0)
    for loss in (lambda i: weight.sum() * (1 if i < 6 else float("nan")), lambda i: (weight - 1).norm(dim=0).sqrt()):
        with pytest.raises(UserError, match=r"depth: step [17]: the loss"):
            descend("depth", optimizer, 8, loss, rate=lambda i: 0.0)
    told = list[tuple[int, float]]()
    descend("depth", optimizer, 1, lambda i: weight.square().sum(), lambda i: 1.0, 1.0, lambda *x: told.append(x))
    assert told == [(1, 2.0)] and weight.tolist() == pytest.approx([1 - 0.5**0.5] * 2)


class Wandb(types.ModuleType):
    """Stands for the package; what is called `breaks` fails, from the third call on where it is `log`."""

    Settings = staticmethod(lambda **_: None)

    def __init__(self, breaks: str) -> None:
        super().__init__("wandb")
        self.breaks, self.calls = breaks, list[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            self.calls.append(name)
            if name == self.breaks and (name != "log" or self.calls.count("log") > 2):
                raise RuntimeError("Could not determine home directory.\nand more")
            return self

        return call


@pytest.mark.parametrize("breaks", ["import", "init", "define_metric", "log", "Image", "finish", "nothing"])
def test_weights_and_biases_never_ends_a_training(
    breaks: str, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb = Wandb(breaks)
    monkeypatch.setitem(sys.modules, "wandb", None if breaks == "import" else wandb)
    flags = [*stage_flags(latents, tmp_path, "told"), "--steps", "4", "--wandb", "offline"]
    assert run_stage("dynamics", flags) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "Weights & Biases" in line]
    assert len(warnings) == (breaks != "nothing") and all("metrics.jsonl" in line for line in warnings)
    assert [step for step, _ in read_figures(tmp_path / "told" / "dynamics", "loss")] == list(range(4))
    if breaks in ("nothing", "finish"):
        assert {"init", "log", "Image", "finish"} <= set(wandb.calls)


def test_weights_and_biases_online_without_a_login(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The real package: it has nobody to ask for a key here."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run_stage("dynamics", [*stage_flags(latents, tmp_path, "on"), "--steps", "2", "--wandb", "online"]) == 0
    assert capsys.readouterr().err.count("warning: Weights & Biases does not work") == 1


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def save_checkpoint(self, path: Path, **_: Any) -> None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    playable = load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    monkeypatch.setattr("game_wm.checkpoint.serialised", full)
    assert main_guard(lambda: save(tmp_path / "new.safetensors", playable)) == 2
    assert "the disk is full while writing" in capsys.readouterr().err
    (tmp_path / "tiny.safetensors").unlink()

    (tmp_path / "last.ckpt").write_bytes(b"whole")
    with pytest.raises(OSError, match=r"last\.ckpt"):
        Saver(tmp_path).save(Full())  # type: ignore[arg-type]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("last.ckpt", b"whole")]


def test_paths_that_cannot_be_used_are_one_sentence(
    recording: Path, latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main_guard(lambda: run_stage("dynamics", [*stage_flags(latents, file, "x"), "--steps", "1"])) == 2
    assert main_guard(lambda: encode.encode([str(recording)], small_tokenizer(0), file / "latents") and 0) == 2
    assert capsys.readouterr().err.count("file/") == 2
