"""What is in the way of a player, told by the surfaces that memory knows around him.

A picture shows what is ahead; who slides along a wall, steps back or walks aside meets what is not in it, and a dream
that walks through walls soon recalls the wrong places. Every frame that is kept knows how far the surfaces on its
horizon are. Together they are a map of what is around him, which a small network reads, turned to where the step leads.

Legend: B players, N points, D directions, R rings, w columns of a picture; lengths in sides of a place.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.camera import EMPTY, rays

DIRECTIONS, RINGS, REACH = 32, 24, 1.5  # of the map: directions and rings around him, and how far it reaches
DEEPEST, NEAREST = 6.0, 0.3  # what is seen from farther away counts for nothing, from nearer no more than from here
SMOOTH = 0.25  # by what share the depths of neighbours differ at most: at edges they are misjudged
HEARD = 0.01  # what is told of less is noise
UNIT = 0.1  # what the network tells is in these
HIDDEN = 256


def horizon(disparity_Nhw: Tensor, focal: Tensor | float) -> tuple[Tensor, Tensor]:
    """Points (N, w, 2), ahead and aside, on the horizon of pictures, and what each counts for (N, w)."""
    height, width = disparity_Nhw.shape[-2:]
    disparity = disparity_Nhw[:, (height - 1) // 2 : height // 2 + 1].float().mean(1)
    high, low = F.max_pool1d(disparity, 3, 1, 1), -F.max_pool1d(-disparity, 3, 1, 1)
    depth = 1 / disparity.clamp_min(EMPTY)
    good = (high - low < SMOOTH * high) & (depth < DEEPEST)
    aside = rays(1, width, depth.device)[0] / focal * depth
    return torch.stack((depth, aside), -1), good / depth.clamp_min(NEAREST)


def seen_from(points_NW2: Tensor, cameras_N3: Tensor) -> Tensor:
    """The points (..., w, 2) of cameras, whose poses (..., 3) as the player sees them are given, in his own frame."""
    (x, y), (ahead, aside, turn) = points_NW2.unbind(-1), cameras_N3[..., None, :].unbind(-1)
    cos, sin = turn.cos(), turn.sin()
    return torch.stack((ahead + cos * x - sin * y, aside + sin * x + cos * y), -1)


def around(points_BN2: Tensor, weights_BN: Tensor, towards_B: Tensor) -> Tensor:
    """The map (B, D, R): how much is known to be in each direction, counted from `towards`, and at each distance."""
    x, y = points_BN2.unbind(-1)
    distance = (x * x + y * y).sqrt()
    angle = (torch.atan2(y, x) - towards_B[:, None]) / math.tau + 0.5
    direction = (angle * DIRECTIONS).floor().long() % DIRECTIONS
    ring = (distance * (RINGS / REACH)).long().clamp_max(RINGS - 1)
    found = weights_BN.new_zeros(len(x), DIRECTIONS * RINGS)
    found.scatter_add_(1, direction * RINGS + ring, weights_BN * (distance < REACH))
    return found.view(-1, DIRECTIONS, RINGS)


class Obstacles(nn.Module):
    """A map (B, D, R) and how far one would get (B,) -> how much farther, and how far aside, he gets (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        size = DIRECTIONS * RINGS + 1
        self.net = nn.Sequential(
            nn.Linear(size, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2)
        )
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, around_BDR: Tensor, length_B: Tensor) -> Tensor:
        known = (around_BDR / (around_BDR + 1)).flatten(1)
        return self.net(torch.cat((known, length_B[:, None] / (2 * UNIT)), 1)) * UNIT

    def hindered(self, unhindered_B3: Tensor, points_BN2: Tensor, weights_BN: Tensor, place: float) -> Tensor:
        """The step (B, 3), in the pose's own units, that is left of one which nothing would be in the way of."""
        with torch.autocast(unhindered_B3.device.type, enabled=False):  # what is rounded would add up
            ahead, aside = (unhindered_B3[:, :2].float() / place).unbind(1)
            towards, length = torch.atan2(aside, ahead), (ahead * ahead + aside * aside).sqrt()
            told = self(around(points_BN2.float(), weights_BN.float(), towards), length)
            heard = (told.norm(dim=1) > HEARD) & (length > HEARD / 2)
            along, across = (told * heard[:, None]).unbind(1)
            along, cos, sin = along + length, towards.cos(), towards.sin()
            step = torch.stack((cos * along - sin * across, sin * along + cos * across), 1) * place
            return torch.cat((torch.where(heard[:, None], step, unhindered_B3[:, :2]), unhindered_B3[:, 2:]), 1)
