"""Recordings as training takes them: whole episodes in one sequence, and the ones that latents were encoded from.

recording = Recording("runs/maze/data")         # or "s3://bucket/maze"
recording.decode()                              # uint8 (F, H, W, 3), decoded once and memory-mapped
recordings_of(LatentStore("runs/maze/latents"))
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_collect.dataset import CARD, Dataset
from data_collect.errors import UserError
from data_collect.shards.chunk import ChunkRef
from data_collect.shards.remote import Place, RemotePath, place
from data_collect.system import cache_folder, cores, reserve
from train.data.latents import LatentStore

SPARE_DISK = 4 << 30  # bytes that the cache leaves free
REMOTE_THREADS = 16
KEYED = 4096  # rows that are hashed at a time


class Recording:
    """A `Dataset` as one sequence of frames, whole episodes one after another."""

    def __init__(self, folder: str | Place) -> None:
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
    def threads(self) -> int:
        """How many read chunks at once: as many as there are cores, or as keep a server busy."""
        return REMOTE_THREADS if isinstance(self.dataset.folder, RemotePath) else cores()

    @property
    def decoded_bytes(self) -> int:
        return self.frames * self.height * self.width * 3

    @property
    def cacheable(self) -> bool:
        """Whether the cache is there, or the disk has room for it."""
        folder = self.cache.parent.parent
        free = shutil.disk_usage(folder).free - SPARE_DISK
        return self.cache.exists() or (os.access(folder, os.W_OK) and self.decoded_bytes <= free)

    @property
    def cache(self) -> Path:
        """File that `decode` makes: beside the shards, or with other caches where those are on a server."""
        folder = self.dataset.folder
        if isinstance(folder, RemotePath):
            folder = cache_folder("recordings") / hashlib.sha256(folder.url.encode()).hexdigest()[:16]
            folder.mkdir(parents=True, exist_ok=True)
        return folder / ".cache" / f"frames-{self.key}.npy"

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

        with ThreadPoolExecutor(self.threads) as threads:
            list(threads.map(fill, zip(starts.tolist(), self.refs)))
        frames.flush()


def open_recordings(folders: Sequence[str | Place]) -> list[Recording]:
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
    return [_recording_of(store, told, key, games[i]) for i, (told, key) in enumerate(known)]


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


def _recording_of(store: LatentStore, told: str | dict[str, str], key: str, game: str) -> Recording:
    """One of them. `told`: its relative and its absolute path; older latents have one, relative to an unknown
    folder."""
    here = store.directory if isinstance(store.directory, RemotePath) else store.directory.resolve()
    folders: list[Place]
    if isinstance(told, dict):
        here = place(told["latents"]) if "latents" in told else here  # of several folders of latents
        folders = [within(here, told["from_latents"]), place(told["absolute"])]
    else:
        folders = [above / told for above in (Path.cwd(), *(here.parents if isinstance(here, Path) else ()))]
    folders = list(dict.fromkeys(folders))
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


def within(folder: Place, name: str) -> Place:
    """What a relative path, or an absolute one, is called from a folder."""
    if isinstance(folder, RemotePath) and "://" not in name:
        server, _, path = folder.url.partition("://")
        return RemotePath(f"{server}://{posixpath.normpath(posixpath.join(path, name))}")
    found = place(name)
    return Path(os.path.normpath(folder / found)) if isinstance(folder, Path) and isinstance(found, Path) else found
