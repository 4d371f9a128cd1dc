"""One sample of a shard: a chunk of at most 256 steps of one episode, as the tar entries that hold it.

    blob = pack(chunk)                  # bytes to append to a shard
    chunk = unpack(blob, "where")       # checked against its hashes
    for ref, meta in scan(path): ...    # what a shard holds, reading headers and metadata only

Entries of sample `{episode:06d}-{chunk:04d}`: `frames.mkv` (FFV1), `actions.npy` (raw), `rewards.npy`,
`terminated.npy`, `truncated.npy`, `pose.npy` (where the game has one) and, last, `json`. A chunk has a frame for each
step; the last of an episode also has the frame after its last step. `fault` in its metadata says how the game failed
after that step, if it did.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from data_collect.schema import ActionSchema
from data_collect.shards.video import decode_frames, encode_frames

VERSION = 1
MAX_STEPS = 256
BLOCK = tarfile.BLOCKSIZE
NO_FAULT = ("fault", "")  # is neither stored nor indexed
ARRAYS = {"rewards": np.float32, "terminated": np.bool_, "truncated": np.bool_}


@dataclass
class Chunk:
    """`steps` steps of an episode from step `meta["start"]` on. Frames and poses: `steps`, or one more in the last."""

    frames: np.ndarray  # uint8 (F, H, W, 3)
    actions: np.ndarray  # raw (steps, D)
    rewards: np.ndarray  # float32 (steps,)
    terminated: np.ndarray  # bool (steps,)
    truncated: np.ndarray  # bool (steps,)
    pose: np.ndarray | None  # float32 (F, 3): x, y, angle
    meta: dict[str, Any] = field(default_factory=dict)

    def same(self, other: Chunk) -> bool:
        """Whether both hold the same gameplay, bit for bit."""
        names = ("actions", "frames", "rewards", "terminated", "truncated", "pose")
        return all(_equal(getattr(self, name), getattr(other, name)) for name in names)


@dataclass(frozen=True)
class ChunkRef:
    """A row of the index: where a chunk lies and what it holds."""

    shard: str
    offset: int
    bytes: int
    frame_bytes: int
    episode: int
    chunk: int
    start: int
    steps: int
    frames: int
    last: bool
    seed: int
    reward: float
    terminated: bool
    truncated: bool
    actions: dict[str, int]
    fault: str = ""  # how the game failed, where the episode ends for that

    @property
    def key(self) -> str:
        """Name of the sample in its shard."""
        return f"{self.episode:06d}-{self.chunk:04d}"

    @classmethod
    def of(cls, shard: str, offset: int, size: int, meta: dict[str, Any]) -> ChunkRef:
        """The row of a chunk with this metadata; `KeyError` when a field is missing."""
        known: dict[str, Any] = {"shard": shard, "offset": offset, "bytes": size}
        meta = dict([NO_FAULT]) | meta
        return cls(**known, **{item.name: meta[item.name] for item in fields(cls) if item.name not in known})


KINDS: dict[str, type] = {name: kind for name, kind in get_type_hints(ChunkRef).items() if name != "shard"}
KINDS["actions"] = dict


def pack(chunk: Chunk) -> bytes:
    """Tar entries of a chunk. Adds to `chunk.meta` what the arrays tell: counts, sums, shapes and hashes."""
    meta = chunk.meta
    schema = ActionSchema.from_json(meta["schema"])
    frames, height, width, _ = chunk.frames.shape
    meta |= {
        "version": VERSION, "steps": len(chunk.actions), "frames": frames, "height": height, "width": width,
        "reward": float(chunk.rewards.sum(dtype=np.float64)), "terminated": bool(chunk.terminated.any()),
        "truncated": bool(chunk.truncated.any()), "actions": schema.histogram(chunk.actions),
    }  # fmt: skip
    members = {"frames.mkv": encode_frames(chunk.frames, schema.fps), "actions.npy": _npy(chunk.actions, schema.dtype)}
    members |= {f"{name}.npy": _npy(getattr(chunk, name), dtype) for name, dtype in ARRAYS.items()}
    if chunk.pose is not None:
        members["pose.npy"] = _npy(chunk.pose, np.float32)
    meta["frame_bytes"] = len(members["frames.mkv"])
    meta["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    meta["sha256"]["json"] = _own_hash(meta)
    members["json"] = json.dumps(meta).encode()
    key = f"{meta['episode']:06d}-{meta['chunk']:04d}"
    return b"".join(_entry(f"{key}.{name}", data) for name, data in members.items())


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _npy(array: np.ndarray, dtype: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype), allow_pickle=False)
    return buffer.getvalue()


def _own_hash(meta: dict[str, Any]) -> str:
    """Hash of the metadata without this hash itself."""
    hashes = {name: value for name, value in meta["sha256"].items() if name != "json"}
    return hashlib.sha256(json.dumps(meta | {"sha256": hashes}, sort_keys=True).encode()).hexdigest()


def _entry(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


def unpack(blob: bytes, where: str, frames: bool = True) -> Chunk:
    """The chunk that `pack` packed; without `frames` its pictures stay undecoded (an array of none).

    Raises `ValueError`, naming `where`, when anything is missing or differs from its hash.
    """
    members: dict[str, bytes] = {}
    offset = 0
    try:
        while offset < len(blob):
            info = tarfile.TarInfo.frombuf(blob[offset : offset + BLOCK], "utf-8", "strict")
            members[info.name.split(".", 1)[1]] = blob[offset + BLOCK : offset + BLOCK + info.size]
            offset += BLOCK + info.size + -info.size % BLOCK
        meta = _metadata(members.pop("json"))
        for name, digest in meta["sha256"].items():
            if name != "json" and hashlib.sha256(members[name]).hexdigest() != digest:
                raise ValueError(f"{name} differs from its hash")
        kept = [name for name in members if name.endswith(".npy")]
        arrays = {name: np.load(io.BytesIO(members[name]), allow_pickle=False) for name in kept}
        actions, outcomes = arrays["actions.npy"], [arrays[f"{name}.npy"] for name in ARRAYS]
        empty = np.empty((0, meta["height"], meta["width"], 3), np.uint8)
        pixels = decode_frames(members["frames.mkv"]) if frames else empty
    except (tarfile.HeaderError, ValueError, KeyError, IndexError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {error}") from None
    rewards, terminated, truncated = outcomes
    return Chunk(pixels, actions, rewards, terminated, truncated, arrays.get("pose.npy"), meta)


def _metadata(data: bytes) -> dict[str, Any]:
    meta = json.loads(data)
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        raise ValueError(f"the metadata is not of version {VERSION}")
    if _own_hash(meta) != meta["sha256"]["json"]:
        raise ValueError("the metadata differs from its hash")
    return meta


def scan(path: Path) -> Iterator[tuple[ChunkRef, dict[str, Any]]]:
    """Whole samples of a shard, in order: index row and metadata, without reading frames.

    Raises `ValueError` at the first thing that is no whole sample, as at the cut end of an unfinished shard.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        start = offset = 0
        while True:
            file.seek(offset)
            header = file.read(BLOCK)
            try:
                if header == bytes(BLOCK) and start == offset:
                    return
                info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
                end = offset + BLOCK + info.size + -info.size % BLOCK
                if end > size:
                    raise ValueError(f"it ends within {info.name}")
                if info.name.endswith(".json"):
                    meta = _metadata(file.read(info.size))
                    ref = ChunkRef.of(path.name, start, end - start, meta)
                    if info.name != f"{ref.key}.json":
                        raise ValueError(f"{info.name} holds the metadata of {ref.key}")
                    yield ref, meta
                    start = end
            except (tarfile.HeaderError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"at byte {offset}: {error}") from None
            offset = end
