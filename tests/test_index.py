"""The index of a recording: a line a shard, 100,000 chunks without their weight, and the index of older recordings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from large_index import large, opened
from test_shards import a_dataset

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording.record import publish
from data_collect.shards.index import append_index, row_of
from train.data.recordings import Recording


@pytest.mark.parametrize(
    ("name", "value"),
    [("offset", "abc"), ("episode", "1"), ("reward", "a"), ("actions", [1]), ("actions", {"forward": "x"}),
     ("last", 1), ("steps", 1.5), ("start", 2**70)],
)  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_an_index_of_other_types_is_damaged(tmp_path: Path, name: str, value: Any, old: bool) -> None:
    a_dataset(tmp_path)
    row = json.loads((tmp_path / "index.jsonl").read_text().splitlines()[0])
    if old:
        index = old_index(Dataset(tmp_path))
        index["shards"][0]["chunks"][0][name] = value
        (tmp_path / "index.jsonl").unlink()
        (tmp_path / "index.json").write_text(json.dumps(index))
    elif name == "actions":
        row["chunks"][name] = {each: [value] * 2 for each in row["chunks"][name]}
    else:
        row["chunks"][name][0] = value
    if not old:
        (tmp_path / "index.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"index\.jsonl? is damaged"):
        Dataset(tmp_path)


def old_index(dataset: Dataset) -> dict[str, Any]:
    """What `index.json` said, an object a chunk."""
    shards = [{"name": path.name, "bytes": path.stat().st_size, "chunks": []} for path in dataset.shards]
    for ref in dataset.index:
        row = {name: value for name, value in vars(ref).items() if name != "shard" and (name, value) != ("fault", "")}
        next(each for each in shards if each["name"] == ref.shard)["chunks"].append({"key": ref.key} | row)
    return {"shards": shards}


def test_an_older_index_is_read_and_replaced(tmp_path: Path) -> None:
    a_dataset(tmp_path)
    before = Dataset(tmp_path)
    (tmp_path / "index.jsonl").unlink()
    (tmp_path / "index.json").write_text(json.dumps(old_index(before)))
    after = Dataset(tmp_path)
    assert after.index == before.index and after.card == before.card and after.index_text() == before.index_text()
    publish(tmp_path)
    assert not (tmp_path / "index.json").exists() and Dataset(tmp_path).index == before.index


def test_a_shard_is_published_by_a_line(tmp_path: Path) -> None:
    """A line that is cut off is that of a shard which is then read itself; of two for one shard the later counts."""
    a_dataset(tmp_path)
    whole, index = Dataset(tmp_path), tmp_path / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    wrong = lines[1].replace('"bytes":', '"bytes":1', 1)
    index.write_text(lines[0] + wrong)
    for path in whole.shards[1:]:
        append_index(tmp_path, row_of(path))
    assert index.read_text() == lines[0] + wrong + lines[1] + lines[2]
    assert Dataset(tmp_path).index == whole.index
    index.write_text(lines[0] + lines[1] + lines[2][:-9])
    assert Dataset(tmp_path).index == whole.index


@pytest.mark.slow
def test_a_hundred_thousand_chunks_open_at_once_and_weigh_little(tmp_path: Path) -> None:
    """Less than 200 MB and two seconds of a processor, on which nothing else counts."""
    said = opened(large(tmp_path, 100_000))
    assert said[:4] == ["100000", "12500", "shard-008750-0000.tar", str(100_000 * 256 + 12_500)]
    assert float(said[4]) < 200 and float(said[5]) < 2


def test_latents_know_a_recording_by_the_hash_that_they_always_did(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.data.recordings.KEYED", 4)
    found = Recording(recording)
    rows = [(ref.shard, ref.offset, ref.bytes, ref.frames, ref.seed) for ref in found.refs]
    assert found.key == hashlib.sha256(repr(rows).encode()).hexdigest()[:16] and len(rows) > 8
