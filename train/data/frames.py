"""Frames out of shards in random order, for the tokenizer: decoded once into a memory map, or pool by pool.

    source = open_frames([Path("runs/maze/data")], seed=0)
    frames = source.items(np.arange(64))        # uint8 (64, H, W, 3); item i is a pure function of (seed, i)
    source.row = 3                              # from now on (64, 3, H, W, 3): each with the two frames before it
    source.still = True                         # (64, 4, H, W, 3): the first is the median picture of its episode

A recording whose decoded frames fit the budget is decoded once into `.cache/frames.npy` beside its shards, for random
access at no cost to training. A larger one is read in pools: thousands of frames out of random chunks, shuffled, while
threads decode the next pool.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from data_collect.errors import UserError
from game_wm.pictures import MEDIAN_FRAMES, median_picture
from train.data.recordings import Recording, open_recordings
from train.data.spans import Span, split_recordings
from train.data.windows import random_below


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

    def share(self, batch: int, world: int) -> None:
        """So many processes take batches of so many items in turn: nothing to a source where any item is at hand."""

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
        counts = np.concatenate([recording.refs.rows["frames"] for recording in self.recordings])
        firsts, ends = np.cumsum([0, *(len(recording.refs) for recording in self.recordings)]), np.cumsum(counts)
        frames = np.empty((len(rows), self.height, self.width, 3), np.uint8)
        chunks = np.searchsorted(ends, rows, side="right")
        for chunk in np.unique(chunks).tolist():
            number = int(np.searchsorted(firsts, chunk, side="right")) - 1
            recording, wanted = self.recordings[number], chunks == chunk
            read = recording.dataset.read(recording.refs[chunk - int(firsts[number])]).frames
            frames[wanted] = read[rows[wanted] - (ends[chunk] - counts[chunk])]
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
    """Pools of frames from random chunks, decoded by a thread a core while the pool before is used.

    Pool p of a process is a function of (seed, rank, p) and serves `pool_frames` items. At any p the processes have
    other chunks.
    """

    def __init__(self, recordings: list[Recording], seed: int, held_out: float, pool_frames: int) -> None:
        super().__init__(recordings, seed, held_out)
        self.pool_frames, self.batch, self.world = pool_frames, 1, 1
        self.firsts = np.cumsum([0, *(len(recording.refs) for recording in recordings)])  # chunks before each recording
        # Whole episodes or the end of one are held out, so a chunk's training frames are its first.
        trained = np.zeros(len(self.lengths), np.int64)
        for span in self.spans:
            trained[span.episode] = span.frames
        frames = np.concatenate([recording.refs.rows["frames"] for recording in recordings])
        starts, before = np.cumsum([0, *self.lengths]), np.cumsum(frames) - frames
        episodes = np.searchsorted(starts, before, side="right") - 1
        self.kept = (trained[episodes] - (before - starts[episodes])).clip(0, frames)  # training frames of each chunk
        self.builder, self.decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(max(r.threads for r in recordings))
        self.pools: dict[tuple[int, int], Future[np.ndarray]] = {}

    def share(self, batch: int, world: int) -> None:
        """So many processes take batches of so many items in turn."""
        self.batch, self.world = batch, world

    def _pool(self, rank: int, number: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        chunks = random.permutation(np.flatnonzero(self.kept))
        chunks = chunks[rank :: self.world] if len(chunks) >= self.world else chunks
        ends = np.cumsum(self.kept[chunks])
        chunks = chunks[: int(np.searchsorted(ends, self.pool_frames)) + 1]
        places = np.argsort(random.permutation(int(ends[len(chunks) - 1])))  # where each of their frames comes to lie
        shape = (self.row + self.still,) * (self.row > 1 or self.still)
        pool = np.empty((len(places), *shape, self.height, self.width, 3), np.uint8)

        def fill(chunk: int, end: int) -> None:
            pool[places[end - self.kept[chunk] : end]] = self._decoded(chunk)

        list(self.decoders.map(fill, chunks.tolist(), ends.tolist()))
        return pool

    def _decoded(self, number: int) -> np.ndarray:
        """The training frames of a chunk, as `in_rows` has them."""
        recording = int(np.searchsorted(self.firsts, number, side="right")) - 1
        of = self.recordings[recording]
        whole = of.dataset.read(of.refs[number - int(self.firsts[recording])]).frames
        chunk = whole[: self.kept[number]]
        if self.row > 1 or self.still:  # a chunk's first frame stands in for those before it
            chunk = chunk[np.maximum(np.arange(len(chunk))[:, None] - np.arange(self.row)[::-1], 0)]
        if self.still:  # a chunk's median stands in for its episode's
            chunk = np.concatenate([np.broadcast_to(median_picture(whole), chunk[:, :1].shape), chunk], 1)
        return chunk

    def items(self, items: np.ndarray) -> np.ndarray:
        """See `FrameSource`. Items are asked for in rising order; going back costs decoding a pool again."""
        turns, ranks = np.divmod(items // self.batch, self.world)
        own = turns * self.batch + items % self.batch  # the number of an item among those of its process
        keys = list(zip(ranks.tolist(), (own // self.pool_frames).tolist()))
        wanted = dict.fromkeys([*keys, *((rank, number + 1) for rank, number in keys)])
        self.pools = {key: self.pools.get(key) or self.builder.submit(self._pool, *key) for key in sorted(wanted)}
        pools = [self.pools[key].result() for key in keys]
        return np.stack([pool[place % len(pool)] for pool, place in zip(pools, (own % self.pool_frames).tolist())])


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
