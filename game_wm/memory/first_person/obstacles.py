"""What is in the way of a player, told by the surfaces that memory knows around him.

A picture shows what is ahead; who slides along a wall, steps back or walks aside meets what is not in it, and a dream
that walks through walls soon recalls the wrong places. Every frame that is kept knows how far the surfaces on its
horizon are. Together they are a map of what is around him, which a small network reads, turned to where the step leads,
with the last step and what was lost of it: who slides along a wall goes on to. And where he was stopped before, he is
stopped again: positions are known better than surfaces, so the trail is a map as well, of the lines that he could not
cross.

Legend: B players, N points, D directions, R rings, S sides, G gaps, w columns of a picture; lengths are in sides of a
place.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.first_person.camera import EMPTY, rays

DIRECTIONS, RINGS, REACH = 32, 24, 0.75  # of the map: directions and rings around him, and how far it reaches
SIDES, GAPS = 24, 24  # of the map of lines: directions from which they stop him, and how far away they are
CLOSEST, WIDEST = -0.075, 0.225  # from so far behind a line to so far in front of it
STOPPED, ALONG = 0.02, 0.4  # what is lost at a line at least, and how far along it that counts
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
    direction = sector(points_BN2, towards_B, DIRECTIONS)
    return shared(direction, (x * x + y * y).sqrt() * (RINGS / REACH), weights_BN, DIRECTIONS, RINGS)


def stopped(points_BN2: Tensor, lost_BN2: Tensor, towards_B: Tensor) -> Tensor:
    """The map (B, S, G) of lines: how often he was stopped from each side, counted from `towards`, and how far in front
    of the line he is, of where steps ended and what was lost of them, which points away from what was in the way."""
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
    """Weights gathered in a table (B, rows, columns): each counts for the two columns that it lies between, so that the
    table tells distances finer than it is."""
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
    """Maps of surfaces (B, D, R) and of lines (B, S, G), how far one would get (B,), the last step and what was lost of
    it (B, 2, 2), all as seen along the step -> how much farther, and how far aside, he gets (B, 2)."""

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
        """The step (B, 3) that is left of one which nothing would be in the way of; like the last step and what was
        lost of it, as the player now stands, in the pose's own units, of which a place's side has so many. `surfaces`
        and `stops` are what `EpisodicMemory` tells of them."""
        with torch.autocast(unhindered_B3.device.type, enabled=False):  # what is rounded would add up
            free = unhindered_B3[:, :2].float() / place
            towards, length = torch.atan2(free[:, 1], free[:, 0]), free.norm(dim=1)
            last = turned(last_B22.float() / place, towards[:, None])
            (points, weights), (ends, lost) = ((x.float(), y.float()) for x, y in (surfaces, stops))
            told = self(around(points, weights, towards), stopped(ends, lost, towards), length, last)
            heard = ((told.norm(dim=1) > HEARD) & (length > HEARD / 2))[:, None]
            step = turned(told + F.pad(length[:, None], (0, 1)), -towards) * place
            return torch.cat((torch.where(heard, step, unhindered_B3[:, :2]), unhindered_B3[:, 2:]), 1)
