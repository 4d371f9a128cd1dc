"""Where a screen is that turns in its plane, and what is seen from there.

    there = moved(place, step)                           # places and steps: down, right, degrees
    seen = seen_from(pictures, there, screen, screen)    # as the screen shows them there

A place is that of the screen's centre. The unit is the height of a pixel of the screen; of a picture that was squeezed
a pixel may be `aspect` times as wide as it is high. A turn of the screen is from down to right: what it shows turns the
other way.

Legend: B pictures, C channels, H, W pixels of what is seen, h, w of what it is seen in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TO_RADIANS = math.pi / 180


class Grid(NamedTuple):
    """Pixels side by side, `aspect` times as wide as high: those of a screen, or of the world (where it is 1)."""

    height: int
    width: int
    aspect: float = 1.0

    def points(self, device: torch.device) -> Tensor:
        """Where its pixels lie (2, H, W), down and right of its centre."""
        down = torch.arange(self.height, device=device) - (self.height - 1) / 2
        right = (torch.arange(self.width, device=device) - (self.width - 1) / 2) * self.aspect
        return torch.stack(torch.meshgrid(down, right, indexing="ij"))

    @property
    def around(self) -> int:
        """Pixels along the side of a square of the world that holds this screen however it is turned."""
        return math.ceil(math.hypot(self.height, self.width * self.aspect)) + 2


def turned(points_B2: Tensor, degrees_B: Tensor) -> Tensor:
    """Points (B, 2, ...) turned from down to right."""
    sin, cos = ((f(degrees_B * TO_RADIANS)).view(-1, *[1] * (points_B2.dim() - 2)) for f in (torch.sin, torch.cos))
    down, right = points_B2[:, 0], points_B2[:, 1]
    return torch.stack((down * cos - right * sin, down * sin + right * cos), 1)


def moved(place_B3: Tensor, step_B3: Tensor) -> Tensor:
    """The place (B, 3) after a step, whose ways are those of the screen as it stands."""
    way = turned(step_B3[:, :2], place_B3[:, 2])
    return torch.cat((place_B3[:, :2] + way, (place_B3[:, 2:] + step_B3[:, 2:] + 180) % 360 - 180), 1)


def step_between(first_B3: Tensor, second_B3: Tensor) -> Tensor:
    """The step (B, 3) that leads from one place to another."""
    away = second_B3 - first_B3
    return torch.cat((turned(away[:, :2], -first_B3[:, 2]), (away[:, 2:] + 180) % 360 - 180), 1)


def seen_from(pictures_BChw: Tensor, place_B3: Tensor, source: Grid, screen: Grid) -> Tensor:
    """What `screen` shows (B, C, H, W) at a place seen from the centre of `source`, bilinear; 0 beyond its border."""
    points = screen.points(place_B3.device).expand(len(place_B3), -1, -1, -1)
    at = turned(points, place_B3[:, 2]) + place_B3[:, :2, None, None]
    grid = torch.stack((at[:, 1] / source.aspect * 2 / (source.width - 1), at[:, 0] * 2 / (source.height - 1)), 3)
    return F.grid_sample(pictures_BChw, grid, align_corners=True)
