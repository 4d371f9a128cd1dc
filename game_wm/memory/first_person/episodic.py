"""Episodic memory: what a place looked like, first and last, found again by where the player is.

A *place* is a square of the plane together with a range of headings. Of every place the store keeps two frames, the
first one seen there and the newest: the first is no copy of copies, the newest knows what has changed. `choose` picks
the frames from which a view is drawn (`camera.py`); making training data (`train/first_person/draw_views.py`) and
play use the same. In play a pose begins at zero and is dead-reckoned.

The store is bounded and its cost constant: places are hashed to sets of `WAYS` slots, and where a set is full the
place that was visited longest ago makes room; a look-up compares all slots' poses at once.

Legend: B players, S slots, F = 2 (first, newest), H, W picture, h, w disparity, K frames compared, D directions of a
view, R frames recalled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.atlas import Atlas
from game_wm.memory.first_person.camera import EMPTY, align, rays
from game_wm.memory.first_person.obstacles import horizon, seen_from, turned
from game_wm.memory.first_person.pose import move, relative, wrap
from game_wm.memory.protocol import NEVER

WAYS = 4
LIMIT = 2**14  # places are counted modulo twice this, along each axis
YOUNG = 4  # frames of this age or less are not recalled: the denoiser sees them whole
FAR = 8.0  # how far away it looks, in places
NEAR = 128  # of the nearest frames so many are compared
AROUND = 192  # and so many are asked what is around the player
DIRECTIONS, LEVELS = 16, 24  # of a view, and of depth in it
NEAREST, DISTANT = 0.1, 1e-3  # the least depth, and the disparity of what is too far off to be told apart
FEW = 0.1  # the share of all that is seen in a direction that may be misjudged
PARALLAX = 0.5  # cost of being as far away from the view as the surface is: what depth gets wrong moves it then
FRESH, RATHER_OLD = 32, 0.7  # what is younger counts for less: it may be a copy of what is older
LEAST = 0.3  # of a direction must be shown that others do not
MENDED = 0.5  # of a step's length at most is a position put right
BEATEN = 0.35  # of a step's length: as near as that to where he has been, nothing is in the way
EXACT, ALIKE = 0.02, 0.03  # of a step's length, and radians: two poses that are less apart are one
CLOSE = 0.01  # of a place: a step of no length counts as so long
NOWHERE = 1e6
ALIGNED = 2  # frames by which a position is put right


@dataclass(frozen=True)
class Places:
    """How poses are divided: `side` of a square in the pose's own units, `headings` to a full turn. With `growing`,
    every frame is kept instead, in a bank without bounds: to compare with, not to play with."""

    side: float
    headings: int
    growing: bool = False

    def key(self, pose: Tensor) -> Tensor:
        """One int64 (...,) for the place of each pose (..., 3)."""
        x, y = (((pose[..., i] / self.side).floor().long() + LIMIT) % (2 * LIMIT) for i in (0, 1))
        heading = (pose[..., 2] * (self.headings / math.tau)).floor().long() % self.headings
        return (x * 2 * LIMIT + y) * self.headings + heading


@dataclass
class EpisodicMemory:
    """The store of B players and where they are; the player is the first axis of every tensor.

    `keys` (B, S), -1 where empty; `pictures` uint8 (B, S, F, 3, H, W) and their `disparity` (B, S, F, h, w) in 16 bits;
    `poses` (B, S, F, 3); `times` (B, S, F); `pose` (B, 3) of the last frame; `trail` (B, T, 5), a ring of the last
    poses, `NOWHERE` where there is none, and of what was lost of the steps that led there to what was in the way.
    """

    keys: Tensor
    pictures: Tensor
    disparity: Tensor
    poses: Tensor
    times: Tensor
    pose: Tensor
    trail: Tensor

    @classmethod
    def start(
        cls, players: int, slots: int, picture: tuple[int, ...], disparity: tuple[int, ...], device: str, trail: int = 0
    ) -> EpisodicMemory:
        """Empty, for pictures (3, H, W) and disparities (h, w) of these shapes and a trail of so many poses."""
        slots = slots // WAYS * WAYS
        zeros = lambda *shape, dtype=torch.float32: torch.zeros(players, *shape, dtype=dtype, device=device)  # noqa: E731
        return cls(
            zeros(slots, dtype=torch.long) - 1,
            zeros(slots, 2, *picture, dtype=torch.uint8),
            zeros(slots, 2, *disparity, dtype=torch.half),
            zeros(slots, 2, 3),
            zeros(slots, 2, dtype=torch.long),
            zeros(3),
            F.pad(zeros(trail, 3) + NOWHERE, (0, 2)),
        )

    def write(
        self,
        places: Places,
        pictures_B3HW: Tensor,
        disparity_Bhw: Tensor,
        poses_B3: Tensor,
        times_B: Tensor,
        lost_B2: Tensor | None = None,
    ) -> None:
        """Keep a frame of every player, where it was taken, and what was lost of the step there, as he stands."""
        if self.trail.shape[1]:
            at = (times_B % self.trail.shape[1])[:, None, None].expand(-1, 1, self.trail.shape[2])
            lost = torch.zeros_like(poses_B3[:, :2]) if lost_B2 is None else turned(lost_B2, -poses_B3[:, 2])
            self.trail.scatter_(1, at, torch.cat((poses_B3, lost), 1)[:, None])
        if places.growing:
            self._append(pictures_B3HW, disparity_Bhw, poses_B3, times_B)
            return
        key = places.key(poses_B3)
        # Multiplicative hashing into sets of slots.
        first = ((key * -7046029254386353131) >> 33) % (self.keys.shape[1] // WAYS) * WAYS
        ways = first[:, None] + torch.arange(WAYS, device=key.device)  # (B, WAYS)
        found = self.keys.gather(1, ways)
        same = found == key[:, None]
        # Its own slot, else an empty one, else that of the place visited longest ago.
        visited = self.times[..., 1].gather(1, ways).masked_fill(found < 0, -1).masked_fill(same, -2)
        slot = ways.gather(1, visited.argmin(1, keepdim=True))[:, 0]
        players, known = torch.arange(len(slot), device=slot.device), same.any(1)
        self.keys[players, slot] = key
        new = {"pictures": pictures_B3HW, "disparity": disparity_Bhw, "poses": poses_B3, "times": times_B}
        for name, value in new.items():
            kept = getattr(self, name)
            first = kept[players, slot, 0]
            value = value.to(kept.dtype)
            kept[players, slot, 0] = torch.where(known.view(-1, *[1] * (value.ndim - 1)), first, value)
            kept[players, slot, 1] = value

    def _append(self, pictures: Tensor, disparity: Tensor, poses: Tensor, times: Tensor) -> None:
        """Keep a frame in the next slot, and double the slots when they are full."""
        slot = (self.keys >= 0).sum(1)
        if int(slot.max()) >= self.keys.shape[1]:
            for name, empty in (("keys", -1), ("pictures", 0), ("disparity", 0), ("poses", 0), ("times", 0)):
                old = getattr(self, name)
                setattr(self, name, torch.cat((old, torch.full_like(old, empty)), 1))
        players = torch.arange(len(slot), device=slot.device)
        self.keys[players, slot] = slot
        self.times[players, slot, 1] = NEVER  # there is no newest one beside it
        new = {"pictures": pictures, "disparity": disparity.to(self.disparity.dtype), "poses": poses, "times": times}
        for name, value in new.items():
            getattr(self, name)[players, slot, 0] = value

    def predict_step(self, places: Places, step_B3: Tensor, unhindered_B3: Tensor) -> tuple[Tensor, Tensor]:
        """The step to come (B, 3), and whether it is sure (B, 1). `step` is what pictures make of it, `unhindered` what
        the action does where nothing is in the way.

        Near to where the player has been, nothing is, though he may not see it (who steps back). From a pose that is on
        the trail to one just before or after it he gets exactly there, so that errors do not add up when he goes to and
        fro; and an action that only turns leads nowhere else. These two are sure."""
        to, turn = move(self.pose, unhindered_B3), unhindered_B3[:, 2:].abs()
        length = unhindered_B3[:, :2].norm(dim=-1, keepdim=True)
        still, reach = length == 0, length.clamp_min(CLOSE * places.side)
        alike = torch.where(turn > 0, BEATEN * turn, ALIKE).clamp_max(ALIKE)
        apart, unlike = self._from_trail(to)
        away, askew = self._from_trail(self.pose)
        here = (away < EXACT * reach) & (askew < alike)
        beside = (here.roll(1, 1) | here.roll(-1, 1)) & (apart < BEATEN * reach) & (unlike < alike)
        free = apart.amin(1, keepdim=True) < BEATEN * reach
        apart, nearest = apart.masked_fill(~beside, math.inf).min(1, keepdim=True)
        again = (apart < math.inf) & ((length > 0) | (turn > 0))
        there = self.trail[..., :3].gather(1, nearest[..., None].expand(-1, -1, 3))[:, 0]
        there = torch.cat((there[:, :2], torch.where(turn > 0, there, to)[:, 2:]), 1)
        step = torch.where(free | still, unhindered_B3, step_B3)
        return torch.where(again, relative(self.pose, there), step), again | still

    def _from_trail(self, pose_B3: Tensor) -> tuple[Tensor, Tensor]:
        """How far (B, T) and by what angle the poses of the trail are from this one."""
        apart = (self.trail[..., :2] - pose_B3[:, None, :2]).norm(dim=-1)
        return apart, wrap(self.trail[..., 2] - pose_B3[:, None, 2]).abs()

    def arrive(
        self,
        places: Places,
        step_B3: Tensor,
        pictures_B3HW: Tensor,
        disparity_Bhw: Tensor,
        times_B: Tensor,
        focal: Tensor,
        sure: bool = False,
        lost_B2: Tensor | None = None,
    ) -> None:
        """A real frame, which this step led to: the players move, are put right by what is known of where they are,
        unless the step is `sure`, and it is kept. In a dream they only `move`: what it shows was drawn from there."""
        self.pose = move(self.pose, step_B3)
        if not sure:
            which, _, there = self.choose(places, self.pose, times_B, ALIGNED, focal)
            # Where nobody has moved, nothing has gone wrong.
            most = step_B3[:, :2].norm(dim=1, keepdim=True) * MENDED
            if (there & (most > 0)).any():
                pictures, disparity = self.frames(which)
                sources = self.seen_from(places, self.pose, which)
                then, now = pictures.float() / 127.5 - 1, pictures_B3HW.float() / 127.5 - 1
                off = align(now, disparity_Bhw, then, disparity, sources, there, focal) * places.side
                off = off * (most / off.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
                self.pose = move(self.pose, F.pad(off, (0, 1)))
        self.write(places, pictures_B3HW, disparity_Bhw, self.pose, times_B, lost_B2)

    def choose(
        self,
        places: Places,
        pose_B3: Tensor,
        now_B: Tensor,
        views: int,
        focal: Tensor | float,
        young: Tensor | int = YOUNG,
        atlas: Atlas | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The frames for a view from `pose` at time `now`, none of the last `young` ones (B,): each the one that shows
        most of what those before it do not.

        Returns which (B, R) of the S * F, R = `views`, their poses as seen from `pose` (B, R, 3), in sides of a place
        and radians, and whether there is one (B, R).
        """
        among, away, shown = self.shown(places, pose_B3, now_B, focal, young, atlas)
        best, chosen = torch.zeros_like(shown[:, :1]), []
        for _ in range(views):
            gain, each = (shown - best).clamp_min(0).sum(-1).max(1)
            best = torch.maximum(best, shown.gather(1, each[:, None, None].expand_as(best)))
            chosen.append((each, gain > LEAST))
        each, there = (torch.stack(x, 1) for x in zip(*chosen, strict=True))
        return among.gather(1, each), away.gather(1, each[..., None].expand(-1, -1, 3)), there

    def shown(
        self,
        places: Places,
        pose_B3: Tensor,
        now_B: Tensor,
        focal: Tensor | float,
        young: Tensor | int = YOUNG,
        atlas: Atlas | None = None,
        near: int = NEAR,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The `near` frames that are nearest to `pose` (B, K), their poses as seen from there (B, K, 3), and how well
        each shows what is to be seen in every direction (B, K, D), 0 to 1."""
        away = relative(pose_B3[:, None], self._poses(atlas))
        away = torch.cat((away[..., :2] / places.side, away[..., 2:]), -1)
        age = now_B[:, None] - self._times(atlas)
        cost = away[..., :2].norm(dim=-1)
        young = young[:, None] if isinstance(young, Tensor) else young
        usable = self._there(atlas) & (age > young) & (cost < FAR)
        cost = (cost + away[..., 2].abs()).masked_fill(~usable, math.inf)
        cost, among = cost.topk(min(near, cost.shape[1]), largest=False)
        away, age = away.gather(1, among[..., None].expand(-1, -1, 3)), age.gather(1, among)
        shown = (
            self._shown(among, away, cost < math.inf, focal, atlas) * torch.where(age > FRESH, 1, RATHER_OLD)[..., None]
        )
        return among, away, shown

    def _poses(self, atlas: Atlas | None) -> Tensor:
        """Of all frames, the atlas' behind its own (B, S * F + N, 3)."""
        poses = self.poses.flatten(1, 2)
        return poses if atlas is None else torch.cat((poses, atlas.poses.expand(len(poses), -1, -1)), 1)

    def _times(self, atlas: Atlas | None) -> Tensor:
        """The same of their times; the atlas' are older than any."""
        times = self.times.flatten(1)
        return times if atlas is None else F.pad(times, (0, len(atlas.poses)), value=-NEVER)

    def _there(self, atlas: Atlas | None) -> Tensor:
        """Whether there is such a frame."""
        there = (self.keys >= 0).repeat_interleave(2, 1)
        return there if atlas is None else F.pad(there, (0, len(atlas.poses)), value=True)

    def _gather(self, name: str, which_BR: Tensor, atlas: Atlas | None) -> Tensor:
        """Pictures or disparities of these frames (B, R, ...)."""
        own = getattr(self, name).flatten(1, 2)
        players = torch.arange(len(which_BR), device=which_BR.device)[:, None]
        if atlas is None:
            return own[players, which_BR]
        count = own.shape[1]
        known = getattr(atlas, name)[(which_BR - count).clamp_min(0)]
        found = own[players, which_BR.clamp_max(count - 1)]
        return torch.where((which_BR < count).view(*which_BR.shape, *[1] * (found.ndim - 2)), found, known)

    def _shown(
        self, among_BK: Tensor, away_BK3: Tensor, usable_BK: Tensor, focal: Tensor | float, atlas: Atlas | None
    ) -> Tensor:
        """How well each of these frames shows what is to be seen in every direction of the view, 0 to 1 (B, K, D).

        Of a frame only the horizon is looked at, a row of points on the plane: what is nearest to the view in a
        direction is what is to be seen there, unless few say so, for at the edges of surfaces depth is misjudged.
        """
        batch, height, width = len(among_BK), *self.disparity.shape[-2:]
        rows = self._gather("disparity", among_BK, atlas)[:, :, (height - 1) // 2 : height // 2 + 1]
        disparity = rows.float().mean(-2)  # (B, K, w)
        depth = 1 / disparity.clamp_min(EMPTY)
        aside = rays(1, width, depth.device)[0] / focal * depth
        ahead, right, turn = away_BK3[..., None].unbind(2)
        cos, sin = turn.cos(), turn.sin()
        x, y = ahead + cos * depth - sin * aside, right + sin * depth + cos * aside
        place = focal * y / x.clamp_min(NEAREST)
        seen = usable_BK[..., None] & (disparity > DISTANT) & (x > NEAREST) & (place.abs() < 1)
        direction = ((place.clamp(-1, 0.999) + 1) * (DIRECTIONS / 2)).long()
        level = (
            ((x.clamp(NEAREST, FAR) / NEAREST).log() * (LEVELS / math.log(FAR / NEAREST))).long().clamp_max(LEVELS - 1)
        )
        votes = x.new_zeros(batch, DIRECTIONS * LEVELS)
        votes.scatter_add_(1, (direction * LEVELS + level).flatten(1), seen.flatten(1).to(x))
        votes = votes.view(batch, DIRECTIONS, LEVELS).cumsum(-1)
        nearest = (votes < (FEW * votes[..., -1:]).clamp_min(1)).sum(-1)  # (B, D): the level of what is seen there
        seen &= (level - nearest.gather(1, direction.flatten(1)).view_as(level)).abs() <= 1
        coarser = (depth / x.clamp_min(NEAREST)).log()
        quality = torch.where(coarser > 0, -coarser, coarser / 4)
        quality = (quality - PARALLAX * away_BK3[..., :2].norm(dim=-1)[..., None] / x.clamp_min(NEAREST)).exp() * seen
        return x.new_zeros(batch, x.shape[1], DIRECTIONS).scatter_reduce_(2, direction, quality, "amax")

    def seen_from(self, places: Places, pose_B3: Tensor, which_BR: Tensor) -> Tensor:
        """The poses of these own frames as seen from `pose` (B, R, 3), in sides of a place and radians."""
        poses = self.poses.flatten(1, 2).gather(1, which_BR[..., None].expand(-1, -1, 3))
        away = relative(pose_B3[:, None], poses)
        return torch.cat((away[..., :2] / places.side, away[..., 2:]), -1)

    def surfaces(self, places: Places, focal: Tensor | float, atlas: Atlas | None = None) -> tuple[Tensor, Tensor]:
        """Points (B, N, 2) that the nearest frames show around the player, in sides of a place as he stands, and what
        each counts for (B, N)."""
        away = relative(self.pose[:, None], self._poses(atlas))
        away = torch.cat((away[..., :2] / places.side, away[..., 2:]), -1)
        distance = away[..., :2].norm(dim=-1).masked_fill(~self._there(atlas), math.inf)
        distance, nearest = distance.topk(min(AROUND, distance.shape[1]), largest=False)
        disparity = self._gather("disparity", nearest, atlas)
        points, weights = horizon(disparity.flatten(0, 1), focal)
        points = seen_from(points.unflatten(0, nearest.shape), away.gather(1, nearest[..., None].expand(-1, -1, 3)))
        weights = weights.unflatten(0, nearest.shape) * (distance < math.inf)[..., None]
        return points.flatten(1, 2), weights.flatten(1)

    def stops(self, places: Places, atlas: Atlas | None = None) -> tuple[Tensor, Tensor]:
        """Where steps of the trail ended (B, T, 2) and what was lost of them, as he stands, in sides of a place; behind
        them those of the atlas (B, M, 2)."""
        known = self.trail
        if atlas is not None:
            ends, lost = atlas.stops.split(2, 1)
            known = torch.cat((known, torch.cat((F.pad(ends, (0, 1)), lost), 1).expand(len(known), -1, -1)), 1)
        away, lost = relative(self.pose[:, None], known[..., :3])[..., :2], known[..., 3:]
        return away / places.side, turned(lost, self.pose[:, None, 2]) / places.side

    def ages(self, which_BR: Tensor, now_B: Tensor, atlas: Atlas | None = None) -> Tensor:
        """How many frames ago (B, R) what `choose` named was seen; `NEVER` and more for what the atlas shows."""
        return now_B[:, None] - self._times(atlas).gather(1, which_BR)

    def frames(self, which_BR: Tensor, atlas: Atlas | None = None) -> tuple[Tensor, Tensor]:
        """Pictures uint8 (B, R, 3, H, W) and disparities (B, R, h, w) of what `choose` named."""
        return self._gather("pictures", which_BR, atlas), self._gather("disparity", which_BR, atlas).float()
