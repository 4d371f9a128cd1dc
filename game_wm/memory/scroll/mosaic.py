"""A world that is larger than the screen, as a mosaic of tiles: what was seen comes back pixel by pixel.

The store is bounded and its cost constant. Tiles are hashed to sets of `WAYS` slots, and where a set is full, the tile
visited longest ago makes room. Tiles of one block of `BLOCK` x `BLOCK` have sets of their own, so that those on one
screen never take each other's slots.

Legend: B players, G sets, T pixels along a tile's side, N tiles on the screen, H, W screen, 4 = colours and confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WAYS = 4  # slots of a set
BLOCK = 8  # tiles along the side of a block
FEWEST = 16  # pixels along the side of a tile, at least
COORDINATES = 2**15  # tiles are numbered modulo twice this, along each axis


def tile_side(height: int, width: int) -> int:
    """T: 16, or the least doubling of it with which a screen of this size touches at most `BLOCK` tiles a side."""
    side = FEWEST
    while max(height, width) > side * (BLOCK - 1):
        side *= 2
    return side


@dataclass
class Mosaic:
    """The worlds of B players; the player is the first axis of every tensor.

    `keys` int64 (B, G, WAYS), -1 where empty; `visited` int64 (B, G, WAYS), the frame in which a tile was last on the
    screen; `pixels` uint8 (B, G, WAYS, T * T, 4), the last channel how often a pixel has been confirmed, 0 where it is
    unknown.
    """

    keys: Tensor
    visited: Tensor
    pixels: Tensor

    @classmethod
    def start(cls, players: int, slots: int, size: tuple[int, int], device: torch.device) -> Mosaic:
        """Empty, for at most so many tiles and a screen of this size (H, W)."""
        shape = players, max(1, slots // (WAYS * BLOCK**2)) * BLOCK**2, WAYS
        none = torch.zeros(shape, dtype=torch.long, device=device)
        pixels = torch.zeros(*shape, tile_side(*size) ** 2, 4, dtype=torch.uint8, device=device)
        return cls(none - 1, none.clone(), pixels)

    @property
    def side(self) -> int:
        return round(self.pixels.shape[3] ** 0.5)

    def read(self, corner_B2: Tensor, size: tuple[int, int]) -> Tensor:
        """Uint8 (B, H, W, 4): what is known of the screen of this `size` whose first pixel lies at `corner` (row,
        column) of the world, int64. All zero where nothing is known."""
        slot, there = self._find(corner_B2, size)
        tiles = self._gather(slot) * there[..., None, None]
        rows, columns = self._places(corner_B2, size)
        players = torch.arange(len(tiles), device=tiles.device)[:, None, None]
        return self._joined(tiles, size)[players, rows[:, :, None], columns[:, None, :]]

    def last_visit(self, corner_B2: Tensor, size: tuple[int, int]) -> Tensor:
        """The frame (B,) in which a tile of this screen was last in sight; -1: none is known."""
        slot, there = self._find(corner_B2, size)
        return self.visited.flatten(1).gather(1, slot).masked_fill(~there, -1).amax(1)

    def write(self, corner_B2: Tensor, screen_BHW4: Tensor, now_B: Tensor) -> None:
        """Put a screen where `read` found it, in place, at time `now`."""
        size = screen_BHW4.shape[1], screen_BHW4.shape[2]
        keys, ways = self._ways(corner_B2, size)
        held = self.keys.flatten(1).gather(1, ways.flatten(1)).view_as(ways)
        same = held == keys[..., None]
        # Its own slot, else an empty one, else that of the tile visited longest ago.
        age = self.visited.flatten(1).gather(1, ways.flatten(1)).view_as(ways)
        age = age.masked_fill(held < 0, -1).masked_fill(same, -2)
        slot = ways.gather(2, age.argmin(2, keepdim=True))[..., 0]
        tiles = self._joined(self._gather(slot) * same.any(2)[..., None, None], size)
        rows, columns = self._places(corner_B2, size)
        players = torch.arange(len(slot), device=slot.device)[:, None]
        tiles[players[..., None], rows[:, :, None], columns[:, None, :]] = screen_BHW4
        self.pixels.flatten(1, 2)[players, slot] = self._cut(tiles)
        self.keys.flatten(1)[players, slot] = keys
        self.visited.flatten(1)[players, slot] = now_B[:, None]

    def _find(self, corner_B2: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The slots (B, N) of the tiles on the screen, and whether (B, N) they are there."""
        keys, ways = self._ways(corner_B2, size)
        same = self.keys.flatten(1).gather(1, ways.flatten(1)).view_as(ways) == keys[..., None]
        return ways.gather(2, same.byte().argmax(2, keepdim=True))[..., 0], same.any(2)

    def _counts(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tiles that a screen can touch, down and across."""
        return (size[0] - 1) // self.side + 2, (size[1] - 1) // self.side + 2

    def _ways(self, corner_B2: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Keys (B, N) of the tiles on the screen, and the slots (B, N, WAYS) that each may have."""
        down, across = (torch.arange(count, device=corner_B2.device) for count in self._counts(size))
        first = corner_B2.div(self.side, rounding_mode="floor")
        row = (first[:, :1] + down)[:, :, None].expand(-1, -1, len(across)).flatten(1)
        column = (first[:, 1:] + across)[:, None, :].expand(-1, len(down), -1).flatten(1)
        row, column = ((x + COORDINATES) % (2 * COORDINATES) for x in (row, column))
        block = (row // BLOCK) * 2 * COORDINATES + column // BLOCK
        groups = self.keys.shape[1] // BLOCK**2
        # Multiplicative hashing of blocks.
        group = ((block * -7046029254386353131) >> 33) % groups
        first = ((group * BLOCK + row % BLOCK) * BLOCK + column % BLOCK) * WAYS
        return row * 2 * COORDINATES + column, first[..., None] + torch.arange(WAYS, device=row.device)

    def _places(self, corner_B2: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Rows (B, H) and columns (B, W) of the screen within its tiles."""
        within = corner_B2 % self.side
        rows, columns = (torch.arange(length, device=within.device) for length in size)
        return within[:, :1] + rows, within[:, 1:] + columns

    def _gather(self, slot_BN: Tensor) -> Tensor:
        players = torch.arange(len(slot_BN), device=slot_BN.device)[:, None]
        return self.pixels.flatten(1, 2)[players, slot_BN]

    def _joined(self, tiles_BNP4: Tensor, size: tuple[int, int]) -> Tensor:
        """Tiles (B, N, T * T, 4) side by side (B, rows, columns, 4)."""
        tiles = tiles_BNP4.unflatten(2, (self.side, self.side)).unflatten(1, self._counts(size))
        return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _cut(self, joined_BHW4: Tensor) -> Tensor:
        """The inverse (B, N, T * T, 4)."""
        tiles = joined_BHW4.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).transpose(2, 3)
        return tiles.flatten(1, 2).flatten(2, 3)
