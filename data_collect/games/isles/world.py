"""Where things are in a world of isles: land and water, paths and bridges, landmarks, what can be walked on.

    plan = lay_out(size=56, margin=5, rng)
    plan.solid[row, column]             # whether the player is stopped there
    plan.landmarks                      # what stands where; `landmarks.py` draws it

Isles are noisy discs. Paths join their middles, as bridges over water, so that all of them can be walked. A solid
landmark has free land all round it, so none cuts a way off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_collect.games.maze import distances

TILE = 8  # pixels


class Kind(NamedTuple):
    """A kind of landmark: rows and columns in tiles (least, most), how many for 1,000 tiles of land, solid or flat."""

    name: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    often: int
    solid: bool = True


KINDS = (
    Kind("mosaic", (2, 4), (2, 4), 8, solid=False),
    Kind("field", (2, 3), (2, 4), 6, solid=False),
    Kind("house", (2, 2), (2, 3), 12),
    Kind("tent", (2, 2), (2, 2), 6),
    Kind("parasol", (2, 2), (2, 2), 7),
    Kind("wall", (1, 1), (2, 4), 7),
    Kind("wall", (2, 4), (1, 1), 7),
    Kind("tower", (1, 1), (1, 1), 8),
    Kind("totem", (1, 1), (1, 1), 14),
    Kind("rock", (1, 1), (1, 2), 10),
    Kind("tree", (1, 1), (1, 1), 70),
    Kind("fir", (1, 1), (1, 1), 25),
    Kind("bed", (1, 1), (1, 2), 30, solid=False),
)


class Landmark(NamedTuple):
    """What stands at rows `top` … `top + rows - 1` and columns `left` … `left + columns - 1`, in tiles."""

    kind: str
    top: int
    left: int
    rows: int
    columns: int


@dataclass
class Plan:
    """A world's tiles, bool (n, n) each: `land`, `path` on land, `bridge` over water, `solid`, and `reached`, where the
    player gets to from `start` (row, column)."""

    land: np.ndarray
    path: np.ndarray
    bridge: np.ndarray
    solid: np.ndarray
    reached: np.ndarray
    start: tuple[int, int]
    landmarks: list[Landmark]


def stretch(grid: np.ndarray, factor: int) -> np.ndarray:
    """float32 (rows * factor, columns * factor): the grid's values at its cells' middles, smooth in between."""
    grid = grid.astype(np.float32)
    for axis in (0, 1):
        last = grid.shape[axis] - 1
        place = np.clip((np.arange((last + 1) * factor, dtype=np.float32) + 0.5) / factor - 0.5, 0, last)
        low = place.astype(np.int64)
        part = place - low
        part = np.expand_dims(part * part * (3 - 2 * part), 1 - axis)
        grid = grid.take(low, axis) * (1 - part) + grid.take(np.minimum(low + 1, last), axis) * part
    return grid


def noise(rng: np.random.Generator, side: int, period: int) -> np.ndarray:
    """float32 (side, side) between 0 and 1 that varies over `period` cells."""
    return stretch(rng.random((side // period + 2, side // period + 2)), period)[:side, :side]


def lay_out(size: int, margin: int, rng: np.random.Generator) -> Plan:
    """A world of `size` tiles a side with `margin` tiles of open sea all round."""
    side = size + 2 * margin
    middles = _middles(size, rng) + margin
    radii = rng.uniform(5.0, 9.0, len(middles))
    rows, columns = np.mgrid[:side, :side]
    away = np.hypot(rows[..., None] - middles[:, 0], columns[..., None] - middles[:, 1])
    height = (1 - away / radii).max(-1) + 1.1 * (noise(rng, side, 5) - 0.5) + 0.4 * (noise(rng, side, 2) - 0.5)
    rim = (
        np.minimum(np.minimum(rows, columns), side - 1 - np.maximum(rows, columns)) - margin
    )  # tiles from the open sea
    land = (height - 0.25 * np.clip(3 - rim, 0, 3) > 0) & (rim >= 1)
    for row, column in middles:
        land[row - 1 : row + 3, column - 1 : column + 3] = True
    way, wide = _ways(middles, side, rng)
    bridge = wide & ~land
    start = tuple(int(n) for n in middles[np.hypot(*(middles - side / 2).T).argmin()])
    free = ~(land | bridge)
    solid, landmarks = _landmarks(land, way & land, bridge, rng)
    solid |= free
    reached = distances(solid, (start[1], start[0])) >= 0
    return Plan(land, way & land, bridge, solid, reached, (start[0], start[1]), landmarks)


def _middles(size: int, rng: np.random.Generator) -> np.ndarray:
    """int (isles, 2): row and column of each isle's middle, none near another."""
    apart, middles = 12.0, list[np.ndarray]()
    for place in rng.integers(5, size - 6, (400, 2)):
        if all(np.hypot(*(place - other)) >= apart for other in middles):
            middles.append(place)
    return np.array(middles)


def _ways(middles: np.ndarray, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bool (side, side) each: the ways between the middles, one tile wide, and the same two tiles wide."""
    count = len(middles)
    gaps = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
    links, joined = set[tuple[int, int]](), [0]
    while len(joined) < count:  # the shortest tree
        rest = [i for i in range(count) if i not in joined]
        a, b = min(((a, b) for a in joined for b in rest), key=lambda pair: gaps[pair])
        links.add((a, b))
        joined.append(b)
    near = [(a, b) for a in range(count) for b in range(a) if gaps[a, b] < 20 and (b, a) not in links]
    links |= {near[i] for i in rng.permutation(len(near))[: count // 2]}  # and some rounds
    way, wide = np.zeros((side, side), bool), np.zeros((side, side), bool)
    for a, b in sorted(links):
        (row, column), (to_row, to_column) = middles[a], middles[b]
        corner_row, corner_column = (row, to_column) if rng.random() < 0.5 else (to_row, column)
        for one, two in (((row, column), (corner_row, corner_column)), ((corner_row, corner_column), middles[b])):
            top, left = np.minimum(one, two)
            bottom, right = np.maximum(one, two)
            way[top : bottom + 1, left : right + 1] = True
            wide[top : bottom + 2, left : right + 2] = True
    return way, wide


def _landmarks(
    land: np.ndarray, path: np.ndarray, bridge: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[Landmark]]:
    """Bool (n, n) of the tiles that solid landmarks take, and all landmarks."""
    walkable, empty = land | bridge, land & ~path
    solid, found = np.zeros_like(land), list[Landmark]()
    places = np.argwhere(empty)
    for kind in KINDS:
        wanted = round(kind.often * land.sum() / 1000)
        for top, left in places[rng.integers(len(places), size=6 * wanted)].tolist():
            if not wanted:
                break
            rows, columns = (int(rng.integers(low, high + 1)) for low, high in (kind.rows, kind.columns))
            here = slice(top, top + rows), slice(left, left + columns)
            around = slice(top - 1, top + rows + 1), slice(left - 1, left + columns + 1)
            if empty[here].all() and (walkable[around].all() if kind.solid else land[around].all()):
                empty[here] = False
                if kind.solid:
                    solid[here], walkable[here] = True, False
                found.append(Landmark(kind.name, top, left, rows, columns))
                wanted -= 1
    return solid, found
