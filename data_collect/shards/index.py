"""The index of a recording, `index.jsonl`: a line a shard, so that publishing a shard appends one.

    append_index(folder, row_of(path))                      # when a shard is whole
    shards = read_index(folder / "index.jsonl")             # by their names
    index = ChunkIndex.of(shards.values())                  # index[7] is a ChunkRef

A line holds the shard's chunks as columns. So does memory: about 100 bytes a chunk, and 8 an action. A last line
without its end is one that is being written. Older recordings have `index.json`: one object, and in it one a chunk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from data_collect.files import append_line
from data_collect.shards.chunk import KINDS, NO_FAULT, ChunkRef, scan

INDEX, OLD_INDEX = "index.jsonl", "index.json"
TYPES: dict[type, Any] = {int: np.int64, float: np.float64, bool: np.bool_, str: np.object_}
COLUMNS = {name: TYPES[kind] for name, kind in KINDS.items() if name != "actions"}


class ShardRow(NamedTuple):
    """A shard of the index: its name and size, and a column for each field of `ChunkRef`; actions (chunks, A)."""

    name: str
    bytes: int
    columns: dict[str, np.ndarray]
    actions: tuple[str, ...]

    def line(self) -> str:
        """What the index says of it, without the end of the line."""
        columns: dict[str, Any] = {name: column.tolist() for name, column in self.columns.items()}
        columns["actions"] = dict(zip(self.actions, self.columns["actions"].T.tolist()))
        if not any(columns["fault"]):
            del columns["fault"]
        return json.dumps({"name": self.name, "bytes": self.bytes, "chunks": columns}, separators=(",", ":"))


def row_of(path: Path, refs: Iterable[ChunkRef] | None = None) -> ShardRow:
    """That of a shard, from the rows of its chunks or else its headers. `ValueError` as in `scan`."""
    return _from_chunks(path.name, path.stat().st_size, [vars(ref) for ref in refs or (ref for ref, _ in scan(path))])


def append_index(folder: Path, row: ShardRow) -> None:
    """Add a shard to the index. `UserError` where there is no room."""
    append_line(folder / INDEX, row.line())


def read_index(name: str, text: str) -> dict[str, ShardRow]:
    """The shards that an index says, by name; `name` tells which of the two kinds it is.

    Raises `ValueError`, `KeyError` or `TypeError` where it is damaged.
    """
    if name == OLD_INDEX:
        rows = [_from_chunks(row["name"], row["bytes"], row["chunks"]) for row in json.loads(text)["shards"]]
    else:
        rows = [_from_columns(row["name"], row["bytes"], row["chunks"]) for row in map(json.loads, _lines(text))]
    return {row.name: row for row in rows}


def _lines(text: str) -> Iterator[str]:
    """Lines that have an end, one by one: a list of them would be as large as the text, `io.StringIO` four times."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1


def _from_chunks(name: str, size: int, chunks: Sequence[Mapping[str, Any]]) -> ShardRow:
    """A shard whose chunks are told one by one."""
    chunks = [{**dict([NO_FAULT]), **chunk} for chunk in chunks]
    columns: dict[str, Any] = {field: [chunk[field] for chunk in chunks] for field in COLUMNS}
    actions = dict.fromkeys(name for chunk in chunks for name in chunk["actions"])
    columns["actions"] = {name: [chunk["actions"].get(name, 0) for chunk in chunks] for name in actions}
    return _from_columns(name, size, columns)


def _from_columns(name: str, size: int, columns: Mapping[str, Any]) -> ShardRow:
    count = len(columns["offset"])
    given: dict[str, Any] = {"fault": [""] * count, **columns}
    for field, values in [*given.items(), *given["actions"].items()]:
        kind = dict if field == "actions" else KINDS.get(field, int)
        if (len(values) != count and kind is not dict) or set(map(type, values)) - {kind if kind is not dict else str}:
            raise TypeError(f"{field} of {name} is {values!r}"[:200])
    found = {field: np.array(given[field], kind) for field, kind in COLUMNS.items()}
    found["actions"] = np.array(list(given["actions"].values()), np.int64).reshape(-1, count).T
    return ShardRow(name, size, found, tuple(given["actions"]))


class ChunkIndex(Sequence[ChunkRef]):
    """The chunks of a recording by episode and number, as a table; a `ChunkRef` is made where one is asked for.

    `rows` has a field for each of `ChunkRef`'s: `shard` is a number in `shards`, `actions` counts those of `names`.
    """

    __slots__ = ("names", "rows", "shards")

    def __init__(self, rows: np.ndarray, shards: Sequence[str], names: Sequence[str]) -> None:
        self.rows, self.shards, self.names = rows, shards, names

    @classmethod
    def of(cls, shards: Iterable[ShardRow]) -> ChunkIndex:
        """All chunks of these shards, sorted."""
        shards = list(shards)
        names = list(dict.fromkeys(name for shard in shards for name in shard.actions))
        kinds = [("shard", np.int32), *COLUMNS.items(), ("actions", np.int64, (len(names),))]
        rows, end = np.zeros(sum(len(shard.columns["offset"]) for shard in shards), kinds), 0
        for number, shard in enumerate(shards):
            part = rows[end : end + len(shard.columns["offset"])]
            part["shard"], end = number, end + len(part)
            for field in COLUMNS:
                part[field] = shard.columns[field]
            part["actions"][:, [names.index(name) for name in shard.actions]] = shard.columns["actions"]
        order = np.lexsort((rows["chunk"], rows["episode"]))
        sorted_ = rows if (order[1:] > order[:-1]).all() else rows[order]
        return cls(sorted_, [shard.name for shard in shards], names)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> ChunkRef: ...
    @overload
    def __getitem__(self, which: slice) -> ChunkIndex: ...
    def __getitem__(self, which: int | slice) -> ChunkRef | ChunkIndex:
        if isinstance(which, slice):
            return self.where(which)
        shard, *values, counts = self.rows[which].item()
        fields = dict(zip(COLUMNS, values))
        return ChunkRef(shard=self.shards[shard], actions=dict(zip(self.names, counts.tolist())), **fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(ChunkRef.__eq__, self, other))

    def where(self, chosen: slice | np.ndarray) -> ChunkIndex:
        """Some of the chunks: a slice, a mask, or their numbers."""
        return ChunkIndex(self.rows[chosen], self.shards, self.names)

    def twice(self) -> tuple[ChunkRef, ChunkRef] | None:
        """Two rows for one chunk, if there are any."""
        keys = self.rows[["episode", "chunk"]]
        same = np.flatnonzero(keys[1:] == keys[:-1]).tolist()
        return (self[same[0]], self[same[0] + 1]) if same else None

    def by_shard(self, sizes: Mapping[str, int]) -> Iterator[ShardRow]:
        """What the index says of each shard; `sizes` in bytes, by name."""
        rows = self.rows[np.lexsort((self.rows["offset"], self.rows["shard"]))]
        ends = np.searchsorted(rows["shard"], np.arange(len(self.shards) + 1))
        for name, start, end in zip(self.shards, ends, ends[1:]):
            columns = {field: rows[field][start:end] for field in (*COLUMNS, "actions")}
            yield ShardRow(name, sizes[name], columns, tuple(self.names))

    def starts(self) -> np.ndarray:
        """The first row of each episode."""
        return np.flatnonzero(np.diff(self.rows["episode"], prepend=-1))

    def by_episode(self) -> dict[int, ChunkIndex]:
        """The rows of each episode, holes and all."""
        starts = self.starts()
        ends = [*starts[1:].tolist(), len(self)]
        return {number: self[start:end] for number, start, end in
                zip(self.rows["episode"][starts].tolist(), starts.tolist(), ends)}  # fmt: skip

    def per_episode(self, field: str) -> np.ndarray:
        """The sum of a field over each episode."""
        return np.add.reduceat(self.rows[field], self.starts()) if len(self) else np.zeros(0, np.int64)

    def total(self, field: str) -> Any:
        return self.rows[field].sum().item()

    def taken(self) -> dict[str, int]:
        """Steps by action."""
        return dict(zip(self.names, self.rows["actions"].sum(0).tolist()))

    def unbroken(self) -> ChunkIndex:
        """The rows of each episode up to the first chunk that is missing.

        A chunk of one step whose result was never recorded makes no episode.
        """
        if not len(self):
            return self
        starts = self.starts()
        counts = np.diff([*starts, len(self)])
        follows = self.rows["chunk"] == np.arange(len(self)) - np.repeat(starts, counts)
        ends = np.logical_or.reduceat(self.rows["last"] & follows, starts)
        steps = np.add.reduceat(self.rows["steps"] * follows, starts)
        kept = follows & np.repeat(ends | (steps > 1), counts)
        return self if kept.all() else self.where(kept)
