"""How much of the change between two pictures a camera explains: what is left of it when the picture before is moved
as that camera would have moved it.

Each block of `BLOCK` x `BLOCK` pixels is compared after every shift of up to `REACH` pixels, once. A camera is a field
of shifts, one a block: it is judged by looking up what was compared.

Legend: N pairs, S shifts, K blocks, V candidates of a camera, H, W pixels.
"""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.scroll.registration import CAPPED
from train.camera.pairs import Pairs

REACH, BLOCK = 10, 8  # pixels
SIDE = 2 * REACH + 1
ANGLES = (-20, -15, -11, -8, -6, -4, -3, -2, -1, 1, 2, 3, 4, 6, 8, 11, 15, 20)  # degrees between two pictures
# Of a first-person camera: pixels that a turn shifts the middle; parts of the distance to what is near that a step
# goes on; pixels that a step aside shifts what is near; how near the wall of a column is.
TURNS, AHEAD, ASIDE = range(-REACH + 1, REACH), (0, -0.06, -0.12, -0.2, -0.3, 0.1), (0, -3, 3)
WALLS = (0, 0.25, 0.5, 1.0)
HORIZONS, FOCALS = (-8, 0, 8), (24, 48)  # pixels below the middle; pixels
NEAR = 32  # pixels below the horizon: there the ground is as near as a wall of 1


class Field:
    """Costs (N, S, K) of the blocks after each shift, and the blocks' centres, pixels from the picture's."""

    def __init__(self, pairs: Pairs, fixed_HW: Tensor) -> None:
        costs = block_costs(pairs, fixed_HW)
        self.rows, self.columns = costs.shape[2:]
        self.costs, self.blocks = costs.flatten(2), torch.arange(self.rows * self.columns)
        self.down = ((torch.arange(self.rows) + 0.5 - self.rows / 2) * BLOCK).repeat_interleave(self.columns)
        self.right = ((torch.arange(self.columns) + 0.5 - self.columns / 2) * BLOCK).repeat(self.rows)

    @property
    def repeated(self) -> Tensor:
        """The cost (N,) of the picture before."""
        return self.costs[:, SIDE**2 // 2].sum(1)

    def after(self, down_VK: Tensor, right_VK: Tensor) -> Tensor:
        """The costs (N, V, K) of the blocks after these shifts."""
        down, right = ((x.round().clamp(-REACH, REACH) + REACH).long() for x in (down_VK, right_VK))
        return self.costs[:, down * SIDE + right, self.blocks]

    def scrolling(self) -> Tensor:
        """The least cost (N,) of a screen that moves over a plane."""
        return self.costs.sum(2).amin(1)

    def rotating(self) -> Tensor:
        """The same of one that turns, too."""
        shifts = torch.arange(SIDE**2)[:, None]
        best = self.scrolling()
        for angle in ANGLES:
            sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle)) - 1
            down = shifts // SIDE - REACH + self.right * sin + self.down * cos
            right = shifts % SIDE - REACH - self.down * sin + self.right * cos
            best = torch.minimum(best, self.after(down, right).sum(2).amin(1))
        return best

    def first_person(self, horizon: int, focal: int) -> Tensor:
        """The same of a camera on a plane: a turn is the same for all depths, a step shifts what is near. A column
        shows the ground, and a wall as near as explains it best."""
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


def block_costs(pairs: Pairs, fixed_HW: Tensor) -> Tensor:
    """Mean grey levels (N, S, rows, columns) by which blocks are off after each shift. Where the picture before does
    not reach, or shows the screen's own, they are off by as much as without a shift."""
    then, now = (x.short().permute(0, 3, 1, 2).contiguous() for x in pairs)
    same = (then - now).abs().amax(1).clamp_max(CAPPED).float()
    found = []
    for down, right in product(range(-REACH, REACH + 1), repeat=2):
        rows, columns = (slice(max(0, -by), min(0, -by) or None) for by in (down, right))
        from_rows, from_columns = (slice(max(0, by), min(0, by) or None) for by in (down, right))
        off = (then[:, :, from_rows, from_columns] - now[:, :, rows, columns]).abs_().amax(1).clamp_max_(CAPPED).float()
        cost = same.clone()
        cost[:, rows, columns] = torch.where(fixed_HW[from_rows, from_columns], same[:, rows, columns], off)
        found.append(F.avg_pool2d(cost * ~fixed_HW, BLOCK))
    return torch.stack(found, 1)
