"""Encoded episodes on disk: arrays of many shards, of which only so many files are open as the system allows.

    store = LatentStore("runs/maze/latents")        # or several folders: ["latents-1", "latents-2"]
    store.read("latents", Span(episode=0, start=0, frames=64))      # float16 (64, C, h, w), memory-mapped

Several folders are read as one. They may hold parts of the same recordings (`encode --part`): episodes then have the
places that they have in one folder, and so training takes the same windows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from data_collect.shards.remote import Place, RemotePath, RemoteRows, place
from data_collect.system import file_limit
from train.data.spans import Span, split_recordings

AGAIN = "run `python -m train encode` again"
MOST_OPEN = 4096  # files: more are no faster
PART = "+part"  # follows the tokenizer's hash in the key of what `encode --part` wrote


class LatentStore:
    """The folders that `python -m train encode` wrote. `UserError` when one is missing, damaged, or unlike the first.

    A folder that is none itself stands for those in it. `episodes` are in the order in which they were recorded.
    """

    def __init__(self, folders: str | Place | Sequence[str | Place]) -> None:
        named = [folders] if isinstance(folders, (str, Path, RemotePath)) else folders
        found = [folder for name in named for folder in latent_folders(place(name))]
        if not found:
            raise UserError("no encoded frames are named: add --data.latents FOLDER")
        self.directory = found[0]
        indexes = [_read_index(folder) for folder in found]
        firsts = np.cumsum([0, *(len(index["shards"]) for index in indexes)]).tolist()
        self.parts = list(zip(found, indexes, firsts))
        self.index = indexes[0] if len(found) == 1 else _joined(self.parts)
        self.episodes: list[dict[str, Any]] = self.index["episodes"]
        self.schema = ActionSchema.from_json(self.index["schema"])
        self.latent_shape: tuple[int, ...] = tuple(self.index["latent_shape"])
        self.levels: tuple[int, ...] = tuple(self.index.get("levels", ()))
        self.files = [(folder, i, n) for folder, index, _ in self.parts for i, n in enumerate(index["shards"])]
        self.names = ["latents", "actions", "rewards", "terminated", *(["pose"] if self.index["pose"] else [])]
        self.array = lru_cache(max(16, min(MOST_OPEN, file_limit() // 4)))(partial(_open, self.files))
        for shard, (folder, _, _) in enumerate(self.files):
            for name in self.names if isinstance(folder, Path) else ():  # a damaged one is told of before training
                self.array(name, shard)
        self.lengths = [int(episode["frames"]) for episode in self.episodes]
        # Where time was too short to encode all, what is held out is still the end of what was recorded.
        known = [(episode["recording"], episode["episode"]) for episode in self.episodes]
        self.recorded, self.places = list(zip((i for i, _ in known), self.lengths)), list(range(len(known)))
        if whole := self.index.get("recorded"):
            self.recorded = [(recording, frames) for recording, _, frames in whole]
            places = {(recording, number): place for place, (recording, number, _) in enumerate(whole)}
            self.places = [places[each] for each in known]
        self.recordings = list(dict.fromkeys(recording for recording, _ in self.recorded))
        self.drawn: set[int] | None = None  # the episodes that have views, where not all have

    @property
    def folders(self) -> list[str]:
        """What another process opens the same by."""
        return [str(folder) for folder, _, _ in self.parts]

    def views_key(self, aligned: bool) -> str:
        """How the key in `views.json` begins; a hash of the geometry follows."""
        return _views_key(self.index, aligned)

    @property
    def key(self) -> str:
        """Changes when the recordings do, the tokenizer, or how much was encoded."""
        return _key(self.index)

    def open_views(self, aligned: bool = False) -> bool:
        """Open the views that `python -m train views` wrote, too, as "views" (frames, 2 * (C + COVER), h, w).

        False where they are missing, not `aligned` as asked, or not all of one geometry: after an interrupted change,
        the last shards still have those of the old one.
        """
        self.array.cache_clear()  # they may have been drawn anew
        geometries, drawn = set[str](), set[int]()
        number = {(episode["shard"], episode["offset"]): i for i, episode in enumerate(self.episodes)}
        try:
            for folder, index, first in self.parts:
                found, begins = json.loads((folder / "views.json").read_text()), _views_key(index, aligned)
                if found["shards"] != len(index["shards"]) or not found["key"].startswith(begins):
                    return False
                geometries.add(found["key"].removeprefix(begins))
                here = found.get("drawn", range(len(index["episodes"])))
                own = [number[first + episode["shard"], episode["offset"]] for episode in index["episodes"]]
                drawn |= {own[i] for i in here}
            for shard, (folder, _, _) in enumerate(self.files):
                if isinstance(folder, Path):
                    self.array("views", shard)
        except (UserError, FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return False
        if len(geometries) > 1:
            raise UserError(f"the views beside {self.directory} and others are of several geometries: draw all by one")
        self.names = [*self.names, "views"]
        self.drawn = drawn if len(drawn) < len(self.episodes) else None
        return True

    @property
    def game(self) -> str:
        return self.index["game"]

    def game_of(self, episode: int) -> str:
        """That of an episode, by its place in the list: of many games encoded together each has its own."""
        return self.episodes[episode].get("game", self.game)

    def split(self, held_out: float, validation: bool) -> list[Span]:
        """Spans of the episodes to train on, or of those that are held out (see `split_recordings`): of those that
        were encoded and, after `open_views`, have views."""
        recordings = [[n for recording, n in self.recorded if recording == number] for number in self.recordings]
        here = {place: i for i, place in enumerate(self.places) if self.drawn is None or i in self.drawn}
        return [span._replace(episode=here[span.episode])
                for span in split_recordings(recordings, held_out, validation) if span.episode in here]  # fmt: skip

    def as_recorded(self, span: Span) -> Span:
        """The span with its episode's place among all that were recorded."""
        return span._replace(episode=self.places[span.episode])

    def read(self, name: str, span: Span) -> np.ndarray:
        """Rows of one array ("latents", "actions", ...) for a span: (frames, ...)."""
        episode = self.episodes[span.episode]
        start = episode["offset"] + span.start
        return self.array(name, episode["shard"])[start : start + span.frames]

    def tensors(self, span: Span, *names: str) -> list[Tensor]:
        """The same of several arrays, in 32 bits."""
        return [torch.from_numpy(np.array(self.read(name, span))).float() for name in names]


def latent_folders(folder: Place) -> list[Place]:
    """The folder, or those in it that hold latents where it holds none itself; on a server always the folder."""
    if isinstance(folder, RemotePath) or (folder / "index.json").exists():
        return [folder]
    return list(sorted(path.parent for path in folder.glob("*/index.json")) or [folder])


def shard_name(name: str, number: int) -> str:
    """File of one array of one shard, `latents-00003.npy`."""
    return f"{name}-{number:05d}.npy"


def _open(files: list[tuple[Place, int, int]], name: str, shard: int) -> np.ndarray | RemoteRows:
    """One array of a shard, memory-mapped: a file stays open as long as this array. No method, or a store would be kept
    by what it keeps."""
    folder, number, frames = files[shard]
    path = folder / shard_name(name, number)
    try:
        rows = RemoteRows(path) if isinstance(path, RemotePath) else np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, EOFError, ValueError):
        remedy = "upload it again" if isinstance(path, RemotePath) else f"remove {folder} and {AGAIN}"
        raise UserError(f"{path} is missing or damaged: {remedy}") from None
    if len(rows) != frames:
        raise UserError(f"{path} holds {len(rows)} frames instead of {frames}: {AGAIN}")
    return rows


def _read_index(folder: Place) -> dict[str, Any]:
    path = folder / "index.json"
    try:
        index: dict[str, Any] = json.loads(path.read_text())
        ActionSchema.from_json(index["schema"])
        _, _, complete = index["episodes"], index["latent_shape"], index["complete"]
    except FileNotFoundError:
        raise UserError(f"{folder} holds no encoded frames (no index.json): {AGAIN}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: {AGAIN}") from None
    if not complete:
        raise UserError(f"{folder} is not encoded to its end: {AGAIN}, it continues")
    return index


def _key(index: dict[str, Any]) -> str:
    return index["key"] + (f"+{sum(index['shards'])}" if "recorded" in index else "")


def _views_key(index: dict[str, Any], aligned: bool) -> str:
    return f"{_key(index)}-{'led-' if aligned else 'foreseen-'}"


def _agreeing(index: dict[str, Any]) -> dict[str, Any]:
    """What latents must agree in to be trained on together."""
    return {
        "tokenizer": index["tokenizer"], "game": index["game"].split("?")[0], "latent shape": index["latent_shape"],
        "levels": index.get("levels"), "actions": index["schema"] | {"keys": None},
    }  # fmt: skip


def _joined(parts: list[tuple[Place, dict[str, Any], int]]) -> dict[str, Any]:
    """One index for several: recordings that are the same are one, and shards are numbered on."""
    folder, first = parts[0][:2]
    places = dict[str, Any]()  # of each recording
    recorded, episodes = dict[tuple[int, int], int](), dict[tuple[int, int], dict[str, Any]]()
    for other, index, begin in parts:
        for what, mine in _agreeing(first).items():
            if mine != _agreeing(index)[what]:
                raise UserError(f"{other} and {folder} differ in their {what}: encode both by one tokenizer")
        own = index["key"].split("-")[1:] or [f"unknown{begin}"]
        for key, told in zip(own, index["data"] or [""]):
            told = {"from_latents": told, "absolute": told} if isinstance(told, str) else told
            places.setdefault(key, told | {"latents": str(other)})
        number = {i: list(places).index(key) for i, key in enumerate(own)}
        every = [(e["recording"], e["episode"], e["frames"]) for e in index["episodes"]]
        recorded |= {(number[i], episode): frames for i, episode, frames in index.get("recorded", every)}
        for episode in index["episodes"]:
            of = number[episode["recording"]], episode["episode"]
            if of in episodes:
                raise UserError(f"{other} holds episodes that another folder of latents holds, too: leave one out")
            episodes[of] = episode | {"recording": of[0], "shard": begin + episode["shard"]}
    order = {each: i for i, each in enumerate(sorted(recorded, key=itemgetter(0)))}
    joined = first | {
        "shards": [frames for _, index, _ in parts for frames in index["shards"]],
        "episodes": [episodes[each] for each in sorted(episodes, key=order.__getitem__)],
        "data": list(places.values()), "key": "-".join([first["key"].split("-")[0].split(PART)[0], *places]),
        "pose": all(index["pose"] for _, index, _ in parts if index["shards"]),
        "recorded": [(*each, recorded[each]) for each in order],
    }  # fmt: skip
    if len(episodes) == len(recorded):
        del joined["recorded"]
    return joined
