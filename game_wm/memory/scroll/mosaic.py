"""A world that is larger than the screen, as a mosaic of tiles: what was seen comes back pixel by pixel.

The store is bounded and its cost constant. Tiles are hashed to sets of `WAYS` slots, and where a set is full, the tile
visited longest ago makes room. Tiles of one block of `BLOCK` x `BLOCK` have sets of their own, so that those on one
screen never take each other's slots.

A pixel is one int32, of the bytes red, green, blue and 1; 0 where nothing is known. `packed` and `unpacked` go there
and back.

Legend: B players, G sets, T pixels along a tile's side, N tiles on the screen, H, W screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

WAYS = 4  # slots of a set
BLOCK = 8  # tiles along the side of a block
FEWEST = 16  # pixels along the side of a tile, at least
COORDINATES = 2**16  # tiles are numbered modulo this, along each axis
COLOURS = 0xFFFFFF  # the bytes of a packed pixel that are its colour
BLOCKS = ~((BLOCK - 1) * COORDINATES | BLOCK - 1)  # what the numbers of the tiles of one block have in common


def tile_side(height: int, width: int) -> int:
    """T: 16, or the least doubling of it with which a screen of this size touches at most `BLOCK` tiles a side."""
    side = FEWEST
    while max(height, width) > side * (BLOCK - 1):
        side *= 2
    return side


class Place(NamedTuple):
    """A screen's place in a mosaic: the numbers of its tiles `keys` (B, N), the `slots` (B, N) where they are or would
    be written, counted over all players, what these `tiles` hold int32 (B, N * T * T), and which of that is `seen` on
    the screen (B, H * W)."""

    keys: Tensor
    slots: Tensor
    tiles: Tensor
    seen: Tensor

    @property
    def shown(self) -> Tensor:
        """Int32 (B, H * W): what is known of the screen."""
        return self.tiles.gather(1, self.seen)


@dataclass
class Mosaic:
    """The worlds of B players; the player is the first axis of every tensor.

    `keys` int64 (B, G, WAYS), the numbers of the tiles, -1 where empty; `visited` int64 (B, G, WAYS), the frame in
    which a tile was last on the screen; `pixels` int32 (B, G, WAYS, T * T).
    """

    keys: Tensor
    visited: Tensor
    pixels: Tensor

    @classmethod
    def start(cls, players: int, slots: int, size: tuple[int, int], device: torch.device) -> Mosaic:
        """Empty, for at most so many tiles and a screen of this size (H, W)."""
        shape = players, max(1, slots // (WAYS * BLOCK**2)) * BLOCK**2, WAYS
        none = torch.zeros(shape, dtype=torch.long, device=device)
        pixels = torch.zeros(*shape, tile_side(*size) ** 2, dtype=torch.int32, device=device)
        return cls(none - 1, none.clone(), pixels)

    @property
    def side(self) -> int:
        return round(self.pixels.shape[3] ** 0.5)

    def find(self, corner_B2: Tensor, size: tuple[int, int]) -> Place:
        """The place of the screen of this `size` (H, W) whose first pixel lies at `corner` (row, column) of the world,
        int64."""
        sets = self.keys.shape[1]
        around, pixels, order = _grid(size, self.side, corner_B2.device)
        row, column = (
            (corner_B2.div(self.side, rounding_mode="floor")[:, None] + around).remainder(COORDINATES).unbind(2)
        )
        keys = torch.add(column, row, alpha=COORDINATES)
        # Multiplicative hashing of blocks.
        block = ((keys & BLOCKS) * -7046029254386353131 >> 33) % (sets // BLOCK**2)
        within = torch.add(column & BLOCK - 1, row & BLOCK - 1, alpha=BLOCK)
        at = torch.add(within, block, alpha=BLOCK**2)
        at = at + torch.arange(0, len(keys) * sets, sets, device=at.device)[:, None]
        held = self.keys.flatten(0, 1)[at]
        same = held == keys[..., None]
        # Its own slot, else an empty one, else that of the tile visited longest ago.
        age = self.visited.flatten(0, 1)[at].masked_fill(held < 0, -1).masked_fill(same, -2)
        oldest, way = age.min(2)
        slots = torch.add(way, at, alpha=WAYS)
        tiles = self.pixels.flatten(0, 2)[slots] * (oldest == -2)[..., None]
        first = corner_B2 % self.side
        seen = order[torch.add(first[:, 1:], first[:, :1], alpha=_breadth(size, self.side)) + pixels]
        return Place(keys, slots, tiles.flatten(1), seen)

    def read(self, corner_B2: Tensor, size: tuple[int, int]) -> Tensor:
        """Int32 (B, H, W): what is known of a screen; arguments as those of `find`."""
        return self.find(corner_B2, size).shown.unflatten(1, size)

    def last_visit(self, corner_B2: Tensor, size: tuple[int, int]) -> Tensor:
        """The frame (B,) in which a tile of this screen was last in sight; -1: none is known."""
        place = self.find(corner_B2, size)
        there = self.keys.flatten()[place.slots] == place.keys
        return self.visited.flatten()[place.slots].masked_fill(~there, -1).amax(1)

    def write(self, place: Place, screen_BHW: Tensor, now_B: Tensor) -> None:
        """Put a screen at its place, in place, at time `now`. Nothing was written since that was found."""
        tiles = place.tiles.scatter(1, place.seen, screen_BHW.flatten(1)).view(*place.slots.shape, -1)
        self.pixels.view(-1, self.side**2)[place.slots] = tiles
        self.keys.view(-1)[place.slots] = place.keys
        self.visited.view(-1)[place.slots] = now_B[:, None].expand_as(place.keys)


def _breadth(size: tuple[int, int], side: int) -> int:
    """Pixels of the tiles side by side that a screen can touch."""
    return ((size[1] - 1) // side + 2) * side


@cache
def _grid(size: tuple[int, int], side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of the tiles that a screen can touch: how many tiles (N, 2) each lies below and to the right of the first; the
    numbers (H * W,) of the screen's pixels, all tiles' pixels being numbered row by row; and where each of those lies
    (N * T * T,) when the tiles lie one after another."""
    down, across = (size[0] - 1) // side + 2, _breadth(size, side) // side
    around = torch.cartesian_prod(torch.arange(down), torch.arange(across))
    pixels = torch.arange(size[0])[:, None] * across * side + torch.arange(size[1])
    order = torch.arange(down * across * side**2).view(down, across, side, side).transpose(1, 2)
    return around.to(device), pixels.flatten().to(device), order.flatten().to(device)


def packed(pixels_BHW4: Tensor) -> Tensor:
    """Four bytes a pixel, uint8, as one int32 (B, H, W)."""
    return pixels_BHW4.view(torch.int32)[..., 0]


def same_colour(one_BHW: Tensor, other_BHW: Tensor, within: int) -> Tensor:
    """Where (B, H, W) packed pixels differ by so many grey levels at most, in every colour."""
    one, other = unpacked(one_BHW), unpacked(other_BHW)
    far = torch.maximum(one, other) - torch.minimum(one, other) > within
    return packed(far) & COLOURS == 0


def unpacked(pixels_BHW: Tensor) -> Tensor:
    """The inverse (B, H, W, 4)."""
    return pixels_BHW[..., None].view(torch.uint8)
