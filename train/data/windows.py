"""Windows of T frames out of encoded episodes: which window is item i, and its arrays.

    windows = SequenceDataset("runs/maze/latents", length=64, seed=0)
    batch = windows.batch(0, 24)          # items 0..23: dict of tensors, latents_BTChw float32 first

Item i is a pure function of (seed, i): nothing is shuffled and no state is kept, so training resumes at a number. A
window lies within one episode. Latents stay on disk, memory-mapped as float16.

Legend: B batch, T frames of a window, C channels, h, w latent grid, A action vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_collect.errors import UserError
from game_wm.pictures import MEDIAN_FRAMES
from train.data.latents import LatentStore
from train.data.spans import Span


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


class SequenceDataset(Dataset):
    """Endless windows of `length` frames; item i is a pure function of (seed, i).

    Args:
        latents: the folder or folders that `python -m train encode` wrote.
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
        self, latents: str | Path | Sequence[str | Path] | LatentStore, length: int, seed: int = 0,
        held_out: float = 0.04, validation: bool = False, event_factor: float = 1.0,
    ) -> None:  # fmt: skip
        self.store = latents if isinstance(latents, LatentStore) else LatentStore(latents)
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
        shards = range(len(self.store.files))
        self.held = {
            name: torch.cat([torch.from_numpy(np.array(self.store.array(name, i)[:])) for i in shards]).to(device)
            for name in self.store.names
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
            batch = {name: torch.from_numpy(read(name)).float() for name in self.store.names}
        if self.still:
            batch["median"] = torch.stack([self.median(place.episode) for place in places]).to(batch["latents"].device)
        batch["episode"] = torch.tensor([place.episode for place in places])
        batch["start"] = torch.tensor([place.start for place in places])
        return batch

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        return self.gather(self.choose(np.arange(first, first + size, dtype=np.int64)))

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.batch(item, 1).items()}
