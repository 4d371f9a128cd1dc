"""An agent that walks a whole map and comes back on purpose: returns are what a memory learns from.

    python -m data_collect record --game maze --player explorer --frames 20000 --out data/maze

It plays any game whose `info` has `map` (uint8 (rows, columns), 1 = wall, 2 = worth taking, 3 = keep away, any other
value free) and `map_pose` or `pose` (x, y in cells, angle in radians), and which has the buttons forward, turn_left and
turn_right. It measures which way turning left goes, and how far, while it plays. The same seed plays the same way.

The player `wanderer` is an explorer that plays at random for half of its time: it holds random buttons or stands still,
and then walks on from wherever it has ended up. So a model sees every button everywhere, and not only at the walls that
purely random play runs into.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.players import gestures
from data_collect.players.gestures import Buttons

WALL, GEM, CREATURE = 1, 2, 3
Cell = tuple[int, int]


class Explorer:
    """`reset(env, frame, info)` before an episode, then `act(frame, info)` gives the action, uint8 (buttons,).

    Args:
        wander: whether it plays at random for half of the time.
    """

    def __init__(self, env: Any, seed: int = 0, wander: bool = False) -> None:
        self.seed, self.episode, self.wander = seed, -1, wander
        schema = getattr(env, "action_schema", None) or env.unwrapped.action_schema
        missing = [name for name in ("forward", "turn_left", "turn_right") if name not in schema.names]
        if missing or schema.kind != "multibinary":
            raise UserError(
                "the explorer needs the buttons forward, turn_left and turn_right, or left, right, up and down, "
                f"and this game has {', '.join(schema.names)}; use --player random"
            )
        self.names = schema.names
        self.turn = math.radians(5)  # what one frame of turn_left adds to the angle
        self.speed = 0.05  # cells a frame when walking

    def reset(self, env: Any, frame: np.ndarray, info: dict[str, Any]) -> None:
        """Forget the last episode. `UserError` where the game gives no map."""
        if "map" not in info or not ("map_pose" in info or "pose" in info):
            raise UserError("the explorer needs a game that gives its map and pose; use --player random")
        self.episode += 1
        self.rng = np.random.default_rng((self.seed, self.episode))
        self.time = 0
        self.visits = np.zeros(info["map"].shape, np.int64)
        self.seen = np.full(info["map"].shape, -1, np.int64)  # frame of the last visit
        self.gesture: deque[Buttons] = deque()  # the buttons of the next frames
        self.route: deque[Cell] = deque()
        self.avoid: dict[Cell, int] = {}  # cells that could not be entered, until when
        self.trail: deque[tuple[float, float]] = deque(maxlen=16)
        self.held: Buttons = ()
        self.last_angle: float | None = None
        self.blocked = 0  # it does not think about creatures again before this frame
        self.next_idle = 0
        self.daring = False
        self._manner()

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The buttons to hold on seeing this frame."""
        pose = info["map_pose"] if "map_pose" in info else info["pose"]
        x, y, angle = (float(value) for value in pose)
        grid = np.asarray(info["map"])
        rows, columns = grid.shape
        here = (min(max(int(x), 0), columns - 1), min(max(int(y), 0), rows - 1))
        self._notice(here, x, y, angle)
        threats = [(int(cx), int(cy)) for cy, cx in np.argwhere(grid == CREATURE)]
        self._keep_away(grid, here, (x, y), threats)
        self._unstick(x, y)
        if not self.gesture and self.rng.random() < 0.015:
            self.gesture.extend(gestures.fidget(self.rng, self.names))
        if self.wander and not self.gesture and self.rng.random() < 0.0125:
            self.gesture.extend(gestures.let_go(self.rng, self.names))
            self.route.clear()
        if not self.gesture and not self.route:
            self._decide(grid, here, angle, threats)
        while self.time % 3 == 0 and len(self.route) > 1 and self._clear(grid, x, y, self.route[1]):
            self.route.popleft()  # straight across, not round the corner of the grid
        held = self.gesture.popleft() if self.gesture else self._steer(x, y, angle)
        self.held, self.last_angle = held, angle
        return np.array([name in held for name in self.names], np.uint8)

    def _notice(self, here: Cell, x: float, y: float, angle: float) -> None:
        """Where it is, and what its last buttons did."""
        self.time += 1
        column, row = here
        reach = min(int(4 * self.speed), 2)  # at many cells a second, coming near counts as a visit
        near = (slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1))
        self.visits[near] += self.seen[near] < self.time - 20
        self.seen[near] = self.time
        if self.trail and "forward" in self.held:
            self.speed += 0.1 * (min(math.hypot(x - self.trail[-1][0], y - self.trail[-1][1]), 1.0) - self.speed)
        if self.last_angle is not None and ("turn_left" in self.held) != ("turn_right" in self.held):
            turned = _wrap(angle - self.last_angle) * (1 if "turn_left" in self.held else -1)
            if 1e-3 < abs(turned) < 1:
                self.turn += 0.3 * (turned - self.turn) if turned * self.turn > 0 else turned - self.turn

    def _ways(self, grid: np.ndarray, start: Cell, threats: list[Cell]) -> tuple[dict[Cell, Cell], dict[Cell, int]]:
        """Breadth first from start, round the threats: each cell's predecessor and its distance."""
        free = (grid != WALL).tolist()
        for cx, cy in threats:
            for dx, dy in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
                if 0 <= cy + dy < len(free) and 0 <= cx + dx < len(free[0]):
                    free[cy + dy][cx + dx] = False
        for (ax, ay), until in self.avoid.items():
            if until > self.time:
                free[ay][ax] = False
        return reach(free, start)

    def _decide(self, grid: np.ndarray, here: Cell, angle: float, threats: list[Cell]) -> None:
        """Choose the next place to go, and now and then something to do first."""
        self.daring = bool(threats) and self.rng.random() < 0.015  # so that recordings hold the end of an episode too
        before, far = self._ways(grid, here, [] if self.daring else threats)
        cells = [cell for cell in far if cell != here]
        if not cells:
            self.gesture.extend([()] * 4)
            return
        if self.time >= self.next_idle and not any(_near(here, threat, 3) for threat in threats):
            self.next_idle = self.time + int(self.rng.integers(60, 400))
            self.gesture.extend(gestures.at_a_place(self.rng, self.names, self.turn))
        self._manner()
        met = [c for c in threats if c in far and c != here] if self.daring else []
        self._go(before, here, met[0] if met else self._goal(grid, here, angle, cells, far))

    def _go(self, before: dict[Cell, Cell], here: Cell, goal: Cell) -> None:
        self.route = deque(path_to(before, here, goal))

    def _goal(self, grid: np.ndarray, here: Cell, angle: float, cells: list[Cell], far: dict[Cell, int]) -> Cell:
        rng = self.rng

        bow = max(self._bow(), 1.0)

        def cost(c: Cell) -> float:  # steps, and what turning round would take
            return far[c] + bow * abs(_wrap(math.atan2(c[1] - here[1], c[0] - here[0]) - angle)) + rng.random()

        gems = [c for c in cells if grid[c[1], c[0]] == GEM]
        fresh = [c for c in cells if not self.visits[c[1], c[0]]]
        known = [c for c in cells if self.seen[c[1], c[0]] >= 0 and far[c] > 2]
        roll = rng.random()
        if gems and roll < 0.08:
            return min(gems, key=cost)
        if known and roll > (0.9 if fresh else 0.5):
            return longed_for(rng, known, self.seen, self.time)
        if fresh:
            return min(fresh, key=cost)
        return min(cells, key=lambda c: 8.0 * self.visits[c[1], c[0]] + cost(c))

    def _keep_away(self, grid: np.ndarray, here: Cell, place: tuple[float, float], threats: list[Cell]) -> None:
        """Drop what it is doing when a creature comes near or stands in the way."""
        near = [t for t in threats if math.hypot(t[0] + 0.5 - place[0], t[1] + 0.5 - place[1]) < 2.3]
        ahead = list(self.route)[:3]
        met = any(_near(cell, threat, 1) for threat in threats for cell in ahead)
        if not (met or (near and self.gesture)) or self.time < self.blocked or self.daring:
            return
        self.blocked = self.time + 6  # think again at this rate at most
        self.gesture.clear()
        self.route.clear()
        if near:
            before, far = self._ways(grid, here, threats)
            reach = [c for c in far if c != here]
            if not reach:
                self.gesture.extend([("back",) if "back" in self.names else ()] * 3)
                return
            refuge = max(reach, key=lambda c: min(abs(c[0] - t[0]) + abs(c[1] - t[1]) for t in near) - 0.5 * far[c])
            self._go(before, here, refuge)

    def _unstick(self, x: float, y: float) -> None:
        """Back off and try elsewhere when walking leads nowhere."""
        self.trail.append((x, y))
        if self.gesture or "forward" not in self.held:
            self.trail.clear()
            self.trail.append((x, y))
        elif len(self.trail) == 16 and math.hypot(x - self.trail[0][0], y - self.trail[0][1]) < 0.12:
            if self.route:
                self.avoid[self.route[0]] = self.time + 300
            side = "turn_left" if self.rng.random() < 0.5 else "turn_right"
            back: Buttons = ("back", side) if "back" in self.names else (side,)
            self.gesture.extend([back] * 4 + [(side,)] * int(self.rng.integers(2, 10)))
            self.route.clear()
            self.trail.clear()

    def _manner(self) -> None:
        """How sharply it turns and where in the cells it walks, until the next place."""
        self.sharp = math.radians(self.rng.uniform(30, 80))
        self.shift = self.rng.uniform(-0.14, 0.14, 2)

    def _clear(self, grid: np.ndarray, x: float, y: float, goal: Cell) -> bool:
        """Whether a straight walk of at most 4 cells to a cell keeps clear of walls."""
        dx, dy = goal[0] + 0.5 + self.shift[0] - x, goal[1] + 0.5 + self.shift[1] - y
        far = math.hypot(dx, dy)
        if not 0 < far < 4:
            return False
        along = np.arange(0.0, far, 0.2) / far
        for side in (-0.28, 0.0, 0.28):  # half a player to the left and the right
            columns = (x + along * dx - side * dy / far).astype(int).clip(0, grid.shape[1] - 1)
            rows = (y + along * dy + side * dx / far).astype(int).clip(0, grid.shape[0] - 1)
            if (grid[rows, columns] == WALL).any():
                return False
        return True

    def _bow(self) -> float:
        """Radius in cells of the curve that it walks; a fast player turns first."""
        return self.speed / max(abs(self.turn), 0.02)

    def _steer(self, x: float, y: float, angle: float) -> Buttons:
        while self.route:
            tx, ty = self.route[0][0] + 0.5 + self.shift[0], self.route[0][1] + 0.5 + self.shift[1]
            if math.hypot(tx - x, ty - y) > max(0.45 if len(self.route) > 1 else 0.3, 4 * self.speed):
                break
            self.route.popleft()
        if not self.route:
            return ()
        error = _wrap(math.atan2(ty - y, tx - x) - angle)
        held: list[str] = []
        if abs(error) < self.sharp and 2 * self._bow() * abs(math.sin(error)) < math.hypot(tx - x, ty - y) + 1:
            held.append("forward")
        if abs(error) > max(0.7 * abs(self.turn), math.radians(3)):
            held.append("turn_left" if error * self.turn > 0 else "turn_right")
        return tuple(held)


def reach(free: list[list[bool]], start: Cell) -> tuple[dict[Cell, Cell], dict[Cell, int]]:
    """Breadth first from start: each cell's predecessor and its distance."""
    before, far = {start: start}, {start: 0}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        x, y = cell
        for step in ((x + 1, y), (x, y + 1), (x - 1, y), (x, y - 1)):
            inside = 0 <= step[1] < len(free) and 0 <= step[0] < len(free[0])
            if inside and free[step[1]][step[0]] and step not in far:
                far[step], before[step] = far[cell] + 1, cell
                queue.append(step)
    return before, far


def path_to(before: dict[Cell, Cell], here: Cell, goal: Cell) -> list[Cell]:
    """The cells from the one after `here` to the goal."""
    path = [goal]
    while before[path[-1]] != here:
        path.append(before[path[-1]])
    return path[::-1]


def longed_for(rng: np.random.Generator, known: list[Cell], seen: np.ndarray, time: int) -> Cell:
    """Of these cells, seen last at `seen` (rows, columns), one where it was 50 to some thousand frames ago."""
    age = math.exp(rng.uniform(math.log(50), math.log(max(min(time, 4000), 60))))
    return min(known, key=lambda c: abs(math.log((time - seen[c[1], c[0]] + 1) / age)))


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _near(a: Cell, b: Cell, reach: int) -> bool:
    return abs(a[0] - b[0]) + abs(a[1] - b[1]) <= reach
