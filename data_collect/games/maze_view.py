"""What a maze looks like from inside: a small vectorised ray caster with analytic filtering (numpy only).

Walls are integrated exactly over the height of every pixel (prefix sums of the face's mark) and sampled four times
over its width, so nothing shimmers; every wall face has a hue, a soft gradient and one big mark, the floor a tint per
cell, the sky hills, clouds and a sun that show the heading. `View.surface` numbers the patch behind each pixel.

Angles are counter-clockwise radians, x to the east, y to the north: the player looks along (cos angle, sin angle).
"""

from __future__ import annotations

import math

import numpy as np

FOV = math.radians(75.0)  # horizontal
EYE, WALL = 0.5, 0.85  # heights, in cells
SUB = 4  # rays per pixel column
FOG = 11.0  # cells at which 1/e of a colour is left
AZIMUTHS, ELEVATIONS = 1440, 96  # resolution of the sky's panorama (360 degrees x 0..48 degrees)
SKY_TOP = math.radians(48.0)
TEXELS = 128  # resolution of a mark
U_PATCHES, V_PATCHES, SECTORS, BANDS = 4, 2, 72, 4  # surface patches: per face, and of the sky

HUES = np.array(
    [[206, 92, 72], [226, 176, 76], [112, 168, 98], [62, 150, 168], [92, 106, 186], [178, 104, 162]], np.float32
)
INKS = np.array([[252, 244, 224], [40, 42, 74], [255, 214, 92], [232, 96, 92], [120, 214, 206]], np.float32)
FLOORS = np.array([[188, 168, 138], [160, 160, 164], [168, 150, 142], [150, 164, 142]], np.float32)
# zenith, horizon, far hills, near hills, sun
SKIES = np.array(
    [
        [[84, 150, 222], [208, 228, 238], [138, 168, 196], [104, 150, 132], [255, 250, 222]],
        [[96, 92, 168], [250, 198, 158], [158, 120, 156], [108, 84, 126], [255, 240, 196]],
        [[96, 184, 196], [240, 240, 210], [156, 190, 186], [104, 158, 138], [255, 255, 236]],
        [[142, 118, 194], [250, 212, 216], [184, 140, 176], [134, 102, 148], [255, 246, 214]],
    ],
    np.float32,
)
GEM = np.array([255, 40, 132], np.float32)
BODY = np.array([58, 44, 92], np.float32)


def _blur(image: np.ndarray, radius: int, axis: int) -> np.ndarray:
    """Box filter of 2*radius+1 along an axis, edges repeated."""
    pad = [(0, 0)] * image.ndim
    pad[axis] = (radius + 1, radius)
    total = np.cumsum(np.pad(image, pad, mode="edge"), axis=axis, dtype=np.float64)
    size = image.shape[axis]
    high = np.take(total, np.arange(size) + 2 * radius + 1, axis=axis)
    return ((high - np.take(total, np.arange(size), axis=axis)) / (2 * radius + 1)).astype(np.float32)


def _marks() -> np.ndarray:
    """The marks' coverage in [0, 1], float32 (marks, u, v), u to the right and v downwards."""
    grid = (np.arange(TEXELS) + 0.5) / TEXELS - 0.5
    x, y = np.meshgrid(grid / 0.29, -grid * WALL / 0.29, indexing="ij")
    r = np.hypot(x, y)
    p, q = (x + y) / math.sqrt(2), (x - y) / math.sqrt(2)
    shapes = [
        r < 0.92,
        (r < 1.02) & (r > 0.56),
        ((abs(x) < 0.31) & (abs(y) < 1)) | ((abs(y) < 0.31) & (abs(x) < 1)),
        ((abs(p) < 0.31) & (abs(q) < 1.1)) | ((abs(q) < 0.31) & (abs(p) < 1.1)),
        abs(x) + abs(y) < 1.12,
        (y > -0.75) & (abs(x) < (0.95 - y) * 0.62),
        (y < 0.75) & (abs(x) < (0.95 + y) * 0.62),
        (x**2 + (1.15 * y + 0.1 - 0.75 * np.sqrt(abs(x))) ** 2) < 0.9,
        (abs(x) < 1.1) & (abs(y) < 0.38),
        (abs(x) < 0.38) & (abs(y) < 1.05),
        (r < 1) & (np.hypot(x - 0.5, y) > 0.78),
        (np.hypot(abs(x) - 0.62, y) < 0.46),
    ]
    marks = np.stack(shapes).astype(np.float32)
    for axis in (1, 2, 1, 2):
        marks = _blur(marks, 1, axis)
    return marks


MARKS = _marks()
# Integral of each mark from the wall's top down to v: (mark, u, v edge); a spare edge closes the last interval.
_BELOW = np.zeros((len(MARKS), TEXELS, TEXELS + 2), np.float32)
_BELOW[:, :, 1:-1] = np.cumsum(MARKS, axis=2) / TEXELS
_BELOW[:, :, -1] = _BELOW[:, :, -2]
_BELOW_FLAT = np.ascontiguousarray(_BELOW.reshape(-1))
_MARK_FLAT = np.ascontiguousarray(np.diff(_BELOW, axis=2, append=_BELOW[:, :, -1:]).reshape(-1))


def _waves(rng: np.random.Generator, angles: np.ndarray, harmonics: tuple[int, ...]) -> np.ndarray:
    """A smooth random function of the azimuth, roughly within [-1, 1]."""
    total = np.zeros_like(angles)
    for k in harmonics:
        total += rng.uniform(0.5, 1.0) * np.sin(k * angles + rng.uniform(0, 2 * math.pi)) / len(harmonics)
    return total * 1.5


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

    # --- one maze ---------------------------------------------------------------------------------------------------

    def dress(self, walls: np.ndarray, rng: np.random.Generator) -> None:
        """Choose every colour of a maze: walls is bool (n, n), indexed [y, x]."""
        n = self.n = len(walls)
        self.walls = walls.reshape(-1)
        sky = SKIES[rng.integers(len(SKIES))]
        sun_azimuth, sun_elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(23, 29))
        self.fog = sky[1] * 0.96
        self.panorama = self._sky(sky, sun_azimuth, sun_elevation, rng).reshape(-1, 3)

        faces = n * n * 4
        self.hue = rng.integers(len(HUES), size=faces)
        self.mark = rng.integers(len(MARKS), size=faces)
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

        base_floor = FLOORS[rng.integers(len(FLOORS))]
        tints = base_floor + np.array([[0, 0, 0], [14, 4, -12], [-14, 0, 12], [-4, 12, -6], [12, -8, 8]], np.float32)
        self.tint = rng.integers(len(tints), size=(n, n))
        padded = np.pad(tints[self.tint], ((1, 1), (1, 1), (0, 0)), mode="edge")
        a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        self.floor = np.stack([a, b - a, c - a, d - b - c + a], axis=2).reshape(-1, 4, 3).astype(np.float32)

    @staticmethod
    def _sky(sky: np.ndarray, sun_azimuth: float, sun_elevation: float, rng: np.random.Generator) -> np.ndarray:
        azimuth = np.arange(AZIMUTHS) / AZIMUTHS * 2 * math.pi
        elevation = (np.arange(ELEVATIONS) + 0.5) / ELEVATIONS * SKY_TOP
        rise = (elevation / SKY_TOP)[None, :, None] ** 0.8
        image = sky[1] * (1 - rise) + sky[0] * rise + np.zeros((AZIMUTHS, 1, 1))
        for _ in range(5):  # broad soft clouds, three puffs each
            place, middle = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(18, 34))
            cloud = np.zeros((AZIMUTHS, ELEVATIONS))
            for shift in (-1, 0, 1):
                wide, high = math.radians(rng.uniform(7, 12)), math.radians(rng.uniform(2.2, 3.6) + 1.2 * (shift == 0))
                turn = (azimuth - place - math.radians(9 * shift) + math.pi) % (2 * math.pi) - math.pi
                cloud += np.exp(-((turn / wide) ** 2)[:, None] - (((elevation - middle) / high) ** 2)[None, :])
            image += (np.array([255, 252, 248]) - image) * (0.8 * (1 - np.exp(-1.1 * cloud)))[..., None]
        turn = (azimuth - sun_azimuth + math.pi) % (2 * math.pi) - math.pi
        distance = np.hypot(turn[:, None] * math.cos(sun_elevation), (elevation - sun_elevation)[None, :])
        glow = 0.5 * np.exp(-((distance / math.radians(11)) ** 2))
        disc = np.clip((math.radians(5.6) - distance) / math.radians(2.2), 0, 1)
        image += (sky[4] - image) * np.maximum(glow, disc)[..., None]
        for layer, (low, swing, waves) in enumerate([(10.0, 5.5, (2, 3, 5)), (5.5, 4.0, (3, 4, 7))]):
            crest = np.radians(low + swing * _waves(rng, azimuth, waves))
            cover = np.clip((crest[:, None] - elevation[None, :]) / math.radians(1.2) + 0.5, 0, 1)[..., None]
            image += (sky[2 + layer] - image) * cover
        return image.astype(np.float32)

    # --- one frame --------------------------------------------------------------------------------------------------

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
        below = _MARK_FLAT.take(cell)
        below *= scaled
        below += _BELOW_FLAT.take(cell)
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

    # --- what moves -------------------------------------------------------------------------------------------------

    def _sprites(self, gems: np.ndarray, creatures: np.ndarray) -> None:
        x, y, cos, sin = self.pose
        self.moving: list[tuple[slice, slice, np.ndarray]] = []
        seen = []
        for kind, places in (("gem", gems), ("creature", creatures)):
            for px, py in places:
                depth = (px - x) * cos + (py - y) * sin
                side = (px - x) * sin - (py - y) * cos
                if depth > 0.12 and abs(side) < depth * self.width / 2 / self.focal + 0.4:
                    seen.append((depth, side, kind))
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
            colour, cover = self._gem(px, pz, scale)
        else:
            colour, cover = self._creature(px, pz, scale)
        cover *= visible
        colour = self.fog + (colour - self.fog) * clear
        region += (colour - region) * cover[..., None]
        self.moving.append((slice(left, right), slice(top, bottom), cover > 0.5))

    @staticmethod
    def _gem(px: np.ndarray, pz: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        z = pz - 0.31
        inside = 1 - (np.abs(px) / 0.15 + np.abs(z) / 0.22)
        cover = np.clip(inside * (0.124 * scale) + 0.5, 0, 1)
        soft = min(scale * 0.5, 40.0)
        facet = np.clip(px * soft + 0.5, 0, 1) * 0.28 + np.clip(-z * soft + 0.5, 0, 1) * 0.22
        shine = np.clip(1.2 - np.hypot(px + 0.045, z - 0.06) / 0.045, 0, 1) * 0.8
        colour = GEM * (1.12 - facet)[..., None]
        return colour + (255 - colour) * shine[..., None], cover

    @staticmethod
    def _creature(px: np.ndarray, pz: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        z = pz - 0.29
        r = np.hypot(px, z)
        cover = np.clip((0.25 - r) * scale + 0.5, 0, 1)
        colour = BODY * (1.0 + 0.9 * np.clip(0.5 + 1.6 * (z - px), 0, 1))[..., None]
        eye = np.hypot(np.abs(px) - 0.09, (z - 0.05) * 0.85)
        colour = colour + (np.float32(250) - colour) * np.clip((0.075 - eye) * scale + 0.5, 0, 1)[..., None]
        pupil = np.clip((0.036 - np.hypot(np.abs(px) - 0.08, z - 0.035)) * scale + 0.5, 0, 1)
        return colour * (1 - 0.88 * pupil)[..., None], cover

    # --- what is behind each pixel ----------------------------------------------------------------------------------

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
