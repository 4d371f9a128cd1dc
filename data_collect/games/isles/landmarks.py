"""What stands on the isles: houses, tents, towers, trees, totems, each in a shape and colours of its own.

    hides = put(picture, plan, rng)             # draws them into the ground; bool (H, W): what hides who goes behind

A painter's picture is as wide as its tiles or a little wider, and as high or higher: its foot stands on the lowest row.
No colour is near that of the gems, so that those are told from everything else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_collect.games.isles.ground import rgb
from data_collect.games.isles.world import TILE, Plan

Picture = tuple[np.ndarray, np.ndarray]  # float (h, w, 3) from 0 to 255, bool (h, w)
GEM_HUES = (0.79, 0.98)  # no landmark has one of these


def put(picture: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Draw all landmarks and their shadows into the ground (H, W, 3), the nearer ones over the farther ones."""
    hides = np.zeros(picture.shape[:2], bool)
    for mark in sorted(plan.landmarks, key=lambda mark: mark.top + mark.rows):
        colours, cover = PAINTERS[mark.kind](mark.rows, mark.columns, rng)
        height, width = cover.shape
        top, left = (mark.top + mark.rows) * TILE - height, mark.left * TILE - (width - mark.columns * TILE) // 2
        here = np.s_[top : top + height, left : left + width]
        if plan.solid[mark.top, mark.left]:
            shadow = np.s_[top + 2 : top + 2 + height, left + 2 : left + 2 + width]
            ground = picture[shadow]
            np.copyto(ground, (ground * 0.68).astype(np.uint8), where=cover[..., None])
            hides[here] |= cover
        np.copyto(picture[here], colours.clip(0, 255).astype(np.uint8), where=cover[..., None])
    return hides


def _colour(rng: np.random.Generator, low: float = 0.4, high: float = 0.8) -> np.ndarray:
    """A colour of any hue but the gems'."""
    hue = (GEM_HUES[1] + rng.random() * (1 - GEM_HUES[1] + GEM_HUES[0])) % 1
    return rgb(hue, rng.uniform(low, high), rng.uniform(0.55, 0.98))


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels, 0 in the middle."""
    rows, columns = np.mgrid[:height, :width]
    return rows - (height - 1) / 2, columns - (width - 1) / 2


def _lined(colours: np.ndarray, cover: np.ndarray) -> Picture:
    """With a dark rim."""
    padded = np.pad(cover, 1)
    inner = cover & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((cover & ~inner)[..., None], colours * 0.5, colours), cover


def _mirrored(rng: np.random.Generator, height: int, width: int, choices: int) -> np.ndarray:
    """int (height, width): random numbers, left and right alike."""
    half = rng.integers(choices, size=(height, (width + 1) // 2))
    return np.concatenate((half, half[:, : width // 2][:, ::-1]), 1)


def _dome(y: np.ndarray, x: np.ndarray, radius: float, colour: np.ndarray) -> np.ndarray:
    """A ball's colours (h, w, 3) in light from the upper left, in four tones."""
    lit = np.clip(0.5 - (x + y) / (2.4 * radius), 0, 1)
    return colour * (0.55 + 0.65 * np.round(lit * 3) / 3)[..., None]


def _tree(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = _grid(14, 11)
    radius = rng.uniform(3.2, 4.2)
    cover = np.hypot(y + 2, x) < radius + 0.4
    for angle in rng.uniform(0, 6.3, 5):
        cover |= np.hypot(y + 2 - 1.9 * np.sin(angle), x - 1.9 * np.cos(angle)) < radius - 0.9
    colours = _dome(y + 2, x, radius + 1, _colour(rng, 0.45, 0.75))
    if rng.random() < 0.5:  # fruit or blossom
        colours[rng.random(cover.shape) < 0.14] = _colour(rng, 0.2, 0.9)
    colours, cover = _lined(colours, cover)
    trunk = (np.abs(x) < 1.6) & (y > 0) & ~cover
    return np.where(trunk[..., None], rgb(0.07, 0.5, 0.4), colours), cover | trunk


def _fir(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = _grid(14, 9)
    tiers = int(rng.integers(2, 4))
    part = (y + 7) * tiers / 12
    cover = (np.abs(x) < 1.0 + (part % 1) * 2.2 + part * 0.7) & (y < 5)
    colours = _dome(y, 1.6 * x, 8, _colour(rng, 0.4, 0.7)) * np.where(part % 1 < 0.3, 0.8, 1.1)[..., None]
    if rng.random() < 0.3:
        colours[(part % 1 < 0.45) & (x < 1)] = 240  # snow
    colours, cover = _lined(colours, cover)
    trunk = (np.abs(x) < 1.1) & (y > 4)
    return np.where(trunk[..., None], rgb(0.07, 0.5, 0.35), colours), cover | trunk


def _rock(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = _grid(9, columns * TILE)
    cover = np.zeros(y.shape, bool)
    for middle in rng.uniform(-1, 1, 3 * columns):
        cover |= np.hypot((y - 1.5) * 1.2, x - middle * (columns * TILE / 2 - 3)) < rng.uniform(2.0, 3.6)
    base = rgb(rng.random() * 0.7, rng.uniform(0.05, 0.25), rng.uniform(0.55, 0.85))
    return _lined(_dome(y, x / columns, 5, base) + rng.uniform(-16, 16, (*y.shape, 1)), cover)


def _house(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    height, width = rows * TILE + 3, columns * TILE
    colours, cover = np.empty((height, width, 3)), np.ones((height, width), bool)
    y, x = np.mgrid[:height, :width]
    roof, wall, wood = _colour(rng, 0.5, 0.85), _colour(rng, 0.05, 0.35), _colour(rng, 0.4, 0.8) * 0.6
    eaves = height - 8
    pattern = (y % 3 == 0, x % 3 == 0, (y + x) % 4 == 0, (y // 2 + x // 2) % 2 == 0)[rng.integers(4)]
    colours[:] = roof * np.where(pattern, 0.78, 1.0)[..., None] * (1.12 - 0.3 * x / width)[..., None]
    colours[: eaves // 2] *= 1.12
    cover[:2, [0, -1]] = cover[0, [1, -2]] = False
    colours[eaves:] = wall
    colours[eaves] = wall * 0.6
    door = int(rng.integers(2, width - 5))
    colours[-5:, door : door + 3] = wood
    for window in range(2, width - 3, 4):
        if not door - 3 < window < door + 4:
            colours[-5:-3, window : window + 2] = rgb(0.14, 0.5, 1.0) if rng.random() < 0.5 else rgb(0.58, 0.5, 0.5)
    chimney = int(rng.integers(2, width - 4))
    colours[1:4, chimney : chimney + 2] = _colour(rng, 0.1, 0.4) * 0.8
    return _lined(colours, cover)


def _tent(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    height, width = rows * TILE, columns * TILE
    y, x = _grid(height, width)
    cover = np.abs(x) < 1 + (y + height / 2) * (width / 2 / height)
    one, two = _colour(rng), _colour(rng, 0.0, 0.3)
    fan = np.floor(np.arctan2(x, y + height / 2 + 1) * rng.integers(3, 8))
    colours = np.where((fan % 2 == 0)[..., None], one, two) * np.where(x < 0, 1.05, 0.85)[..., None]
    colours[(np.abs(x) < 0.4 * (y - 1)) & (y > 1)] = one * 0.3  # the opening
    return _lined(colours, cover)


def _parasol(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = _grid(rows * TILE - 1, columns * TILE - 1)
    sectors, radius = int(rng.integers(4, 11)), np.hypot(y, x)
    cover = radius < 7.4
    fan = np.floor((np.arctan2(y, x) / (2 * np.pi) + rng.random()) * sectors)
    shades = np.stack([_colour(rng), _colour(rng, 0.0, 0.4), _colour(rng)])
    colours = shades[(fan % (3 if sectors % 3 == 0 else 2)).astype(int)] * (1.1 - 0.02 * (x + y))[..., None]
    colours[radius < rng.uniform(0.8, 3.0)] = _colour(rng, 0.0, 0.9)
    return _lined(colours, cover)


def _tower(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[:20, :8]
    stone, roof = _colour(rng, 0.02, 0.3), _colour(rng, 0.5, 0.9)
    cover = np.where(y < 7, np.abs(x - 3.5) < 0.6 + y * 0.6, np.abs(x - 3.5) < 3)
    colours = stone * np.where((y % 3 == 0) | ((x + y // 3) % 4 == 0), 0.82, 1.0)[..., None]
    colours[y < 7] = roof
    bands = (y >= 8) & (y < 18) & (y // int(rng.integers(2, 4)) % 2 == 0)
    colours[bands] = _colour(rng) if rng.random() < 0.5 else stone
    colours *= (1.15 - 0.07 * x)[..., None]
    colours[10:13, 3:5] = 30
    return _lined(colours, cover)


def _totem(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    height, width = int(rng.integers(9, 15)), 7
    marks, cover = _mirrored(rng, height, width, 3), _mirrored(rng, height, width, 4) > 0
    cover[:, 2:5] = cover[-3:] = True
    shades = np.stack([_colour(rng), _colour(rng), _colour(rng, 0.0, 0.3)])
    colours = shades[marks] * (1.1 - 0.05 * np.arange(width))[:, None]
    return _lined(np.pad(colours, ((1, 0), (1, 1), (0, 0))), np.pad(cover, ((1, 0), (1, 1))))


def _wall(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[: rows * TILE + 2, : columns * TILE]
    base = _colour(rng, 0.05, 0.45)
    joints = (y % 3 == 2) | ((x + 2 * (y // 3 % 2)) % 4 == 3)
    colours = base * (0.85 + 0.3 * rng.random((len(y) // 3 + 1, columns * 2)))[y // 3, x // 4, None]
    colours[joints] *= 0.72
    top = y < rows * TILE - 5
    colours = np.where(
        top[..., None], np.clip(base * 1.15 + 12, 0, 255) - 10.0 * ((x + y) % 3 == 0)[..., None], colours
    )
    return _lined(colours, np.ones(y.shape, bool))


def _mosaic(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    size = int(rng.choice([2, 4]))  # pixels of a stone
    height, width = rows * TILE // size, columns * TILE // size
    marks = _mirrored(rng, (height + 1) // 2, width, 4)
    if rng.random() < 0.5:  # rings
        y, x = _grid(height, width)
        marks = (marks[0, 0] + np.maximum(np.abs(y), np.abs(x)).astype(int) // int(rng.integers(1, 3))) % 3
    else:
        marks = np.concatenate((marks, marks[: height // 2][::-1]))
    shades = np.stack([_colour(rng, 0.1, 0.5) for _ in range(4)])
    colours = shades[marks.repeat(size, 0).repeat(size, 1)]
    return _lined(colours, np.ones(colours.shape[:2], bool))


def _field(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[: rows * TILE, : columns * TILE]
    along, across = (y, x) if rng.random() < 0.5 else (x, y)
    period = int(rng.integers(3, 5))
    crop, soil = _colour(rng, 0.5, 0.8), rgb(rng.uniform(0.04, 0.1), 0.45, 0.45)
    grown = (along % period > 0) & ((across + along // period) % int(rng.integers(2, 5)) > 0)
    return np.where(
        grown[..., None], crop * (1.1 - 0.3 * rng.random((rows, columns, 1)).repeat(TILE, 0).repeat(TILE, 1)), soil
    ), np.ones(y.shape, bool)


def _bed(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[: rows * TILE, : columns * TILE]
    flowers = rng.random((rows * 2 + 1, columns * 2 + 1)) < 0.6  # every fourth pixel, in shifted rows
    across = x + 2 * (y // 4 % 2)
    grown, row, column = flowers[y // 4, across // 4], y % 4, across % 4
    petals, stalk = grown & (row < 2) & (column < 2), grown & (row == 2) & (column == 1)
    colours = np.where(petals[..., None], _colour(rng, 0.5, 0.95), rgb(rng.uniform(0.22, 0.4), 0.6, 0.42))
    colours[grown & (row == 0) & (column == 0)] = _colour(rng, 0.0, 0.6)
    return colours, petals | stalk


PAINTERS: dict[str, Callable[[int, int, np.random.Generator], Picture]] = {
    "tree": _tree, "fir": _fir, "rock": _rock, "house": _house, "tent": _tent, "parasol": _parasol, "tower": _tower,
    "totem": _totem, "wall": _wall, "mosaic": _mosaic, "field": _field, "bed": _bed,
}  # fmt: skip
