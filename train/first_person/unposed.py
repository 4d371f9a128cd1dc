"""Motion without recorded poses: steps, depth and focal length are learnt together, from how frames give each other.

The motion network's steps take the poses' place in the photometric losses. The size of the world is free, so the mean
disparity of a picture is pinned. This teaches what an action does, but not whether something is in the way: that
gradient is mostly noise and kills the image branch. So after a while candidate steps are tried (`best_steps`): which
part of the usual step gives the next frame best?

Legend: B windows, T frames of a window, A action vector, E features of a pair of frames, N steps, K candidates.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.camera import project
from game_wm.memory.first_person.geometry import Geometry, Motion
from game_wm.memory.first_person.pose import relative, trace
from game_wm.model.tokenizer import Tokenizer
from train.first_person.photometric import depth_losses
from train.first_person.steps import usual_loss

MEAN_DISPARITY, PINNED = 0.5, 0.02  # of a picture, and the weight of its being so
TRIED = 4  # steps of a window that candidates are tried for
ANGLES = (0, 18, -18, 36, -36, 54, -54, 72, -72, 90)  # degrees from the step to where one slides; 90: one is stopped
BETTER = 0.9  # times the error of the usual step: what another one's must be below


def unposed_losses(
    geometry: Geometry, tokenizer: Tokenizer, latents_BTChw: Tensor, actions_BTA: Tensor,
    distant: int, pairs: int, smooth: float, trying: bool,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """The loss of windows without poses, and its parts.

    Args:
        distant, smooth: of the photometric losses; see `GeometryModule`.
        pairs: pairs of frames around each target that motion learns from.
        trying: candidate steps are tried, and how far an action leads is no longer learnt from the pictures.
    """
    motion, (batch, time) = geometry.motion, latents_BTChw.shape[:2]
    target = torch.randint(time, (batch, 1), device=latents_BTChw.device)
    pair = pair_features(motion, latents_BTChw, target, pairs)
    pair = pair if trying else pair.detach()
    previous = actions_BTA[:, :-1]
    past = motion.pasts(motion.reckon(pair, previous), previous)
    flat = (x.flatten(0, 1) for x in (pair, previous, past[:, :-1]))
    observed = motion.estimate_step(*flat).unflatten(0, previous.shape[:2])
    steps = torch.cat((observed[..., :2].detach(), observed[..., 2:]), -1) if trying else observed
    photo, other, rough, disparity = depth_losses(geometry, tokenizer, latents_BTChw, trace(steps), target, distant)
    # A step is predicted from the one before it.
    goal = steps.detach()[:, 1:].flatten(0, 1)
    known = motion.pasts(steps.detach(), previous)[:, 1:-1].flatten(0, 1)
    forecast = motion.predict_step(pair[:, :-1].flatten(0, 1), previous[:, 1:].flatten(0, 1), known)
    forecast = ((forecast - goal) / motion.unit)[..., :2].square().mean()
    size = (disparity.mean((1, 2)).log().mean() - math.log(MEAN_DISPARITY)).square()
    moved = steps.detach()[..., :2].norm(dim=-1).mean() / geometry.config.place
    figures = {"photo": photo, "distant": other, "coming": forecast, "size": size, "moved": moved}
    figures |= {"focal": geometry.focal.detach().clone()}
    loss = photo + other + smooth * rough + 0.1 * forecast + PINNED * size
    if not trying:
        return loss + 0.1 * usual_loss(motion, previous, past[:, :-1], steps.detach()), figures
    count = min(TRIED, time - 1)
    at = target.clamp_max(time - 1 - count) + torch.arange(count + 1, device=target.device)
    rows = torch.arange(batch, device=target.device)[:, None]
    actions, past, observed = (x[rows, at[:, :-1]].flatten(0, 1) for x in (actions_BTA, past, observed))
    goal = best_steps(geometry, tokenizer, latents_BTChw[rows, at], motion.unhindered(actions, past))
    found = ((observed - goal) / motion.unit)[..., :2].square().mean()
    return loss + 0.1 * found, figures | {"was": found}


@torch.no_grad()
def best_steps(geometry: Geometry, tokenizer: Tokenizer, latents_BTChw: Tensor, usual_N3: Tensor) -> Tensor:
    """The steps (N, 3) from frame to frame of windows, by trying: an action's usual one, or what is left of it where
    something is in the way, if that gives the one picture from the other better.

    Sliding along a wall loses the part of a step that goes against it: what is left lies on a circle, from all of the
    step to none.
    """
    device, count = usual_N3.device, len(ANGLES)
    angle = torch.tensor(ANGLES, device=device).deg2rad()[:, None]
    along, (ahead, aside) = usual_N3[:, None, :2], usual_N3[:, None, :2].unbind(-1)
    across = torch.stack((-aside, ahead), -1)
    left = angle.cos().square() * along + angle.cos() * angle.sin() * across  # (N, K, 2)
    steps = torch.cat((left, usual_N3[:, None, 2:].expand(-1, count, -1)), -1)
    disparity = geometry.depth(latents_BTChw[:, 1:].flatten(0, 1))
    frames = tokenizer.decode_images(latents_BTChw.flatten(0, 1)).float().clamp(-1, 1)
    frames = F.interpolate(frames, size=disparity.shape[-2:], mode="area").unflatten(0, latents_BTChw.shape[:2])
    then, now = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    away = relative(steps, torch.zeros_like(steps)).flatten(0, 1)
    away = torch.cat((away[:, :2] / geometry.config.place, away[:, 2:]), 1)
    each = lambda x: x[:, None].expand(-1, count, *x.shape[1:]).flatten(0, 1)  # noqa: E731
    place, _, seen = project(each(disparity), away, geometry.focal)
    given = F.grid_sample(each(then), place, padding_mode="border", align_corners=False)
    inside = seen & (place.abs() < 1).all(-1)
    error = ((given - each(now)).abs().mean(1) * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
    error = error.view(-1, count)
    error[:, 0] *= BETTER
    return steps[torch.arange(len(steps), device=device), error.argmin(1)]


def pair_features(motion: Motion, latents_BTChw: Tensor, target_B1: Tensor, pairs: int) -> Tensor:
    """Motion features (B, T - 1, E) of successive frames; only `pairs` of them around each target have a gradient."""
    pair, last = motion.pair, latents_BTChw.shape[1] - 1
    rows = torch.arange(len(latents_BTChw), device=latents_BTChw.device)[:, None]
    near = (target_B1 - pairs // 2).clamp(0, max(0, last - pairs))
    near = near + torch.arange(min(pairs, last), device=near.device)
    before, now = latents_BTChw[rows, near].flatten(0, 1), latents_BTChw[rows, near + 1].flatten(0, 1)
    found = pair(before, now).unflatten(0, near.shape)
    if last == near.shape[1]:
        return found
    with torch.no_grad():
        whole = pair(latents_BTChw[:, :-1].flatten(0, 1), latents_BTChw[:, 1:].flatten(0, 1))
        whole = whole.unflatten(0, (len(latents_BTChw), last))
    return whole.scatter(1, near[..., None].expand_as(found), found.to(whole))
