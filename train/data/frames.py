"""Frames out of shards in random order, for the tokenizer: decoded once into a memory map, or pool by pool.

    source = open_frames([Path("runs/maze/data")], seed=0)
    frames = source.items(np.arange(64))        # uint8 (64, H, W, 3); item i is a pure function of (seed, i)
    source.row = 3                              # from now on (64, 3, H, W, 3): each with the two frames before it
    source.still = True                         # (64, 4, H, W, 3): the first is the median picture of its episode

A recording whose decoded frames fit the budget is decoded once into `.cache/frames.npy` beside its shards, for random
access at no cost to training. A larger one is read in pools: thousands of frames out of random chunks, shuffled, while
a thread decodes the next pool.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_collect.dataset import CARD, Dataset
from data_collect.errors import UserError
from data_collect.shards.chunk import ChunkRef
from data_collect.system import reserve
from game_wm.pictures import MEDIAN_FRAMES, median_picture
from train.data.latents import LatentStore
from train.data.spans import Span, split_recordings
from train.data.windows import random_below

SPARE_DISK = 4 << 30  # bytes that the cache leaves free
KEYED = 4096  # rows that are hashed at a time


class Recording:
    """A `Dataset` as one sequence of frames, whole episodes one after another."""

    def __init__(self, folder: str | Path) -> None:
        self.dataset = Dataset(folder)
        self.refs = self.dataset.whole
        if not self.refs:
            raise UserError(f"{folder} holds no whole episode: record again with the same command, it continues")
        self.lengths: list[int] = self.refs.per_episode("frames").tolist()
        self.frames = sum(self.lengths)
        self.height, self.width = self.dataset.read(self.refs[0], frames=False).frames.shape[1:3]

    @cached_property
    def key(self) -> str:
        """Changes when the recording does."""
        shards, digest = np.array(self.refs.shards, object)[self.refs.rows["shard"]], hashlib.sha256(b"[")
        columns = [self.refs.rows[name] for name in ("offset", "bytes", "frames", "seed")]
        for i in range(0, len(shards), KEYED):  # the words of one list of tuples
            rows = zip(*(column[i : i + KEYED].tolist() for column in (shards, *columns)))
            digest.update((", " * (i > 0) + ", ".join(map(repr, rows))).encode())
        digest.update(b"]")
        return digest.hexdigest()[:16]

    @property
    def decoded_bytes(self) -> int:
        return self.frames * self.height * self.width * 3

    @property
    def cacheable(self) -> bool:
        """Whether the cache is there, or the disk has room for it."""
        folder = self.dataset.folder
        free = shutil.disk_usage(folder).free - SPARE_DISK
        return self.cache.exists() or (os.access(folder, os.W_OK) and self.decoded_bytes <= free)

    @property
    def cache(self) -> Path:
        """File that `decode` makes."""
        return self.dataset.folder / ".cache" / f"frames-{self.key}.npy"

    def decode(self) -> np.ndarray:
        """All frames (F, H, W, 3), memory-mapped from `.cache`, which is made if it is not there."""
        path = self.cache
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            for stale in path.parent.glob("frames-*.npy"):
                stale.unlink()
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            try:
                self._decode_into(temporary)
                os.replace(temporary, path)
            except BaseException:  # a partial file would keep a full disk full
                temporary.unlink(missing_ok=True)
                raise
        return np.load(path, mmap_mode="r")

    def _decode_into(self, path: Path) -> None:
        frames = np.lib.format.open_memmap(path, "w+", np.uint8, (self.frames, self.height, self.width, 3))
        reserve(path)
        starts = np.cumsum([0, *self.refs.rows["frames"]])

        def fill(job: tuple[int, ChunkRef]) -> None:
            frames[job[0] : job[0] + job[1].frames] = self.dataset.read(job[1]).frames

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(fill, zip(starts.tolist(), self.refs)))
        frames.flush()


def open_recordings(folders: Sequence[str | Path]) -> list[Recording]:
    """Recordings to train on together. `UserError` where they are not of one game, size, rate and set of actions."""
    recordings = [Recording(folder) for folder in folders]
    if not recordings:
        raise UserError("no recording is named: add --data.data FOLDER")
    first = recordings[0]
    for other in recordings[1:]:
        for what, of in FACTS.items():
            if (mine := of(first)) != (theirs := of(other)):
                raise UserError(
                    f"{other.dataset.folder} and {first.dataset.folder} differ in their {what}, {theirs} and {mine}: "
                    "train on recordings that agree in it"
                )
    return recordings


# What recordings must agree in; options of the game and its key map may differ.
FACTS: dict[str, Callable[[Recording], Any]] = {
    "game": lambda recording: recording.dataset.game.split("?")[0],
    "size": lambda recording: f"{recording.width}x{recording.height}",
    "frames a second": lambda recording: recording.dataset.schema.fps,
    "actions": lambda recording: recording.dataset.schema.to_json() | {"keys": None, "fps": None},
}


@cache
def recordings_of(store: LatentStore) -> list[Recording]:
    """The recordings that latents were encoded from, recognised by their hashes, wherever both were moved together.
    `UserError` where one is gone, replaced, or was recorded on."""
    keys = store.index["key"].split("-")[1:]
    games = {each["recording"]: store.game_of(i) for i, each in enumerate(store.episodes)}
    known = zip(store.index["data"], keys, strict=True)
    return [_recording_of(store, place, key, games[i]) for i, (place, key) in enumerate(known)]


def known_recordings(store: LatentStore) -> list[Recording]:
    """The same; none where one is not there."""
    try:
        return recordings_of(store)
    except UserError:
        return []


def recorded_pictures(store: LatentStore, number: int) -> np.ndarray:
    """The frames of an episode, uint8 (F, H, W, 3), from the recording that it was encoded from."""
    episode = store.episodes[number]
    dataset = recordings_of(store)[episode["recording"]].dataset
    return np.concatenate([dataset.read(ref).frames for ref in dataset.by_episode[episode["episode"]]])


def _recording_of(store: LatentStore, place: str | dict[str, str], key: str, game: str) -> Recording:
    """One of them. `place`: its relative and its absolute path; older latents have one, relative to an unknown
    folder."""
    here = store.directory.resolve()
    if isinstance(place, str):
        folders = [above / place for above in (Path.cwd(), *here.parents)]
    else:
        folders = [here / place["from_latents"], Path(place["absolute"])]
    folders = list(dict.fromkeys(Path(os.path.normpath(folder)) for folder in folders))
    others = []
    for folder in folders:
        if not (folder / CARD).exists():
            continue
        recording = Recording(folder)
        if recording.key == key and recording.dataset.game == game:
            return recording
        others.append(folder)
    if others:
        raise UserError(
            f"{others[0]} is not the recording that {store.directory} was encoded from, or was recorded on since: "
            "bring that one back, or encode again"
        )
    raise UserError(
        f"the recording that {store.directory} was encoded from is not in {folders[0]}: bring it back, or encode again"
    )


class FrameSource:
    """The recordings, split into training and validation; see `open_frames`."""

    def __init__(self, recordings: list[Recording], seed: int, held_out: float) -> None:
        first, lengths = recordings[0], [recording.lengths for recording in recordings]
        self.recordings, self.seed, self.row = recordings, seed, 1
        self.still, self.medians = False, dict[int, np.ndarray]()
        self.game, self.schema = first.dataset.game, first.dataset.schema
        self.height, self.width = first.height, first.width
        self.lengths = [n for each in lengths for n in each]
        self.spans = split_recordings(lengths, held_out, validation=False)
        self.held_out = split_recordings(lengths, held_out, validation=True)
        if not self.spans:
            raise UserError(f"a share of {held_out} held out leaves no frame to train on: lower --data.held_out")

    def items(self, items: np.ndarray) -> np.ndarray:
        """uint8 (items, H, W, 3): training frames, each a function of (seed, item)."""
        raise NotImplementedError

    def validation(self, count: int) -> np.ndarray:
        """uint8 (up to count, H, W, 3): held-out frames, evenly spread, in mixed order."""
        if count < 1 or not self.held_out:
            return np.empty((0, self.height, self.width, 3), np.uint8)
        every = self.rows(self.held_out)
        return self.in_rows(every[mixed(len(every), count)])

    def in_rows(self, rows: np.ndarray) -> np.ndarray:
        """These frames, each after the `row` - 1 before it and, where `still`, after the median picture of its episode;
        an episode's first frame stands in for those before it."""
        if self.row == 1 and not self.still:
            return self.read(rows)
        starts = np.cumsum([0, *self.lengths])
        episodes = np.searchsorted(starts, rows, side="right") - 1
        every = np.maximum(rows[:, None] - np.arange(self.row)[::-1], starts[episodes][:, None])
        frames = self.read(every.ravel()).reshape(len(rows), self.row, self.height, self.width, 3)
        if not self.still:
            return frames
        medians = np.stack([self.median(episode) for episode in episodes.tolist()])
        return np.concatenate([medians[:, None], frames], 1)

    def median(self, episode: int) -> np.ndarray:
        """uint8 (H, W, 3): an episode's median picture, made once."""
        if episode not in self.medians:
            rows = self.rows([Span(episode, 0, self.lengths[episode])])
            self.medians[episode] = median_picture(self.read(rows[mixed(len(rows), MEDIAN_FRAMES)]))
        return self.medians[episode]

    def rows(self, spans: list[Span]) -> np.ndarray:
        """Numbers of the spans' frames in the sequence of all recordings' frames."""
        starts = np.cumsum([0, *self.lengths])
        return np.concatenate([starts[s.episode] + s.start + np.arange(s.frames) for s in spans])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The frames with these numbers, decoding the chunks they lie in."""
        refs = [(recording, ref) for recording in self.recordings for ref in recording.refs]
        ends = np.cumsum([ref.frames for _, ref in refs])
        frames = np.empty((len(rows), self.height, self.width, 3), np.uint8)
        chunks = np.searchsorted(ends, rows, side="right")
        for chunk in np.unique(chunks):
            recording, ref = refs[chunk]
            wanted = chunks == chunk
            frames[wanted] = recording.dataset.read(ref).frames[rows[wanted] - (ends[chunk] - ref.frames)]
        return frames


class CachedFrames(FrameSource):
    """All frames decoded, in memory maps."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.maps = [recording.decode() for recording in self.recordings]
        self.starts = np.cumsum([0, *(len(frames) for frames in self.maps)])
        self.training = self.rows(self.spans)

    def items(self, items: np.ndarray) -> np.ndarray:
        return self.in_rows(self.training[random_below(len(self.training), self.seed, items, 0)])

    def read(self, rows: np.ndarray) -> np.ndarray:
        frames = np.empty((len(rows), self.height, self.width, 3), np.uint8)
        for i, row in enumerate(rows.tolist()):
            recording = int(np.searchsorted(self.starts, row, side="right")) - 1
            frames[i] = self.maps[recording][row - self.starts[recording]]
        return frames


class PooledFrames(FrameSource):
    """Pools of frames from random chunks; pool p is a function of (seed, p) and serves `pool_frames` items."""

    def __init__(self, recordings: list[Recording], seed: int, held_out: float, pool_frames: int) -> None:
        super().__init__(recordings, seed, held_out)
        self.pool_frames = pool_frames
        # Whole episodes or the end of one are held out, so a chunk's training frames are its first.
        marked, start = np.zeros(sum(self.lengths), bool), 0
        marked[self.rows(self.spans)] = True
        self.chunks = list[tuple[Recording, ChunkRef, int]]()  # with the number of their training frames
        for recording in self.recordings:
            for ref in recording.refs:
                kept = int(marked[start : start + ref.frames].sum())
                self.chunks += [(recording, ref, kept)] if kept else []
                start += ref.frames
        self.threads = ThreadPoolExecutor(1)
        self.pools: dict[int, Future[np.ndarray]] = {}

    def _pool(self, number: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        frames: list[np.ndarray] = []
        count = 0
        for i in random.permutation(len(self.chunks)):
            recording, ref, kept = self.chunks[i]
            whole = recording.dataset.read(ref).frames
            chunk = whole[:kept]
            if self.row > 1 or self.still:  # a chunk's first frame stands in for those before it
                chunk = chunk[np.maximum(np.arange(len(chunk))[:, None] - np.arange(self.row)[::-1], 0)]
            if self.still:  # a chunk's median stands in for its episode's
                chunk = np.concatenate([np.broadcast_to(median_picture(whole), chunk[:, :1].shape), chunk], 1)
            frames.append(chunk)
            count += kept
            if count >= self.pool_frames:
                break
        return np.concatenate(frames)[random.permutation(count)]

    def items(self, items: np.ndarray) -> np.ndarray:
        """See `FrameSource`. Items are asked for in rising order; going back costs decoding a pool again."""
        numbers = items // self.pool_frames
        newest = int(numbers.max())
        for number in range(int(numbers.min()), newest + 2):
            if number not in self.pools:
                self.pools[number] = self.threads.submit(self._pool, number)
        for number in [n for n in self.pools if n < int(numbers.min())]:
            del self.pools[number]
        pools = {number: self.pools[number].result() for number in np.unique(numbers).tolist()}
        places = (items % self.pool_frames).tolist()
        return np.stack([pools[n][place % len(pools[n])] for n, place in zip(numbers.tolist(), places)])


def mixed(among: int, count: int) -> np.ndarray:
    """Up to `count` numbers below `among`, evenly spread, in an order that never changes."""
    chosen = np.linspace(0, among - 1, min(count, among)).astype(np.int64)
    return np.random.Generator(np.random.Philox(0)).permutation(chosen)


def open_frames(
    data: list[str], seed: int, held_out: float = 0.04, cache_gib: float = 16.0, pool_frames: int = 16384
) -> FrameSource:
    """The source for these recordings: cached where their frames take at most `cache_gib` and the disk has room."""
    recordings = open_recordings(data)
    size = sum(recording.decoded_bytes for recording in recordings)
    if size <= cache_gib * 2**30 and all(recording.cacheable for recording in recordings):
        return CachedFrames(recordings, seed, held_out)
    return PooledFrames(recordings, seed, held_out, pool_frames)
