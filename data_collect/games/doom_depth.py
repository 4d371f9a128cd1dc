"""How deep a Doom level looks from a pose, computed from its sectors' lines, floors and ceilings.

    depth = LevelDepth(state.sectors)(poses, height=48, width=64, aspect=4 / 3)     # Doom's units, along the view

The level is as it stands when the sectors are read: no doors that have opened since, no monsters, no things. Sectors
are told apart by their lines alone, so one that refers to itself (a mapper's trick) is looked through.

Legend: N poses, K lines, H, W grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EYE = 41.0  # units over the floor
PIXEL = 1.2  # a pixel of Doom's 320x200 is as much taller than wide
SCREEN = 4 / 3  # what is rendered, and then cut to another aspect
NEAR, FAR = 1.0, 1e6  # units
DEEP = 64  # lines that a ray looks past at most


class LevelDepth:
    """Depths of a level's static parts."""

    def __init__(self, sectors: list[Any]) -> None:
        sides: dict[tuple, list[int]] = {}
        for number, sector in enumerate(sectors):
            for line in sector.lines:
                sides.setdefault(tuple(sorted([(line.x1, line.y1), (line.x2, line.y2)])), []).append(number)
        self.lines = np.array(list(sides), np.float64).reshape(-1, 4)  # x1, y1, x2, y2
        self.sides = np.array([[*each, -1][:2] for each in sides.values()])  # -1: nothing behind it
        self.floors = np.array([sector.floor_height for sector in sectors], np.float64)
        self.ceilings = np.array([sector.ceiling_height for sector in sectors], np.float64)

    def __call__(self, poses: np.ndarray, height: int, width: int, aspect: float = SCREEN) -> np.ndarray:
        """Poses (N, 3), x, y, radians -> float32 (N, H, W): depth along the view, of pictures of this aspect."""
        x, y, angle = (np.asarray(poses, np.float64)[:, i, None] for i in range(3))
        u = ((np.arange(width) + 0.5) / width * 2 - 1) * min(1.0, aspect / SCREEN)
        v = ((np.arange(height) + 0.5) / height * 2 - 1) * min(1.0, SCREEN / aspect) / (SCREEN * PIXEL)
        met = self._met(x, y, np.cos(angle) + u * np.sin(angle), np.sin(angle) - u * np.cos(angle))
        order = np.argsort(met, 2)[..., :DEEP]
        met = np.take_along_axis(met, order, 2)
        now = np.repeat(self._sector(x[:, 0], y[:, 0])[:, None], width, 1)
        eye = self.floors[now] + EYE
        falls = v[:, None]  # how far a ray of a row falls in a unit of depth
        depth, open_ = np.full((len(met), height, width), FAR), np.ones((len(met), height, width), bool)
        for i in range(met.shape[2]):
            at, line = met[..., i], order[..., i]
            if not open_.any():
                break
            # What a ray meets before the line: the floor or the ceiling of the sector it is in.
            rise = np.where(falls > 0, self.floors[now][:, None], self.ceilings[now][:, None]) - eye[:, None]
            flat = np.where(falls != 0, -rise / np.where(falls != 0, falls, 1.0), FAR)
            flat = np.where(flat > 0, flat, FAR)
            ends = open_ & (flat <= at[:, None])
            depth[ends], open_ = flat[ends], open_ & ~ends
            # Then the line: a wall, or what stands out below and above the sector behind it.
            one, other = self.sides[line, 0], self.sides[line, 1]
            behind = np.where(other < 0, -1, np.where(now == one, other, one))
            z = eye[:, None] - falls * at[:, None]
            wall = (behind < 0)[:, None] | (z < self.floors[behind][:, None]) | (z > self.ceilings[behind][:, None])
            ends = open_ & wall & np.isfinite(at)[:, None]
            depth[ends], open_ = np.broadcast_to(at[:, None], depth.shape)[ends], open_ & ~ends
            now = np.where(np.isfinite(at) & (behind >= 0), behind, now)
        return np.minimum(depth, FAR).astype(np.float32)

    def _met(self, x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """How deep rays (N, W) from (N, 1) meet the lines: (N, W, K), infinite where they do not."""
        x1, y1, x2, y2 = self.lines.T
        ex, ey = x2 - x1, y2 - y1
        across = dx[..., None] * ey - dy[..., None] * ex
        across = np.where(np.abs(across) < 1e-9, 1e-9, across)
        ax, ay = x1 - x[..., None], y1 - y[..., None]
        depth, along = (ax * ey - ay * ex) / across, (ax * dy[..., None] - ay * dx[..., None]) / across
        return np.where((depth > NEAR) & (along >= -1e-6) & (along <= 1 + 1e-6), depth, np.inf)

    def _sector(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The sector (N,) of each point: of whose lines an odd number lies to the east."""
        x1, y1, x2, y2 = self.lines.T
        spans = (y1 <= y[:, None]) != (y2 <= y[:, None])
        east = spans & (x1 + (y[:, None] - y1) * (x2 - x1) / np.where(y1 == y2, 1.0, y2 - y1) > x[:, None])
        count = np.zeros((len(x), len(self.floors)), int)
        for side in self.sides.T:
            for sector in np.unique(side[side >= 0]):
                count[:, sector] += east[:, side == sector].sum(1)
        return (count % 2).argmax(1)
