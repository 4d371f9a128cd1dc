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

import torch
from torch import Tensor

WAYS = 4  # slots of a set
BLOCK = 8  # tiles along the side of a block
FEWEST = 16  # pixels along the side of a tile, at least
COORDINATES = 2**16  # tiles are numbered modulo this, along each axis
BLOCKS = ~((BLOCK - 1) * COORDINATES | BLOCK - 1)  # what the numbers of the tiles of one block have in common


def tile_side(height: int, width: int) -> int:
    """T: 16, or the least doubling of it with which a screen of this size touches at most `BLOCK` tiles a side."""
    side = FEWEST
    while max(height, width) > side * (BLOCK - 1):
        side *= 2
    return side


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

    def read(self, corner_B2: Tensor, size: tuple[int, int]) -> Tensor:
        """Int32 (B, H, W): what is known of the screen of this `size` whose first pixel lies at `corner` (row, column)
        of the world, int64."""
        at, there = self._find(corner_B2, size)
        tiles = self._joined(self.pixels[at] * there[..., None], size)
        return tiles[self._places(corner_B2, size)]

    def last_visit(self, corner_B2: Tensor, size: tuple[int, int]) -> Tensor:
        """The frame (B,) in which a tile of this screen was last in sight; -1: none is known."""
        at, there = self._find(corner_B2, size)
        return self.visited[at].masked_fill(~there, -1).amax(1)

    def write(self, corner_B2: Tensor, screen_BHW: Tensor, now_B: Tensor) -> None:
        """Put a screen where `read` found it, in place, at time `now`."""
        size = screen_BHW.shape[1], screen_BHW.shape[2]
        keys, sets = self._sets(corner_B2, size)
        held = self.keys[sets]
        same = held == keys[..., None]
        # Its own slot, else an empty one, else that of the tile visited longest ago.
        age = self.visited[sets].masked_fill(held < 0, -1).masked_fill(same, -2)
        oldest, way = age.min(2)
        at = *sets, way
        tiles = self._joined(self.pixels[at] * (oldest == -2)[..., None], size)
        tiles[self._places(corner_B2, size)] = screen_BHW
        self.pixels[at], self.keys[at], self.visited[at] = self._cut(tiles), keys, now_B[:, None].expand_as(keys)

    def _find(self, corner_B2: Tensor, size: tuple[int, int]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The slots (B, N) of the tiles on the screen, as an index, and whether (B, N) they are there."""
        keys, sets = self._sets(corner_B2, size)
        there, way = (self.keys[sets] == keys[..., None]).max(2)
        return (*sets, way), there

    def _counts(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tiles that a screen can touch, down and across."""
        return (size[0] - 1) // self.side + 2, (size[1] - 1) // self.side + 2

    def _sets(self, corner_B2: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Numbers (B, N) of the tiles on the screen, and the sets that each belongs to, as an index (B, N)."""
        device, tile = corner_B2.device, corner_B2.div(self.side, rounding_mode="floor")
        down, across = (torch.arange(count, device=device) for count in self._counts(size))
        row, column = (tile[:, :1] + down) % COORDINATES, (tile[:, 1:] + across) % COORDINATES
        keys = ((row * COORDINATES)[:, :, None] + column[:, None]).flatten(1)
        # Multiplicative hashing of blocks.
        group = ((keys & BLOCKS) * -7046029254386353131 >> 33) % (self.keys.shape[1] // BLOCK**2)
        within = keys // COORDINATES % BLOCK * BLOCK + keys % BLOCK
        return keys, (torch.arange(len(keys), device=device)[:, None], group * BLOCK**2 + within)

    def _places(self, corner_B2: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Where the pixels (B, H, W) of the screen are within its tiles, as an index."""
        within, device = corner_B2 % self.side, corner_B2.device
        rows, columns = (torch.arange(length, device=device) for length in size)
        players = torch.arange(len(within), device=device)[:, None, None]
        return players, (within[:, :1] + rows)[:, :, None], (within[:, 1:] + columns)[:, None]

    def _joined(self, tiles_BNP: Tensor, size: tuple[int, int]) -> Tensor:
        """Tiles (B, N, T * T) side by side (B, rows, columns)."""
        down, across = self._counts(size)
        tiles = tiles_BNP.view(-1, down, across, self.side, self.side).transpose(2, 3)
        return tiles.reshape(-1, down * self.side, across * self.side)

    def _cut(self, joined_BHW: Tensor) -> Tensor:
        """The inverse (B, N, T * T)."""
        tiles = joined_BHW.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).transpose(2, 3)
        return tiles.flatten(1, 2).flatten(2, 3)


def packed(pixels_BHW4: Tensor) -> Tensor:
    """Four bytes a pixel, uint8, as one int32 (B, H, W)."""
    return pixels_BHW4.view(torch.int32)[..., 0]


def unpacked(pixels_BHW: Tensor) -> Tensor:
    """The inverse (B, H, W, 4)."""
    return pixels_BHW[..., None].view(torch.uint8)
