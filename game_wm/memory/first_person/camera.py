"""Projection for a camera that moves over a plane: a remembered picture drawn as it looks from another pose.

The camera stands upright and turns about its vertical axis, as a first-person player's does. A picture with its
disparity (one over the depth along the view) can then be drawn as seen from any other pose. Disparities are carried
over first, the nearest surface in front. Then every pixel of the new view is looked up where it lies in each source,
and kept where the source's own disparity agrees: what was hidden there stays empty here.

Lengths are in one unit throughout, a place's side. `focal` is the focal length in halves of the picture's width,
negative where `aside` of a pose points to the left of the picture.

Legend: B views, R sources of each, H, W pixels, h, w grid of disparities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.pose import relative

BEHIND = 0.05  # of the depth before: a point nearer to the camera's plane than this is not visible
STANDS = 1e-5  # places and radians: a player who moves less in a frame stands still
DEPTH_RATIO = 1.1  # memory is this much nearer than the live view: it may show something that is gone
COLOUR_DIFF = 0.4  # and its colour differs this much; the range is 2
EMPTY = 2.5e-4  # disparities below this are nothing; the sky has a little more
MOST = 64.0  # largest disparity
AGREE, AGREE_ABOUT = 0.12, 0.015  # how far disparities of one surface may differ: relative and absolute
COARSER, FINER = 2.0, 0.5  # cost of a source that was farther from the surface than the view is, and of a nearer one
FLAT = 0.01  # disparity below which all sources show a surface equally finely
SHARPNESS = 4.0  # of the choice among sources
NUDGE, LARGEST = 0.04, 0.15  # sides of a place: the step that measures the slope, and the largest correction
DAMPING = 0.005  # keeps the Gauss-Newton step small where the slopes are
ENOUGH = 0.15  # share of the pixels that the sources must show
ORDER = 0.05  # cost of being the next source of a memory


class Sources(NamedTuple):
    """Pictures that views are drawn from, best first: uint8 (B, R, 3, H, W), their `disparity` (B, R, h, w), their
    `poses` as seen from the view (B, R, 3) and whether there is one (B, R). `order`: the cost of being the
    next source; `agree`: by what share a disparity may differ from the view's."""

    pictures: Tensor
    disparity: Tensor
    poses: Tensor
    there: Tensor
    order: float = ORDER
    agree: float = AGREE


@cache
@torch.inference_mode(False)  # so that training can use what play has cached
def rays(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns and rows (h, w) of the pixels' middles, from -1 to 1."""
    u, v = ((torch.arange(n, device=device) + 0.5) / n * 2 - 1 for n in (width, height))
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    return columns, rows


def project(disparity_BHW: Tensor, other_B3: Tensor, focal: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pixels of views lie in other pictures, taken from `other` (the pose as seen from the view).

    Returns places (B, H, W, 2) from -1 to 1, disparities there (B, H, W), and whether it lies in front (B, H, W).
    """
    u, v = rays(disparity_BHW.shape[-2], disparity_BHW.shape[-1], disparity_BHW.device)
    ahead, aside, turn = other_B3[..., None, None].unbind(1)
    x, y, cos, sin = 1 - disparity_BHW * ahead, u / focal - disparity_BHW * aside, turn.cos(), turn.sin()
    depth = cos * x + sin * y
    seen = depth > BEHIND
    depth = depth.clamp_min(BEHIND)
    across = focal * (cos * y - sin * x) / depth
    return torch.stack((across, v / depth), -1), disparity_BHW / depth, seen


def carry(disparity_BRhw: Tensor, to_BR3: Tensor, focal: Tensor | float) -> Tensor:
    """Disparity (B, h, w) of a view by its sources, which see its pose at `to`; zero where they have none.

    The first source that has any prevails, and of what it has the nearest surface; a hole one cell wide takes its
    nearest neighbour.
    """
    batch, count, h, w = disparity_BRhw.shape
    place, disparity, seen = project(disparity_BRhw.flatten(0, 1), to_BR3.flatten(0, 1), focal)
    there = seen & (disparity_BRhw.flatten(0, 1) > EMPTY)
    # One number ranks by source first, then by disparity.
    rank = MOST * torch.arange(count, 0, -1, device=place.device).repeat(batch)[:, None, None]
    ranked = (disparity.clamp_max(MOST - 1) + rank) * there
    # A point falls on four cells. The first is marked, and every cell looks at those before it. Points outside lie on
    # the border.
    column, row = ((((place[..., i] + 1) * n / 2 - 0.5).floor().clamp(-2, n) + 2).long() for i, n in ((0, w), (1, h)))
    found = ranked.new_zeros(batch, (h + 3) * (w + 3))
    found.scatter_reduce_(1, (row * (w + 3) + column).view(batch, -1), ranked.view(batch, -1), "amax")
    found = F.max_pool2d(found.view(batch, 1, h + 3, w + 3), 2, 1)[:, 0, 1:-1, 1:-1] % MOST
    return torch.where(found > EMPTY, found, F.max_pool2d(found[:, None], 3, 1, 1)[:, 0])


def fine(disparity_Bhw: Tensor, height: int, width: int) -> Tensor:
    """Disparity (B, H, W) of every pixel: interpolated where the surface is smooth, not over its edges."""
    d = disparity_Bhw[:, None]
    low, high = -F.max_pool2d(-d, 3, 1, 1), F.max_pool2d(d, 3, 1, 1)
    smooth = F.interpolate(((high - low < 0.25 * high) & (low > EMPTY)).float(), size=(height, width))
    near = F.interpolate(d, size=(height, width))
    return torch.where(smooth > 0, F.interpolate(d, size=(height, width), mode="bilinear"), near)[:, 0]


def draw(each: Sequence[Sources], focal: Tensor | float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Views (B, C, H, W) in [-1, 1] from their sources, where they are drawn (B, H, W), and their disparities
    (B, H, W): several at once.

    Of the sources that show a surface, the one that saw it as finely as the view does prevails. Where nothing is known
    the picture holds what surrounds it.
    """
    count = max(sources.there.shape[1] for sources in each)
    pictures, disparities, poses, there = (
        torch.cat([F.pad(x, (0, 0) * (x.ndim - 2) + (0, count - x.shape[1])) for x in parts])
        for parts in zip(*(sources[:4] for sources in each), strict=True)
    )
    order, agree = (
        torch.cat(
            [poses.new_full((len(sources.there), 1, 1, 1), value) for value, sources in zip(values, each, strict=True)]
        )
        for values in zip(*(sources[4:] for sources in each), strict=True)
    )
    batch, height, width = len(there), *pictures.shape[-2:]
    known = disparities * there[..., None, None]
    view = fine(carry(known, relative(poses, torch.zeros_like(poses)), focal), height, width)
    at = view[:, None].expand(-1, count, -1, -1).flatten(0, 1)
    place, disparity, seen = project(at, poses.flatten(0, 1), focal)
    depths = F.interpolate(disparities.flatten(0, 1)[:, None], size=(height, width), mode="bilinear")
    both = torch.cat((pictures.flatten(0, 1).float(), depths), 1)
    # Bilinear would blur a dream a little more with every frame.
    found = F.grid_sample(both, place, mode="bicubic", padding_mode="border", align_corners=False)
    found, disparity = found.unflatten(0, (batch, count)), disparity.unflatten(0, (batch, count))
    own = found[:, :, -1]
    same = (disparity - own).abs() < agree * torch.maximum(disparity, own) + AGREE_ABOUT
    shown = (
        (seen & (place.abs() < 1).all(-1) & (at > EMPTY)).unflatten(0, (batch, count)) & same & there[..., None, None]
    )
    finer = (disparity.clamp_min(FLAT) / view[:, None].clamp_min(FLAT)).log()
    cost = torch.where(finer < 0, -COARSER * finer, FINER * finer)
    cost = cost + order * torch.arange(count, device=cost.device)[:, None, None]
    weight = (-SHARPNESS * cost).exp() * shown
    total = weight.sum(1)
    picture = (found[:, :, :-1] * weight[:, :, None]).sum(1) / total.clamp_min(1e-9)[:, None] / 127.5 - 1
    picture, drawn = surround(picture, total > 0), total > 0
    return list(zip(*(x.chunk(len(each)) for x in (picture, drawn, view)), strict=True))


def draw_pair(recalled: Sources | None, recent: Sources | None, focal: Tensor | float) -> list[tuple[Tensor, Tensor]]:
    """The views that memory and the last frames give, without disparities; either may be missing.

    Where the last frames see something else behind a remembered surface, that surface is gone (a gem that was taken,
    somebody who stood there) and must not come back out of an old picture. A player who stands still sees no further
    than before, so nothing is taken away then.
    """
    drawn = draw([sources for sources in (recalled, recent) if sources is not None], focal)
    if recalled is None or recent is None:
        return [drawn[0][:2]]
    moved = recent.poses[:, 0].abs().amax(1) > STANDS
    (picture, known, near), (shown, seen, far) = drawn
    apart = F.avg_pool2d((picture - shown).abs().amax(1, keepdim=True), 3, 1, 1, count_include_pad=False)[:, 0]
    through = (apart > COLOUR_DIFF) & (near > DEPTH_RATIO * far) & seen & moved[:, None, None]
    known = known & ~(F.max_pool2d(through.float()[:, None], 5, 1, 2)[:, 0].bool() & seen)
    return [(surround(picture, known), known), (shown, seen)]


def surround(picture_BCHW: Tensor, known_BHW: Tensor) -> Tensor:
    """Fill what is unknown with the mean of what is known around it, from coarser and coarser grids (pull and push,
    Grossman and Dally, 1998)."""
    known = known_BHW[:, None].to(picture_BCHW)
    levels = [(picture_BCHW * known, known)]
    while min(levels[-1][1].shape[-2:]) > 8:
        levels.append((F.avg_pool2d(levels[-1][0], 2), F.avg_pool2d(levels[-1][1], 2)))
    total, weight = (x.mean((2, 3), keepdim=True) for x in levels[-1])
    filled = total / weight.clamp_min(1e-6)
    for total, weight in reversed(levels):
        if filled.shape[-1] > 1:
            filled = F.interpolate(filled, size=weight.shape[-2:])
        filled = torch.where(weight > 0, total / weight.clamp_min(1e-6), filled)
    return filled


def align(picture_BCHW: Tensor, disparity_Bhw: Tensor, sources: Sources, focal: Tensor | float) -> Tensor:
    """How far ahead and aside (B, 2) of its assumed pose a picture was taken, judged by its sources, whose pictures are
    in its own range here.

    Half of one damped Gauss-Newton step on the difference between the picture and what the sources give for it, at the
    disparities' resolution. It corrects the drift of dead reckoning.
    """
    pictures_BRCHW, disparity_BRhw, sources_BR3, there_BR, *_ = sources
    batch, count, _, h, w = *pictures_BRCHW.shape[:3], *disparity_Bhw.shape[-2:]
    now = F.interpolate(picture_BCHW, size=(h, w), mode="area")
    then = F.interpolate(pictures_BRCHW.flatten(0, 1), size=(h, w), mode="area")
    then = torch.cat((then, disparity_BRhw.flatten(0, 1)[:, None]), 1).unflatten(0, (batch, 1, count))
    nudged = torch.tensor([[0.0, 0, 0], [NUDGE, 0, 0], [0, NUDGE, 0]], device=now.device)
    away = relative(nudged[None, :, None].expand(batch, -1, count, -1), sources_BR3[:, None].expand(-1, 3, -1, -1))
    each = disparity_Bhw[:, None, None].expand(-1, 3, count, -1, -1).flatten(0, 2)
    place, disparity, seen = project(each, away.flatten(0, 2), focal)
    then = then.expand(-1, 3, -1, -1, -1, -1).flatten(0, 2)
    found = F.grid_sample(then, place, padding_mode="border", align_corners=False).unflatten(0, (batch, 3, count))
    place, disparity, seen = (x.unflatten(0, (batch, 3, count))[:, 0] for x in (place, disparity, seen))
    own = found[:, 0, :, -1]
    agree = (disparity - own).abs() < 2 * AGREE * torch.maximum(disparity, own) + 2 * AGREE_ABOUT
    shown = seen & agree & (place.abs() < 1).all(-1) & there_BR[..., None, None]
    error = found[:, :, :, :-1] - now[:, None, None]
    slope = (error[:, 1:] - error[:, :1]) / NUDGE  # (B, 2, R, C, h, w)
    weight = shown / (error[:, 0].abs().mean(2) + 0.1)
    total = weight.sum((1, 2, 3)).clamp_min(1e-6)
    square = torch.einsum("birchw,bjrchw,brhw->bij", slope, slope, weight) / total[:, None, None]
    force = torch.einsum("birchw,brchw,brhw->bi", slope, error[:, 0], weight) / total[:, None]
    square = square + DAMPING * torch.eye(2, device=now.device)
    step = -torch.linalg.solve(square, force[..., None])[..., 0]
    enough = shown.float().mean((1, 2, 3)) > ENOUGH
    return 0.5 * step.clamp(-LARGEST, LARGEST) * enough[:, None]


# Visibility: of a frame only the horizon counts, a row of points on the plane. Of a view from anywhere on the plane it
# shows what can hide what.
DIRECTIONS, DEPTH_LEVELS = 16, 24  # of a view, and of the depth in each (logarithmic)
LEAST_DEPTH, FARTHEST_DEPTH = 0.1, 8.0  # in sides of a place
DISTANT = 1e-3  # the disparity below which depths cannot be told apart
MISJUDGED = 0.1  # share of the points in a direction that may be wrong
PARALLAX = 0.5  # cost of a frame as far away from the view as the surface: errors of depth then move the surface


def visibility(disparity_BKw: Tensor, away_BK3: Tensor, usable_BK: Tensor, focal: Tensor | float) -> Tensor:
    """How well each frame shows what is visible in each direction, 0 to 1 (B, K, D), by the disparity on its horizon.

    Memory chooses its sources by it.

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
