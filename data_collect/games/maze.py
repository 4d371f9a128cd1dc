"""The built-in maze: a small first-person world to be remembered (numpy only).

    python -m data_collect record --game maze --player explorer --frames 20000 --out data/maze
    python -m data_collect record --game "maze?size=15&creatures=0" --player explorer --frames 20000 --out data/maze15

A 64x64 picture, 20 frames a second. Buttons (any combination): forward, back, turn_left, turn_right. A turn is 5
degrees a frame and a step 0.07 cells, without inertia: the next pose is a function of pose and buttons. Gems give +1
and are gone for good; touching a creature gives -1 and ends the episode.

Coordinates: x to the east, y to the north, in cells; the angle counter-clockwise from the east, in radians;
`map[int(y), int(x)]`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import gymnasium
import numpy as np

from data_collect.errors import UserError
from data_collect.games.maze_view import View
from data_collect.schema import ActionSchema

FPS = 20.0
BUTTONS = ("forward", "back", "turn_left", "turn_right")
KEYS = {
    "up": "forward", "down": "back", "left": "turn_left", "right": "turn_right",
    "w": "forward", "s": "back", "a": "turn_left", "d": "turn_right",
}  # fmt: skip
HEADINGS = 72  # 5 degrees
WALK = 0.07  # cells a frame
RADIUS = 0.24  # of the player, against walls
TAKE, TOUCH = 0.42, 0.45  # distances at which a gem is taken, a creature touched
CREATURE_FRAMES = 28  # a creature's frames from cell to cell: half the player's speed
NEIGHBOURS = ((1, 0), (0, 1), (-1, 0), (0, -1))
FREE, WALL_CELL, GEM_CELL, CREATURE_CELL = 0, 1, 2, 3


def carve(size: int, braid: float, rng: np.random.Generator) -> np.ndarray:
    """A maze as bool (size, size), True = wall: a random tree, a few small rooms, and dead ends opened into loops."""
    walls = np.ones((size, size), bool)
    walls[1::2, 1::2] = True
    cell = (1, 1)
    walls[1, 1] = False
    stack = [cell]
    while stack:
        x, y = stack[-1]
        ways = [(dx, dy) for dx, dy in NEIGHBOURS if 0 < x + 2 * dx < size and 0 < y + 2 * dy < size]
        ways = [(dx, dy) for dx, dy in ways if walls[y + 2 * dy, x + 2 * dx]]
        if not ways:
            stack.pop()
            continue
        dx, dy = ways[rng.integers(len(ways))]
        walls[y + dy, x + dx] = walls[y + 2 * dy, x + 2 * dx] = False
        stack.append((x + 2 * dx, y + 2 * dy))
    for _ in range(round(braid * (size // 2) ** 2 / 20) if size >= 7 else 0):
        x, y = 1 + 2 * rng.integers(size // 2 - 1, size=2)
        walls[y : y + 3, x : x + 3] = False
    for y in range(1, size, 2):
        for x in range(1, size, 2):
            closed = [(dx, dy) for dx, dy in NEIGHBOURS if walls[y + dy, x + dx]]
            inner = [(dx, dy) for dx, dy in closed if 0 < x + 2 * dx < size and 0 < y + 2 * dy < size]
            if len(closed) >= 3 and inner and rng.random() < braid:
                dx, dy = inner[rng.integers(len(inner))]
                walls[y + dy, x + dx] = False
    return walls


def distances(walls: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """Steps on the grid from start (x, y) to every cell: int (n, n), -1 where there is no way."""
    far = np.full(walls.shape, -1)
    far[start[1], start[0]] = 0
    queue = deque([start])
    while queue:
        x, y = queue.popleft()
        for dx, dy in NEIGHBOURS:
            if not walls[y + dy, x + dx] and far[y + dy, x + dx] < 0:
                far[y + dy, x + dx] = far[y, x] + 1
                queue.append((x + dx, y + dy))
    return far


class Creature:
    """Wanders from cell to cell, all but never into the player's."""

    def __init__(self, cell: tuple[int, int], rng: np.random.Generator) -> None:
        self.cell = self.last = self.next = cell
        self.progress = 0
        self.rng = rng

    @property
    def place(self) -> tuple[float, float]:
        part = self.progress / CREATURE_FRAMES
        x, y = (0.5 + now + (then - now) * part for now, then in zip(self.cell, self.next))
        return x, y

    def step(self, walls: np.ndarray, player: tuple[int, int]) -> None:
        if self.next == self.cell:
            self._choose(walls, player)
        else:
            self.progress += 1
        if self.progress == CREATURE_FRAMES:
            self.last, self.cell, self.progress = self.cell, self.next, 0
            self._choose(walls, player)

    def _choose(self, walls: np.ndarray, player: tuple[int, int]) -> None:
        x, y = self.cell
        ways = [(x + dx, y + dy) for dx, dy in NEIGHBOURS if not walls[y + dy, x + dx]]
        away = [w for w in ways if abs(w[0] - player[0]) + abs(w[1] - player[1]) > 1]
        if self.rng.random() < 0.97:  # now and then it does not look where it goes
            ways = away or [self.cell]
        onward = [w for w in ways if w != self.last]
        ways = onward or ways or [self.cell]
        self.next = ways[self.rng.integers(len(ways))]


class Maze(gymnasium.Env):
    """The maze as a gymnasium environment; observations are uint8 (height, width, 3).

    size: cells per side, walls included (odd, 5 to 101). creatures: how many. gems: how many (None: one for 7 free
    cells). braid: the share of dead ends opened into loops, 0 to 1. width, height: the picture, in pixels. surface: put
    `info["surface"]`, int32 (height, width): the number of the surface patch behind each pixel, unique and constant in
    an episode (-1: a gem or a creature). Raises UserError for a value that makes no sense.
    info: "pose" (x, y, angle), "map" uint8 (size, size): 0 free, 1 wall, 2 gem, 3 creature.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}
    replayable = True  # seed and actions give the same frames again

    def __init__(
        self, size: int = 11, creatures: int = 1, gems: int | None = None, braid: float = 1.0, surface: bool = False,
        width: int = 64, height: int = 64,
    ) -> None:  # fmt: skip
        self.size = int(number("maze: size", size, 5, 101))
        if self.size % 2 == 0:
            raise UserError(f"maze: size={size} is even; use an odd number of cells, such as {self.size + 1}.")
        self.creature_count = int(number("maze: creatures", creatures, 0, 100))
        self.gem_count = None if gems is None else int(number("maze: gems", gems, 0, 10000))
        self.braid = number("maze: braid", braid, 0, 1)
        self.with_surface = bool(surface)
        self.width = int(number("maze: width", width, 16, 512))
        self.height = int(number("maze: height", height, 16, 512))
        self.render_mode = "rgb_array"
        self.action_space = gymnasium.spaces.MultiBinary(len(BUTTONS))
        self.observation_space = gymnasium.spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        self.action_schema = ActionSchema(kind="multibinary", names=BUTTONS, keys=dict(KEYS), fps=FPS)
        self.view = View(self.width, self.height)
        self.walls: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Build the maze of this seed (None: the one after the last) and return its first frame and info."""
        super().reset(seed=seed)
        world_seed, creature_seed = self.np_random.integers(2**63, size=2)
        world = np.random.default_rng(world_seed)
        self.walls = carve(self.size, self.braid, world)
        self._solid = self.walls.tolist()
        self.view.dress(self.walls, world)
        free = [(int(x), int(y)) for y, x in np.argwhere(~self.walls)]
        start = free[world.integers(len(free))]
        open_ways = [i for i, (dx, dy) in enumerate(NEIGHBOURS) if not self.walls[start[1] + dy, start[0] + dx]]
        self.x, self.y = start[0] + 0.5, start[1] + 0.5
        self.heading = int(open_ways[world.integers(len(open_ways))] * (HEADINGS // 4)) if open_ways else 0
        far = distances(self.walls, start)
        others = [c for c in free if c != start]
        count = min(round(len(free) / 7) if self.gem_count is None else self.gem_count, len(others))
        self.put_gems({others[i] for i in world.permutation(len(others))[:count]})
        creature_rng = np.random.default_rng(creature_seed)
        remote = [c for c in others if far[c[1], c[0]] >= min(4, far.max())]
        self.creatures = [
            Creature(remote[creature_rng.integers(len(remote))], creature_rng) for _ in range(self.creature_count)
        ]
        self._draw()
        return self.frame, self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Do one frame: action is 4 zeros and ones (forward, back, turn_left, turn_right)."""
        if self.walls is None:
            raise RuntimeError("maze: call reset() before step()")
        forward, back, left, right = (bool(button) for button in action)
        self.heading = (self.heading + left - right) % HEADINGS
        if forward != back:
            stride = WALK if forward else -WALK
            self.x, self.y = self._slide(self.x + stride * math.cos(self.angle), self.y + stride * math.sin(self.angle))
        cell = (int(self.x), int(self.y))
        reward, terminated = 0.0, False
        if cell in self.gems and math.hypot(self.x - cell[0] - 0.5, self.y - cell[1] - 0.5) < TAKE:
            self.put_gems(self.gems - {cell})
            reward += 1.0
        for creature in self.creatures:
            creature.step(self.walls, cell)
            place = creature.place
            if math.hypot(self.x - place[0], self.y - place[1]) < TOUCH:
                reward -= 1.0
                terminated = True
                break
        self._draw()
        return self.frame, reward, terminated, False, self._info()

    @property
    def angle(self) -> float:
        """The heading in radians, in (-pi, pi]."""
        turns = self.heading if self.heading <= HEADINGS // 2 else self.heading - HEADINGS
        return turns * (2 * math.pi / HEADINGS)

    def _slide(self, x: float, y: float) -> tuple[float, float]:
        """Push a circle out of the walls around it, straight faces before corners."""
        cx, cy = int(x), int(y)
        solid = self._solid
        if solid[cy][cx + 1]:
            x = min(x, cx + 1 - RADIUS)
        if solid[cy][cx - 1]:
            x = max(x, cx + RADIUS)
        if solid[cy + 1][cx]:
            y = min(y, cy + 1 - RADIUS)
        if solid[cy - 1][cx]:
            y = max(y, cy + RADIUS)
        for sx in (0, 1):
            for sy in (0, 1):
                if solid[cy + 2 * sy - 1][cx + 2 * sx - 1]:
                    dx, dy = x - cx - sx, y - cy - sy
                    gap = math.hypot(dx, dy)
                    if 1e-9 < gap < RADIUS:
                        x, y = cx + sx + dx * RADIUS / gap, cy + sy + dy * RADIUS / gap
        return x, y

    def put_gems(self, cells: set[tuple[int, int]]) -> None:
        """Have gems in these cells and in no others."""
        assert self.walls is not None
        self.gems = cells
        self._gem_places = np.array(sorted(self.gems), float).reshape(-1, 2) + 0.5
        self._plan = self.walls.astype(np.uint8)
        for x, y in self.gems:
            self._plan[y, x] = GEM_CELL

    def _draw(self) -> None:
        creatures = np.array([c.place for c in self.creatures], float).reshape(-1, 2)
        self.frame = self.view.frame(self.x, self.y, self.angle, self._gem_places, creatures)

    def _info(self) -> dict[str, Any]:
        grid = self._plan.copy()
        for creature in self.creatures:
            x, y = creature.place
            grid[int(y), int(x)] = CREATURE_CELL
        info: dict[str, Any] = {"pose": (self.x, self.y, self.angle), "map": grid}
        if self.with_surface:
            info["surface"] = self.view.surface()
        return info

    def render(self) -> np.ndarray:
        return self.frame


def number(name: str, value: Any, low: float, high: float) -> float:
    """The number that an option's value is; `UserError` unless it lies between these."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise UserError(f"{name}={value} is no number from {low} to {high}.")
    return number
