"""What a maze looks like from inside: a small vectorised ray caster with analytic filtering (numpy only).

Walls are integrated exactly over the height of every pixel (prefix sums of the face's mark) and sampled four times
over its width, so nothing shimmers; every wall face has a hue, a soft gradient and one big mark, the floor a tint per
cell, the sky hills, clouds and a sun that show the heading. `View.surface` numbers the patch behind each pixel.

Angles are counter-clockwise radians, x to the east, y to the north: the player looks along (cos angle, sin angle).
"""

from __future__ import annotations

import math

import numpy as np

from data_collect.games import maze_look as look
from data_collect.games.maze_look import AZIMUTHS, ELEVATIONS, EYE, HUES, INKS, SKY_TOP, TEXELS, WALL

FOV = math.radians(75.0)  # horizontal
SUB = 4  # rays per pixel column
FOG = 11.0  # cells at which 1/e of a colour is left
U_PATCHES, V_PATCHES, SECTORS, BANDS = 4, 2, 72, 4  # surface patches: per face, and of the sky


class View:
    """The camera and, after `dress`, one maze's colours. Frames are uint8 (height, width, 3)."""

    def __init__(self, width: int = 64, height: int = 64) -> None:
        self.width, self.height, self.half = width, height, height // 2
        self.focal = width / 2 / math.tan(FOV / 2)  # pixels
        rays = (np.arange(width * SUB) + 0.5) / SUB - width / 2
        self.slope = (rays / self.focal).astype(np.float64)  # rightwards per unit of depth
        self.stretch = np.sqrt(1 + self.slope**2)
        columns = (np.arange(width) + 0.5 - width / 2) / self.focal
        self.column_angle = np.arctan(columns)
        self.edges = ((np.arange(height + 1) - self.half) / self.focal).astype(np.float32)
        # the floor: where each lower pixel lies in the camera's frame (depth, sideways), (W, h)
        rows = (np.arange(height - self.half) + 0.5) / self.focal
        depth = np.broadcast_to(EYE / rows, (width, height - self.half))
        self.floor_depth = depth.astype(np.float32)
        self.floor_side = (depth * columns[:, None]).astype(np.float32)
        away = depth * np.sqrt(1 + columns[:, None] ** 2)
        self.floor_clear = np.exp(-away / FOG)[..., None].astype(np.float32)
        foot = np.minimum(depth**2 / (EYE * self.focal), 1.0)  # a pixel's length on the ground, in cells
        self.floor_blend = (1 / np.maximum(0.12, 1.5 * foot)).astype(np.float32)
        joint = np.maximum(0.05, 1.2 * foot)
        self.joint_slope = (1 / joint).astype(np.float32)
        self.joint_depth = (-9.0 * 0.05 / joint).astype(np.float32)
        # the sky: the panorama's row of each upper pixel, (W, h)
        up = (self.half - np.arange(self.half) - 0.5) / self.focal
        elevation = np.arctan(up[None, :] * np.cos(self.column_angle)[:, None])
        self.sky_row = np.minimum((elevation / SKY_TOP * ELEVATIONS).astype(np.int64), ELEVATIONS - 1)
        self.sky_band = np.minimum((elevation / SKY_TOP * BANDS).astype(np.int32), BANDS - 1)
        self._canvas = np.empty((width, height, 3), np.float32)
        self._terms = np.empty((width, SUB, 3, height + 1), np.float32)

    def dress(self, walls: np.ndarray, rng: np.random.Generator) -> None:
        """Choose every colour of a maze: walls is bool (n, n), indexed [y, x]."""
        n = self.n = len(walls)
        self.walls = walls.reshape(-1)
        sky = look.SKIES[rng.integers(len(look.SKIES))]
        sun_azimuth, sun_elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(23, 29))
        self.fog = sky[1] * 0.96
        self.panorama = look.panorama(sky, sun_azimuth, sun_elevation, rng).reshape(-1, 3)

        faces = n * n * 4
        self.hue = rng.integers(len(HUES), size=faces)
        self.mark = rng.integers(len(look.MARKS), size=faces)
        distance = np.abs(HUES[:, None] - INKS[None]).sum(-1)  # an ink must stand out from its wall
        ranked = np.argsort(-distance, axis=1)[:, :3]
        self.ink = ranked[self.hue, rng.integers(3, size=faces)]
        normal = np.array([math.pi, 0.0, -math.pi / 2, math.pi / 2])  # west, east, south, north face of a cell
        light = np.tile(0.88 + 0.12 * np.cos(normal - sun_azimuth), n * n).astype(np.float32)[:, None]
        light = light * rng.uniform(0.93, 1.05, (faces, 1)).astype(np.float32)
        base = HUES[self.hue] * light
        self.face_base = base * 1.06
        self.face_fall = base * rng.uniform(-0.42, -0.2, (faces, 1)).astype(np.float32)
        self.face_mark = (INKS[self.ink] * light - base) * 0.86
        self.face_lean = rng.uniform(-0.12, 0.12, faces).astype(np.float32)  # brighter to the right or the left

        base_floor = look.FLOORS[rng.integers(len(look.FLOORS))]
        tints = base_floor + np.array([[0, 0, 0], [14, 4, -12], [-14, 0, 12], [-4, 12, -6], [12, -8, 8]], np.float32)
        self.tint = rng.integers(len(tints), size=(n, n))
        padded = np.pad(tints[self.tint], ((1, 1), (1, 1), (0, 0)), mode="edge")
        a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        self.floor = np.stack([a, b - a, c - a, d - b - c + a], axis=2).reshape(-1, 4, 3).astype(np.float32)

    def _cast(self, x: float, y: float, cos: float, sin: float) -> None:
        """Find each ray's wall: depth, face, and how far along the face (left 0, right 1)."""
        n, slope = self.n, self.slope
        dx, dy = cos + slope * sin, sin - slope * cos
        dx[np.abs(dx) < 1e-9] = 1e-9
        dy[np.abs(dy) < 1e-9] = 1e-9
        lines = np.arange(1, n)[:, None]
        depth_x = self._nearest(lines, x, y, dx, dy, n, 1)
        depth_y = self._nearest(lines, y, x, dy, dx, 1, n)
        across_x = depth_x < depth_y  # the ray ends at a line of constant x
        depth = np.where(across_x, depth_x, depth_y)
        px, py = x + depth * dx, y + depth * dy
        cell_x = np.where(across_x, np.rint(px) - (dx < 0), np.floor(px))
        cell_y = np.where(across_x, np.floor(py), np.rint(py) - (dy < 0))
        along = np.where(across_x, py, px) % 1.0
        side = np.where(across_x, dx < 0, 2 + (dy < 0))
        along = np.where((side == 0) | (side == 3), 1 - along, along)
        self.depth, self.along = depth, along
        self.face = ((cell_y * n + cell_x) * 4 + side).astype(np.int64)

    def _nearest(self, lines, p, q, dp, dq, stride_q, stride_p) -> np.ndarray:
        """Depth of the first wall met at a grid line of constant p; walls are looked up at q*stride_q + p*stride_p."""
        t = (lines - p) * (1 / dp)
        beside = np.clip(q + t * dq, 0, self.n - 1).astype(np.int64)
        beside *= stride_q
        beside += lines * stride_p - (dp < 0) * stride_p
        hit = self.walls.take(beside)
        hit &= t > 0
        return np.where(hit, t, 1e6).min(axis=0)

    def frame(self, x: float, y: float, angle: float, gems: np.ndarray, creatures: np.ndarray) -> np.ndarray:
        """Draw what is seen from (x, y): gems and creatures are float (k, 2) positions."""
        cos, sin = math.cos(angle), math.sin(angle)
        self.pose = (x, y, cos, sin)
        self._cast(x, y, cos, sin)
        canvas, half = self._canvas, self.half
        self.sky_column = np.rint((angle - self.column_angle) * (AZIMUTHS / (2 * math.pi))).astype(np.int64) % AZIMUTHS
        canvas[:, :half] = self.panorama.take(self.sky_column[:, None] * ELEVATIONS + self.sky_row, axis=0)
        canvas[:, half:] = self._floor(x, y, cos, sin)
        wall = self._walls()  # (W, 4, H): colour times coverage, coverage
        canvas *= (1 - wall[:, 3])[..., None]
        canvas += wall[:, :3].transpose(0, 2, 1)
        self._sprites(gems, creatures)
        np.clip(canvas, 0, 255, out=canvas)
        canvas += 0.5
        return np.ascontiguousarray(canvas.transpose(1, 0, 2)).astype(np.uint8)

    def _floor(self, x: float, y: float, cos: float, sin: float) -> np.ndarray:
        fx = self.floor_depth * np.float32(cos) + self.floor_side * np.float32(sin) + np.float32(x)
        fy = self.floor_depth * np.float32(sin) - self.floor_side * np.float32(cos) + np.float32(y)
        last = np.float32(self.n - 0.01)
        np.clip(fx, 0, last, out=fx)
        np.clip(fy, 0, last, out=fy)
        self.floor_x, self.floor_y = fx, fy
        sx, sy = fx + np.float32(0.5), fy + np.float32(0.5)
        ix, iy = np.floor(sx), np.floor(sy)
        ax, ay = sx - ix - np.float32(0.5), sy - iy - np.float32(0.5)  # 0 at the joint between two cells
        tx = np.clip(ax * self.floor_blend + np.float32(0.5), 0, 1)
        ty = np.clip(ay * self.floor_blend + np.float32(0.5), 0, 1)
        quads = self.floor.take((iy * (self.n + 1) + ix).astype(np.int64), axis=0)  # (W, h, 4, 3)
        joint = np.maximum(1 - np.abs(ax) * self.joint_slope, 0) + np.maximum(1 - np.abs(ay) * self.joint_slope, 0)
        joint *= self.joint_depth
        weights = np.stack([np.ones_like(tx), tx, ty, tx * ty], axis=-1)
        colour = (weights[..., None, :] @ quads)[..., 0, :]
        colour += joint[..., None]
        colour -= self.fog
        colour *= self.floor_clear
        colour += self.fog
        return colour

    def _walls(self) -> np.ndarray:
        """The wall integrated over each pixel's height: float32 (W, 4, H), premultiplied colour and coverage."""
        face, along = self.face, self.along.astype(np.float32)
        clear = np.exp(-self.depth * self.stretch / FOG).astype(np.float32)
        step = (self.depth / WALL).astype(np.float32)  # wall heights per unit of image height
        terms = self._terms
        v = step[:, None] * self.edges
        v += np.float32((WALL - EYE) / WALL)
        np.clip(v, 0, 1, out=v)
        scaled = v * np.float32(TEXELS)
        cell = scaled.astype(np.int32)
        scaled -= cell
        column = self.mark[face] * TEXELS + np.minimum((along * TEXELS).astype(np.int64), TEXELS - 1)
        cell += (column * (TEXELS + 2)).astype(np.int32)[:, None]
        below = look.MARK_FLAT.take(cell)
        below *= scaled
        below += look.BELOW_FLAT.take(cell)
        shape = (self.width, SUB, self.height + 1)
        terms[:, :, 0] = v.reshape(shape)
        terms[:, :, 1] = (v * v * v).reshape(shape)
        terms[:, :, 2] = below.reshape(shape)
        # colour(v) = base + fall * v^2 + mark(v) * (ink - base); soft dark joints at a face's ends
        joint = (2 * along - 1) ** 2
        shade = (1 + self.face_lean[face] * (2 * along - 1) - 0.16 * joint**6) * clear
        weight = (1 / (step / np.float32(self.focal)) / SUB).astype(np.float32)[:, None]
        mix = np.zeros((self.width * SUB, 3, 4), np.float32)
        mix[:, 0, :3] = (self.face_base[face] * shade[:, None] + self.fog * (1 - clear)[:, None]) * weight
        mix[:, 0, 3] = weight[:, 0]
        mix[:, 1, :3] = self.face_fall[face] * (shade[:, None] / 3) * weight
        mix[:, 2, :3] = self.face_mark[face] * shade[:, None] * weight
        mix = mix.reshape(self.width, SUB * 3, 4).transpose(0, 2, 1)
        total = mix @ terms.reshape(self.width, SUB * 3, self.height + 1)
        return np.diff(total, axis=2)

    def _sprites(self, gems: np.ndarray, creatures: np.ndarray) -> None:
        x, y, cos, sin = self.pose
        self.moving: list[tuple[slice, slice, np.ndarray]] = []
        seen = []
        for kind, places in (("gem", gems), ("creature", creatures)):
            dx, dy = places[:, 0] - x, places[:, 1] - y
            depths, sides = dx * cos + dy * sin, dx * sin - dy * cos
            inside = (depths > 0.12) & (np.abs(sides) < depths * (self.width / 2 / self.focal) + 0.4)
            seen += [(float(depths[i]), float(sides[i]), kind) for i in np.flatnonzero(inside)]
        for depth, side, kind in sorted(seen, reverse=True):
            self._sprite(depth, side, kind)

    def _sprite(self, depth: float, side: float, kind: str) -> None:
        scale = self.focal / depth  # pixels per cell
        middle = self.width / 2 + side * scale
        reach = 0.34 * scale + 1
        left, right = max(int(middle - reach), 0), min(int(middle + reach) + 2, self.width)
        top = max(int(self.half - 0.05 * scale) - 1, 0) if kind == "gem" else max(int(self.half - 0.12 * scale) - 1, 0)
        bottom = min(int(self.half + EYE * scale + 0.08 * scale) + 2, self.height)
        if right <= left:
            return
        free = (self.depth[left * SUB : right * SUB] > depth).reshape(-1, SUB).mean(axis=1)
        if not free.any():
            return
        px = ((np.arange(left, right) + 0.5 - middle) / scale).astype(np.float32)[:, None]  # cells
        pz = (EYE - (np.arange(top, bottom) + 0.5 - self.half) / scale).astype(np.float32)[None, :]
        clear = np.float32(math.exp(-math.hypot(depth, side) / FOG))
        region = self._canvas[left:right, top:bottom]
        visible = free.astype(np.float32)[:, None]
        dark = np.clip(1.3 - np.hypot(px / 0.19, pz / 0.05), 0, 1) * (0.38 * clear) * visible
        region *= (1 - dark)[..., None]
        if kind == "gem":
            colour, cover = look.gem(px, pz, scale)
        else:
            colour, cover = look.creature(px, pz, scale)
        cover *= visible
        colour = self.fog + (colour - self.fog) * clear
        region += (colour - region) * cover[..., None]
        self.moving.append((slice(left, right), slice(top, bottom), cover > 0.5))

    def surface(self) -> np.ndarray:
        """Number the patch behind each pixel of the last frame: int32 (height, width); -1 for gems and creatures."""
        n, half = self.n, self.half
        faces = n * n * 4 * U_PATCHES * V_PATCHES
        floors = 4 * n * n
        ids = np.empty((self.width, self.height), np.int32)
        sector = self.sky_column * SECTORS // AZIMUTHS
        ids[:, :half] = faces + floors + sector[:, None] * BANDS + self.sky_band
        ids[:, half:] = faces + (self.floor_y * 2).astype(np.int32) * (2 * n) + (self.floor_x * 2).astype(np.int32)
        pick = slice(SUB // 2, None, SUB)
        centre = (self.edges[:-1] + self.edges[1:]) / 2
        v = self.depth[pick, None] / WALL * centre + (WALL - EYE) / WALL
        patch = np.minimum((self.along[pick] * U_PATCHES).astype(np.int64), U_PATCHES - 1)
        column = (self.face[pick] * U_PATCHES + patch) * V_PATCHES
        wall = column[:, None] + np.clip(v * V_PATCHES, 0, V_PATCHES - 1).astype(np.int64)
        ids = np.where((v >= 0) & (v < 1), wall, ids).astype(np.int32)
        for columns, rows, cover in self.moving:
            ids[columns, rows][cover] = -1
        return np.ascontiguousarray(ids.T)
