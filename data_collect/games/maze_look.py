"""The maze's colours: hues, marks, sky and what moves. Pure functions of numbers (numpy only)."""

from __future__ import annotations

import math

import numpy as np

EYE, WALL = 0.5, 0.85  # heights, in cells
AZIMUTHS, ELEVATIONS = 1440, 96  # resolution of the sky's panorama (360 degrees x 0..48 degrees)
SKY_TOP = math.radians(48.0)
TEXELS = 128  # resolution of a mark

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
BELOW_FLAT = np.ascontiguousarray(_BELOW.reshape(-1))
MARK_FLAT = np.ascontiguousarray(np.diff(_BELOW, axis=2, append=_BELOW[:, :, -1:]).reshape(-1))


def _waves(rng: np.random.Generator, angles: np.ndarray, harmonics: tuple[int, ...]) -> np.ndarray:
    """A smooth random function of the azimuth, roughly within [-1, 1]."""
    total = np.zeros_like(angles)
    for k in harmonics:
        total += rng.uniform(0.5, 1.0) * np.sin(k * angles + rng.uniform(0, 2 * math.pi)) / len(harmonics)
    return total * 1.5


def panorama(sky: np.ndarray, sun_azimuth: float, sun_elevation: float, rng: np.random.Generator) -> np.ndarray:
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


def gem(px: np.ndarray, pz: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    z = pz - 0.31
    inside = 1 - (np.abs(px) / 0.15 + np.abs(z) / 0.22)
    cover = np.clip(inside * (0.124 * scale) + 0.5, 0, 1)
    soft = min(scale * 0.5, 40.0)
    facet = np.clip(px * soft + 0.5, 0, 1) * 0.28 + np.clip(-z * soft + 0.5, 0, 1) * 0.22
    shine = np.clip(1.2 - np.hypot(px + 0.045, z - 0.06) / 0.045, 0, 1) * 0.8
    colour = GEM * (1.12 - facet)[..., None]
    return colour + (255 - colour) * shine[..., None], cover


def creature(px: np.ndarray, pz: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    z = pz - 0.29
    r = np.hypot(px, z)
    cover = np.clip((0.25 - r) * scale + 0.5, 0, 1)
    colour = BODY * (1.0 + 0.9 * np.clip(0.5 + 1.6 * (z - px), 0, 1))[..., None]
    eye = np.hypot(np.abs(px) - 0.09, (z - 0.05) * 0.85)
    colour = colour + (np.float32(250) - colour) * np.clip((0.075 - eye) * scale + 0.5, 0, 1)[..., None]
    pupil = np.clip((0.036 - np.hypot(np.abs(px) - 0.08, z - 0.035)) * scale + 0.5, 0, 1)
    return colour * (1 - 0.88 * pupil)[..., None], cover
