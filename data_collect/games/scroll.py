"""Small scrolling worlds of random tiles, seen from above or from the side (numpy only).

    make("scroll")                                  # from above: walk, between walls, take coins, avoid what moves
    make("scroll?view=side&width=96&height=64")     # from the side: run and jump over gaps

Tiles, colours and sprites are drawn anew in every episode, so that no two look alike. What stands stays where it is.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from data_collect.errors import UserError
from data_collect.games.resize import check_size
from data_collect.schema import ActionSchema

TILE = 8  # pixels
LONG, SHORT = 64, 20  # tiles of a world's sides; from above both are the mean of the two
FPS = 20.0
SPEED, JUMP, GRAVITY, FALL = 2, 7, 1, 6  # pixels a step, and a step a step
MOVERS, COINS = 8, 40


class Scroll(gymnasium.Env[np.ndarray, np.ndarray]):
    """A world of random tiles under a camera that follows the player; `view` is "top" or "side".

    A coin gives +1; what moves gives -1 and ends the episode, as falling off the world does. `UserError`: another view,
    an impossible size.
    """

    replayable = True

    def __init__(self, *, view: str = "top", width: int = 64, height: int = 64) -> None:
        if view not in ("top", "side"):
            raise UserError(f"scroll: view={view} is none of top, side")
        check_size(width, height)
        self.side, self.width, self.height = view == "side", width, height
        middle = (LONG + SHORT) // 2
        self.rows, self.columns = (SHORT, LONG) if self.side else (middle, middle)
        if width > self.columns * TILE or height > self.rows * TILE:
            raise UserError(
                f"scroll: a world is {self.columns * TILE}x{self.rows * TILE} pixels, less than {width}x{height}"
            )
        names = ("left", "right", "jump") if self.side else ("left", "right", "up", "down")
        keys = {"left": "left", "right": "right", "up": names[2]} | ({} if self.side else {"down": "down"})
        self.action_schema = ActionSchema("multibinary", names, keys=keys, fps=FPS)
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        rng = self.np_random
        rows, columns = self.rows, self.columns
        self.solid = self._terrain(rows, columns)
        ground, wall = _texture(rng, 5), _texture(rng, 2)
        kinds = rng.integers(5, size=self.solid.shape) * (rng.random(self.solid.shape) < rng.uniform(0.1, 0.6))
        tiles = np.where(self.solid[..., None, None, None], wall[rng.integers(2, size=self.solid.shape)], ground[kinds])
        self.world = tiles.swapaxes(1, 2).reshape(rows * TILE, columns * TILE, 3)
        self.sprites = [_sprite(rng) for _ in range(3)]  # player, coin, mover
        free = np.argwhere(~self.solid)
        if self.side:  # on the ground, and not above a gap
            free = np.array([(y, x) for y, x in free if y + 1 < rows and self.solid[y + 1, x]])
        places = free[rng.permutation(len(free))] * TILE
        self.place, self.fall = places[0].copy(), 0
        self.coins = places[1 : COINS + 1]
        self.movers = places[COINS + 1 : COINS + 1 + MOVERS].copy()
        self.ways = rng.choice([-1, 1], size=len(self.movers))
        return self.render(), {}

    def _terrain(self, rows: int, columns: int) -> np.ndarray:
        """Bool (rows, columns): where nobody can go."""
        rng = self.np_random
        if not self.side:
            solid = rng.random((rows, columns)) < rng.uniform(0.05, 0.25)
            solid[[0, -1]] = solid[:, [0, -1]] = True
            return solid
        heights = np.clip(rows * 2 // 3 + np.cumsum(rng.integers(-1, 2, columns)), 4, rows - 2)
        solid = np.arange(rows)[:, None] >= heights
        solid[:, rng.random(columns) < 0.06] = False  # gaps
        for _ in range(columns // 4):  # platforms
            x, length = rng.integers(columns - 6), rng.integers(2, 6)
            solid[max(2, heights[x] - rng.integers(3, 6)), x : x + length] = True
        return solid

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        held = self.action_schema.raw(action).astype(int)
        across = SPEED * int(held[1] - held[0])
        if self.side:
            standing = not self._move(np.array([1, 0]), try_only=True)
            self.fall = -JUMP if held[2] and standing else min(self.fall + GRAVITY, FALL)
            for _ in range(abs(self.fall)):
                if not self._move(np.array([np.sign(self.fall), 0])):
                    self.fall = 0
                    break
        else:
            self._move(np.array([SPEED * int(held[3] - held[2]), 0]))
        self._move(np.array([0, across]))
        for i, way in enumerate(self.ways):
            there = self.movers[i] + (0, way)
            if self._blocked(there) or self.np_random.random() < 0.02:
                self.ways[i] = -way
            else:
                self.movers[i] = there
        near = np.abs(self.coins - self.place).max(1, initial=0) < TILE - 1
        self.coins = self.coins[~near]
        hit = bool((np.abs(self.movers - self.place).max(1, initial=0) < TILE - 2).any())
        fallen = bool(self.place[0] >= len(self.world) - TILE)
        return self.render(), float(near.sum()) - hit, hit or fallen, False, {}

    def _move(self, way: np.ndarray, try_only: bool = False) -> bool:
        """Move the player by (down, across) pixels unless something is in the way; whether nothing is."""
        free = not self._blocked(self.place + way)
        if free and not try_only:
            self.place = self.place + way
        return free

    def _blocked(self, place: np.ndarray) -> bool:
        """Whether a tile's square at this place (y, x) touches a solid tile, or leaves the world to a side."""
        corners = (place[:, None] + np.array([[0, 0, TILE - 1, TILE - 1], [0, TILE - 1, 0, TILE - 1]])) // TILE
        rows, columns = self.solid.shape
        if corners[1].min() < 0 or corners[1].max() >= columns or corners[0].min() < 0:
            return True
        inside = corners[0] < rows
        return bool(self.solid[corners[0][inside], corners[1][inside]].any())

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The part of the world around the player."""
        size = np.array([self.height, self.width])
        corner = np.clip(self.place + TILE // 2 - size // 2, 0, np.array(self.world.shape[:2]) - size)
        frame = self.world[corner[0] : corner[0] + self.height, corner[1] : corner[1] + self.width].copy()
        for places, (picture, mask) in zip(
            (self.coins, self.movers, [self.place]), (*self.sprites[1:], self.sprites[0])
        ):
            for y, x in np.asarray(places) - corner:
                if -TILE < y < self.height and -TILE < x < self.width:
                    rows, columns = slice(max(0, -y), self.height - y), slice(max(0, -x), self.width - x)
                    part = frame[max(0, y) : y + TILE, max(0, x) : x + TILE]
                    np.copyto(part, picture[rows, columns], where=mask[rows, columns, None])
        return frame


def _texture(rng: np.random.Generator, count: int) -> np.ndarray:
    """uint8 (count, TILE, TILE, 3): variants of a tile, two shades of a colour in a random pattern."""
    shades = np.clip(rng.integers(20, 220, 3) + rng.integers(-40, 41, (2, 3)), 0, 255)
    coarse = rng.integers(2, size=(count, TILE // 2, TILE // 2)) * (rng.random((count, 1, 1)) < 0.7)
    return shades[coarse.repeat(2, 1).repeat(2, 2)].astype(np.uint8)


def _sprite(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (TILE, TILE, 3) with left and right alike, and where it covers, bool (TILE, TILE)."""
    half = rng.random((TILE, TILE // 2)) < 0.65
    half[2:-2, 1:] = True
    mask = np.concatenate((half, half[:, ::-1]), 1)
    spots = rng.integers(3, size=(TILE, TILE // 2))
    return rng.integers(0, 256, (3, 3)).astype(np.uint8)[np.concatenate((spots, spots[:, ::-1]), 1)], mask
