"""Episodic memory: what a place looked like, first and last, found again by where the player is.

A *place* is a square of the plane together with a range of headings. Of every place the store keeps two frames: the
first one seen there, which is no copy of copies, and the newest, which knows what has changed. `choose` picks the
frames that a view is drawn from (`camera.py`). In play a pose begins at zero and is dead-reckoned.

The store is bounded and its cost constant: places are hashed to sets of `WAYS` slots, and where a set is full, the
place visited longest ago makes room. A look-up compares the poses of all slots at once.

Legend: B players, S slots, F = 2 (first, newest), H, W picture, h, w disparity, K frames compared, D directions of a
view, R frames recalled, T poses of the trail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.memory.first_person.atlas import Atlas
from game_wm.memory.first_person.camera import FARTHEST_DEPTH, Sources, align, visibility
from game_wm.memory.first_person.obstacles import horizon, seen_from, turned
from game_wm.memory.first_person.pose import move, relative, seen_in
from game_wm.memory.first_person.trail import NOWHERE, predict_step
from game_wm.memory.protocol import NEVER

WAYS = 4  # slots of a set
COORDINATES = 2**14  # places are numbered modulo twice this, along each axis
YOUNG = 4  # frames of this age or less are not recalled: the denoiser sees them whole
COMPARED = 128  # nearest frames that are compared for a view
AROUND = 192  # nearest frames that tell what is around the player
FRESH, FRESH_WEIGHT = 32, 0.7  # frames younger than this count for less: they may be copies of older ones
LEAST_GAIN = 0.3  # of one direction, that a recalled frame must add
CORRECTED = 0.5  # of a step's length: the most by which a position is corrected
CORRECTED_BY = 2  # recalled frames that a position is corrected by


@dataclass(frozen=True)
class Places:
    """How poses are divided: `side` of a square in the pose's own units, `headings` to a full turn. With `unbounded`
    every frame is kept instead: to compare with, not to play with. `focal` is the camera's, `atlas` what is known
    before play."""

    side: float
    headings: int
    unbounded: bool = False
    focal: Tensor | float = 1.0
    atlas: Atlas | None = None

    def key(self, pose: Tensor) -> Tensor:
        """One int64 (...,) for the place of each pose (..., 3)."""
        x, y = (((pose[..., i] / self.side).floor().long() + COORDINATES) % (2 * COORDINATES) for i in (0, 1))
        heading = (pose[..., 2] * (self.headings / math.tau)).floor().long() % self.headings
        return (x * 2 * COORDINATES + y) * self.headings + heading


@dataclass
class EpisodicMemory:
    """The store of B players and where they are; the player is the first axis of every tensor.

    `keys` (B, S), -1 where empty; `pictures` uint8 (B, S, F, 3, H, W) and their `disparity` (B, S, F, h, w) in 16 bits;
    `poses` (B, S, F, 3); `times` (B, S, F); `pose` (B, 3) of the last frame; `trail` (B, T, 5), a ring of the last
    poses (`NOWHERE` where there is none), each with the blocked motion of the step that led there.
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
        keys, times = zeros(slots, dtype=torch.long) - 1, zeros(slots, 2, dtype=torch.long)
        pictures, depths = zeros(slots, 2, *picture, dtype=torch.uint8), zeros(slots, 2, *disparity, dtype=torch.half)
        path = F.pad(zeros(trail, 3) + NOWHERE, (0, 2))
        return cls(keys, pictures, depths, zeros(slots, 2, 3), times, zeros(3), path)

    def write(
        self,
        places: Places,
        pictures_B3HW: Tensor,
        disparity_Bhw: Tensor,
        poses_B3: Tensor,
        times_B: Tensor,
        blocked_B2: Tensor | None = None,
    ) -> None:
        """Keep a frame of every player, where it was taken, and the blocked motion of the step there, as the player
        stands."""
        if self.trail.shape[1]:
            at = (times_B % self.trail.shape[1])[:, None, None].expand(-1, 1, self.trail.shape[2])
            none = torch.zeros_like(poses_B3[:, :2])
            blocked = none if blocked_B2 is None else turned(blocked_B2, -poses_B3[:, 2])
            self.trail.scatter_(1, at, torch.cat((poses_B3, blocked), 1)[:, None])
        if places.unbounded:
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
        """The next step (B, 3) and whether it is sure (B, 1): see `trail.predict_step`."""
        return predict_step(self.trail, self.pose, step_B3, unhindered_B3, places.side)

    def arrive(
        self,
        places: Places,
        step_B3: Tensor,
        pictures_B3HW: Tensor,
        disparity_Bhw: Tensor,
        times_B: Tensor,
        sure: bool = False,
        blocked_B2: Tensor | None = None,
    ) -> None:
        """Keep a real frame, which this step led to. Unless the step is `sure`, the players' positions are corrected by
        the frames recalled there. (In a dream they are not: its frames were drawn from where the players are.)"""
        self.pose = move(self.pose, step_B3)
        if not sure:
            which, _, there = self.choose(replace(places, atlas=None), self.pose, times_B, CORRECTED_BY)
            # A player who has not moved has not drifted either.
            most = step_B3[:, :2].norm(dim=1, keepdim=True) * CORRECTED
            if (there & (most > 0)).any():
                pictures, disparity = self.frames(which)
                then, now = pictures.float() / 127.5 - 1, pictures_B3HW.float() / 127.5 - 1
                sources = Sources(then, disparity, self.seen_from(places, self.pose, which), there)
                off = align(now, disparity_Bhw, sources, places.focal) * places.side
                off = off * (most / off.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
                self.pose = move(self.pose, F.pad(off, (0, 1)))
        self.write(places, pictures_B3HW, disparity_Bhw, self.pose, times_B, blocked_B2)

    def choose(
        self, places: Places, pose_B3: Tensor, now_B: Tensor, views: int, young: Tensor | int = YOUNG
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The frames for a view from `pose` at time `now`, none of the last `young` ones (B,): each is the one that
        adds most to what those before it show.

        Returns which (B, R) of the S * F, R = `views`, their poses as seen from `pose` (B, R, 3), in sides of a place
        and radians, and whether there is one (B, R).
        """
        among, away, shown = self.shown(places, pose_B3, now_B, young)
        best, chosen = torch.zeros_like(shown[:, :1]), []
        for _ in range(views):
            gain, each = (shown - best).clamp_min(0).sum(-1).max(1)
            best = torch.maximum(best, shown.gather(1, each[:, None, None].expand_as(best)))
            chosen.append((each, gain > LEAST_GAIN))
        each, there = (torch.stack(x, 1) for x in zip(*chosen, strict=True))
        return among.gather(1, each), away.gather(1, each[..., None].expand(-1, -1, 3)), there

    def shown(
        self, places: Places, pose_B3: Tensor, now_B: Tensor, young: Tensor | int = YOUNG, near: int = COMPARED
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The `near` frames nearest to `pose` (B, K), their poses as seen from there (B, K, 3), and how well each shows
        what is visible in every direction (B, K, D), 0 to 1."""
        poses, times, there = self._all(places.atlas)
        away, age = seen_in(pose_B3[:, None], poses, places.side), now_B[:, None] - times
        cost = away[..., :2].norm(dim=-1)
        young = young[:, None] if isinstance(young, Tensor) else young
        usable = there & (age > young) & (cost < FARTHEST_DEPTH)
        cost = (cost + away[..., 2].abs()).masked_fill(~usable, math.inf)
        cost, among = cost.topk(min(near, cost.shape[1]), largest=False)
        away, age = away.gather(1, among[..., None].expand(-1, -1, 3)), age.gather(1, among)
        height = self.disparity.shape[-2]
        rows = self._gather("disparity", among, places.atlas)[:, :, (height - 1) // 2 : height // 2 + 1]
        shown = visibility(rows.float().mean(-2), away, cost < math.inf, places.focal)
        return among, away, shown * torch.where(age > FRESH, 1, FRESH_WEIGHT)[..., None]

    def _all(self, atlas: Atlas | None) -> tuple[Tensor, Tensor, Tensor]:
        """Poses of all frames (B, S * F + N, 3), the atlas' behind its own, their times, the atlas' older than any, and
        whether there is such a frame."""
        poses, times, there = self.poses.flatten(1, 2), self.times.flatten(1), (self.keys >= 0).repeat_interleave(2, 1)
        if atlas is None:
            return poses, times, there
        more, poses = (0, len(atlas.poses)), torch.cat((poses, atlas.poses.expand(len(poses), -1, -1)), 1)
        return poses, F.pad(times, more, value=-NEVER), F.pad(there, more, value=True)

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

    def seen_from(self, places: Places, pose_B3: Tensor, which_BR: Tensor) -> Tensor:
        """The poses of these own frames as seen from `pose` (B, R, 3), in sides of a place and radians."""
        poses = self.poses.flatten(1, 2).gather(1, which_BR[..., None].expand(-1, -1, 3))
        return seen_in(pose_B3[:, None], poses, places.side)

    def surfaces(self, places: Places) -> tuple[Tensor, Tensor]:
        """Points (B, N, 2) that the nearest frames show around the player, as the player stands, in sides of a place,
        and their weights (B, N)."""
        poses, _, there = self._all(places.atlas)
        away = seen_in(self.pose[:, None], poses, places.side)
        distance = away[..., :2].norm(dim=-1).masked_fill(~there, math.inf)
        distance, nearest = distance.topk(min(AROUND, distance.shape[1]), largest=False)
        disparity = self._gather("disparity", nearest, places.atlas)
        points, weights = horizon(disparity.flatten(0, 1), places.focal)
        points = seen_from(points.unflatten(0, nearest.shape), away.gather(1, nearest[..., None].expand(-1, -1, 3)))
        weights = weights.unflatten(0, nearest.shape) * (distance < math.inf)[..., None]
        return points.flatten(1, 2), weights.flatten(1)

    def stops(self, places: Places) -> tuple[Tensor, Tensor]:
        """Where steps of the trail ended and their blocked motion (B, T, 2 each), as the player stands, in sides of a
        place; behind them those of the atlas."""
        known = self.trail
        if places.atlas is not None:
            ends, blocked = places.atlas.stops.split(2, 1)
            known = torch.cat((known, torch.cat((F.pad(ends, (0, 1)), blocked), 1).expand(len(known), -1, -1)), 1)
        away, blocked = relative(self.pose[:, None], known[..., :3])[..., :2], known[..., 3:]
        return away / places.side, turned(blocked, self.pose[:, None, 2]) / places.side

    def ages(self, which_BR: Tensor, now_B: Tensor, atlas: Atlas | None = None) -> Tensor:
        """How many frames ago (B, R) what `choose` named was seen; `NEVER` and more for what the atlas shows."""
        return now_B[:, None] - self._all(atlas)[1].gather(1, which_BR)

    def frames(self, which_BR: Tensor, atlas: Atlas | None = None) -> tuple[Tensor, Tensor]:
        """Pictures uint8 (B, R, 3, H, W) and disparities (B, R, h, w) of what `choose` named."""
        return self._gather("pictures", which_BR, atlas), self._gather("disparity", which_BR, atlas).float()
