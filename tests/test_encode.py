"""Encoding: once, again when the tokenizer changes, and what is recognised or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_runs import small_tokenizer

from data_collect.errors import UserError
from data_collect.lock import folder_lock
from data_collect.recording.record import record
from game_wm.deadline import Deadline
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig
from train.assemble import held_out_contexts
from train.data import encode
from train.data.frames import open_frames
from train.data.latents import LatentStore
from train.data.recordings import recordings_of
from train.data.spans import split_episodes
from train.pipeline.stage import content

pytestmark = pytest.mark.slow


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
        for shard in range(len(second.files)):  # in 16 or in 32 bits, as is faster
            assert np.allclose(first.array(name, shard), second.array(name, shard), atol=0.05)


def test_what_does_not_fit_into_the_time_is_left_out_evenly(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is held out stays held out, and a later deadline goes on."""
    out, whole, tokenizer, data = tmp_path / "latents", tmp_path / "whole", small_tokenizer(0), [str(recording)]
    assert encode.encode(data, tokenizer, out, deadline=Deadline(0))
    assert (
        "encode: 80 of 360 frames, for more there is no time: some 4.5 times the --minutes" in capsys.readouterr().out
    )
    store = LatentStore(out)
    assert [episode["episode"] for episode in store.episodes] == [0, 8]
    assert store.split(0.12, validation=True) == [(1, 0, 40)] and store.split(0.12, validation=False) == [(0, 0, 40)]
    last = recordings_of(store)[0].dataset.episode(8)
    assert np.array_equal(held_out_contexts(store, 1, 40).frames[0].numpy(), last.frames)
    assert content(out) == content(out) and not encode.encode(data, tokenizer, out, deadline=Deadline(0))
    before = content(out)
    assert encode.encode(data, tokenizer, out, deadline=Deadline(1e6)) and content(out) != before
    encode.encode(data, tokenizer, whole)
    found, wanted = LatentStore(out), LatentStore(whole)
    assert [e["episode"] for e in found.episodes] == list(range(9)) and content(out) == content(whole)
    for span in wanted.split(0, validation=False):
        assert np.allclose(found.read("latents", span), wanted.read("latents", span), atol=0.05)
        assert np.array_equal(found.read("actions", span), wanted.read("actions", span))


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
