"""The explorer of games that are seen from above: it walks long ways, comes back, takes things and pushes things.

    python -m data_collect record --game isles --player explorer --frames 20000 --out data/isles

It plays any game whose `info` has `map` (uint8 (rows, columns), 1 = wall, 2 = worth taking, 4 = can be pushed, any
other value free) and `map_pose` or `pose` (x, y in cells, y downwards), and which has the buttons left, right, up and
down; it holds `run` on some ways where there is one. The same seed plays the same way. The player `wanderer` does so
half of the time and plays at random otherwise (explorer.py).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.players import gestures
from data_collect.players.explorer import GEM, WALL, Cell, longed_for, path_to, reach
from data_collect.players.gestures import Buttons

PUSHED = 4
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
BROAD = 0.42  # cells: half of the player, with some room
PATIENCE = 8  # frames without getting on


class Walker:
    """`reset(env, frame, info)` before an episode, then `act(frame, info)` gives the action, uint8 (buttons,).

    Args:
        wander: whether it plays at random for half of the time.
    """

    def __init__(self, env: Any, seed: int = 0, wander: bool = False) -> None:
        self.seed, self.episode, self.wander = seed, -1, wander
        self.names: tuple[str, ...] = env.action_schema.names

    def reset(self, env: Any, frame: np.ndarray, info: dict[str, Any]) -> None:
        """Forget the last episode. `UserError` where the game gives no map."""
        if "map" not in info or not ("map_pose" in info or "pose" in info):
            raise UserError("the explorer needs a game that gives its map and pose; use --player random")
        self.episode += 1
        self.rng = np.random.default_rng((self.seed, self.episode))
        self.time, self.stuck = 0, 0
        self.seen = np.full(info["map"].shape, -1, np.int64)  # frame of the last visit
        self.gesture: deque[Buttons] = deque()  # the buttons of the next frames
        self.route: deque[Cell] = deque()
        self.at_goal: list[Buttons] = []  # the buttons to hold at the end of the route
        self.avoid: dict[Cell, int] = {}  # cells that could not be entered, until when
        self.past: deque[Buttons] = deque(maxlen=200)
        self.held: Buttons = ()
        self.place = (-1.0, -1.0)
        self.speed = 0.25  # cells a frame
        self.runs = False

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The buttons to hold on seeing this frame."""
        x, y = (float(value) for value in (info["map_pose"] if "map_pose" in info else info["pose"])[:2])
        grid = np.asarray(info["map"])
        here = int(x), int(y)
        self._notice(here, x, y)
        if self.wander and not self.gesture and self.rng.random() < 0.0125:
            self.gesture.extend(gestures.let_go(self.rng, self.names))
            self.route.clear()
        if not self.gesture and not self.route:
            self._decide(grid, here)
        while self.time % 3 == 0 and len(self.route) > 1 and _clear(grid, x, y, self.route[1]):
            self.route.popleft()  # across, not round the corner of the grid
        held = self.gesture.popleft() if self.gesture else self._steer(x, y)
        self.held = held
        return np.array([name in held for name in self.names], np.uint8)

    def _notice(self, here: Cell, x: float, y: float) -> None:
        """Where it is, what its last buttons did, and whether it gets on."""
        self.time += 1
        self.past.append(self.held)
        column, row = here
        self.seen[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = self.time
        moved = max(abs(x - self.place[0]), abs(y - self.place[1]))
        self.place = x, y
        if moved > 0 and self.held and "run" not in self.held and self.time > 1:
            self.speed += 0.1 * (min(moved, 1.0) - self.speed)
        self.stuck = self.stuck + 1 if self.route and not self.gesture and moved == 0 else 0
        if self.stuck > PATIENCE:
            self.avoid[self.route[0]] = self.time + 300
            self.route.clear()
            self.gesture.extend([(self._any_way(),)] * int(self.rng.integers(3, 9)))
            self.stuck = 0

    def _any_way(self) -> str:
        return list(STEPS)[self.rng.integers(4)]

    def _decide(self, grid: np.ndarray, here: Cell) -> None:
        """What was to be done here, else something in between, else the next place to go."""
        if self.at_goal:
            self.gesture.extend(self.at_goal)
            self.at_goal = []
            return
        rng, roll = self.rng, self.rng.random()
        way, length = self._any_way(), int(rng.integers(4, 24))
        if roll < 0.05:
            self.gesture.extend([()] * length)
        elif roll < 0.10:
            self.gesture.extend([(way,)] * length + [(OPPOSITE[way],)] * length)
        elif roll < 0.16 and len(self.past) > 20:  # back as it came
            held = list(self.past)[-int(rng.integers(20, len(self.past) + 1)) :]
            self.gesture.extend(tuple(OPPOSITE.get(name, name) for name in one) for one in reversed(held))
        elif roll < 0.20:
            self.gesture.extend(gestures.let_go(rng, self.names)[: 2 * length])
        else:
            self._set_out(grid, here)

    def _set_out(self, grid: np.ndarray, here: Cell) -> None:
        """Choose a place and the way there."""
        rng = self.rng
        free = ((grid != WALL) & (grid != PUSHED)).tolist()
        for (x, y), until in self.avoid.items():
            free[y][x] &= until <= self.time
        before, far = reach(free, here)
        cells = [cell for cell in far if cell != here]
        if not cells:
            self.gesture.extend([(self._any_way(),)] * 4)
            return
        self.runs = "run" in self.names and rng.random() < 0.4
        gems = [c for c in cells if grid[c[1], c[0]] == GEM]
        fresh = [c for c in cells if self.seen[c[1], c[0]] < 0]
        known = [c for c in cells if self.seen[c[1], c[0]] >= 0 and far[c] > 3]
        pushes = [(c, way) for c in cells if far[c] < 24 for way in STEPS if _can_push(grid, c, way)]
        roll = rng.random()
        if pushes and roll < 0.2:
            goal, way = pushes[rng.integers(len(pushes))]
            self.at_goal.extend([(way,)] * int(rng.integers(6, 24)) + [(OPPOSITE[way],)] * int(rng.integers(0, 8)))
        elif gems and roll < 0.35:
            goal = min(gems, key=lambda c: far[c] + 3 * rng.random())
        elif fresh and (roll < 0.7 or not known):
            goal = min(fresh, key=lambda c: far[c] + 40 * rng.random())
        else:
            goal = longed_for(rng, known or cells, self.seen, self.time)
        self.route = deque(path_to(before, here, goal))

    def _steer(self, x: float, y: float) -> Buttons:
        slack = max(0.6 * self.speed, 0.02)
        while self.route:
            right, down = self.route[0][0] + 0.5 - x, self.route[0][1] + 0.5 - y
            held = [("left", "right")[right > 0]] if abs(right) > slack else []
            held += [("up", "down")[down > 0]] if abs(down) > slack else []
            if held:
                return (*held, "run") if self.runs and max(abs(right), abs(down)) > 1 else tuple(held)
            self.route.popleft()
        return ()


def _can_push(grid: np.ndarray, cell: Cell, way: str) -> bool:
    """Whether who walks this way from a cell meets a thing that has room behind it."""
    (x, y), (right, down) = cell, STEPS[way]
    rows, columns = grid.shape
    if not (0 <= x + 2 * right < columns and 0 <= y + 2 * down < rows):
        return False
    return grid[y + down, x + right] == PUSHED and grid[y + 2 * down, x + 2 * right] not in (WALL, PUSHED)


def _clear(grid: np.ndarray, x: float, y: float, goal: Cell) -> bool:
    """Whether the way to a cell at most 5 away, aslant first and straight then, keeps clear of what is in the way."""
    right, down = goal[0] + 0.5 - x, goal[1] + 0.5 - y
    if max(abs(right), abs(down)) > 5:
        return False
    along = np.arange(0.0, max(abs(right), abs(down)) + 0.2, 0.2)
    columns, rows = x + np.sign(right) * np.minimum(along, abs(right)), y + np.sign(down) * np.minimum(along, abs(down))
    for across in (-BROAD, BROAD):
        for up in (-BROAD, BROAD):
            met = grid[(rows + up).astype(int).clip(0, len(grid) - 1), (columns + across).astype(int).clip(0)]
            if ((met == WALL) | (met == PUSHED)).any():
                return False
    return True
