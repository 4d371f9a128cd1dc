"""How well stored frames show a view, direction by direction: what memory chooses its sources by.

Of a frame only the horizon counts, a row of points on the plane: of a view from anywhere on the plane it shows what can
hide what.

Legend: B views, K frames compared, w columns of a picture, D directions of a view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from game_wm.memory.first_person.camera import EMPTY, rays

DIRECTIONS, DEPTH_LEVELS = 16, 24  # of a view, and of the depth in each (logarithmic)
LEAST_DEPTH, FARTHEST_DEPTH = 0.1, 8.0  # in sides of a place
DISTANT = 1e-3  # the disparity below which depths cannot be told apart
MISJUDGED = 0.1  # share of the points in a direction that may be wrong
PARALLAX = 0.5  # cost of a frame as far away from the view as the surface: errors of depth then move the surface


def visibility(disparity_BKw: Tensor, away_BK3: Tensor, usable_BK: Tensor, focal: Tensor | float) -> Tensor:
    """How well each frame shows what is visible in each direction, 0 to 1 (B, K, D), by the disparity on its horizon.

    `away`: the frames' poses as seen from the view. The nearest point in a direction is what is visible there, unless
    few points say so: at the edges of surfaces depth is misjudged.
    """
    batch, width = len(disparity_BKw), disparity_BKw.shape[-1]
    depth = 1 / disparity_BKw.clamp_min(EMPTY)
    aside = rays(1, width, depth.device)[0] / focal * depth
    ahead, right, turn = away_BK3[..., None].unbind(2)
    cos, sin = turn.cos(), turn.sin()
    x, y = ahead + cos * depth - sin * aside, right + sin * depth + cos * aside
    place = focal * y / x.clamp_min(LEAST_DEPTH)
    seen = usable_BK[..., None] & (disparity_BKw > DISTANT) & (x > LEAST_DEPTH) & (place.abs() < 1)
    direction = ((place.clamp(-1, 0.999) + 1) * (DIRECTIONS / 2)).long()
    scale = DEPTH_LEVELS / math.log(FARTHEST_DEPTH / LEAST_DEPTH)
    level = ((x.clamp(LEAST_DEPTH, FARTHEST_DEPTH) / LEAST_DEPTH).log() * scale).long().clamp_max(DEPTH_LEVELS - 1)
    votes = x.new_zeros(batch, DIRECTIONS * DEPTH_LEVELS)
    votes.scatter_add_(1, (direction * DEPTH_LEVELS + level).flatten(1), seen.flatten(1).to(x))
    votes = votes.view(batch, DIRECTIONS, DEPTH_LEVELS).cumsum(-1)
    nearest_BD = (votes < (MISJUDGED * votes[..., -1:]).clamp_min(1)).sum(-1)  # the level of what is visible
    seen &= (level - nearest_BD.gather(1, direction.flatten(1)).view_as(level)).abs() <= 1
    coarser = (depth / x.clamp_min(LEAST_DEPTH)).log()
    quality = torch.where(coarser > 0, -coarser, coarser / 4)
    distance = away_BK3[..., :2].norm(dim=-1)[..., None]
    quality = (quality - PARALLAX * distance / x.clamp_min(LEAST_DEPTH)).exp() * seen
    return x.new_zeros(batch, x.shape[1], DIRECTIONS).scatter_reduce_(2, direction, quality, "amax")
