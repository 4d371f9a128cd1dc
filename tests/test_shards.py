"""Shards: lossless, whole or not there, readable chunk by chunk; what is damaged is named."""

from __future__ import annotations

import errno
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_collect.dataset import SETTINGS, Dataset
from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from data_collect.shards import writer as shards_module
from data_collect.shards.chunk import Chunk, pack, scan, unpack
from data_collect.shards.video import decode_frames, encode_frames
from data_collect.shards.writer import ShardWriter, part_files, salvage, write_atomic

SCHEMA = ActionSchema("multibinary", ("forward", "turn_left"), keys={"up": "forward"}, fps=20)


def a_chunk(episode: int, number: int, steps: int = 8, last: bool = False, pose: bool = True) -> Chunk:
    rng = np.random.default_rng((episode, number))
    frames = steps + last
    meta: dict[str, Any] = {"game": "tiny", "player": "random", "recording_seed": 3, "episode_frames": 99}
    meta |= {
        "schema": SCHEMA.to_json(),
        "seed": 100 + episode,
        "episode": episode,
        "chunk": number,
        "start": number * 8,
    }
    return Chunk(
        frames=rng.integers(0, 256, (frames, 12, 10, 3), np.uint8),
        actions=rng.integers(0, 2, (steps, 2), np.uint8),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=np.zeros(steps, bool),
        truncated=np.arange(steps) == (steps - 1 if last else -1),
        pose=rng.normal(size=(frames, 3)).astype(np.float32) if pose else None,
        meta=meta | {"last": last},
    )


def write_card(folder: Path) -> None:
    write_atomic(folder / "dataset.json", json.dumps({name: a_chunk(0, 0).meta[name] for name in SETTINGS}))


def a_dataset(folder: Path, pose: bool = True) -> list[Chunk]:
    """Episode 0 of three chunks, episode 1 of one, episode 2 cut after two; two chunks a shard."""
    chunks = [a_chunk(*key, pose=pose) for key in ((0, 0), (0, 1))] + [a_chunk(0, 2, 5, True, pose)]
    chunks += [a_chunk(1, 0, 3, True, pose), a_chunk(2, 0, pose=pose), a_chunk(2, 1, pose=pose)]
    with ShardWriter(folder, shard_chunks=2) as writer:
        for chunk in chunks:
            writer.add(chunk)
    write_card(folder)
    write_atomic(folder / "index.jsonl", Dataset(folder).index_text())
    return chunks


def same(one: Chunk, other: Chunk) -> bool:
    arrays = ("frames", "actions", "rewards", "terminated", "truncated")
    posed = (one.pose is None and other.pose is None) or np.array_equal(one.pose, other.pose)  # type: ignore[arg-type]
    return posed and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


@pytest.mark.parametrize("shape", [(5, 64, 64), (3, 33, 47), (1, 1, 1), (2, 96, 128)])
def test_frames_are_lossless(shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    np.testing.assert_array_equal(decode_frames(encode_frames(frames, 35)), frames)
    ramp = np.broadcast_to(np.arange(shape[2], dtype=np.uint8)[:, None], (*shape, 3)) * np.array([1, 2, 3], np.uint8)
    np.testing.assert_array_equal(decode_frames(encode_frames(ramp, 20)), ramp)


def test_damaged_frames_are_refused() -> None:
    with pytest.raises(ValueError):
        decode_frames(b"no video at all")


@pytest.mark.parametrize("pose", [True, False])
def test_chunk_round_trip_and_damage(pose: bool) -> None:
    chunk = a_chunk(4, 2, 6, True, pose)
    blob = pack(chunk)
    again = unpack(blob, "here")
    assert same(chunk, again) and again.meta == chunk.meta and again.meta["frames"] == 7
    assert pack(a_chunk(4, 2, 6, True, pose)) == blob  # the same bytes every time
    for position in np.random.default_rng(0).integers(0, len(blob), 40):
        broken = bytearray(blob)
        broken[position] ^= 0x55
        try:
            assert same(unpack(bytes(broken), "here"), chunk)  # padding, or a tar field that nobody reads
        except ValueError as error:
            assert "here" in str(error)


def test_dataset_reads_what_was_written(tmp_path: Path) -> None:
    chunks = a_dataset(tmp_path)
    dataset = Dataset(tmp_path)
    assert [path.name for path in dataset.shards] == [
        f"shard-{key}.tar" for key in ("000000-0000", "000000-0002", "000002-0000")
    ]
    assert not part_files(tmp_path)
    assert all(same(one, other) for one, other in zip(dataset.chunks(), chunks, strict=True))
    assert [chunk.meta["episode"] for chunk in dataset.chunks(order=[5, 0, 3])] == [2, 0, 1]
    episodes = list(dataset.episodes())
    assert [len(episode.actions) for episode in episodes] == [21, 3, 15]
    for episode in episodes:
        steps = len(episode.actions)
        assert len(episode.frames) == steps + 1 and episode.pose is not None and len(episode.pose) == steps + 1
        assert len(episode.rewards) == len(episode.terminated) == len(episode.truncated) == steps
        np.testing.assert_array_equal(episode.encoded, SCHEMA.encode(episode.actions))
    np.testing.assert_array_equal(episodes[0].frames, np.concatenate([chunk.frames for chunk in chunks[:3]]))
    assert len(list(dataset.episodes(limit=2))) == 2
    card = dataset.card
    assert (card["game"], card["episodes"], card["frames"], card["shards"]) == ("tiny", 3, 42, 3)
    assert card["actions"]["forward"] == sum(int(chunk.actions[:, 0].sum()) for chunk in chunks)


def test_shards_are_plain_webdataset_tars(tmp_path: Path) -> None:
    a_dataset(tmp_path)
    with tarfile.open(tmp_path / "shard-000000-0000.tar") as tar:
        names = tar.getnames()
    assert names[:7] == [f"000000-0000.{name}" for name in (
        "frames.mkv", "actions.npy", "rewards.npy", "terminated.npy", "truncated.npy", "pose.npy", "json")]  # fmt: skip


def test_index_and_card_are_made_again_from_the_shards(tmp_path: Path) -> None:
    a_dataset(tmp_path, pose=False)
    before = Dataset(tmp_path)
    (tmp_path / "index.jsonl").unlink()
    (tmp_path / "dataset.json").unlink()
    after = Dataset(tmp_path)
    assert after.index == before.index and after.card == before.card and after.schema == SCHEMA


def test_what_is_wrong_is_the_card_or_the_shard(tmp_path: Path) -> None:
    a_dataset(tmp_path)
    card, text = tmp_path / "dataset.json", (tmp_path / "dataset.json").read_text()
    card.write_text(text.replace("multibinary", "nonsense"))
    with pytest.raises(UserError, match=r"dataset\.json is damaged"):
        Dataset(tmp_path)
    card.write_text(text.replace("random", "human"))
    with pytest.raises(UserError, match=r"its player is not that of .*dataset\.json.* delete the card"):
        Dataset(tmp_path, rebuild=True)
    card.unlink()
    (tmp_path / "shard-000000-0000.tar").write_bytes(b"no shard" * 200)
    with pytest.raises(UserError, match=r"shard-000000-0000\.tar is damaged"):
        Dataset(tmp_path)


def test_a_foreign_tar_is_named(tmp_path: Path) -> None:
    a_dataset(tmp_path)
    (tmp_path / "0.json").write_text('{"version": 1, "sha256": [1]}')
    with tarfile.open(tmp_path / "shard-foreign.tar", "w") as tar:
        tar.add(tmp_path / "0.json", "0.json")
    with pytest.raises(UserError, match=r"shard-foreign\.tar is damaged"):
        Dataset(tmp_path)


def test_a_folder_called_like_a_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "shard-000000-0000.tar").mkdir()
    with pytest.raises(UserError, match=r"shard-000000-0000\.tar is no file"):
        Dataset(tmp_path)


def test_a_read_only_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shards_module.os, "open", refuse)
    monkeypatch.setattr(shards_module.Path, "unlink", refuse)
    with pytest.raises(UserError, match=r"index\.json cannot be written"):
        write_atomic(tmp_path / "index.json", "{}")


def test_an_unfinished_shard_is_salvaged_at_any_length(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    a_dataset(whole)
    source = whole / "shard-000000-0000.tar"
    data = source.read_bytes()
    ends = [ref.offset + ref.bytes for ref, _ in scan(source)]
    rng = np.random.default_rng(0)
    for cut in [0, 100, *ends, ends[0] - 1, ends[0] + 512, len(data) - 1, *rng.integers(0, len(data), 12)]:
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir(exist_ok=True)
        write_card(folder)
        (folder / "shard-000000-0000.tar.part").write_bytes(data[:cut])
        kept = sum(end <= cut for end in ends)
        assert bool(salvage(folder)) == bool(kept) and not part_files(folder)
        dataset = Dataset(folder)
        assert len(dataset.index) == kept and len(list(dataset.chunks())) == kept
        assert salvage(folder) == []


def test_salvage_trusts_hashes_only(tmp_path: Path) -> None:
    a_dataset(tmp_path)
    shard = tmp_path / "shard-000000-0000.tar"
    refs = [ref for ref, _ in scan(shard)]
    data = bytearray(shard.read_bytes())
    data[refs[1].offset + 600 : refs[1].offset + 700] = bytes(100)
    shard.unlink()
    (tmp_path / "shard-000000-0000.tar.part").write_bytes(data)
    salvage(tmp_path)
    assert len(list(scan(shard))) == 1


@pytest.mark.parametrize("room", [0, 700, 5000, 9000])
def test_a_full_disk_loses_only_the_chunk_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """`room`: bytes that still fit after the second chunk."""
    write_card(tmp_path)
    writer = ShardWriter(tmp_path)
    chunks = [a_chunk(0, i) for i in range(3)]
    for chunk in chunks[:2]:
        writer.add(chunk)
    left = [room]
    real = os.write

    def full(file: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, bytes(data)[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(shards_module.os, "write", full)
    with pytest.raises(UserError, match="disk is full"):
        writer.add(chunks[2])
    with pytest.raises(UserError, match="disk is full"):
        left[0] = 3
        write_atomic(tmp_path / "index.json", "{'a': 1}")
    monkeypatch.undo()
    writer.close()
    salvage(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "shard-000000-0000.tar"]
    assert all(same(one, other) for one, other in zip(Dataset(tmp_path).chunks(), chunks[:2], strict=True))


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no recording"):
        Dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no recording"):
        Dataset(tmp_path)
    a_dataset(tmp_path)
    shard = tmp_path / "shard-000000-0002.tar"
    data = shard.read_bytes()
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-000000-0002\.tar is missing"):
        Dataset(tmp_path)
    shard.write_bytes(data[:-5000])
    with pytest.raises(UserError, match=r"shard-000000-0002\.tar is damaged"):
        Dataset(tmp_path)
    shard.write_bytes(data[:700] + b"x" + data[701:])
    with pytest.raises(UserError, match=r"shard-000000-0002\.tar is damaged"):
        list(Dataset(tmp_path).chunks())
    shard.write_bytes(data)
    (tmp_path / "index.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"index\.jsonl is damaged"):
        Dataset(tmp_path)
    (tmp_path / "index.jsonl").unlink()
    other = a_chunk(7, 0)
    other.meta["game"] = "another"
    with ShardWriter(tmp_path) as writer:
        writer.add(other)
    with pytest.raises(UserError, match=r"shard-000007-0000\.tar is of another recording \(its game"):
        Dataset(tmp_path)
