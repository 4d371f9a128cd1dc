"""Working memory: a ring of the keys and values of the last W frames, of every token.

Legend: B players, L layers, W frames of the window, N tokens of a frame, H heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class WorkingMemory:
    """`keys` (rotated by their frame number) and `values` (B, L, W, N, H, D); `count` (B,): frames written so far."""

    keys: Tensor
    values: Tensor
    count: Tensor

    @classmethod
    def start(
        cls, players: int, layers: int, window: int, tokens: int, heads: int, channels: int, like: Tensor
    ) -> WorkingMemory:
        """An empty ring, on the device and in the type of `like`."""
        shape = (players, layers, window, tokens, heads, channels)
        zeros = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return cls(zeros, zeros.clone(), torch.zeros(players, dtype=torch.long, device=like.device))

    @property
    def window(self) -> int:
        return self.keys.shape[2]

    def write(self, layer: int, keys_BNHD: Tensor, values_BNHD: Tensor) -> None:
        """Put one frame's keys and values of a layer where the oldest frame's are; `advance` ends the frame."""
        players = torch.arange(len(self.count), device=self.count.device)
        slot = self.count % self.window
        self.keys[players, layer, slot] = keys_BNHD.to(self.keys.dtype)
        self.values[players, layer, slot] = values_BNHD.to(self.values.dtype)

    def fill(self, layer: int, keys_BTNHD: Tensor, values_BTNHD: Tensor, first: int = 0) -> None:
        """Write T frames of a prompt, from number `first` on, of which the last W stay; `advance` by T ends it."""
        time = keys_BTNHD.shape[1]
        kept = torch.arange(max(0, time - self.window), time, device=keys_BTNHD.device)
        slots = (first + kept) % self.window
        self.keys[:, layer, slots] = keys_BTNHD[:, kept].to(self.keys.dtype)
        self.values[:, layer, slots] = values_BTNHD[:, kept].to(self.values.dtype)

    def last(self, layer: int, first: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, at most W, N, H, D) of the frames before number `first`, in order."""
        slots = torch.arange(max(0, first - self.window), first, device=self.count.device) % self.window
        return self.keys[:, layer, slots], self.values[:, layer, slots]

    def advance(self, frames: int = 1) -> None:
        self.count += frames

    def read(self, layer: int, writing: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values (B, W, N, H, D) and the (B, W) mask of slots that hold a frame, the one being written too."""
        filled = self.count + 1 if writing else self.count
        slots = torch.arange(self.window, device=self.count.device)
        return self.keys[:, layer], self.values[:, layer], slots[None] < filled[:, None]
