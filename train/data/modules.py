"""The data modules: endless streams of batches that resume at any sample.

    FrameDataModule(data=["runs/maze/data"], batch_size=64)              # uint8 frames_BHWC, for the tokenizer
    LatentDataModule(latents="runs/maze/latents", length=64, batch_size=24)   # windows, for dynamics and distillation

Batch number n holds items n·B .. n·B + B - 1, and item i is a pure function of (seed, i). The checkpoint holds one
number, the cursor: items that training has taken. No worker processes: a batch takes a few milliseconds, and where it
comes from a server, threads make the next ones.

Legend: B batch, H height, W width, T frames of a window, C channels, h, w latent grid, A action vector.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from data_collect.shards.remote import RemotePath
from train.data.corpus import CorpusFrames, augmented
from train.data.frames import FrameSource, mixed, open_frames
from train.data.latents import LatentStore
from train.data.windows import SequenceDataset

AHEAD = 16  # batches: a server answers each of their windows after a while
Batch = Tensor | dict[str, Tensor]


class Stream(IterableDataset):
    """Batches without end: `make(first, size)` for first = start, start + stride, ...; so many `ahead` are made in
    threads of their own."""

    def __init__(self, make: Callable[[int, int], Batch], size: int, start: int, stride: int, ahead: int = 0) -> None:
        self.make, self.size, self.start, self.stride, self.ahead = make, size, start, stride, ahead

    def __iter__(self) -> Iterator[Batch]:
        firsts = count(self.start, self.stride)
        if not self.ahead:
            yield from (self.make(first, self.size) for first in firsts)
        with ThreadPoolExecutor(self.ahead) as threads:
            coming = deque(threads.submit(self.make, next(firsts), self.size) for _ in range(self.ahead))
            while True:
                coming.append(threads.submit(self.make, next(firsts), self.size))
                yield coming.popleft().result()


class StreamDataModule(pl.LightningDataModule):
    """The stream and its cursor, for both data modules."""

    game: str
    schema: ActionSchema

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"--data.batch_size must be at least 1, got {batch_size}")
        self.batch_size, self.seed, self.cursor = batch_size, seed, 0
        self.ahead = 0  # batches in the making while one is trained on

    def batch(self, first: int, size: int) -> Batch:
        """Items first .. first + size - 1 of training."""
        raise NotImplementedError

    def share(self, world: int) -> None:
        """So many processes train."""

    def train_dataloader(self) -> DataLoader:
        """An endless stream from the cursor on; with several processes each takes its own slice of every batch."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        start, stride = self.cursor + rank * self.batch_size, world * self.batch_size
        self.share(world)
        stream = Stream(self.batch, self.batch_size, start, stride, self.ahead)
        return DataLoader(stream, batch_size=None)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Moves the cursor. Called when a batch is about to be trained on, while fetching runs one batch ahead."""
        if self.trainer and self.trainer.training:
            self.cursor += self.batch_size * self.trainer.world_size
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and the seed for comparison."""
        return {"cursor": self.cursor, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["seed"] != self.seed:
            raise UserError(f"this run began with --data.seed {state_dict['seed']}, it cannot go on with {self.seed}")
        self.cursor = state_dict["cursor"]


class FrameDataModule(StreamDataModule):
    """Frames for the tokenizer: uint8 (B, H, W, 3), well shuffled out of the shards.

    Args:
        data: folder or folders that `python -m data_collect record` wrote.
        batch_size: B.
        seed: of the order.
        held_out: fraction of the episodes of each recording kept from training, the last by number.
        cache_gib: decoded frames are kept on disk beside the shards (`.cache/`, memory-mapped) while they take no more
            than this; larger recordings are decoded pool by pool in a thread, again and again.
        pool_frames: frames of a pool.
        validation_frames: held-out frames to validate on, evenly spread.
        game: refuse a recording of another game (its id without options).
        row: of the model: if more than one, frames come with those before them, (B, row, H, W, 3).
        still: of the model: the median picture of its episode comes before each row, (B, 1 + row, H, W, 3).
        mixed: recordings of different games and sizes, for a base: each game as often, a batch of one size.
        augment: share of the frames that are changed at random, in colours, side and scale; for a base.

    Raises `UserError` when a recording is missing, damaged, or its frames differ in size from the others'.
    """

    def __init__(
        self,
        data: list[str] | str, batch_size: int = 64, seed: int = 0, held_out: float = 0.04,
        cache_gib: float = 16.0, pool_frames: int = 16384, validation_frames: int = 512, game: str | None = None,
        row: int = 1, still: bool = False, mixed: bool = False, augment: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(batch_size, seed)
        folders = [data] if isinstance(data, str) else list(data)
        self.source: FrameSource | CorpusFrames
        if mixed:
            self.source = CorpusFrames(folders, seed, held_out, cache_gib, row, still)
        else:
            self.source = open_frames(folders, seed, held_out, cache_gib, pool_frames)
            self.source.row, self.source.still = row, still
        self.augment = augment
        self.game, self.schema = self.source.game, self.source.schema
        self.height, self.width = self.source.height, self.source.width
        self.validation_frames = validation_frames
        check_game(self.game, game, str(data))

    def share(self, world: int) -> None:
        if isinstance(self.source, FrameSource):
            self.source.share(self.batch_size, world)

    def batch(self, first: int, size: int) -> Tensor:
        """Frames uint8 (size, [still + row,] H, W, 3) of these items."""
        items = np.arange(first, first + size, dtype=np.int64)
        frames = self.source.items(items)
        return torch.from_numpy(augmented(frames, self.augment, self.seed, items) if self.augment else frames)

    def val_dataloader(self) -> DataLoader | list[Any]:
        frames = self.source.validation(self.validation_frames)
        return DataLoader(torch.from_numpy(frames).split(self.batch_size), batch_size=None) if len(frames) else []  # type: ignore[arg-type]


class LatentDataModule(StreamDataModule):
    """Windows of encoded episodes for dynamics and distillation; a batch is a dict of tensors (B, T, ...).

    Args:
        latents: folder or folders that `python -m train encode` wrote; a folder of such folders stands for all of them.
        length: T, frames of a window.
        batch_size: B, windows of a batch.
        seed: of the choice of windows.
        held_out: fraction of the episodes of each recording kept from training, the last by number.
        event_factor: choose windows with a reward or a termination this many times as often.
        validation_windows: held-out windows to validate on, evenly spread.
        game: refuse a recording of another game (its id without options).
        views, aligned: of the model: windows come with the views that it reads (`python -m train views`).
        still: of the model: windows come with the median latents of their episodes.
    """

    def __init__(
        self,
        latents: list[str] | str, length: int = 64, batch_size: int = 24, seed: int = 0, held_out: float = 0.04,
        event_factor: float = 1.0, validation_windows: int = 48,
        game: str | None = None, views: bool = False, aligned: bool = False, still: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(batch_size, seed)
        if length < 2:
            raise UserError(f"--data.length must be at least 2 frames, got {length}")
        self.store, self.length, self.held_out = LatentStore(latents), length, held_out
        self.latents = self.store.directory
        if any(isinstance(folder, RemotePath) for folder, _, _ in self.store.parts):
            self.ahead = AHEAD
        self.game, self.schema, self.latent_shape = self.store.game, self.store.schema, self.store.latent_shape
        self.levels = self.store.levels
        if views and not self.store.open_views(aligned):
            kind, flag = ("aligned views", " --aligned") if aligned else ("views", "")
            folders = [folder for folder, _, _ in self.store.parts]
            missing = next(folder for folder in folders if not LatentStore(folder).open_views(aligned))
            run, given = Path(str(missing)).parent, shlex.quote(str(missing))
            geometry, tokenizer = (shlex.quote(str(run / stage / "last.ckpt")) for stage in ("geometry", "tokenizer"))
            raise UserError(
                f"{missing} has no {kind}: run `python -m train views --latents {given} --geometry {geometry} "
                f"--tokenizer {tokenizer}{flag}` first"
            )
        self.dataset = SequenceDataset(self.store, length, seed, held_out, event_factor=event_factor)
        self.dataset.still = still
        self.validation_windows = validation_windows
        check_game(self.game, game, str(self.latents))

    @property
    def actions(self) -> int:
        return self.schema.size

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        return self.dataset.batch(first, size)

    def val_dataloader(self) -> DataLoader | list[Any]:
        """The held-out windows, batch by batch; none when the held-out part is shorter than a window."""
        spans = self.store.split(self.held_out, validation=True)
        if self.validation_windows < 1 or max((span.frames for span in spans), default=0) < self.length:
            return []
        held_out = SequenceDataset(self.store, self.length, self.seed, self.held_out, validation=True)
        numbers = mixed(held_out.windows, self.validation_windows)
        chunks = [numbers[i : i + self.batch_size] for i in range(0, len(numbers), self.batch_size)]
        return DataLoader([held_out.gather(chunk) for chunk in chunks], batch_size=None)  # type: ignore[arg-type]


def check_game(found: str, wanted: str | None, where: str) -> None:
    """`UserError` when a recording is of another game; options behind "?" do not count."""
    if wanted is not None and found.split("?")[0] != wanted.split("?")[0]:
        raise UserError(f"{where} is a recording of {found}, not of {wanted}: name another folder or configuration")
