"""What blocks a player's step, predicted from the surfaces that memory knows around the player.

A picture shows only what is ahead. A player who slides along a wall, steps back or sideways meets surfaces out of view,
and a dream that walks through walls soon recalls the wrong places. Every stored frame knows the distance of the
surfaces on its horizon. Together they are a map of the surroundings. A small network reads it, turned to the direction
of the step, with the last step and its blocked motion, since a player who slides along a wall goes on sliding. A second
map holds the lines that have stopped the player before: positions are known better than surfaces.

Legend: B players, N points, D directions, R rings, S sides, G gaps, w columns of a picture; lengths are in sides of a
place.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.first_person.camera import EMPTY, rays

DIRECTIONS, RINGS, REACH = 32, 24, 0.75  # of the map of surfaces: directions, rings, and the radius of the last ring
SIDES, GAPS = 24, 24  # of the map of lines: directions that they face, and distances from them
CLOSEST, WIDEST = -0.075, 0.225  # distances from so far behind a line to so far in front of it
STOPPED, ALONG = 0.02, 0.4  # least blocked motion at a line, and how far along the line it counts
DEEPEST, FULL_WEIGHT = 6.0, 0.3  # surfaces seen from farther away do not count; nearer than this all count alike
SMOOTH = 0.25  # largest relative difference of neighbouring depths: at edges depth is misjudged
HEARD = 0.01  # smaller outputs of the network are noise
UNIT = 0.1  # of the network's inputs and outputs
HIDDEN = 256  # width of the network


def horizon(disparity_Nhw: Tensor, focal: Tensor | float) -> tuple[Tensor, Tensor]:
    """Points (N, w, 2), ahead and aside, on the horizon of pictures, and their weights (N, w)."""
    height, width = disparity_Nhw.shape[-2:]
    disparity = disparity_Nhw[:, (height - 1) // 2 : height // 2 + 1].float().mean(1)
    high, low = F.max_pool1d(disparity, 3, 1, 1), -F.max_pool1d(-disparity, 3, 1, 1)
    depth = 1 / disparity.clamp_min(EMPTY)
    good = (high - low < SMOOTH * high) & (depth < DEEPEST)
    aside = rays(1, width, depth.device)[0] / focal * depth
    return torch.stack((depth, aside), -1), good / depth.clamp_min(FULL_WEIGHT)


def seen_from(points_NW2: Tensor, cameras_N3: Tensor) -> Tensor:
    """The points (..., w, 2) of cameras, whose poses (..., 3) as the player sees them are given, in his own frame."""
    (x, y), (ahead, aside, turn) = points_NW2.unbind(-1), cameras_N3[..., None, :].unbind(-1)
    cos, sin = turn.cos(), turn.sin()
    return torch.stack((ahead + cos * x - sin * y, aside + sin * x + cos * y), -1)


def around(points_BN2: Tensor, weights_BN: Tensor, towards_B: Tensor) -> Tensor:
    """The map of surfaces (B, D, R): the weight in each direction, counted from `towards`, and at each distance."""
    x, y = points_BN2.unbind(-1)
    direction = sector(points_BN2, towards_B, DIRECTIONS)
    return shared(direction, (x * x + y * y).sqrt() * (RINGS / REACH), weights_BN, DIRECTIONS, RINGS)


def stopped(points_BN2: Tensor, lost_BN2: Tensor, towards_B: Tensor) -> Tensor:
    """The map of lines (B, S, G): how often the player was stopped from each side, counted from `towards`, and the
    distance from the line. `points` are where steps ended and `lost` their blocked motion, which points away from the
    obstacle."""
    much = lost_BN2.norm(dim=-1)
    away = lost_BN2 / much.clamp_min(1e-6)[..., None]
    gap = -(points_BN2 * away).sum(-1)
    along = (points_BN2 + gap[..., None] * away).norm(dim=-1)
    weight = (-((along / ALONG) ** 2)).exp() * (much > STOPPED)
    return shared(sector(away, towards_B, SIDES), (gap - CLOSEST) * (GAPS / (WIDEST - CLOSEST)), weight, SIDES, GAPS)


def sector(vectors_BN2: Tensor, towards_B: Tensor, count: int) -> Tensor:
    """Which of so many directions, counted from the one opposite to `towards`, vectors point to (B, N)."""
    angle = (torch.atan2(vectors_BN2[..., 1], vectors_BN2[..., 0]) - towards_B[:, None]) / math.tau + 0.5
    return (angle * count).floor().long() % count


def shared(row_BN: Tensor, at_BN: Tensor, weight_BN: Tensor, rows: int, columns: int) -> Tensor:
    """Weights gathered in a table (B, rows, columns). Each is shared by the two columns that it lies between, so that
    the table resolves distances finer than its columns."""
    found = weight_BN.new_zeros(len(row_BN), rows * columns)
    at = at_BN - 0.5
    inner = at.floor()
    for column, share in ((inner, 1 + inner - at), (inner + 1, at - inner)):
        inside = (column >= 0) & (column < columns)
        place = row_BN * columns + column.clamp(0, columns - 1).long()
        found.scatter_add_(1, place, torch.where(inside, weight_BN * share, 0))
    return found.view(-1, rows, columns)


def turned(vectors: Tensor, angle: Tensor) -> Tensor:
    """Vectors (..., 2) on the plane as seen by who has turned by this angle (...)."""
    (x, y), cos, sin = vectors.unbind(-1), angle.cos(), angle.sin()
    return torch.stack((cos * x + sin * y, cos * y - sin * x), -1)


class Obstacles(nn.Module):
    """Maps of surfaces (B, D, R) and of lines (B, S, G), the free step's length (B,), the last step and its blocked
    motion (B, 2, 2), all as seen along the step -> what is added to the step, ahead and aside (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        size = DIRECTIONS * RINGS + SIDES * GAPS + 1 + 4
        self.net = nn.Sequential(
            nn.Linear(size, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2)
        )
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, around_BDR: Tensor, stopped_BSG: Tensor, length_B: Tensor, last_B22: Tensor) -> Tensor:
        known = [(x / (x + 1)).flatten(1) for x in (around_BDR, stopped_BSG)]
        return self.net(torch.cat((*known, length_B[:, None] / (2 * UNIT), last_B22.flatten(1) / UNIT), 1)) * UNIT

    def hindered(
        self,
        unhindered_B3: Tensor,
        last_B22: Tensor,
        surfaces: tuple[Tensor, Tensor],
        stops: tuple[Tensor, Tensor],
        place: float,
    ) -> Tensor:
        """The part of a free step (B, 3) that obstacles leave. Steps, and the blocked motion of the last one, are as
        the player now stands, in the pose's units; `place` is a place's side in these. `surfaces` and `stops` are those
        of `EpisodicMemory`."""
        with torch.autocast(unhindered_B3.device.type, enabled=False):  # rounding would add up
            free = unhindered_B3[:, :2].float() / place
            towards, length = torch.atan2(free[:, 1], free[:, 0]), free.norm(dim=1)
            last = turned(last_B22.float() / place, towards[:, None])
            (points, weights), (ends, lost) = ((x.float(), y.float()) for x, y in (surfaces, stops))
            told = self(around(points, weights, towards), stopped(ends, lost, towards), length, last)
            heard = ((told.norm(dim=1) > HEARD) & (length > HEARD / 2))[:, None]
            step = turned(told + F.pad(length[:, None], (0, 1)), -towards) * place
            return torch.cat((torch.where(heard, step, unhindered_B3[:, :2]), unhindered_B3[:, 2:]), 1)
