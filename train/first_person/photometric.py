"""Depth without labels: a frame's disparity is right when other frames, looked up where it says, give that frame.

At each pixel the better of two nearby frames counts (Zhou et al., 2017; Godard et al., 2019). Frames from far away in a
window count as well, where their own disparity agrees (Bian et al., 2019): memory draws from such frames, and nearby
ones forgive errors that move these. Pictures are compared at full size and four times smaller: an error of more than a
pixel has a gradient only in the small ones. Frames are decoded from latents, as they are in play.

Legend: B windows, T frames of a window, S source frames, C channels, h, w latent grid, H, W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.camera import project
from game_wm.memory.first_person.geometry import Geometry
from game_wm.memory.first_person.pose import relative
from game_wm.model.tokenizer import Tokenizer

NEARBY_SOURCES = 2  # frames near a target that it is looked up in
NEARBY_FRAMES = 8  # the most frames between a target and a nearby source
SCALES = (1, 4)  # times smaller are the pictures that are compared
UNSEEN = 0.02  # weight of the disparity of pixels that no nearby frame shows
AGREE, AGREE_ABOUT = 0.3, 0.03  # how far disparities of distant frames may differ: relative and absolute


class DepthLosses(NamedTuple):
    """How targets differ from nearby and from distant sources, how rough the disparity is, and the disparity (B, 4h,
    4w)."""

    photo: Tensor
    distant: Tensor
    rough: Tensor
    disparity: Tensor


def depth_losses(
    geometry: Geometry, tokenizer: Tokenizer, latents_BTChw: Tensor, pose_BT3: Tensor, target_B1: Tensor, distant: int
) -> DepthLosses:
    """The losses of one frame of each window, number `target`, from nearby frames and `distant` ones from anywhere."""
    (batch, time), device = latents_BTChw.shape[:2], latents_BTChw.device
    rows = torch.arange(batch, device=device)[:, None]
    apart = torch.rand(batch, 2 * NEARBY_FRAMES, device=device).argsort(1)[:, :NEARBY_SOURCES]
    apart = 1 + apart - NEARBY_FRAMES
    near = target_B1 + apart - (apart <= 0).long()  # never the target itself
    near = torch.where((near < 0) | (near >= time), 2 * target_B1 - near, near).clamp(0, time - 1)
    far = torch.randint(time, (batch, distant), device=device)
    order = torch.cat((target_B1, near, far), 1)
    with torch.no_grad():
        frames = tokenizer.decode_images(latents_BTChw[rows, order].flatten(0, 1)).float().clamp(-1, 1)
        target, sources = frames.unflatten(0, (batch, -1)).split((1, NEARBY_SOURCES + distant), 1)
        theirs = geometry.depth(latents_BTChw[rows, far].flatten(0, 1))[:, None]
    disparity = geometry.depth(latents_BTChw[rows, target_B1].flatten(0, 1))[:, None]
    away = relative(pose_BT3[rows, target_B1], pose_BT3[rows, order[:, 1:]]).flatten(0, 1)
    away = torch.cat((away[:, :2] / geometry.config.place, away[:, 2:]), 1)
    pooled = lambda x, by: F.avg_pool2d(x.flatten(0, 1), by).unflatten(0, x.shape[:2])  # noqa: E731
    losses = [
        source_errors(pooled(target, by), pooled(sources, by), disparity, theirs, away, geometry.focal) for by in SCALES
    ]
    photo, other = (torch.stack(part).mean() for part in zip(*losses, strict=True))
    small = F.interpolate(target[:, 0], size=disparity.shape[-2:], mode="area")
    rough = disparity.new_zeros(())
    for axis in (-1, -2):
        edge = small.diff(dim=axis).abs().mean(1, keepdim=True)
        rough = rough + (disparity.diff(dim=axis).abs() * (-4 * edge).exp()).mean()
    return DepthLosses(photo, other, rough / disparity.mean(), disparity[:, 0])


def source_errors(
    target_B13HW: Tensor, sources_BS3HW: Tensor, disparity_B1hw: Tensor, theirs: Tensor, away: Tensor, focal: Tensor
) -> tuple[Tensor, Tensor]:
    """How targets differ from what sources give where `disparity` says: from nearby sources, which come first, and from
    distant ones.

    `theirs` (B * distant, 1, h, w): the distant sources' own disparity. `away` (B * S, 3): the sources' poses as the
    target sees them, in places.
    """
    batch, count = sources_BS3HW.shape[:2]
    split = (NEARBY_SOURCES, count - NEARBY_SOURCES)
    whole = F.interpolate(disparity_B1hw, size=target_B13HW.shape[-2:], mode="bilinear", align_corners=False)
    place, there, seen = project(whole.expand(-1, count, -1, -1).flatten(0, 1), away, focal)
    given = F.grid_sample(sources_BS3HW.flatten(0, 1), place, padding_mode="border", align_corners=False)
    error = difference(given, target_B13HW.expand(-1, count, -1, -1, -1).flatten(0, 1))
    inside = seen & (place.abs() < 1).all(-1)
    nearby, distant = error.unflatten(0, (batch, count)).split(split, 1)
    inside, inside_far = inside.unflatten(0, (batch, count)).split(split, 1)
    best, found = nearby.masked_fill(~inside, 9.0).amin(1), inside.any(1)
    # Occlusions: the lesser error of two nearby frames leaves them out; in distant frames their own disparity does.
    place, there = (x.unflatten(0, (batch, count))[:, NEARBY_SOURCES:].flatten(0, 1) for x in (place, there))
    own = F.grid_sample(theirs, place, padding_mode="border", align_corners=False)[:, 0]
    same = (there.detach() - own).abs() < AGREE * torch.maximum(there.detach(), own) + AGREE_ABOUT
    agree = inside_far & same.unflatten(0, (batch, split[1]))
    # A disparity so large that no frame shows the pixel would otherwise have no gradient again.
    unseen = (whole[:, 0] * ~found).mean()
    photo = (best * found).sum() / found.sum().clamp_min(1) + UNSEEN * unseen
    return photo, (distant * agree).sum() / agree.sum().clamp_min(1)


def difference(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """How two pictures in [-1, 1] differ at each pixel (B, H, W): half L1, half structural (Wang et al., 2004)."""
    mean = lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)  # noqa: E731
    a, b = mean(a_BCHW), mean(b_BCHW)
    spread = mean(a_BCHW * a_BCHW) - a * a + mean(b_BCHW * b_BCHW) - b * b
    alike = (2 * a * b + 4e-4) * (2 * (mean(a_BCHW * b_BCHW) - a * b) + 3.6e-3)
    alike = alike / ((a * a + b * b + 4e-4) * (spread + 3.6e-3))
    return 0.5 * (a_BCHW - b_BCHW).abs().mean(1) + 0.25 * (1 - alike.mean(1))
