"""Finds a sprite of a known colour in a picture, in a blurred one too: how much of each pixel it covers, and where most
of that is.

    covered = coverage(frames, background, colours)          # (B, H, W, S), a share of each pixel for each colour
    places = densest(covered[..., 0], window=(3, 3), least=0.3)

Legend: B frames, H, W pixels, S sprites.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HAZE = 0.1  # share of a pixel below which a colour is noise
SLACK = 1e-3  # of an edge, in rows or columns: rounding
NATIVE = (210, 160)  # height and width of an Atari screen


@dataclass(frozen=True)
class Region:
    """A part of an Atari screen, in its own rows and columns: from `top`, `left`, to below `bottom`, `right`."""

    top: float
    bottom: float
    left: float
    right: float

    def mask(self, height: int, width: int) -> Tensor:
        """Bool (H, W): pixels of a picture of that size that lie wholly within it."""
        sides = ((self.top, self.bottom, height, NATIVE[0]), (self.left, self.right, width, NATIVE[1]))
        inside = []
        for first, last, pixels, native in sides:
            edges = torch.arange(pixels + 1) * (native / pixels)
            inside.append((edges[:-1] > first - SLACK) & (edges[1:] < last + SLACK))
        return inside[0][:, None] & inside[1]


def area(rows: float, columns: float, frames_BHWC: Tensor) -> float:
    """Pixels of these frames that so many rows and columns of an Atari screen take."""
    return rows * columns * frames_BHWC.shape[1] * frames_BHWC.shape[2] / (NATIVE[0] * NATIVE[1])


def coverage(frames_BHWC: Tensor, background: tuple[int, ...], colours: tuple[tuple[int, ...], ...]) -> Tensor:
    """(B, H, W, S): the share of each pixel that each colour covers, the rest being background: least squares, less
    what most of its row has, the blur of a wall along it."""
    ground = torch.tensor(background, dtype=torch.float32)
    mixed = torch.tensor(colours, dtype=torch.float32) - ground  # (S, 3)
    shares = (frames_BHWC.float() - ground) @ torch.linalg.pinv(mixed)
    shares = shares - shares.median(2, keepdim=True).values.clamp_min(0)
    return torch.where(shares < HAZE, 0.0, shares.clamp(max=1))


def densest(covered_BHW: Tensor, window: tuple[int, int], least: float) -> Tensor:
    """The centre (B, 2), row and column in pixels, of what lies in the window of so many rows and columns that has most
    of it; NaN where that is less than `least` pixels."""
    rows, columns = window
    sums = F.avg_pool2d(F.pad(covered_BHW[:, None], (0, columns, 0, rows)), window, 1)[:, 0] * rows * columns
    most, place = sums.flatten(1).max(1)
    top, left = place // sums.shape[2], place % sums.shape[2]
    down, across = (torch.arange(n) for n in covered_BHW.shape[1:])
    rows_of, columns_of = ((n >= first[:, None]) & (n < first[:, None] + size)
                           for n, first, size in ((down, top, rows), (across, left, columns)))  # fmt: skip
    part = covered_BHW * (rows_of[:, :, None] & columns_of[:, None])
    centre = torch.stack([part.sum(2) @ (down + 0.5), part.sum(1) @ (across + 0.5)], 1)
    centre /= part.sum((1, 2)).clamp_min(1e-6)[:, None]
    return torch.where(most[:, None] >= least, centre, torch.nan)
