"""Finite scalar quantisation (Mentzer et al., 2023): every channel of a latent is rounded to one of a few levels.

    codebook = Codebook((7, 5, 5, 5, 5))        # 4,375 codes of five channels
    ids = codebook.ids(codebook.quantise(raw))  # one number a cell

There is no table to learn: a code is a point of a regular grid in [-1, 1]^C, and its number is its index there.

Legend: B batch, C channels (as many as levels), h, w latent grid, N its cells in raster order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MARGIN = 1e-3  # keeps the outermost levels off the asymptotes of tanh


class Codebook:
    """The codes of so many `levels` a channel. Raises ValueError for a channel with less than three."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        if not levels or min(levels) < 3:
            raise ValueError(f"every channel needs three levels or more, not {list(levels)}")
        self.levels, self.size = levels, math.prod(levels)

    def _row(self, values: list[float], like: Tensor) -> Tensor:
        """One value a channel, to broadcast over (..., C, h, w)."""
        return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]

    def quantise(self, raw: Tensor) -> Tensor:
        """Any numbers (..., C, h, w) -> codes in [-1, 1] of the same shape; the gradient passes straight through."""
        raw = raw.float()
        half = self._row([(n - 1) * (1 - MARGIN) / 2 for n in self.levels], raw)
        # An even number of levels lies around 0 unevenly: the tangent is shifted so that 0 stays 0.
        offset = self._row([0.5 * (n % 2 == 0) for n in self.levels], raw)
        bounded = (raw + (offset / half).atanh()).tanh() * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self._row([n // 2 for n in self.levels], raw)

    def ids(self, codes: Tensor) -> Tensor:
        """Codes (..., C, h, w), possibly rounded to 16 bits, -> numbers (..., N), int64."""
        middle = self._row([n // 2 for n in self.levels], codes)
        highest = self._row([n - 1 for n in self.levels], codes)
        digits = (codes * middle + middle).round().clamp(min=0).minimum(highest).long()
        worth = torch.tensor([math.prod(self.levels[:i]) for i in range(len(self.levels))], device=codes.device)
        return (digits * worth[:, None, None]).sum(-3).flatten(-2)

    def digits(self, ids: Tensor) -> Tensor:
        """Numbers (...) -> the level of each channel (..., C), int64."""
        worth = torch.tensor([math.prod(self.levels[:i]) for i in range(len(self.levels))], device=ids.device)
        return ids[..., None] // worth % torch.tensor(self.levels, device=ids.device)

    def codes(self, ids: Tensor, height: int, width: int) -> Tensor:
        """Numbers (..., N) -> codes (..., C, h, w), float32."""
        middle = torch.tensor([n // 2 for n in self.levels], device=ids.device)
        return ((self.digits(ids) - middle) / middle).transpose(-1, -2).unflatten(-1, (height, width))
