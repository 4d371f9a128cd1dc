"""How much of the change between two pictures a camera explains: what is left of it when the picture before is moved
as that camera would have moved it.

Each block of `BLOCK` x `BLOCK` pixels is compared after every shift of up to `REACH` pixels, once. A camera is a field
of shifts, one a block: it is judged by looking up what was compared.

Legend: N pairs, H, W pixels.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from game_wm.memory.scroll.blocks import Blocks
from train.camera.pairs import Pairs

REACH, BLOCK = 10, 8  # pixels
# Of a first-person camera: pixels that a turn shifts the middle; parts of the distance to what is near that a step
# goes on; pixels that a step aside shifts what is near; how near the wall of a column is.
TURNS, AHEAD, ASIDE = range(-REACH + 1, REACH), (0, -0.06, -0.12, -0.2, -0.3, 0.1), (0, -3, 3)
WALLS = (0, 0.25, 0.5, 1.0)
HORIZONS, FOCALS = (-8, 0, 8), (24, 48)  # pixels below the middle; pixels
NEAR = 32  # pixels below the horizon: there the ground is as near as a wall of 1


class Field(Blocks):
    """What the blocks of pairs cost after each shift."""

    def __init__(self, pairs: Pairs, fixed_HW: Tensor) -> None:
        super().__init__(*pairs, fixed_HW, REACH, BLOCK)

    @property
    def repeated(self) -> Tensor:
        """The cost (N,) of the picture before."""
        return self.costs[:, self.side**2 // 2].sum(1)

    def scrolling(self) -> Tensor:
        """The least cost (N,) of a screen that moves over a plane."""
        return self.costs.sum(2).amin(1)

    def first_person(self, horizon: int, focal: int) -> Tensor:
        """The least cost (N,) of a camera on a plane: a turn is the same for all depths, a step shifts what is near. A
        column shows the ground, and a wall as near as explains it best."""
        down, right = self.down - horizon, self.right
        near = torch.maximum(down.abs() / NEAR, torch.tensor(WALLS)[:, None])
        best = self.repeated
        for turn in TURNS:
            turned_down, turned_right = turn * down * right / focal**2, turn * (1 + right**2 / focal**2)
            for ahead, aside in product(AHEAD, ASIDE):
                costs = self.after(turned_down + ahead * down * near,
                                   turned_right + (ahead * right + aside) * near)  # fmt: skip
                columns = costs.unflatten(2, (self.rows, self.columns)).sum(2).amin(1)
                best = torch.minimum(best, columns.sum(1))
        return best
