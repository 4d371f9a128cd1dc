"""A recording is read by webdataset as any other set of shards: in order, one sample a chunk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from data_collect.dataset import Dataset
from data_collect.recording.record import record


def test_webdataset_reads_a_recording(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    record(tmp_path / "maze", "maze?size=7&creatures=0", "random", 700, episode_frames=300)
    dataset = Dataset(tmp_path / "maze")
    shards = [str(tmp_path / "maze" / name) for name in sorted({ref.shard for ref in dataset.index})]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000000-0000", "000000-0001", "000001-0000", "000001-0001",
                                                         "000002-0000"]  # fmt: skip
    for sample, chunk in zip(samples, dataset.chunks(), strict=True):
        assert np.array_equal(np.load(io.BytesIO(sample["actions.npy"]), allow_pickle=False), chunk.actions)
        assert json.loads(sample["json"])["episode"] == chunk.meta["episode"]
        assert len(sample["frames.mkv"]) > 1000
