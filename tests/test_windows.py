"""Windows and frames: which sample is item i, what is held out, and streams that go on at their cursor."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_runs import stage_flags

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.shards.chunk import ChunkRef
from train.checkpoints import load_dynamics, read_checkpoint
from train.data import encode
from train.data.frames import PooledFrames, open_frames
from train.data.latents import LatentStore
from train.data.modules import FrameDataModule, LatentDataModule
from train.data.spans import fitting_length, split_episodes, split_recordings
from train.data.windows import SequenceDataset, random_below
from train.stages.cli import run_stage


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


def test_events_are_drawn_evenly_by_game(latents: Path, tmp_path: Path) -> None:
    alone = SequenceDataset(latents, length=16, seed=0, event_factor=5)  # of one game: as ever
    assert alone.choose(np.arange(10)).tolist() == [278, 103, 79, 115, 229, 62, 42, 160, 118, 34]
    shutil.copytree(latents, tmp_path / "mixed")
    index = json.loads((tmp_path / "mixed" / "index.json").read_text())
    for number, episode in enumerate(index["episodes"]):
        episode["game"] = "long" if number < 7 else "quiet" if number < 8 else "short"
    (tmp_path / "mixed" / "index.json").write_text(json.dumps(index))
    for name in ("rewards", "terminated"):  # of the quiet one nothing is rewarded, and nothing ends
        rows = np.load(tmp_path / "mixed" / f"{name}-00000.npy")
        rows[7 * 50 : 8 * 50] = 0
        np.save(tmp_path / "mixed" / f"{name}-00000.npy", rows)
    mixed = SequenceDataset(tmp_path / "mixed", length=16, seed=0, held_out=0, event_factor=5)
    drawn = mixed.choose(np.arange(30_000))
    games = np.array([mixed.store.game_of(mixed.locate(window).episode) for window in drawn.tolist()])
    for game in ("long", "quiet", "short"):
        assert (games == game).mean() == pytest.approx(1 / 3, abs=0.01)
        windows = np.bincount(drawn[games == game], minlength=mixed.windows)
        marked = np.isin(np.arange(mixed.windows), mixed.events)
        if game != "quiet":
            here = windows > 0
            assert windows[marked & here].mean() / windows[~marked & here].mean() == pytest.approx(5, rel=0.1)
    assert np.array_equal(mixed.choose(np.arange(200, 210)), drawn[200:210])


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_processes_decode_pools_of_their_own(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool is a function of seed, rank and number, whatever was asked for before; ranks have other chunks."""
    read, decoded, sources = Dataset.read, list[int](), list[PooledFrames]()

    def counting(self: Dataset, ref: ChunkRef, frames: bool = True) -> Any:
        decoded.extend([ref.episode] * frames)
        return read(self, ref, frames)

    def source(world: int = 2) -> PooledFrames:
        found = open_frames([str(recording)], seed=1, held_out=0.12, cache_gib=0, pool_frames=100)
        assert isinstance(found, PooledFrames)
        found.share(batch=10, world=world)
        sources.append(found)
        return found

    monkeypatch.setattr(Dataset, "read", counting)
    turns = [[np.arange(10) + 10 * (2 * turn + rank) for turn in range(30)] for rank in (0, 1)]
    drawn = [[each.items(items) for items in mine] for each, mine in ((source(), turns[0]), (source(), turns[1]))]
    for rank in (0, 1):
        resumed = source()
        for turn in (12, 13, 29):
            assert np.array_equal(resumed.items(turns[rank][turn]), drawn[rank][turn])
    first = [{frame.tobytes() for batch in mine[:10] for frame in batch} for mine in drawn]  # the first pool of each
    assert len(first[0]) > 50 and not first[0] & first[1]
    for each in sources:  # the next pools, too
        each.builder.shutdown()
    decoded.clear()
    alone = source()
    alone.items(turns[1][0])
    alone.builder.shutdown()
    assert len(decoded) <= 2 * 3  # two pools of three chunks, and none of the other's
    one, two = (source(world=1) for _ in range(2))
    two.decoders = ThreadPoolExecutor(1)
    assert np.array_equal(one.items(np.arange(250)), two.items(np.arange(250)))  # however many threads


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


def test_windows_of_latents_are_checked_against_the_game(latents: Path) -> None:
    data = LatentDataModule(str(latents), length=16, batch_size=4)
    assert (data.actions, data.latent_shape, data.game) == (3, (4, 4, 4), "synthetic")
    assert data.val_dataloader() != [] and LatentDataModule(str(latents), length=50).val_dataloader() != []
