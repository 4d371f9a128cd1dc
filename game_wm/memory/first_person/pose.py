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
    (x, y, angle), (ahead, aside, turn) = pose.unbind(-1), step.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    x, y = x + cos * ahead - sin * aside, y + sin * ahead + cos * aside
    return torch.stack((x, y, wrap(angle + turn)), dim=-1)


def relative(pose: Tensor, other: Tensor) -> Tensor:
    """The step (..., 3) that leads from `pose` to `other`: `move(pose, relative(pose, other))` is `other`."""
    (x, y, angle), (to_x, to_y, to_angle) = pose.unbind(-1), other.unbind(-1)
    cos, sin, dx, dy = angle.cos(), angle.sin(), to_x - x, to_y - y
    return torch.stack((cos * dx + sin * dy, cos * dy - sin * dx, wrap(to_angle - angle)), dim=-1)


def seen_in(pose: Tensor, others: Tensor, side: float) -> Tensor:
    """Other poses (..., 3) as seen from `pose`, lengths in sides of a place."""
    away = relative(pose, others)
    return torch.cat((away[..., :2] / side, away[..., 2:]), -1)


def trace(steps: Tensor) -> Tensor:
    """Poses (..., T + 1, 3) of somebody who begins at zero and takes these steps (..., T, 3)."""
    start = torch.zeros_like(steps[..., :1, :])
    angle = torch.cat((start[..., 2], steps[..., 2].cumsum(-1)), -1)
    (ahead, aside), cos, sin = steps[..., :2].unbind(-1), angle[..., :-1].cos(), angle[..., :-1].sin()
    away = torch.stack((cos * ahead - sin * aside, sin * ahead + cos * aside), -1).cumsum(-2)
    return torch.cat((torch.cat((start[..., :2], away), -2), wrap(angle)[..., None]), -1)
