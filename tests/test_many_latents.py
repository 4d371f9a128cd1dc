"""Latents of thousands of shards, and of several folders that are trained on as one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from stage_runs import ROOT, small_tokenizer, stage_flags
from tiny import tiny_world

from data_collect.errors import UserError, main_guard
from data_collect.recording.record import record
from train.__main__ import main
from train.checkpoints import read_checkpoint
from train.data import encode
from train.data.latents import LatentStore, latent_folders
from train.data.modules import LatentDataModule
from train.data.windows import SequenceDataset
from train.first_person import draw_views as drawing


def many(folder: Path, shards: int) -> Path:
    """So many shards of one episode each, all of them the same files."""
    encode.write_synthetic(folder, (4, 8, 8), actions=4, episodes=1, frames=20)
    index = json.loads((folder / "index.json").read_text())
    index["shards"] *= shards
    index["episodes"] = [index["episodes"][0] | {"episode": i, "shard": i} for i in range(shards)]
    for name in ("latents", "actions", "rewards", "terminated"):
        for number in range(1, shards):
            os.link(folder / f"{name}-00000.npy", folder / f"{name}-{number:05d}.npy")
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.slow
def test_two_thousand_shards_train_where_256_files_may_be_open(tmp_path: Path) -> None:
    latents = many(tmp_path / "latents", 2000)
    flags = stage_flags(latents, tmp_path, "many")
    command = [sys.executable, "-m", "train", "dynamics", *flags, "--steps", "3", "--data.event_factor", "2"]
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256))
    done = subprocess.run(command, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "many" / "dynamics" / "last.ckpt")["global_step"] == 3


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Path:
    """`whole`, and `parts` with a third of the same episodes in each folder."""
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = small_tokenizer(0)
    encode.encode([str(recording)], tokenizer, folder / "whole")
    for number in (1, 2, 3):
        assert encode.encode([str(recording)], tokenizer, folder / "parts" / str(number), part=(number, 3))
    assert not encode.encode([str(recording)], tokenizer, folder / "parts" / "2", part=(2, 3))
    return folder


@pytest.mark.slow
def test_parts_give_the_windows_of_the_whole(parts: Path) -> None:
    folders = [str(parts / "parts" / name) for name in "312"]
    whole = LatentDataModule(str(parts / "whole"), length=16, batch_size=8, held_out=0.12, event_factor=3)
    for named in (folders, str(parts / "parts")):
        data = LatentDataModule(named, length=16, batch_size=8, held_out=0.12, event_factor=3)
        assert data.store.lengths == whole.store.lengths and data.store.key == whole.store.key
        for batch, other in zip(
            [data.batch(0, 8), *data.val_dataloader()], [whole.batch(0, 8), *whole.val_dataloader()]
        ):
            assert batch.keys() == other.keys()
            for name, value in batch.items():
                assert torch.allclose(value, other[name], atol=0.05 if name == "latents" else 0)  # in 16 or 32 bits
    alone = LatentStore(folders[0])  # the last third: what is held out of the whole is held out of it
    assert [e["episode"] for e in alone.episodes] == [2, 5, 8]
    assert alone.split(0.12, validation=True) == [(2, 0, 40)]


@pytest.mark.slow
def test_folders_that_do_not_fit_together(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds episodes that another folder"):
        LatentStore([parts / "whole", parts / "parts" / "1"])
    encode.write_synthetic(tmp_path / "other", (4, 4, 4), actions=3, episodes=2, frames=50)
    with pytest.raises(UserError, match=r"other and .*whole differ in their tokenizer"):
        LatentStore([parts / "whole", tmp_path / "other"])
    with pytest.raises(UserError, match="no encoded frames are named"):
        LatentStore([])


@pytest.mark.slow
def test_latents_of_several_recordings_in_several_folders(recording: Path, tmp_path: Path) -> None:
    record(tmp_path / "more", "maze?size=7", "random", 80, seed=4, episode_frames=40)
    tokenizer = small_tokenizer(0)
    encode.encode([str(recording)], tokenizer, tmp_path / "a")
    encode.encode([str(tmp_path / "more")], tokenizer, tmp_path / "b")
    encode.encode([str(recording), str(tmp_path / "more")], tokenizer, tmp_path / "both")
    one, two = (SequenceDataset(each, 16) for each in ([tmp_path / "a", tmp_path / "b"], tmp_path / "both"))
    assert one.store.key == two.store.key and one.store.recorded == two.store.recorded
    batch, other = one.batch(0, 16), two.batch(0, 16)
    assert all(torch.equal(batch[name], other[name]) for name in ("episode", "start", "actions", "pose"))


@pytest.mark.slow
def test_a_list_of_folders_is_trained_on_and_resumed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        encode.write_synthetic(tmp_path / name, (4, 8, 8), actions=4, episodes=10, frames=40)
    flags = stage_flags(Path("x"), tmp_path, "two")
    flags[flags.index("x")] = json.dumps([str(tmp_path / "a"), str(tmp_path / "b")])
    assert main_guard(lambda: main(["dynamics", *flags, "--steps", "2"])) == 0
    assert main_guard(lambda: main(["dynamics", *flags, "--steps", "4", "--resume"])) == 0
    settings = read_checkpoint(tmp_path / "two" / "dynamics" / "last.ckpt")["game_wm"]["settings"]
    assert settings["data"]["latents"] == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_a_part_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["encode", "--data", "a", "--tokenizer", "b", "--out", "c", "--part", "4/3"]
    assert main_guard(lambda: main(words)) == 2
    assert "must be like 3/8, the third of eight parts, not '4/3'" in capsys.readouterr().err


@pytest.mark.slow
def test_views_of_several_folders(tmp_path: Path) -> None:
    """They are those of one geometry, wherever an episode lies."""
    world = tiny_world(recall=True)
    record(tmp_path / "maze", "maze?size=7", "wanderer", 120, seed=3, episode_frames=20)
    for number in (1, 2):
        encode.encode([str(tmp_path / "maze")], world.tokenizer, tmp_path / "latents" / str(number), part=(number, 2))
    with pytest.raises(UserError, match="latents/1 has no views"):
        LatentDataModule(str(tmp_path / "latents"), length=8, views=True)
    for folder in latent_folders(tmp_path / "latents"):
        drawing.draw_views(folder, world.memory, world.tokenizer)
    store = LatentDataModule(str(tmp_path / "latents"), length=8, views=True).store
    for span in store.split(0, validation=False):
        (views,) = drawing.draw_episodes(world.memory.for_recordings(False), store, [span.episode], world.tokenizer)
        assert np.allclose(store.read("views", span), views, atol=1e-2)
