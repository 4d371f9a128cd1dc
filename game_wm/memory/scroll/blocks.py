"""What each block of a picture costs after each shift of the picture before: compared once, then looked up for any
camera, which is a field of shifts, one a block.

Legend: N pairs, S shifts, K blocks, V candidates of a camera, H, W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.scroll.registration import CAPPED

ANGLES = (-20, -15, -11, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 11, 15, 20)  # degrees between two pictures


class Blocks:
    """Costs (N, S, K) of the blocks, `block` pixels large, after each shift of up to `reach` pixels, between pictures
    uint8 (N, H, W, 3); and the blocks' centres, pixels from the picture's."""

    def __init__(self, before_NHWC: Tensor, now_NHWC: Tensor, fixed_HW: Tensor, reach: int, block: int) -> None:
        costs = block_costs(before_NHWC, now_NHWC, fixed_HW, reach, block)
        self.reach, self.side, (self.rows, self.columns) = reach, 2 * reach + 1, costs.shape[2:]
        device = costs.device
        self.costs, self.blocks = costs.flatten(2), torch.arange(self.rows * self.columns, device=device)
        down = (torch.arange(self.rows, device=device) + 0.5 - self.rows / 2) * block
        right = (torch.arange(self.columns, device=device) + 0.5 - self.columns / 2) * block
        self.down, self.right = down.repeat_interleave(self.columns), right.repeat(self.rows)

    def after(self, down_VK: Tensor, right_VK: Tensor) -> Tensor:
        """The costs (N, V, K) of the blocks after these shifts."""
        down, right = ((x.round().clamp(-self.reach, self.reach) + self.reach).long() for x in (down_VK, right_VK))
        return self.costs[:, down * self.side + right, self.blocks]

    def turning(self, angles: Sequence[float] = ANGLES, aspect: float = 1.0) -> tuple[Tensor, Tensor]:
        """The least cost (N,) of a screen that goes and turns, and its step (N, 3): down, right, degrees."""
        shifts = torch.arange(self.side**2, device=self.costs.device)[:, None]
        down, right = shifts // self.side - self.reach, shifts % self.side - self.reach
        steps, costs = list[Tensor](), list[Tensor]()
        for angle in angles:
            sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle)) - 1
            found = self.after(down + self.down * cos - self.right * aspect * sin,
                               right + self.down * sin / aspect + self.right * cos)  # fmt: skip
            cost, at = found.sum(2).min(1)
            costs.append(cost)
            steps.append(torch.stack((down[at, 0], right[at, 0] * aspect, torch.full_like(at, angle)), 1).float())
        best = torch.stack(costs, 1).min(1)
        return best.values, torch.stack(steps, 1)[torch.arange(len(best.indices)), best.indices]


def block_costs(before_NHWC: Tensor, now_NHWC: Tensor, fixed_HW: Tensor, reach: int, block: int) -> Tensor:
    """Mean grey levels (N, S, rows, columns) by which blocks are off after each shift. Where the picture before does
    not reach, or shows the screen's own, they are off by as much as without a shift."""
    then, now = (x.short().permute(0, 3, 1, 2).contiguous() for x in (before_NHWC, now_NHWC))
    same = (then - now).abs().amax(1).clamp_max(CAPPED).float()
    found = []
    for down, right in product(range(-reach, reach + 1), repeat=2):
        rows, columns = (slice(max(0, -by), min(0, -by) or None) for by in (down, right))
        from_rows, from_columns = (slice(max(0, by), min(0, by) or None) for by in (down, right))
        off = (then[:, :, from_rows, from_columns] - now[:, :, rows, columns]).abs_().amax(1).clamp_max_(CAPPED).float()
        cost = same.clone()
        cost[:, rows, columns] = torch.where(fixed_HW[from_rows, from_columns], same[:, rows, columns], off)
        found.append(F.avg_pool2d(cost * ~fixed_HW, block))
    return torch.stack(found, 1)
