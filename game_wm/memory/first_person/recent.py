"""The last frames, kept so that they can be drawn from where an action leads: what was in sight stays as it was.

A network that has to move every picture itself blurs it a little each time, and forgets what has just left the picture.
Here the geometry moves the picture; the network adds what is new and what moves by itself.

Legend: B players, T frames, C channels, h, w latent grid, H, W picture, E features of two frames, A action vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.camera import Sources
from game_wm.memory.first_person.geometry import BEFORE, Geometry
from game_wm.memory.first_person.obstacles import turned
from game_wm.memory.first_person.odometry import measured
from game_wm.memory.first_person.pose import move, seen_in, trace

AGES = (1, 2, 4, 8)  # of the frames that are drawn, each where those before it show nothing
KEPT = max(AGES)
PART = 64  # frames of a sequence that are read at once
ANY_DISPARITY = 1.0  # `Sources.agree`: frames so near hide little from each other, and depth is misjudged more often
STILL, STILL_TURN = 0.01, 1e-3  # the shortest step, in sides of a place, and the smallest turn, in radians
OLDER = 0.3  # `Sources.order`: the newest frame that shows a surface weighs most


@dataclass
class RecentFrames:
    """Frames in order, the newest last, and the player first in every tensor.

    `pictures` uint8 (B, T, 3, H, W); their `disparity` (B, T, 4h, 4w); `steps` (B, T, 3) and `actions` (B, T, A) that
    led to them and `poses` (B, T, 3), dead-reckoned; `pairs` (B, T, E), the motion network's features of each frame and
    the one before it; `there` bool (B, T).
    """

    pictures: Tensor
    disparity: Tensor
    steps: Tensor
    actions: Tensor
    poses: Tensor
    pairs: Tensor
    there: Tensor

    @classmethod
    def read(
        cls,
        geometry: Geometry,
        decode: Callable[[Tensor], Tensor],
        latents_BTChw: Tensor,
        actions_BTA: Tensor,
        frames_BTHWC: Tensor | None = None,
        steps_BT3: Tensor | None = None,
    ) -> RecentFrames:
        """Of a sequence of any length, whose first frame is at pose zero: `decode` shows latents as uint8 (N, H, W, 3),
        where their frames are not given; `actions[:, t]` led from frame t to t + 1. `steps` that led to the frames, the
        first of them zero, are read off the pictures where they are not known."""
        batch, time = latents_BTChw.shape[:2]
        before, parts = torch.cat((latents_BTChw[:, :1], latents_BTChw[:, :-1]), 1), []
        for part in (slice(i, i + PART) for i in range(0, time, PART)):
            past, now = before[:, part].flatten(0, 1), latents_BTChw[:, part].flatten(0, 1)
            shown = decode(now) if frames_BTHWC is None else frames_BTHWC[:, part].flatten(0, 1)
            found = shown.permute(0, 3, 1, 2), geometry.depth(now).float(), features(geometry, past, now)
            parts.append([x.unflatten(0, (batch, -1)) for x in found])
        pictures, disparity, pairs = (torch.cat(x, 1) for x in zip(*parts, strict=True))
        led = torch.cat((torch.zeros_like(actions_BTA[:, :1]), actions_BTA[:, : time - 1]), 1)
        if led.shape[1] < time:  # of a single frame
            led = pairs.new_zeros(batch, time, actions_BTA.shape[-1])
        if steps_BT3 is None:
            steps = geometry.motion.reckon(pairs[:, 1:], led[:, 1:], lambda step: steady(geometry, step))
            if geometry.motion.inertia and time > 1:
                each = zip(pictures, disparity, pairs[:, 1:], steps, led[:, 1:], strict=True)
                steps = torch.stack([steady(geometry, measured(geometry, *of_one)) for of_one in each])
            steps_BT3 = F.pad(steps, (0, 0, 1, 0))
        there = torch.ones(batch, time, dtype=torch.bool, device=pairs.device)
        return cls(pictures, disparity, steps_BT3, led, trace(steps_BT3[:, 1:]), pairs, there)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.pictures, self.disparity, self.steps, self.actions, self.poses, self.pairs, self.there

    def before(self, frame: int) -> RecentFrames:
        """The `KEPT` frames before this number (from the first of these on), copied; absent ones stand in front."""
        first, parts = max(0, frame - KEPT), []
        for x in self.tensors():
            missing = x.new_zeros(x.shape[0], KEPT - (frame - first), *x.shape[2:])
            parts.append(torch.cat((missing, x[:, first:frame]), 1))
        return RecentFrames(*parts)

    def push(
        self, picture_B3HW: Tensor, disparity_Bhw: Tensor, step_B3: Tensor, action_BA: Tensor, pair_BE: Tensor
    ) -> None:
        """Take a frame in, in place, and let go of the oldest."""
        pose, there = move(self.poses[:, -1], step_B3), torch.ones_like(self.there[:, 0])
        new = (picture_B3HW, disparity_Bhw, step_B3, action_BA.to(self.actions), pose, pair_BE, there)
        kept = (torch.cat((old[:, 1:], value[:, None]), 1) for old, value in zip(self.tensors(), new, strict=True))
        self.pictures, self.disparity, self.steps, self.actions, self.poses, self.pairs, self.there = kept

    def past(self, geometry: Geometry) -> Tensor:
        """The past of the next step, as the motion network reads it."""
        return geometry.motion.past(self.steps[:, -BEFORE:], self.actions[:, -BEFORE:])

    def blocked_motion(self, geometry: Geometry) -> Tensor:
        """The last step, and the part of it that something blocked (B, 2, 2), as the player now stands."""
        before = geometry.motion.past(self.steps[:, -BEFORE - 1 : -1], self.actions[:, -BEFORE - 1 : -1])
        step, known = self.steps[:, -1], self.there[:, -BEFORE - 1, None]
        blocked = (step - geometry.motion.unhindered(self.actions[:, -1], before)) * known
        return turned(torch.stack((step, blocked), 1)[..., :2], step[:, None, 2])

    def blocked_motions(self, geometry: Geometry) -> Tensor:
        """The blocked part of every step of a sequence (B, T, 2), as the player then stands. Zero for the first steps,
        whose own past is not known."""
        steps, actions = self.steps[:, 1:], self.actions[:, 1:]
        pasts = geometry.motion.pasts(steps, actions)[:, :-1]
        free = geometry.motion.unhindered(actions.flatten(0, 1), pasts.flatten(0, 1)).unflatten(0, steps.shape[:2])
        blocked = F.pad(turned((steps - free)[..., :2], steps[..., 2])[:, BEFORE - 1 :], (0, 0, BEFORE, 0))
        return blocked[:, : self.steps.shape[1]]

    def sources(self, geometry: Geometry, step_B3: Tensor) -> Sources:
        """What is drawn from where this step leads."""
        to = move(self.poses[:, -1], step_B3)
        pictures, disparity, poses, there = (
            torch.stack([x[:, -age] for age in AGES], 1)
            for x in (self.pictures, self.disparity, self.poses, self.there)
        )
        poses = seen_in(to[:, None], poses, geometry.config.place)
        return Sources(pictures, disparity, poses, there, OLDER, ANY_DISPARITY)


def steady(geometry: Geometry, step_B3: Tensor) -> Tensor:
    """The step without its noise: a player who stands still for long must not creep away."""
    moved = step_B3[:, :2].norm(dim=1, keepdim=True) > STILL * geometry.config.place
    return step_B3 * torch.cat((moved, moved, step_B3[:, 2:].abs() > STILL_TURN), 1)


def features(geometry: Geometry, before: Tensor, now: Tensor) -> Tensor:
    """The motion network's features of pairs of latents (N, C, h, w), in 32 bits: rounding would add up."""
    with torch.autocast(now.device.type, enabled=False):
        return geometry.motion.pair(before.float(), now.float())
