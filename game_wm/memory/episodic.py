"""Episodic memory: what a place looked like, first and last, found again by where the player is.

A *place* is a square of the plane together with a range of headings. Of every place the store keeps two frames, the
first one seen there and the newest: the first is no copy of copies, the newest knows what has changed. `neighbours`
names the places around a pose and `choose` the best of them; training (`train/windows.py`) and play use the same two.
A pose is x, y and an angle in radians, and only differences count: in play it begins at zero and is dead-reckoned.

The store is bounded and its cost constant: places are hashed to sets of `WAYS` slots, a look-up reads
`len(AROUND)` sets, and where a set is full the place that was visited longest ago makes room.

Legend: B players, S slots, F = 2 (first, newest), C, h, w latent, M places looked at, R frames recalled, P history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WAYS = 4
FEATURES = 6  # what is told about a recalled frame
# Places next to a pose: its own and those around it, with headings up to two ranges aside.
AROUND = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2), torch.arange(-2, 3))
LIMIT = 2**14  # places are counted modulo twice this, along each axis


@dataclass(frozen=True)
class Places:
    """How poses are divided: `side` of a square in the pose's own units, `headings` to a full turn."""

    side: float
    headings: int

    def of(self, pose: Tensor) -> Tensor:
        """Place (..., 3) int64 of poses (..., 3): column, row, heading."""
        across = (pose[..., :2] / self.side).floor().long()
        heading = (pose[..., 2:] * (self.headings / math.tau)).floor().long()
        return torch.cat((across, heading % self.headings), dim=-1)

    def key(self, place: Tensor) -> Tensor:
        """One int64 (...,) for each place (..., 3)."""
        x, y = ((place[..., i] + LIMIT) % (2 * LIMIT) for i in (0, 1))
        return (x * 2 * LIMIT + y) * self.headings + place[..., 2]

    def neighbours(self, pose: Tensor) -> Tensor:
        """Keys (..., M) of the places around poses (..., 3)."""
        place = self.of(pose)[..., None, :] + AROUND.to(pose.device)
        place[..., 2] %= self.headings
        return self.key(place)

    def about(self, pose: Tensor, recalled: Tensor, age: Tensor, there: Tensor) -> Tensor:
        """What the network is told (..., 6): where and how turned a recalled frame is, seen from `pose`; its age."""
        away = relative(pose, recalled)
        turn = away[..., 2]
        told = [
            away[..., 0] / self.side,
            away[..., 1] / self.side,
            turn.sin(),
            turn.cos(),
            age.clamp_min(0).log1p() / 8,
        ]
        return torch.stack([*told, torch.ones_like(turn)], dim=-1) * there[..., None]

    def choose(self, pose: Tensor, poses_MF3: Tensor, there_MF: Tensor, count: int) -> Tensor:
        """The `count` best (..., count) of M places for a view from `pose` (..., 3), by their nearer frame."""
        away = relative(pose[..., None, None, :], poses_MF3)
        turned = away[..., 2] * (self.headings / math.tau)
        cost = (away[..., :2] / self.side).square().sum(-1) + turned.square()
        return cost.masked_fill(~there_MF, math.inf).amin(-1).topk(count, largest=False).indices


def wrap(angle: Tensor) -> Tensor:
    """Into [-pi, pi)."""
    return (angle + math.pi) % math.tau - math.pi


def move(pose: Tensor, step: Tensor) -> Tensor:
    """Pose (..., 3) after a step (..., 3) in the player's own frame: ahead, aside, turn."""
    cos, sin = pose[..., 2].cos(), pose[..., 2].sin()
    x = pose[..., 0] + cos * step[..., 0] - sin * step[..., 1]
    y = pose[..., 1] + sin * step[..., 0] + cos * step[..., 1]
    return torch.stack((x, y, wrap(pose[..., 2] + step[..., 2])), dim=-1)


def relative(pose: Tensor, other: Tensor) -> Tensor:
    """The step (..., 3) that leads from `pose` to `other`: `move(pose, relative(pose, other))` is `other`."""
    cos, sin = pose[..., 2].cos(), pose[..., 2].sin()
    dx, dy = other[..., 0] - pose[..., 0], other[..., 1] - pose[..., 1]
    return torch.stack((cos * dx + sin * dy, cos * dy - sin * dx, wrap(other[..., 2] - pose[..., 2])), dim=-1)


@dataclass
class EpisodicMemory:
    """The store of B players and where they are; the player is the first axis of every tensor.

    `keys` (B, S), -1 where empty; `latents` (B, S, F, C, h, w) in 16 bits; `poses` (B, S, F, 3); `times` (B, S, F);
    `pose` (B, 3) of the last frame; `trail` (B, P, 3): poses of the history, oldest first; `summary` (B, width): the
    context stream's tokens of the last frame, averaged.
    """

    keys: Tensor
    latents: Tensor
    poses: Tensor
    times: Tensor
    pose: Tensor
    trail: Tensor
    summary: Tensor

    @classmethod
    def start(cls, players: int, slots: int, history: int, width: int, latent: Tensor) -> EpisodicMemory:
        """Empty, for latents of the shape (..., C, h, w) of `latent`, on its device."""
        device = latent.device
        slots = slots // WAYS * WAYS
        zeros = lambda *shape: torch.zeros(players, *shape, device=device)  # noqa: E731
        return cls(
            torch.full((players, slots), -1, dtype=torch.long, device=device),
            zeros(slots, 2, *latent.shape[-3:]).half(),
            zeros(slots, 2, 3),
            torch.zeros(players, slots, 2, dtype=torch.long, device=device),
            zeros(3),
            zeros(history, 3),
            zeros(width),
        )

    def _set(self, keys: Tensor) -> Tensor:
        """First slot (...,) of the set that keys hash to (multiplicative hashing)."""
        mixed = (keys * -7046029254386353131) >> 33
        return mixed % (self.keys.shape[1] // WAYS) * WAYS

    def write(self, places: Places, latents_BCHW: Tensor, poses_B3: Tensor, times_B: Tensor) -> None:
        """Keep a frame of every player; those of a negative time are none."""
        key = places.key(places.of(poses_B3))
        ways = self._set(key)[:, None] + torch.arange(WAYS, device=key.device)  # (B, WAYS)
        found = self.keys.gather(1, ways)
        same = found == key[:, None]
        # Its own slot, else an empty one, else that of the place visited longest ago.
        visited = self.times[..., 1].gather(1, ways).masked_fill(found < 0, -1).masked_fill(same, -2)
        slot = ways.gather(1, visited.argmin(1, keepdim=True))[:, 0]
        known = same.any(1)
        for player in torch.nonzero(times_B >= 0)[:, 0].tolist():
            s = int(slot[player])
            entries = slice(1, 2) if known[player] else slice(0, 2)
            self.keys[player, s] = key[player]
            self.latents[player, s, entries] = latents_BCHW[player].to(self.latents.dtype)
            self.poses[player, s, entries] = poses_B3[player].to(self.poses.dtype)
            self.times[player, s, entries] = times_B[player]

    def read(self, places: Places, pose_B3: Tensor, now_B: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The frames (B, R, C, h, w) of the `count` best places for a view from `pose` at time `now`, and what is told
        about them (B, R, 6); R = 2 * count, the newest of a place before its first. Zero where there is none."""
        keys = places.neighbours(pose_B3)  # (B, M)
        ways = self._set(keys)[..., None] + torch.arange(WAYS, device=keys.device)  # (B, M, WAYS)
        players = torch.arange(len(keys), device=keys.device)[:, None]
        same = self.keys[players[..., None], ways] == keys[..., None]
        slot = ways.gather(2, same.float().argmax(2, keepdim=True))[..., 0]  # (B, M)
        there = same.any(2)[..., None].expand(-1, -1, 2)
        best = places.choose(pose_B3, self.poses[players, slot], there, count)  # (B, count)
        slot, there = slot.gather(1, best), there[..., 0].gather(1, best)
        order = torch.tensor([1, 0], device=keys.device)
        latents, poses, times = (
            x[players, slot][:, :, order].flatten(1, 2) for x in (self.latents, self.poses, self.times)
        )
        there = there.repeat_interleave(2, 1)
        about = places.about(pose_B3[:, None], poses, (now_B[:, None] - times).float(), there)
        return latents.float() * there[..., None, None, None], about
