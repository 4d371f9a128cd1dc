"""Recordings and latents on servers: the same batches as from disk, faults that pass, and those that do not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served import Server, s3_store, serving
from stage_runs import small_tokenizer, stage_flags

from data_collect import __main__ as cli
from data_collect.dataset import Dataset
from data_collect.errors import UserError, main_guard
from data_collect.recording.record import record
from data_collect.shards import remote
from data_collect.shards.remote import Cache, RemotePath, on_disk, place
from data_collect.shards.writer import ShardWriter
from train.__main__ import main
from train.data import encode
from train.data.latents import LatentStore
from train.data.modules import FrameDataModule, LatentDataModule
from train.data.recordings import recorded_pictures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`maze/data` of three shards, and `maze/latents` of it."""
    folder = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_collect.recording.record.ShardWriter", lambda where: ShardWriter(where, shard_chunks=4))
        record(folder / "maze" / "data", "maze?size=7", "random", 360, seed=3, episode_frames=40)
    encode.encode([str(folder / "maze" / "data")], small_tokenizer(0), folder / "maze" / "latents")
    return folder


@pytest.fixture(params=["http", "s3"])
def server(
    request: pytest.FixtureRequest, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """(server, address of the folder `maze` on it); nothing is kept on this disk yet, and nobody waits long."""
    monkeypatch.setenv("GAME_WM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.01,) * 3)
    if request.param == "http":
        with serving(made) as found:
            yield found, f"{found.url}/maze"
    else:
        with s3_store(made, "games", monkeypatch) as found:
            yield found, "s3://games/maze"


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return torch.equal(one, other)


@pytest.mark.parametrize("how", [{"pool_frames": 100, "cache_gib": 0.0}, {"row": 2, "still": True}])
def test_frames_from_a_server_are_those_from_disk(server: tuple[Server, str], made: Path, how: dict[str, Any]) -> None:
    here, there = (FrameDataModule(data, 16, **how) for data in (str(made / "maze" / "data"), f"{server[1]}/data"))
    for first in (0, 96, 16 * 20):
        assert equal(here.batch(first, 16), there.batch(first, 16))
    for one, other in zip(here.val_dataloader(), there.val_dataloader(), strict=True):
        assert equal(one, other)


def test_latents_from_a_server_are_those_from_disk(
    server: tuple[Server, str], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 3000)  # a window lies in several blocks
    folders = str(made / "maze" / "latents"), f"{server[1]}/latents"
    here, there = (LatentDataModule(each, 16, 8, held_out=0.2, event_factor=2, still=True) for each in folders)
    streams = [iter(data.train_dataloader()) for data in (here, there)]
    for _ in range(20):
        assert equal(*(next(stream) for stream in streams))
    assert all(equal(a, b) for a, b in zip(here.val_dataloader(), there.val_dataloader(), strict=True))
    del streams  # with the batches that they were making
    asked = server[0].asked.copy()
    assert equal(
        LatentDataModule(folders[1], 16, 8, held_out=0.2, event_factor=2, still=True).batch(0, 8), here.batch(0, 8)
    )
    assert set(server[0].asked - asked) == {"index.json"}  # the rest is kept
    assert np.array_equal(recorded_pictures(there.store, 4), Dataset(made / "maze" / "data").episode(4).frames)


def test_a_recording_on_a_server_is_encoded_as_one_on_disk(
    server: tuple[Server, str], made: Path, tmp_path: Path
) -> None:
    assert encode.encode([f"{server[1]}/data"], small_tokenizer(0), tmp_path / "latents")
    one, other = LatentStore(tmp_path / "latents"), LatentStore(made / "maze" / "latents")
    assert one.key == other.key and one.episodes == other.episodes
    for name in one.names:
        assert np.allclose(one.array(name, 0)[:], other.array(name, 0)[:], atol=0.05 if name == "latents" else 0)


def test_training_from_a_server_goes_on_where_it_stopped(server: tuple[Server, str], tmp_path: Path) -> None:
    """Every shard is slow, cut off or refused at first."""
    latents = f"{server[1]}/latents"
    for name in ("latents-00000.npy", "actions-00000.npy", "index.json"):
        server[0].faults[name] = ["slow", "cut", "refuse"]
    flags = stage_flags(Path("x"), tmp_path, "remote")
    flags[flags.index("x")] = latents
    assert main_guard(lambda: main(["dynamics", *flags, "--steps", "3"])) == 0
    assert main_guard(lambda: main(["dynamics", *flags, "--steps", "5", "--resume"])) == 0
    assert not server[0].faults["latents-00000.npy"]


@pytest.mark.parametrize("fault", ["cut", "refuse", "slow"])
def test_what_fails_for_a_while_is_asked_for_again(server: tuple[Server, str], made: Path, fault: str) -> None:
    here, there = Dataset(made / "maze" / "data"), Dataset(f"{server[1]}/data")
    shard = there.index[0].shard
    server[0].faults[shard] = [fault, fault]
    assert there.read(there.index[0]).same(here.read(here.index[0]))
    assert server[0].asked[shard] >= (1 if fault == "slow" else 3) and not server[0].faults[shard][1:]


def test_a_missing_shard_is_a_sentence(
    server: tuple[Server, str], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, its name, and what to do; so is a server that stays silent."""
    found, address = server
    shutil.copytree(made, tmp_path / "copy")
    with serving(tmp_path / "copy") as other:
        names = Dataset(made / "maze" / "data").index[0].shard, "latents-00000.npy"
        (tmp_path / "copy" / "maze" / "data" / names[0]).unlink()
        (tmp_path / "copy" / "maze" / "latents" / names[1]).unlink()
        words = ["inspect", f"{other.url}/maze/data"]
        assert main_guard(lambda: cli.main(words)) == 2
        assert f"{other.url}/maze/data/{names[0]} is missing: upload it again" in one_line(capsys)
        flags = stage_flags(Path("x"), tmp_path, "remote")
        flags[flags.index("x")] = f"{other.url}/maze/latents"
        assert main_guard(lambda: main(["dynamics", *flags, "--steps", "3"])) == 2
        assert f"{other.url}/maze/latents/{names[1]} is missing or damaged: upload it again" in one_line(capsys)
    found.faults[names[0]] = ["refuse"] * 99
    assert main_guard(lambda: cli.main(["inspect", f"{address}/data"])) == 2
    assert f"{address}/data/{names[0]} cannot be read (" in one_line(capsys)
    with pytest.raises(UserError, match="nothing holds no recording"):
        Dataset(f"{address}/nothing")
    with pytest.raises(UserError, match=r"nothing holds no encoded frames"):
        LatentStore(f"{address}/nothing")


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    return said


def test_a_server_without_ranges_is_told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAME_WM_CACHE", str(tmp_path / "cache"))
    with serving(made) as server:
        dataset = Dataset(f"{server.url}/maze/data")
        server.faults[dataset.index[0].shard] = ["whole"]
        with pytest.raises(UserError, match="must know range requests"):
            dataset.read(dataset.index[0])


def test_what_is_kept_stays_within_its_bound(tmp_path: Path) -> None:
    """The longest unread goes first, and what another process wrote counts."""
    cache = Cache(tmp_path, 1000)
    for i, key in enumerate("abc"):
        cache.put(key, bytes(300))
        os.utime(tmp_path / key, (i, i))
    assert cache.get("a") == bytes(300)
    cache.put("d", bytes(300))
    assert cache.get("b") is None and cache.get("a") and cache.get("c") and cache.get("d")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == Cache(tmp_path, 1000).bytes == 900


def test_places(tmp_path: Path) -> None:
    assert place("s3://games/maze") / "a.tar" == RemotePath("s3://games/maze/a.tar")
    assert place(str(tmp_path)) == tmp_path and RemotePath("s3://games/maze/").name == "maze"
    with pytest.raises(UserError, match=r"s3://games/maze cannot be written: name a folder on this machine"):
        on_disk("s3://games/maze")
    with pytest.raises(UserError, match=r"nowhere://x/dataset.json cannot be read \(Protocol not known"):
        Dataset("nowhere://x")
    words = ["record", "--game", "maze", "--frames", "9", "--out", "s3://games/new"]
    assert main_guard(lambda: cli.main(words)) == 2
