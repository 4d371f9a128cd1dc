"""The index of a recording too large to make: what it weighs, and how long it takes to open and to add to.

python tests/large_index.py --chunks 1000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from test_shards import SCHEMA, write_card

from data_collect.shards.index import append_index, read_index

OF_A_SHARD, OF_AN_EPISODE = 100, 8  # chunks
OPENS = """
import sys, time
from data_collect.dataset import Dataset
from data_collect.system import resident_bytes
import data_collect.recording.record
before, began = resident_bytes(), time.process_time()
dataset = Dataset(sys.argv[1])
last = dataset.index[len(dataset.index) * 7 // 10]
print(len(dataset.index), len(dataset.by_episode), last.shard, dataset.index.total("frames"))
print((resident_bytes() - before) / 1e6, time.process_time() - began)
"""


def large(folder: Path, chunks: int) -> Path:
    """The index of so many chunks of 256 steps; the shards themselves hold nothing."""
    write_card(folder)
    with (folder / "index.jsonl").open("w") as file:
        for first in range(0, chunks, OF_A_SHARD):
            numbers = range(first, first + OF_A_SHARD)
            last = [i % OF_AN_EPISODE == OF_AN_EPISODE - 1 for i in numbers]
            columns: dict[str, Any] = {
                "offset": [10**6 * (i - first) for i in numbers], "bytes": [10**6 for _ in numbers],
                "frame_bytes": [9 * 10**5 for _ in numbers], "episode": [i // OF_AN_EPISODE for i in numbers],
                "chunk": [i % OF_AN_EPISODE for i in numbers], "start": [i % OF_AN_EPISODE * 256 for i in numbers],
                "steps": [256 for _ in numbers], "frames": [256 + end for end in last], "last": last,
                "seed": [2**31 - 1 - i // OF_AN_EPISODE for i in numbers], "reward": [i / 7 for i in numbers],
                "terminated": [False for _ in numbers], "truncated": last,
                "actions": {f"{name}{k}": [k for _ in numbers] for k in range(4) for name in SCHEMA.names},
            }  # fmt: skip
            path = folder / f"shard-{first // OF_AN_EPISODE:06d}-{first % OF_AN_EPISODE:04d}.tar"
            path.write_bytes(b"x")
            row = {"name": path.name, "bytes": 1, "chunks": columns}
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
    return folder


def opened(folder: Path) -> list[str]:
    """Chunks, episodes, a shard, frames, MB and processor seconds, as a process of its own that opens it says them."""
    command = [sys.executable, "-c", OPENS, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000)
    chunks = parser.parse_args().chunks
    with tempfile.TemporaryDirectory() as name:
        folder = large(Path(name), chunks)
        index = folder / "index.jsonl"
        size = index.stat().st_size
        _, _, _, _, megabytes, seconds = opened(folder)
        with index.open() as file:
            (row,) = read_index(index.name, file.readline()).values()
        began = time.perf_counter()
        for _ in range(100):
            append_index(folder, row)
        added = (time.perf_counter() - began) / 100
    print(f"{chunks:,} chunks of 1 MB: index {size / 1e6:,.0f} MB, in memory {float(megabytes):,.0f} MB, opened in "
          f"{float(seconds):.1f} s, a shard is added in {1000 * added:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
