"""The ground of a world of isles: sea, shores, sand, meadows, paths, bridges, in colours that are new in every episode.

Every material is a ramp of tones from dark to light. A pixel's tone follows smooth noise, a light from the upper left,
and grain, so the ground looks nowhere as it does elsewhere.
"""

from __future__ import annotations

import colorsys

import numpy as np

from data_collect.games.isles.world import TILE, Plan, noise, stretch

TONES = 12
# Hue (a full turn is 1), saturation and value of a meadow.
MEADOWS = np.array(
    [(0.30, 0.52, 0.66), (0.24, 0.55, 0.72), (0.36, 0.45, 0.56), (0.16, 0.52, 0.78), (0.10, 0.50, 0.76),
     (0.46, 0.38, 0.62), (0.72, 0.24, 0.72), (0.55, 0.10, 0.92), (0.04, 0.42, 0.70)]
)  # fmt: skip


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """float (3,) from 0 to 255; a full turn of the hue is 1."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)))


def ramp(hue: float, saturation: float, value: float, contrast: float = 0.3) -> np.ndarray:
    """float (TONES, 3): a colour from its shade, a little bluer, to its light, a little paler."""
    steps = np.linspace(-1, 1, TONES)
    return np.array([rgb(hue - 0.03 * s, saturation * (1 - 0.2 * s), value * (1 + contrast * s)) for s in steps])


def paint(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3), `TILE` pixels a tile."""
    side = len(plan.land) * TILE
    grain = rng.random((side, side), np.float32)
    rough = noise(rng, side, 5) - 0.5
    land = stretch(plan.land, TILE) + 0.35 * rough
    coast = stretch(_mean(_mean(plan.land.astype(np.float32))), TILE) + 0.12 * rough  # 1 inland, 0 far out
    hills = 0.65 * noise(rng, side, 44) + 0.35 * noise(rng, side, 14)
    light = np.zeros_like(hills)
    light[1:, 1:] = 60 * (hills[1:, 1:] - hills[:-1, :-1])

    sea, sand = ramp(rng.uniform(0.50, 0.62), 0.62, 0.66, 0.42), ramp(rng.uniform(0.10, 0.14), 0.32, 0.86, 0.16)
    meadows = MEADOWS[rng.permutation(len(MEADOWS))[:4]] + rng.uniform(-0.03, 0.03, (4, 3))
    earth = ramp(rng.uniform(0.06, 0.11), 0.36, 0.66, 0.22)
    colours = np.concatenate([sea, sand, earth, *(ramp(h, s, v, 0.26) for h, s, v in meadows)])

    region = noise(rng, side, 72) + 0.10 * rough + 0.5 * (noise(rng, side, 30) - 0.5)
    kind = np.digitize(region, np.quantile(region[::16, ::16], (0.25, 0.5, 0.75)))
    tone = 5.0 + 4.0 * (hills - 0.5) + 1.6 * light + 3.0 * rough * (noise(rng, side, 3) - 0.3)
    tufts = grain > 0.985
    tone += 2.5 * tufts - 2.5 * np.roll(tufts, 1, 0)
    index = _tones(3 + kind, tone + grain)

    shore = coast < 0.74 + 0.1 * rough
    np.copyto(index, _tones(1, 6.2 + 9 * (coast - 0.55) + grain - 3.0 * (land < 0.62)), where=shore)
    trodden = stretch(plan.path, TILE) + 0.5 * rough
    np.copyto(index, _tones(2, 5.5 + grain - 3.5 * (trodden < 0.58) + 1.6 * light), where=trodden > 0.42)
    crests = np.lib.stride_tricks.sliding_window_view(np.pad(grain > 0.99, ((0, 0), (3, 0))), 4, 1).any(-1)
    tone = 0.5 + 11 * coast + 2.5 * (noise(rng, side, 6) - 0.5) + 2.5 * crests
    tone = np.where((land > 0.40) | ((land > 0.26) & (land < 0.31)), TONES, tone.clip(0, TONES - 2))
    np.copyto(index, _tones(0, tone), where=land < 0.5)
    picture = colours.clip(0, 255).astype(np.uint8)[index]
    _bridges(picture, plan, rng)
    return picture


def _tones(material: np.ndarray | int, tone: np.ndarray) -> np.ndarray:
    """Rows of the table of colours, one ramp a material."""
    return material * TONES + tone.clip(0, TONES - 1).astype(np.int64)


def _mean(grid: np.ndarray) -> np.ndarray:
    """Each cell's mean with its neighbours."""
    for axis in (0, 1):
        grid = (np.roll(grid, 1, axis) + grid + np.roll(grid, -1, axis)) / 3
    return grid


def _bridges(picture: np.ndarray, plan: Plan, rng: np.random.Generator) -> None:
    """Planks across the way, and a rail where the water begins."""
    wood = ramp(rng.uniform(0.06, 0.10), 0.45, 0.62)
    walkable = plan.land | plan.bridge
    for row, column in np.argwhere(plan.bridge):
        across = walkable[row - 1, column] and walkable[row + 1, column]
        across &= not (walkable[row, column - 1] and walkable[row, column + 1])
        planks = np.tile(wood[rng.integers(5, 8, (TILE // 2, 1))].repeat(2, 0), (1, TILE, 1))
        planks[1::2] *= 0.86
        planks = planks if across else planks.transpose(1, 0, 2)
        for step, edge in (
            ((-1, 0), np.s_[:1]),
            ((1, 0), np.s_[-1:]),
            ((0, -1), np.s_[:, :1]),
            ((0, 1), np.s_[:, -1:]),
        ):
            if not walkable[row + step[0], column + step[1]]:
                planks[edge] = wood[1]
        picture[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = planks
