"""Windows of T frames out of encoded episodes: which window is item i, and its arrays.

    windows = SequenceDataset("runs/maze/latents", length=64, seed=0)
    batch = windows.batch(0, 24)          # items 0..23: dict of tensors, latents_BTChw float32 first

Item i is a pure function of (seed, i): nothing is shuffled and no state is kept, so training resumes at a number. A
window lies within one episode. Latents stay on disk, memory-mapped as float16.

Legend: B batch, T frames of a window, C channels, h, w latent grid, A action vector.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from game_wm.pictures import MEDIAN_FRAMES

FEW_EPISODES = 8  # of fewer, a whole one is too much to hold out


class Span(NamedTuple):
    """`frames` frames of episode number `episode` (its place in the list), from frame `start` on."""

    episode: int
    start: int
    frames: int


def split_episodes(lengths: list[int], held_out: float, validation: bool) -> list[Span]:
    """The spans of the training part or of the held-out part of one recording's episodes with `lengths` frames.

    The last `held_out` (a fraction, at least one) of the episodes are kept from training; of fewer than eight
    episodes, that fraction of all frames from the end of the last one.
    """
    if len(lengths) >= FEW_EPISODES:
        kept = len(lengths) - max(1, round(len(lengths) * held_out)) if held_out > 0 else len(lengths)
        numbers = range(kept, len(lengths)) if validation else range(kept)
        return [Span(i, 0, lengths[i]) for i in numbers]
    last = len(lengths) - 1
    tail = min(int(sum(lengths) * held_out), lengths[last] // 2) if lengths else 0
    if validation:
        return [Span(last, lengths[last] - tail, tail)] if tail else []
    return [Span(i, 0, n - tail if i == last else n) for i, n in enumerate(lengths)]


def split_recordings(recordings: list[list[int]], held_out: float, validation: bool) -> list[Span]:
    """The same for several recordings, their episodes numbered on. A part of each is held out, never all of a short
    one."""
    spans, first = list[Span](), 0
    for lengths in recordings:
        spans += [span._replace(episode=first + span.episode) for span in split_episodes(lengths, held_out, validation)]
        first += len(lengths)
    return spans


def fitting_length(frames: list[int], wanted: int) -> int:
    """Frames of a window, at most `wanted`, for spans with so many `frames`: the length which, times the frames of all
    spans that are at least as long, is greatest. `wanted` where no span has two."""
    lengths = {wanted, *(n for n in frames if 2 <= n < wanted)}
    return max(lengths, key=lambda length: (length * sum(n for n in frames if n >= length), length))


def random_integers(seed: int, items: np.ndarray, stream: int) -> np.ndarray:
    """uint64, a pure function of (seed, item, stream): splitmix64 (Steele et al., 2014) of the three."""
    with np.errstate(over="ignore"):
        z = items.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64((seed * 8 + stream + 1) % 2**61)
        for _ in range(2):  # twice, so that neighbouring items with neighbouring seeds are unrelated
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def random_below(limit: int | np.ndarray, seed: int, items: np.ndarray, stream: int) -> np.ndarray:
    """int64 in [0, limit), one an item; each may have a limit of its own."""
    unit = (random_integers(seed, items, stream) >> np.uint64(11)).astype(np.float64) / 2**53
    return (unit * limit).astype(np.int64)


def spread_out(groups: Sequence[int], at_least: int = 2) -> list[tuple[int, int]]:
    """All (group, number below `groups[group]`) in an order of which each beginning is spread evenly: the last of a
    group, then others ever closer together; `at_least` so many of each group before the rest."""
    order = list[tuple[bool, float, int, int]]()
    for group, count in enumerate(groups):
        bits = max(1, (count - 1).bit_length())
        halves = sorted(range(count), key=lambda i: int(f"{count - 1 - i:0{bits}b}"[::-1], 2))
        order += [(rank >= at_least, rank / count, group, number) for rank, number in enumerate(halves)]
    return [(group, number) for _, _, group, number in sorted(order)]


class LatentStore:
    """The folder that `python -m train encode` writes, memory-mapped. `UserError` when it is missing or damaged."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        path = self.directory / "index.json"
        again = "run `python -m train encode` again"
        try:
            self.index: dict[str, Any] = json.loads(path.read_text())
            self.episodes: list[dict[str, Any]] = self.index["episodes"]
            self.schema = ActionSchema.from_json(self.index["schema"])
            self.latent_shape: tuple[int, ...] = tuple(self.index["latent_shape"])
            self.levels: tuple[int, ...] = tuple(self.index.get("levels", ()))
            complete = self.index["complete"]
        except FileNotFoundError:
            raise UserError(f"{self.directory} holds no encoded frames (no index.json): {again}") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: {again}") from None
        if not complete:
            raise UserError(f"{self.directory} is not encoded to its end: {again}, it continues")
        self.shards = [self._open(number, count, again) for number, count in enumerate(self.index["shards"])]
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

    def _open(self, number: int, frames: int, again: str) -> dict[str, np.ndarray]:
        arrays = {}
        for name in ["latents", "actions", "rewards", "terminated", *(["pose"] if self.index["pose"] else [])]:
            path = shard_path(self.directory, name, number)
            try:
                arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (FileNotFoundError, EOFError, ValueError):
                raise UserError(f"{path} is missing or damaged: remove {self.directory} and {again}") from None
            if len(arrays[name]) != frames:
                raise UserError(f"{path} holds {len(arrays[name])} frames instead of {frames}: {again}")
        return arrays

    def views_key(self, aligned: bool) -> str:
        """How the key in `views.json` begins; a hash of the geometry follows."""
        return f"{self.key}-{'led-' if aligned else 'foreseen-'}"

    @property
    def key(self) -> str:
        """Changes when the recordings do, the tokenizer, or how much was encoded."""
        return self.index["key"] + (f"+{sum(self.lengths)}" if "recorded" in self.index else "")

    def open_views(self, aligned: bool = False) -> bool:
        """Open the views that `python -m train views` wrote, too, as "views" (frames, 2 * (C + COVER), h, w).

        False where they are missing, not `aligned` as asked, or not all of one geometry: after an interrupted change,
        the last shards still have those of the old one.
        """
        try:
            found = json.loads((self.directory / "views.json").read_text())
            drawn = found["shards"] == len(self.shards) and found["key"].startswith(self.views_key(aligned))
            paths = [shard_path(self.directory, "views", number) for number in range(len(self.shards))] if drawn else []
            views = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
        except (FileNotFoundError, EOFError, ValueError, LookupError, TypeError, AttributeError):
            return False
        if not drawn or [len(rows) for rows in views] != self.index["shards"]:
            return False
        for shard, rows in zip(self.shards, views, strict=True):
            shard["views"] = rows
        self.drawn = set(found["drawn"]) if "drawn" in found else None
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
        return self.shards[episode["shard"]][name][start : start + span.frames]

    def tensors(self, span: Span, *names: str) -> list[Tensor]:
        """The same of several arrays, in 32 bits."""
        return [torch.from_numpy(np.array(self.read(name, span))).float() for name in names]


def shard_path(directory: Path, name: str, number: int) -> Path:
    """File of one array of one shard, `latents-00003.npy`."""
    return directory / f"{name}-{number:05d}.npy"


class SequenceDataset(Dataset):
    """Endless windows of `length` frames; item i is a pure function of (seed, i).

    Args:
        directory: what `python -m train encode` wrote.
        length: T, frames of a window.
        seed: of the choice of windows.
        held_out: fraction of the episodes kept from training; `validation` chooses from these instead.
        event_factor: a window with a reward or a termination in it is chosen this many times as often as others.

    An item is latents (T, C, h, w) float32, actions (T, A) float32 encoded (zero at an episode's last frame), rewards
    (T,), terminated (T,) and, where the game gives poses, pose (T, 3) x, y, radians; views (T, 2 * (C + COVER), h, w)
    after `open_views` of the store; where `still`, median (C, h, w) of its episode's latents; episode and start (int64)
    say where it lies. Raises `UserError` when no episode is as long as a window.
    """

    def __init__(
        self, directory: str | Path | LatentStore, length: int, seed: int = 0,
        held_out: float = 0.04, validation: bool = False, event_factor: float = 1.0,
    ) -> None:  # fmt: skip
        self.store = directory if isinstance(directory, LatentStore) else LatentStore(directory)
        self.length, self.seed, self.event_factor = length, seed, event_factor
        spans = self.store.split(held_out, validation)
        self.spans = [span for span in spans if span.frames >= length]
        if not self.spans:
            longest = max((span.frames for span in spans), default=0)
            raise UserError(
                f"{self.store.directory}: no {'held-out ' if validation else ''}episode has {length} frames (the "
                f"longest has {longest}): record longer episodes or lower --data.length"
            )
        self.ends = np.cumsum([span.frames - length + 1 for span in self.spans])
        games = [self.store.game_of(span.episode) for span in self.spans]  # those of one game follow one another
        firsts = [games.index(game) for game in dict.fromkeys(games)]
        self.firsts = np.array([0, *self.ends])[firsts]  # number of each game's first window
        self.held: dict[str, Tensor] = {}
        self.still, self.medians = False, dict[int, Tensor]()

    def hold(self, device: torch.device) -> None:
        """Keep all arrays in the memory of this device, as they are on disk; batches are then put together there."""
        shards = self.store.shards
        self.held = {
            name: torch.cat([torch.from_numpy(np.array(shard[name])) for shard in shards]).to(device)
            for name in shards[0]
        }

    @property
    def windows(self) -> int:
        """Number of different windows."""
        return int(self.ends[-1])

    @cached_property
    def events(self) -> np.ndarray:
        """Numbers of the windows in which something is rewarded or ends."""
        found, first = [], 0
        for span in self.spans:
            rewards, terminated = self.store.read("rewards", span), self.store.read("terminated", span)
            count = np.concatenate([[0], np.cumsum((rewards != 0) | (terminated != 0))])
            starts = np.arange(span.frames - self.length + 1)
            found.append(first + starts[count[starts + self.length] > count[starts]])
            first += len(starts)
        return np.concatenate(found)

    def choose(self, items: np.ndarray) -> np.ndarray:
        """Numbers (of window) of the items."""
        games = random_below(len(self.firsts), self.seed, items, 3)  # each game as often, however long it was recorded
        counts = np.diff([*self.firsts, self.windows])
        chosen = self.firsts[games] + random_below(counts[games], self.seed, items, 0)
        if self.event_factor > 1 and len(self.events):
            firsts = np.searchsorted(self.events, self.firsts)
            events = np.diff([*firsts, len(self.events)])  # of each game
            extra = (self.event_factor - 1) * events
            share = (extra / (counts + extra))[games]
            among = firsts[games] + random_below(events[games], self.seed, items, 1)
            from_events = self.events[among.clip(max=len(self.events) - 1)]  # of a game without events none is taken
            chosen = np.where(random_below(2**32, self.seed, items, 2) < share * 2**32, from_events, chosen)
        return chosen

    def locate(self, window: int) -> Span:
        """Where window number `window` lies."""
        row = int(np.searchsorted(self.ends, window, side="right"))
        span = self.spans[row]
        before = int(self.ends[row - 1]) if row else 0
        return Span(span.episode, span.start + int(window) - before, self.length)

    def median(self, episode: int) -> Tensor:
        """Each value's median (C, h, w) over some of an episode's latents, made once."""
        if episode not in self.medians:
            frames = self.store.lengths[episode]
            latents = self.store.read("latents", Span(episode, 0, frames))[:: max(1, frames // MEDIAN_FRAMES)]
            self.medians[episode] = torch.from_numpy(np.median(latents, 0).astype(np.float32))
        return self.medians[episode]

    def gather(self, windows: np.ndarray) -> dict[str, Tensor]:
        """The windows of these numbers as one batch."""
        places = [self.locate(window) for window in windows]
        if self.held:
            before = np.cumsum([0, *self.store.index["shards"]])
            episodes = [self.store.episodes[place.episode] for place in places]
            first = [before[e["shard"]] + e["offset"] + place.start for e, place in zip(episodes, places, strict=True)]
            rows = torch.from_numpy(np.array(first)[:, None] + np.arange(self.length))
            batch = {name: x[rows.to(x.device, non_blocking=True)].float() for name, x in self.held.items()}
        else:
            read = lambda name: np.stack([self.store.read(name, place) for place in places])  # noqa: E731
            batch = {name: torch.from_numpy(read(name)).float() for name in self.store.shards[0]}
        if self.still:
            batch["median"] = torch.stack([self.median(place.episode) for place in places]).to(batch["latents"].device)
        batch["episode"] = torch.tensor([place.episode for place in places])
        batch["start"] = torch.tensor([place.start for place in places])
        return batch

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        return self.gather(self.choose(np.arange(first, first + size, dtype=np.int64)))

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.batch(item, 1).items()}
