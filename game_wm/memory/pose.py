"""Poses on the plane: x, y and an angle in radians, of which only differences count."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
