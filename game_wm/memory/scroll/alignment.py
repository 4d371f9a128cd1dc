"""How a screen that turns in its plane has gone and turned, read off the pictures: first by blocks, which finds far
steps among sprites, then to a fraction of a pixel and of a degree by Gauss-Newton steps on what both show (the inverse
compositional way of Baker and Matthews, 2004). What does not fit hardly counts, so sprites outvote nothing.

Legend: N pairs of pictures, C channels (red, green, blue, and how much is known), H, W screen, h, w source.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.scroll.blocks import ANGLES, Blocks
from game_wm.memory.scroll.plane import TO_RADIANS, Grid, seen_from, turned
from game_wm.memory.scroll.registration import CAPPED, LEAST_SHARED, TOLERANCE

HALF, REACH, BLOCK = 2, 7, 4  # times smaller are the pictures in which blocks are compared; pixels of these
BLURRED, SHARP = 4, 6  # Gauss-Newton steps on blurred pictures, then on sharp ones
BLUR = 5  # pixels
PART = 16  # pairs that are compared at once
STIFF = 1e-3  # keeps a step where the pictures say nothing, as a share of what they could say


class Aligned(NamedTuple):
    """Places float (N, 3): down, right, degrees; how far (N,) the pixels are off there, in grey levels of at most
    `CAPPED`, and the share (N,) that agrees of those that both show."""

    places: Tensor
    off: Tensor
    agreement: Tensor


def observe_turns(before_NHWC: Tensor, now_NHWC: Tensor, fixed_HW: Tensor, aspect: float) -> Aligned:
    """The steps between pictures uint8 (N, H, W, 3), one pair or more."""
    screen = Grid(fixed_HW.shape[0], fixed_HW.shape[1], aspect)
    own, parts = F.max_pool2d(fixed_HW[None].float(), HALF)[0] > 0, []
    for before, now in zip(before_NHWC.split(PART), now_NHWC.split(PART), strict=True):
        then, after = (F.avg_pool2d(x.movedim(3, 1).float(), HALF).round().byte().movedim(1, 3) for x in (before, now))
        _, coarse = Blocks(then, after, own, REACH, BLOCK).turning(ANGLES, aspect)
        coarse[:, :2] *= HALF
        parts.append(align(known_pixels(before, ~fixed_HW), now, fixed_HW, coarse, screen, screen))
    return Aligned(*(torch.cat(x) for x in zip(*parts, strict=True)))


def known_pixels(pictures_NHWC: Tensor, known_NHW: Tensor) -> Tensor:
    """Float (N, 4, H, W): the colours where they are known, and whether they are."""
    known = known_NHW.expand(pictures_NHWC.shape[:3]).float()[:, None]
    return torch.cat((pictures_NHWC[..., :3].movedim(3, 1) * known, known), 1)


def after_turn(pictures_NHWC: Tensor, steps_N3: Tensor, aspect: float) -> tuple[Tensor, Tensor]:
    """Pictures uint8 as a screen shows them after these steps, and where (N, H, W) they reach."""
    screen = Grid(pictures_NHWC.shape[1], pictures_NHWC.shape[2], aspect)
    all_of_it = torch.ones_like(pictures_NHWC[..., 0], dtype=torch.bool)
    seen = seen_from(known_pixels(pictures_NHWC, all_of_it), steps_N3, screen, screen)
    return seen[:, :3].movedim(1, 3).round().byte(), seen[:, 3] > 0.99


def align(
    source_N4hw: Tensor, now_NHWC: Tensor, fixed_HW: Tensor, places_N3: Tensor, source: Grid, screen: Grid,
    blurred: int = BLURRED,
) -> Aligned:  # fmt: skip
    """The places near those given, seen from the centre of the source, from which a screen shows the source as it is
    `now`. A place stays where too little is known of it."""
    whole = known_pixels(now_NHWC, ~fixed_HW)
    places, count = places_N3, fixed_HW.numel()
    if blurred:
        wide, far = (F.avg_pool2d(x, BLUR, 1, BLUR // 2) for x in (whole, source_N4hw))
        jacobian = _jacobian(wide, screen)
        for _ in range(blurred):
            places = _nearer(places, far, wide, jacobian, source, screen)
    jacobian = _jacobian(whole, screen)
    for _ in range(SHARP):
        places = _nearer(places, source_N4hw, whole, jacobian, source, screen)
    results = []
    for each in (places, places_N3):
        apart, votes = _apart(each, source_N4hw, whole, source, screen)
        counts, size = votes.sum((1, 2)), apart.abs().amax(1)
        off = (size.clamp_max(CAPPED) * votes).sum((1, 2)) / counts.clamp_min(1)
        off = torch.where(counts < LEAST_SHARED * count, CAPPED, off)
        results.append((each, off, ((size <= TOLERANCE) & votes).sum((1, 2)) / counts.clamp_min(1)))
    better = results[0][1] < results[1][1]
    return Aligned(*(torch.where(better.view(-1, *[1] * (x.dim() - 1)), x, y) for x, y in zip(*results, strict=True)))


def _apart(
    places_N3: Tensor, source_N4hw: Tensor, now_N4HW: Tensor, source: Grid, screen: Grid
) -> tuple[Tensor, Tensor]:
    """How the colours differ (N, 3, H, W) there, and where (N, H, W) both are known."""
    seen = seen_from(source_N4hw, places_N3, source, screen)
    colours, now = (x[:, :3] / x[:, 3:].clamp_min(1e-3) for x in (seen, now_N4HW))
    votes = (seen[:, 3] > 0.99) & (now_N4HW[:, 3] > 0.99)
    return (colours - now) * votes[:, None], votes


def _jacobian(now_N4HW: Tensor, screen: Grid) -> Tensor:
    """By how much the colours change (N, 3, 3, H, W) for a unit down, right, and a degree."""
    colours = now_N4HW[:, :3] / now_N4HW[:, 3:].clamp_min(1e-3)
    padded = F.pad(colours, (1, 1, 1, 1), mode="replicate")
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    right = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / (2 * screen.aspect)
    points = screen.points(now_N4HW.device)
    known = F.pad(now_N4HW[:, 3:], (1, 1, 1, 1), value=0)
    inside = -F.max_pool2d(-known, 3, 1) > 0.99  # no edges of the screen's own parts
    return torch.stack((down, right, (right * points[0] - down * points[1]) * TO_RADIANS), 1) * inside[:, None]


def _nearer(
    places_N3: Tensor, source_N4hw: Tensor, now_N4HW: Tensor, jacobian: Tensor, source: Grid, screen: Grid
) -> Tensor:
    """One Gauss-Newton step; pixels count by how well they fit (Geman and McClure)."""
    apart, votes = _apart(places_N3, source_N4hw, now_N4HW, source, screen)
    weights = votes / (1 + apart.square().amax(1) / CAPPED**2).square()
    weighted = (jacobian * weights[:, None, None]).flatten(2)
    plain = jacobian.flatten(2)
    hessian = weighted @ plain.mT
    stiff = torch.diag_embed((plain.square().sum(2) * STIFF).clamp_min(1.0))
    change = torch.linalg.solve(hessian + stiff, (weighted @ apart.flatten(1)[..., None]))[..., 0]
    change = change.clamp(-2, 2)
    degrees = places_N3[:, 2] - change[:, 2]
    return torch.cat((places_N3[:, :2] - turned(change[:, :2], degrees), degrees[:, None]), 1)
