"""Working memory: a ring of the keys and values of the last W frames, of every token.

The first `sink` frames may stay (attention sinks, Xiao et al., 2024); the ring is then the other slots. Where attention
chooses blocks of frames, the sums of their keys are kept too.

Legend: B players, L layers, W frames of the window, M blocks of it, N tokens of a frame, H heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class WorkingMemory:
    """`keys` (rotated by their frame number, a sink's not) and `values` (B, L, W, N, H, D); `sums` (B, L, M, N, H, D)
    of the blocks' keys, M = 0 where none are kept; `count` (B,): frames written so far."""

    keys: Tensor
    values: Tensor
    sums: Tensor
    count: Tensor

    @classmethod
    def start(
        cls, players: int, layers: int, window: int, size: tuple[int, int, int], like: Tensor, blocks: int = 0
    ) -> WorkingMemory:
        """An empty ring for frames of `size` (N, H, D), on the device and in the type of `like`."""
        zeros = lambda frames: like.new_zeros(players, layers, frames, *size)  # noqa: E731
        count = torch.zeros(players, dtype=torch.long, device=like.device)
        return cls(zeros(window), zeros(window), zeros(blocks), count)

    @property
    def window(self) -> int:
        return self.keys.shape[2]

    @property
    def block(self) -> int:
        return self.window // self.sums.shape[2]

    def slots(self, frames: Tensor, sink: int = 0) -> Tensor:
        return torch.where(frames < sink, frames, sink + (frames - sink) % (self.window - sink))

    def write(self, layer: int, keys_BNHD: Tensor, values_BNHD: Tensor, sink: int = 0) -> None:
        """Put one frame's keys and values of a layer where the oldest frame's are; `advance` ends the frame."""
        players = torch.arange(len(self.count), device=self.count.device)
        slot = self.slots(self.count, sink)
        self.keys[players, layer, slot] = keys_BNHD.to(self.keys.dtype)
        self.values[players, layer, slot] = values_BNHD.to(self.values.dtype)
        if self.sums.shape[2]:
            block = slot // self.block
            old = self.sums[players, layer, block] * (slot % self.block > 0)[:, None, None, None]
            self.sums[players, layer, block] = old + keys_BNHD.to(self.sums.dtype)

    def fill(self, layer: int, keys_BTNHD: Tensor, values_BTNHD: Tensor, first: int = 0, sink: int = 0) -> None:
        """Write T frames of a prompt, from number `first` on, of which the last W stay; `advance` by T ends it."""
        time = keys_BTNHD.shape[1]
        sunk = min(max(0, sink - first), time)
        recent = max(sunk, time - (self.window - sink))
        kept = torch.cat([torch.arange(*part, device=keys_BTNHD.device) for part in ((0, sunk), (recent, time))])
        slots = self.slots(first + kept, sink)
        self.keys[:, layer, slots] = keys_BTNHD[:, kept].to(self.keys.dtype)
        self.values[:, layer, slots] = values_BTNHD[:, kept].to(self.values.dtype)
        if self.sums.shape[2]:
            keys = self.keys[:, layer].unflatten(1, (-1, self.block))
            last = first + time - 1
            begun = torch.arange(self.window, device=slots.device).view(-1, self.block)
            # Of the block that the last frame is in, the slots behind it still hold frames of a turn ago.
            now = begun // self.block == last % self.window // self.block
            fresh = ~now | (begun <= last % self.window)
            self.sums[:, layer] = (keys * fresh[None, :, :, None, None, None]).sum(2)

    def last(self, layer: int, first: int, sink: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (B, T, N, H, D) of the frames kept before number `first` in order, and their numbers (T,)."""
        device = self.count.device
        recent = torch.arange(max(sink, first - (self.window - sink)), max(sink, first), device=device)
        frames = torch.cat((torch.arange(min(sink, first), device=device), recent))
        slots = self.slots(frames, sink)
        return self.keys[:, layer, slots], self.values[:, layer, slots], frames

    def advance(self, frames: int = 1) -> None:
        self.count += frames

    def read(self, layer: int, writing: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values (B, W, N, H, D) and the (B, W) mask of slots that hold a frame, the one being written too."""
        filled = self.count + 1 if writing else self.count
        slots = torch.arange(self.window, device=self.count.device)
        return self.keys[:, layer], self.values[:, layer], slots[None] < filled[:, None]
