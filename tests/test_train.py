"""Training: what a sample is, what is encoded, and that a run which is killed and resumed is the run that was not."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from data_collect.errors import UserError, main_guard
from data_collect.lock import folder_lock
from data_collect.recording.record import record
from game_wm.acceleration import pruning
from game_wm.checkpoint import load, save
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig
from game_wm.training import descend
from game_wm.world import WorldModel
from tests.tiny import tiny_checkpoint
from train.__main__ import main
from train.checkpoints import load_dynamics, read_checkpoint
from train.data import encode
from train.data.frames import open_frames, recordings_of
from train.data.modules import FrameDataModule, LatentDataModule
from train.data.windows import (
    LatentStore,
    SequenceDataset,
    fitting_length,
    random_below,
    split_episodes,
    split_recordings,
)
from train.lab import bench, context_cost
from train.pipeline.flags import parse
from train.pipeline.plan import read_yaml
from train.report.figures import read_figures
from train.report.machine import MatrixRate, count_flops
from train.stages.callbacks import Budget, Saver, Schedule
from train.stages.cli import run_stage
from train.stages.configuration import STAGES, StageCLI, read_stage
from train.stages.distill import DistillModule
from train.stages.dynamics import DynamicsModule, read_objective

ROOT = Path(__file__).parent.parent
TINY = ["--model.dynamics.widths", "[16,32]", "--model.dynamics.blocks", "[1,1]", "--model.dynamics.heads", "2",
        "--model.dynamics.context_width", "32", "--model.dynamics.window", "8", "--model.targets", "4",
        "--model.rollout", "3", "--data.batch_size", "4", "--data.length", "16", "--data.validation_windows", "4",
        "--warmup", "3", "--model.tokenizer", "null", "--data.game", "null", "--wandb", "off",
        "--trainer.log_every_n_steps", "1", "--trainer.val_check_interval", "5"]  # fmt: skip


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maze")
    record(folder, "maze?size=7", "random", 360, seed=3, episode_frames=40)
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten episodes of 50 frames; a latent says which episode (channel 0) and frame (channel 1) it is."""
    folder = tmp_path_factory.mktemp("latents")
    encode.write_synthetic(folder, (4, 4, 4), actions=3, episodes=10, frames=50)
    path = folder / "latents-00000.npy"
    values = np.load(path)
    values[:, 0], values[:, 1] = (np.arange(500) // 50)[:, None, None], (np.arange(500) % 50)[:, None, None]
    np.save(path, values)
    return folder


# --- configuration ----------------------------------------------------------------------------------------------------


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


# --- samples ----------------------------------------------------------------------------------------------------------


def test_item_is_a_function_of_seed_and_number(latents: Path) -> None:
    data = SequenceDataset(latents, length=16, seed=5)
    whole = data.batch(100, 8)
    assert {name: tuple(value.shape) for name, value in whole.items()} == {
        "latents": (8, 16, 4, 4, 4), "actions": (8, 16, 3), "rewards": (8, 16), "terminated": (8, 16),
        "episode": (8,), "start": (8,),
    }  # fmt: skip
    again = SequenceDataset(latents, length=16, seed=5)
    for i in (107, 100, 103):
        for name, value in again[i].items():
            assert torch.equal(value, whole[name][i - 100])
    again.hold(torch.device("cpu"))
    held = again.batch(100, 8)
    assert held.keys() == whole.keys() and all(torch.equal(held[name], value) for name, value in whole.items())
    starts = [SequenceDataset(latents, length=16, seed=s).batch(0, 64)["start"].tolist() for s in (0, 1)]
    assert starts[0] != starts[1] and starts[0][1:] != starts[1][:-1]


def test_windows_stay_within_an_episode_and_out_of_what_is_held_out(latents: Path) -> None:
    places = set()
    for held_out in (False, True):
        data = SequenceDataset(latents, length=16, seed=0, held_out=0.2, validation=held_out)
        batch = data.gather(np.arange(data.windows))
        episodes, frames = batch["latents"][:, :, 0, 0, 0], batch["latents"][:, :, 1, 0, 0]
        assert (episodes == episodes[:, :1]).all() and (frames[:, 1:] == frames[:, :-1] + 1).all()
        assert set(episodes[:, 0].tolist()) == ({8, 9} if held_out else set(range(8)))
        assert data.windows == len(set(zip(episodes[:, 0].tolist(), frames[:, 0].tolist(), strict=True)))
        places |= set(episodes[:, 0].tolist())
    assert places == set(range(10))


def test_every_window_is_drawn_and_those_with_events_more_often(latents: Path) -> None:
    plain = SequenceDataset(latents, length=16, seed=0)
    drawn = np.bincount(plain.choose(np.arange(50 * plain.windows)), minlength=plain.windows)
    assert drawn.min() > 15 and drawn.max() < 110
    often = SequenceDataset(latents, length=16, seed=0, event_factor=5)
    drawn = np.bincount(often.choose(np.arange(50 * often.windows)), minlength=often.windows)
    marked = np.zeros(often.windows, bool)
    marked[often.events] = True
    batch = often.gather(np.arange(often.windows))
    assert np.array_equal(marked, ((batch["rewards"] != 0) | (batch["terminated"] != 0)).any(1).numpy())
    assert drawn[marked].mean() / drawn[~marked].mean() == pytest.approx(5, rel=0.1)


def test_few_episodes_lose_only_the_end_of_the_last() -> None:
    assert split_episodes([100, 300], 0.1, validation=True) == [(1, 260, 40)]
    assert split_episodes([100, 300], 0.1, validation=False) == [(0, 0, 100), (1, 0, 260)]
    assert split_episodes([100] * 10, 0.0, validation=True) == []
    assert random_below(7, 0, np.arange(1000), 0).max() == 6


def test_a_part_of_each_recording_is_held_out(tmp_path: Path) -> None:
    """Also of a few long episodes that were played by hand."""
    assert split_recordings([[100] * 10, [300]], 0.1, validation=True) == [(9, 0, 100), (10, 270, 30)]
    assert split_recordings([[100] * 10, [300]], 0.1, validation=False)[-2:] == [(8, 0, 100), (10, 0, 270)]
    encode.write_synthetic(tmp_path, (4, 4, 4), actions=3, episodes=10, frames=50)
    index = json.loads((tmp_path / "index.json").read_text())
    for episode in index["episodes"][8:]:
        episode["recording"] = 1
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert LatentStore(tmp_path).split(0.1, validation=True) == [(7, 0, 50), (9, 40, 10)]


@pytest.mark.parametrize(
    ("frames", "fits"),
    [([100] * 9, 32), ([21] * 9, 21), ([7] * 9, 7), ([2] * 9, 2), ([1] * 9, 32), ([21] * 48 + [1000], 21),
     ([5] * 20 + [1000], 32), ([20, 25, 30] * 5, 20), ([31, 32, 33], 31)],
)  # fmt: skip
def test_windows_are_as_long_as_episodes_allow(frames: list[int], fits: int) -> None:
    assert fitting_length(frames, 32) == fits


@pytest.mark.parametrize(("frames", "history"), [(21, 4), (7, 4), (3, 2)])
def test_short_episodes_shorten_windows_and_what_depends_on_them(
    frames: int, history: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Dynamics, a student of it, and the network that both become."""
    encode.write_synthetic(tmp_path / "latents", (4, 8, 8), actions=4, episodes=30, frames=frames)
    for stage in ("dynamics", "distill"):
        flags = [*stage_flags(tmp_path / "latents", tmp_path, "short", stage), "--data.length", "64", "--steps", "2"]
        flags += ["--model.rollout", "8", "--model.dynamics.window", "32"]
        flags += ["--init", str(tmp_path / "short" / "dynamics" / "last.ckpt")] if stage == "distill" else []
        assert run_stage(stage, flags) == 0
        assert f"{stage}: windows of {frames} frames instead of 64" in capsys.readouterr().out
        settings = read_checkpoint(tmp_path / "short" / stage / "last.ckpt")["game_wm"]["settings"]
        assert settings["data"]["length"] == frames and settings["model"]["rollout"] == min(8, frames // 2)
        network, _ = load_dynamics(tmp_path / "short" / stage / "last.ckpt")
        assert (network.config.window, network.config.history) == (min(32, frames), history)


def test_windows_longer_than_every_episode(latents: Path) -> None:
    with pytest.raises(UserError, match="no episode has 64 frames"):
        SequenceDataset(latents, length=64)


@pytest.mark.parametrize("cache_gib", [1.0, 0.0], ids=["cached", "pooled"])
def test_frames_are_those_of_training_episodes(recording: Path, cache_gib: float) -> None:
    def source() -> Any:
        return open_frames([str(recording)], seed=1, held_out=0.12, cache_gib=cache_gib, pool_frames=100)

    frames = source()
    every = frames.read(np.arange(360))
    known = {frame.tobytes(): number for number, frame in reversed(list(enumerate(every)))}
    drawn = frames.items(np.arange(600))
    numbers = {known[frame.tobytes()] for frame in drawn}
    held_out = {known[frame.tobytes()] for frame in frames.validation(1000)}
    assert len(numbers) > 100 and max(numbers) < 320 and held_out and min(held_out) >= 320
    assert np.array_equal(source().items(np.arange(250, 260)), drawn[250:260])
    assert (recording / ".cache").exists()


def test_streams_go_on_at_their_cursor(recording: Path) -> None:
    data = FrameDataModule(str(recording), batch_size=8)
    assert (data.game, data.height, data.width) == ("maze?size=7", 64, 64)
    stream = iter(data.train_dataloader())
    batches = [next(stream) for _ in range(3)]
    assert batches[0].dtype == torch.uint8 and batches[0].shape == (8, 64, 64, 3)
    resumed = FrameDataModule(str(recording), batch_size=8)
    resumed.load_state_dict({"cursor": 16, "seed": 0})
    assert torch.equal(next(iter(resumed.train_dataloader())), batches[2])
    with pytest.raises(UserError, match="not of doom"):
        FrameDataModule(str(recording), game="doom")


# --- encoding ---------------------------------------------------------------------------------------------------------


def small_tokenizer(seed: int) -> Tokenizer:
    torch.manual_seed(seed)
    return Tokenizer(TokenizerConfig(64, 64, 4, (16, 16, 16), (16, 16, 16), decoder_blocks=1)).eval()


def test_encode_once_and_again_when_the_tokenizer_changes(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "SHARD_FRAMES", 100)
    out, tokenizer, write = tmp_path / "latents", small_tokenizer(0), encode.write_shard

    def stop(folder: Path, number: int, rows: Any) -> int:
        if number == 2:
            raise KeyboardInterrupt
        return write(folder, number, rows)

    monkeypatch.setattr(encode, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        encode.encode([str(recording)], tokenizer, out)
    with pytest.raises(UserError, match="not encoded to its end"):
        LatentStore(out)
    kept = (out / "latents-00000.npy").stat().st_mtime_ns
    monkeypatch.setattr(encode, "write_shard", write)
    assert encode.encode([str(recording)], tokenizer, out)
    assert (out / "latents-00000.npy").stat().st_mtime_ns == kept
    assert not encode.encode([str(recording)], tokenizer, out)

    store = LatentStore(out)
    assert store.lengths == [40] * 9 and store.game == "maze?size=7" and store.index["pose"]
    frames = open_frames([str(recording)], seed=0)
    dataset = frames.recordings[0].dataset
    span = split_episodes(store.lengths, 0.1, validation=True)[0]
    episode = dataset.episode(span.episode)
    with torch.no_grad():
        wanted = tokenizer.encode(torch.from_numpy(episode.frames)).numpy()
    assert np.allclose(store.read("latents", span), wanted, atol=0.05)
    assert (
        np.array_equal(store.read("actions", span)[:-1], episode.encoded) and not store.read("actions", span)[-1].any()
    )
    assert np.array_equal(store.read("rewards", span)[:-1], episode.rewards)
    assert np.array_equal(store.read("pose", span), episode.pose)

    assert encode.encode([str(recording)], small_tokenizer(1), out)
    (out / "rewards-00001.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"rewards-00001\.npy is missing or damaged"):
        LatentStore(out)


def test_a_recording_that_was_added_is_encoded_alone(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "SHARD_FRAMES", 100)
    record(tmp_path / "more", "maze?size=7", "random", 80, seed=4, episode_frames=40)
    out, both, tokenizer = tmp_path / "latents", tmp_path / "both", small_tokenizer(0)
    data = [str(recording), str(tmp_path / "more")]
    encode.encode(data[:1], tokenizer, out)
    kept = (out / "latents-00001.npy").stat().st_mtime_ns
    assert encode.encode(data, tokenizer, out)
    assert (out / "latents-00001.npy").stat().st_mtime_ns == kept
    encode.encode(data, tokenizer, both)
    first, second = LatentStore(out), LatentStore(both)
    assert first.episodes == second.episodes and first.index["shards"] == second.index["shards"]
    for name in ("latents", "actions", "pose"):
        for mine, other in zip(first.shards, second.shards, strict=True):
            assert np.allclose(mine[name], other[name], atol=0.05)  # in 16 or in 32 bits, as is faster


def test_a_recording_is_recognised_wherever_it_lies(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the latents or where it was; never another one that lies where it was named."""
    for project, seed in (("a", 3), ("b", 9)):
        (tmp_path / project).mkdir()
        monkeypatch.chdir(tmp_path / project)
        record("runs/tiny/data", "maze?size=7", "random", 80, seed=seed, episode_frames=40)
    monkeypatch.chdir(tmp_path / "a")
    encode.encode(["runs/tiny/data"], small_tokenizer(0), "runs/tiny/latents")
    mine = tmp_path / "a" / "runs" / "tiny" / "data"
    index = json.loads(Path("runs/tiny/latents/index.json").read_text())

    def found(latents: Path, data: list[Any] | None = None) -> Path:
        (latents / "index.json").write_text(json.dumps(index | {"data": data or index["data"]}))
        return recordings_of(LatentStore(latents))[0].dataset.folder

    latents, old = tmp_path / "a" / "runs" / "tiny" / "latents", ["runs/tiny/data"]
    for data in (None, old):
        for folder in ("a", "b", "."):
            monkeypatch.chdir(tmp_path / folder)
            assert found(latents, data) == mine
    monkeypatch.chdir(tmp_path / "b")
    shutil.copytree(latents, tmp_path / "alone")
    assert found(tmp_path / "alone") == mine  # by its absolute path
    (tmp_path / "a").rename(tmp_path / "c")
    for data in (None, old):
        assert found(tmp_path / "c" / "runs" / "tiny" / "latents", data) == tmp_path / "c" / "runs" / "tiny" / "data"
    with pytest.raises(UserError, match="alone was encoded from is not in"):
        found(tmp_path / "alone")
    with pytest.raises(UserError, match="runs/tiny/data is not the recording that"):
        found(tmp_path / "alone", old)
    shutil.copytree(tmp_path / "b" / "runs" / "tiny" / "data", tmp_path / "data")
    with pytest.raises(UserError, match="data is not the recording that"):
        found(tmp_path / "alone")
    record(tmp_path / "c" / "runs" / "tiny" / "data", "maze?size=7", "random", 120)
    with pytest.raises(UserError, match="or was recorded on since"):
        found(tmp_path / "c" / "runs" / "tiny" / "latents")


def test_encode_refuses_other_sizes_and_folders(recording: Path, tmp_path: Path) -> None:
    wide = Tokenizer(TokenizerConfig(64, 96, 4, (16, 16, 16), (16, 16, 16), decoder_blocks=1))
    with pytest.raises(UserError, match="64x64, the tokenizer takes 96x64"):
        encode.encode([str(recording)], wide, tmp_path / "latents")
    with pytest.raises(UserError, match="choose another --out"):
        encode.encode([str(recording)], small_tokenizer(0), recording)
    with pytest.raises(UserError, match="no recording"):
        encode.encode([str(tmp_path / "nothing")], small_tokenizer(0), tmp_path / "latents")


def test_one_process_encodes_into_a_folder(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_collect.lock.LOCK_SECONDS", 0.1)
    (tmp_path / "latents").mkdir()
    with folder_lock(tmp_path / "latents"), pytest.raises(UserError, match="another process is writing"):
        encode.encode([str(recording)], small_tokenizer(0), tmp_path / "latents")


# --- stages -----------------------------------------------------------------------------------------------------------


def stage_flags(latents: Path, runs: Path, name: str, stage: str = "dynamics") -> list[str]:
    config = str(ROOT / "configs" / "maze" / f"{stage}.yaml")
    return ["--config", config, "--runs", str(runs), "--name", name, "--minutes", "null",
            "--data.latents", str(latents), *TINY]  # fmt: skip


class Killed(Exception):
    """Stands for a process that is gone."""


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


def test_all_processes_agree_on_which_steps_are_own_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [DistillModule((4, 4, 4), actions=3, own=0.4) for _ in range(2)]
    said = []
    for step in range(400):
        monkeypatch.setattr(DistillModule, "global_step", step)
        for number, module in enumerate(processes):
            torch.manual_seed(2 * step + number)
            said.append(module.dreams())
    assert said[::2] == said[1::2] and 120 < sum(said[::2]) < 200


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
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    playable = load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    monkeypatch.setattr("game_wm.checkpoint.save_file", full)
    assert main_guard(lambda: save(tmp_path / "new.safetensors", playable)) == 2
    assert "the disk is full while writing" in capsys.readouterr().err
    (tmp_path / "tiny.safetensors").unlink()

    (tmp_path / "last.ckpt").write_bytes(b"whole")
    with pytest.raises(OSError, match=r"last\.ckpt"):
        Saver(tmp_path).save(Full())  # type: ignore[arg-type]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("last.ckpt", b"whole")]


def test_paths_that_cannot_be_used_are_one_sentence(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main_guard(lambda: run_stage("dynamics", [*stage_flags(latents, file, "x"), "--steps", "1"])) == 2
    assert main_guard(lambda: encode._begin(file, "key") and None) == 2
    assert capsys.readouterr().err.count("file/") == 2


def test_bench_tells_what_a_context_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_cost, "CONTEXTS", (1, 64))
    assert main(["bench", "attention", "--json", "--plot", str(tmp_path / "cost.png")]) == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table) == set(context_cost.KINDS) and all(row["1"] > 0 and row["64"] > 0 for row in table.values())
    assert np.asarray(Image.open(tmp_path / "cost.png")).std() > 5


def test_bench_speaks_of_rates(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LOADER_SECONDS", 0.1)
    flags = ["--synthetic", "--steps", "12", *TINY[:-6], "--data.game", "null"]
    assert main(["bench", "dynamics", *flags]) == 0
    told = capsys.readouterr().out
    assert "matrix fraction:" in told and "x training" in told


# --- parts ------------------------------------------------------------------------------------------------------------


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
        assert all(Path(plan.training(name).config).is_file() for name in plan.stages)


def test_windows_of_latents_are_checked_against_the_game(latents: Path) -> None:
    data = LatentDataModule(str(latents), length=16, batch_size=4)
    assert (data.actions, data.latent_shape, data.game) == (3, (4, 4, 4), "synthetic")
    assert data.val_dataloader() != [] and LatentDataModule(str(latents), length=50).val_dataloader() != []
