"""Reading a recording: its card, its chunks in any order, its episodes.

    dataset = Dataset("data/maze")
    for episode in dataset.episodes(limit=3):
        episode.frames, episode.actions, episode.encoded, episode.rewards
    chunk = dataset.read(dataset.index[7])          # one read of one file

`frames[t]` is what the player saw, `actions[t]` what was done on seeing it; `frames[t+1]`, `rewards[t]`,
`terminated[t]` and `truncated[t]` came of it. `index.jsonl` saves a walk through the shards' headers and `dataset.json`
is the card; both can be made again from the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from data_collect.shards.chunk import Chunk, ChunkRef, scan, unpack
from data_collect.shards.index import INDEX, OLD_INDEX, ChunkIndex, ShardRow, read_index, row_of
from data_collect.shards.remote import Place, RemotePath, on_disk, place, read_range

T = TypeVar("T")
CARD = "dataset.json"
# What identifies a recording: every chunk carries it, and `record` continues a folder only with the same.
SETTINGS = ("game", "player", "recording_seed", "episode_frames", "schema")
FAULT: dict[str, type] = {"episode": int, "seed": int, "steps": int, "why": str}  # a row of the card's faults
ANEW = "run the same `record` command to record it anew"
REMEDY = f"restore it, or delete it and {ANEW}"


def missing(path: Place) -> UserError:
    return UserError(
        f"{path} is missing: {'upload it again' if isinstance(path, RemotePath) else f'restore it, or {ANEW}'}"
    )


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, in the order of their names. `UserError` where something else bears such a name."""
    paths = sorted(folder.glob("shard-*.tar"))
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is no file, though it is called like a shard: move it away")
    return paths


def read_settings(folder: Place) -> dict[str, Any]:
    """The recording's `SETTINGS`, from its card or else its first shard. `UserError`: none there, or damaged."""
    path, shards = folder / CARD, shard_files(folder) if isinstance(folder, Path) else []
    try:
        card = json.loads(path.read_text()) if not shards or path.exists() else next(scan(shards[0]))[1]
        return {name: card[name] for name in SETTINGS}
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no recording: make one with `python -m data_collect record`") from None
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        if shards and not path.exists():
            raise UserError(f"{shards[0]} is damaged ({error}); {REMEDY}") from None
        raise UserError(f"{path} is damaged ({error}): delete it, it is made again from the shards") from None


def evenly(items: Sequence[T], count: int) -> list[T]:
    """So many of the items, spread evenly over all, the first and the last among them."""
    if not items:
        return []
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The `SETTINGS` in which two recordings differ. Other keys for the same actions make no other recording."""

    def bare(settings: Mapping[str, Any], name: str) -> Any:
        value = settings.get(name)
        if name == "schema" and isinstance(value, dict):
            return {key: entry for key, entry in value.items() if key != "keys"}
        return value

    return [name for name in SETTINGS if bare(one, name) != bare(other, name)]


@dataclass
class Episode:
    """T steps and T+1 frames. `meta` holds what its chunks share: game, player, seed, episode, schema ..."""

    frames: np.ndarray  # uint8 (T+1, H, W, 3)
    actions: np.ndarray  # raw (T, D)
    encoded: np.ndarray  # float32 (T, A)
    rewards: np.ndarray  # float32 (T,)
    terminated: np.ndarray  # bool (T,)
    truncated: np.ndarray  # bool (T,)
    pose: np.ndarray | None  # float32 (T+1, 3)
    meta: dict[str, Any]


class Dataset:
    """A folder of shards, on this machine or on a server. Holds no open files, and may be sent to worker processes.

    `index` has a `ChunkRef` per chunk, sorted by episode and chunk; `schema` and `game` are the recording's.
    With `rebuild`, the index is not believed and the shards are walked through. Raises `UserError` when there is no
    recording, when a shard is missing or damaged, or when the folder mixes recordings.
    """

    def __init__(self, folder: str | Place, rebuild: bool = False) -> None:
        self.folder = on_disk(folder) if rebuild else place(folder)
        self.settings = read_settings(self.folder)
        self.game: str = self.settings["game"]
        try:
            self.schema = ActionSchema.from_json(self.settings["schema"])
        except UserError as error:
            raise UserError(f"{self.folder / CARD} is damaged ({error}): delete it, it is made again") from None
        known = {} if rebuild else self._read_index()
        if isinstance(self.folder, RemotePath):
            self.shards: Sequence[Place] = [self.folder / name for name in sorted(known)]
            rows = [known[path.name] for path in self.shards]
        else:
            self.shards = shard_files(self.folder)
            rows = [known.get(path.name) or self._walk(path) for path in shard_files(self.folder)]
        self.sizes = {row.name: row.bytes for row in rows}
        self.index = ChunkIndex.of(rows)
        if found := self.index.twice():
            one, other = found
            raise UserError(
                f"{self.folder} holds chunk {one.key} twice, in {one.shard} and {other.shard}: move one away"
            )

    def _read_index(self) -> dict[str, ShardRow]:
        """Shards by name; none when there is no index. A missing shard or one of another size is an error."""
        for path in (self.folder / INDEX, self.folder / OLD_INDEX):
            try:
                shards = read_index(path.name, path.read_text())
                break
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                raise UserError(f"{path} is damaged ({error}): delete it, it is made again from the shards") from None
        else:
            if isinstance(self.folder, RemotePath):
                raise UserError(f"{self.folder} has no {INDEX}: upload that of the recording, too")
            return {}
        for name, row in shards.items():
            shard = self.folder / name
            if isinstance(shard, RemotePath):
                break  # asking a server for each would take long
            if not shard.exists():
                raise missing(shard)
            if shard.stat().st_size != row.bytes:
                raise UserError(f"{shard} is damaged: {shard.stat().st_size} bytes instead of {row.bytes}; {REMEDY}")
        return shards

    def _walk(self, path: Path) -> ShardRow:
        refs = []
        try:
            for ref, meta in scan(path):
                if unlike := differing(meta, self.settings):
                    raise UserError(
                        f"{path} is of another recording (its {unlike[0]} is not that of {self.folder / CARD}): "
                        "move it away, or delete the card if that was changed"
                    )
                refs.append(ref)
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); {REMEDY}") from None
        return row_of(path, refs)

    def read(self, ref: ChunkRef, frames: bool = True) -> Chunk:
        """One chunk, checked against its hashes; without `frames` its pictures are not decoded (an array of none)."""
        path = self.folder / ref.shard
        try:
            chunk = unpack(read_range(path, ref.offset, ref.bytes), f"chunk {ref.key}", frames)
        except FileNotFoundError:
            raise missing(path) from None
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); {REMEDY}") from None
        if (chunk.meta["episode"], chunk.meta["chunk"]) != (ref.episode, ref.chunk):
            raise UserError(f"{self.folder / INDEX} does not belong to {path}: delete it, it is made again")
        return chunk

    def chunks(self, order: Iterable[int] | None = None) -> Iterator[Chunk]:
        """Chunks by their positions in `index`; all of them in order of episode when no order is given."""
        for i in range(len(self.index)) if order is None else order:
            yield self.read(self.index[i])

    @cached_property
    def whole(self) -> ChunkIndex:
        """The rows of episodes, of each up to the first chunk that is missing."""
        return self.index.unbroken()

    @cached_property
    def by_episode(self) -> dict[int, ChunkIndex]:
        """The same, by the number of the episode."""
        return self.whole.by_episode()

    def episode(self, number: int) -> Episode:
        """Episode `number`. One that was cut off ends at its last frame that was kept."""
        chunks = [self.read(ref) for ref in self.by_episode[number]]
        poses = [chunk.pose for chunk in chunks if chunk.pose is not None]
        steps = sum(len(chunk.actions) for chunk in chunks) - (not chunks[-1].meta["last"])
        frames = np.concatenate([chunk.frames for chunk in chunks])
        actions, rewards, terminated, truncated = (
            np.concatenate([getattr(chunk, name) for chunk in chunks])[:steps]
            for name in ("actions", "rewards", "terminated", "truncated")
        )
        pose = np.concatenate(poses) if poses else None
        encoded, meta = self.schema.encode(actions), chunks[0].meta
        return Episode(frames, actions, encoded, rewards, terminated, truncated, pose, meta)

    def episodes(self, limit: int | None = None) -> Iterator[Episode]:
        """The first `limit` episodes, or all, in order."""
        for number in list(self.by_episode)[:limit]:
            yield self.episode(number)

    @cached_property
    def frame_size(self) -> tuple[int, int] | None:
        """(width, height) of its frames; None as long as it has none."""
        if not self.index:
            return None
        height, width = self.read(self.index[0], frames=False).frames.shape[1:3]
        return width, height

    def forget_index(self) -> None:
        """Let go of the index; what is left reads chunks that it is told of."""
        _ = self.frame_size
        self.index, self.shards, self.sizes = ChunkIndex.of([]), [], {}

    @cached_property
    def faults(self) -> list[dict[str, Any]]:
        """Episodes that ended because the game failed: episode, seed, steps that are kept, and why. Those of which
        nothing is kept are known from the card alone."""
        kept = set(self.index.rows["episode"].tolist())
        try:
            told = json.loads((self.folder / CARD).read_text()).get("faults", [])
            rows = [{key: kind(row[key]) for key, kind in FAULT.items()} for row in told if row["episode"] not in kept]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            rows = []  # another reader complains of the card
        rows += [
            {"episode": ref.episode, "seed": ref.seed, "steps": ref.start + ref.steps, "why": ref.fault}
            for ref in self.index.where(self.index.rows["fault"] != "")
        ]  # fmt: skip
        return sorted(rows, key=lambda row: row["episode"])

    @cached_property
    def card(self) -> dict[str, Any]:
        """What `dataset.json` says: settings and totals. `hours` are of game time, `actions` steps by action name."""
        total, fps, (width, height) = self.index.total, self.schema.fps, self.frame_size or (0, 0)
        return {
            "game": self.game, "player": self.settings["player"],
            "episodes": len(self.index.starts()), "frames": total("frames"), "steps": total("steps"),
            "shards": len(self.shards), "chunks": len(self.index),
            "hours": round(total("frames") / fps / 3600, 4), "fps": fps, "height": height, "width": width,
            "actions": self.index.taken(), "reward": total("reward"), "terminated": total("terminated"),
            "truncated": total("truncated"), "faults": self.faults,
            "bytes": sum(self.sizes.values()),
            "frame_bytes": total("frame_bytes"),
            "raw_bytes": total("frames") * height * width * 3, "recording_seed": self.settings["recording_seed"],
            "episode_frames": self.settings["episode_frames"], "schema": self.schema.to_json(),
        }  # fmt: skip

    def index_text(self) -> str:
        """What `index.jsonl` says of all shards."""
        return "".join(f"{row.line()}\n" for row in self.index.by_shard(self.sizes))
