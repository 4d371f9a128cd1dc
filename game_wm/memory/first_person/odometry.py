"""Visual odometry: how far a player has moved from one real frame to the next, by drawing one from the other.

The motion network reads a step off two latents at once and is a few pixels off in rare situations. With a picture's
depth a step can be tried out. Each of several guesses (the network's, no step, the free step) is improved by direct
alignment from coarse to fine (Gauss-Newton, `camera.align`), and the one that draws the picture best is taken. A step's
past consists of the steps before, so the guesses improve with every sweep.

Legend: L steps between L + 1 frames, H, W pixels, h, w grid of disparities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.camera import Sources, align, project
from game_wm.memory.first_person.geometry import Geometry
from game_wm.memory.first_person.pose import move, seen_in

COARSE, FINE = ((4, 3), (2, 3)), ((2, 2),)  # times smaller than disparities, and how often a step is improved there
LAST = ((1, 2),)
SWEEPS = 3
JUDGED = 2  # times smaller than disparities are the pictures that are compared
PART = 16  # steps that are improved at once: what a processor's cache holds


@torch.no_grad()
def measured(
    geometry: Geometry,
    pictures_L3HW: Tensor,
    disparity_Lhw: Tensor,
    pairs_LE: Tensor,
    steps_L3: Tensor,
    actions_LA: Tensor,
) -> Tensor:
    """The steps (L, 3) between frames: `pictures` uint8 (L + 1, 3, H, W) and `disparity` (L + 1, h, w) of one sequence;
    `pairs` (L, E) and `steps` as the motion network has read them, `actions` (L, A) that led to them.

    Turns stay as they are: an action alone tells them (`geometry.Motion`)."""
    size = disparity_Lhw.shape[-2:]
    shown = torch.cat(
        [F.interpolate(part.float() / 127.5 - 1, size=size, mode="area") for part in pictures_L3HW.split(64)]
    )
    near, motion = disparity_Lhw, geometry.motion

    def improved(steps: Tensor, plan: tuple[tuple[int, int], ...]) -> Tensor:
        for smaller, times in plan:
            frames, depths = F.avg_pool2d(shown, smaller), F.avg_pool2d(near[:, None], smaller)[:, 0]
            for _ in range(times):
                parts = zip(
                    *(x.split(PART) for x in (frames[1:], depths[1:], frames[:-1], depths[:-1], steps)), strict=True
                )
                steps = torch.cat([_better(geometry, *part) for part in parts])
        return steps

    def best(*guesses: Tensor) -> Tensor:
        frames, depths = F.avg_pool2d(shown, JUDGED), F.avg_pool2d(near[:, None], JUDGED)[:, 0]
        error = torch.stack([apart(geometry, frames[1:], depths[1:], frames[:-1], guess) for guess in guesses])
        return torch.stack(guesses)[error.argmin(0), torch.arange(len(steps_L3), device=error.device)]

    none = torch.cat((torch.zeros_like(steps_L3[:, :2]), steps_L3[:, 2:]), 1)
    steps = best(steps_L3, improved(steps_L3, COARSE), improved(none, COARSE))
    for _ in range(SWEEPS):
        past = motion.pasts(steps[None], actions_LA[None])[0, :-1]
        usual = motion.unhindered(actions_LA, past)
        start = best(usual, motion.estimate_step(pairs_LE, actions_LA, past))
        steps = best(steps, usual, improved(start, FINE))
    return best(steps, improved(steps, LAST))


def _better(geometry: Geometry, now: Tensor, near: Tensor, then: Tensor, near_then: Tensor, steps: Tensor) -> Tensor:
    """Steps after one Gauss-Newton step."""
    place = geometry.config.place
    there = torch.ones(len(now), 1, dtype=torch.bool, device=now.device)
    sources = Sources(then[:, None], near_then[:, None], _seen(geometry, steps)[:, None], there)
    off = 2 * align(now, near, sources, geometry.focal)  # which goes half of the way
    return move(steps, F.pad(off * place, (0, 1)))


def _seen(geometry: Geometry, steps: Tensor) -> Tensor:
    """The poses from which these steps led, seen from where they led, in sides of a place and radians."""
    return seen_in(steps, torch.zeros_like(steps), geometry.config.place)


def apart(geometry: Geometry, now_L3hw: Tensor, near_Lhw: Tensor, then_L3hw: Tensor, steps_L3: Tensor) -> Tensor:
    """How far (L,) pictures are from what those before give, if these steps led to them."""
    place, _, seen = project(near_Lhw, _seen(geometry, steps_L3), geometry.focal)
    given = F.grid_sample(then_L3hw, place, padding_mode="border", align_corners=False)
    inside = seen & (place.abs() < 1).all(-1)
    error = (given - now_L3hw).abs().mean(1) * inside
    return error.sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
