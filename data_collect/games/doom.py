"""Doom: the scenarios and the Freedoom levels that come with ViZDoom, at any resolution, with pose and map.

    make("doom")                                                 # my_way_home at 128x96
    make("doom?scenario=deathmatch&width=160&height=128")
    make("doom?scenario=freedoom2&map=map01&buttons=forward,back,turn_left,turn_right,use")

A step is `skip` of Doom's 35 tics a second. Turning is a constant angle a step, so that the picture moves by a few
pixels whatever was held before. `info` has `pose` (x, y in Doom's units, angle in radians), `map` (uint8 (rows,
columns), 1 = wall, one cell = 32 units) and `map_pose` (the pose in cells: the player stands in map[int(y), int(x)]).
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import struct
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from data_collect.errors import UserError
from data_collect.games.doom_depth import LevelDepth
from data_collect.games.resize import check_size, resize
from data_collect.schema import ActionSchema

TICS_PER_SECOND = 35.0
CELL = 32.0  # units; a player is as wide
RADIUS, STEP, TALL = 16.0, 24.0, 56.0  # units: half a player's width, the highest stair, a player's height
RENDERED = (160, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600)  # ViZDoom's 4:3 resolutions by their width
FOR_SEVERAL = ("cig", "multi", "multi_duel")  # scenarios that wait for other players
# Our names of ViZDoom's buttons, in the order in which they stand in an action.
BUTTONS = {
    "forward": "MOVE_FORWARD", "back": "MOVE_BACKWARD", "turn_left": "TURN_LEFT", "turn_right": "TURN_RIGHT",
    "strafe_left": "MOVE_LEFT", "strafe_right": "MOVE_RIGHT", "run": "SPEED", "attack": "ATTACK", "use": "USE",
    "next_weapon": "SELECT_NEXT_WEAPON",
}  # fmt: skip
KEYS = {
    "up": "forward", "down": "back", "left": "turn_left", "right": "turn_right", "w": "forward", "s": "back",
    "a": "strafe_left", "d": "strafe_right", "left shift": "run", "space": "attack", "e": "use", "q": "next_weapon",
}  # fmt: skip


class Doom(gymnasium.Env[np.ndarray, np.ndarray]):
    """A ViZDoom scenario seen through frames of `height` x `width` (multiples of 8).

    `map` picks another level than the first of a WAD; `turn` is in degrees a step; `timeout` in steps truncates an
    episode (0: never); `weapon` shows the weapon (by default where there is something to attack), `hud` the status
    bar; `bob` lets the view rise and fall with every stride, by up to five pixels, which no pose tells; `buttons`
    (comma-separated names) replaces the scenario's. Reward and termination are the scenario's.
    `UserError`: unknown scenario, map or button, impossible size, vizdoom missing.
    """

    replayable = True

    def __init__(
        self, *, scenario: str = "my_way_home", map: str = "", width: int = 128, height: int = 96, skip: int = 2,
        turn: float = 4.5, timeout: int = 0, weapon: bool | None = None, hud: bool = False, bob: bool = False,
        buttons: str = "",
    ) -> None:  # fmt: skip
        try:
            import vizdoom
        except ImportError:
            raise UserError("game 'doom' needs vizdoom: pip install 'game_wm[games]'") from None
        check_size(width, height)
        if skip < 1 or turn <= 0 or timeout < 0:
            raise UserError("game 'doom': skip and turn must be positive, timeout not negative")
        self.width, self.height, self.skip, self.turn, self.timeout = width, height, skip, turn, timeout
        config, wad = _scenario(Path(vizdoom.scenarios_path), scenario)
        names = _buttons(config.read_text(), buttons)

        game = vizdoom.DoomGame()
        game.load_config(str(config))
        if not game.get_doom_scenario_path():  # a whole game, whose WAD lies where the configuration does not look
            game.set_doom_game_path(str(wad))
        levels = _levels(wad)
        if map and map.upper() not in levels:
            raise UserError(f"Doom's scenario {scenario!r} has no map {map!r}; there are {', '.join(levels)}")
        game.set_doom_map(map or levels[0])
        # Both turning buttons become one axis in degrees a tic: the game's own turning speeds up while it is held.
        self._turns = [names.index(name) if name in names else None for name in ("turn_left", "turn_right")]
        self._others = [i for i in range(len(names)) if i not in self._turns]
        pressed = [getattr(vizdoom.Button, BUTTONS[names[i]]) for i in self._others]
        game.set_available_buttons([*pressed, vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
        variable = vizdoom.GameVariable
        game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
        game.set_screen_resolution(_resolution(vizdoom, width, height))
        game.set_render_hud(hud)
        game.set_render_weapon("attack" in names if weapon is None else weapon)
        _quiet(vizdoom, game)
        if not bob:
            game.add_game_args("+movebob 0")
        self.engine = game
        folder = tempfile.mkdtemp(prefix="game_wm-doom-")
        self._end = weakref.finalize(self, _end, game, folder)
        if os.name == "posix":
            game.set_vizdoom_path(_starter(Path(vizdoom.__file__).parent / "vizdoom", Path(folder)))
        game.init()

        self.action_schema = ActionSchema(
            "multibinary", names, keys={key: name for key, name in KEYS.items() if name in names},
            fps=TICS_PER_SECOND / skip,
        )  # fmt: skip
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.action_schema.fps}
        self._hud = hud
        self._level: Level | None = None
        self._depth: LevelDepth | None = None
        self._frame = np.zeros((height, width, 3), np.uint8)
        self._info: dict[str, Any] = {}
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.engine.set_seed(int(self.np_random.integers(2**31)))
        self.engine.new_episode()
        self._steps = 0
        state: Any = self.engine.get_state()
        if self._level is None:
            self._level, self._depth = Level(state.sectors), LevelDepth(state.sectors)
        x, y = state.game_variables[:2]
        self._info = {"map": self._level.reachable(x, y)}
        self._see(state)
        return self._frame, dict(self._info)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        held = self.action_schema.raw(action)
        left, right = (0 if i is None else int(held[i]) for i in self._turns)
        # A positive angle turns right.
        values = [float(held[i]) for i in self._others] + [(right - left) * self.turn / self.skip]
        reward = self.engine.make_action(values, self.skip)
        self._steps += 1
        terminated = self.engine.is_episode_finished()
        if not terminated:  # a finished game shows nothing: the last frame stays
            self._see(self.engine.get_state())
        truncated = not terminated and 0 < self.timeout <= self._steps
        return self._frame, float(reward), terminated, truncated, dict(self._info)

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self._frame

    def depth(self, poses: np.ndarray, height: int, width: int) -> np.ndarray:
        """Poses (N, 3) -> float32 (N, height, width): how deep the level, as it began, looks from there, in its units
        along the view. `UserError`: the status bar hides a part of the picture."""
        if self._hud:
            raise UserError("game 'doom': no depth is known behind the status bar; record without hud")
        if self._depth is None:
            self.reset(seed=0)
        assert self._depth is not None
        return self._depth(poses, height, width, self.width / self.height)

    def close(self) -> None:
        self._end()

    def _see(self, state: Any) -> None:
        """Take over the frame and the pose of a ViZDoom state."""
        self._frame = resize(state.screen_buffer, self.width, self.height, cut=True)
        x, y, angle = state.game_variables
        assert self._level is not None
        column, row = self._level.cell(x, y)
        self._info["pose"] = np.array([x, y, math.radians(angle)], np.float32)
        self._info["map_pose"] = np.array([column, row, math.radians(angle)], np.float32)


class Level:
    """The floor plan of a level, from the lines of its sectors: where a player can stand."""

    def __init__(self, sectors: list[Any]) -> None:
        heights: dict[tuple, list[tuple[float, float]]] = {}
        blocking = set()
        for sector in sectors:
            for line in sector.lines:
                ends = tuple(sorted([(line.x1, line.y1), (line.x2, line.y2)]))
                heights.setdefault(ends, []).append((sector.floor_height, sector.ceiling_height))
                if line.is_blocking:
                    blocking.add(ends)
        for ends, sides in heights.items():
            floors, ceilings = zip(*sides, strict=True)
            if max(floors) - min(floors) > STEP or min(ceilings) - max(floors) < TALL:
                blocking.add(ends)
        lines = np.array(list(heights), np.float64).reshape(-1, 4)  # x1, y1, x2, y2
        corners = lines.reshape(-1, 2)
        # Cells on multiples of their size (levels are drawn on such a grid), with a border of walls.
        self.origin = np.floor(corners.min(0) / CELL) * CELL - CELL
        columns, rows = (np.ceil((corners.max(0) - self.origin) / CELL).astype(int) + 1).tolist()
        x = self.origin[0] + (np.arange(columns) + 0.5) * CELL
        y = self.origin[1] + (np.arange(rows) + 0.5) * CELL
        self.free = np.ones((rows, columns), bool)
        # Whether nothing stands between the middles of a cell and of its neighbour to the east, to the north.
        self.east, self.north = np.ones((rows, columns), bool), np.ones((rows, columns), bool)
        for x1, y1, x2, y2 in (np.ravel(ends) for ends in blocking):
            dx, dy = x2 - x1, y2 - y1
            along = np.clip(((x - x1) * dx + (y[:, None] - y1) * dy) / (dx * dx + dy * dy), 0, 1)
            self.free &= np.hypot(x - x1 - along * dx, y[:, None] - y1 - along * dy) >= RADIUS
            crossed = np.flatnonzero((y1 <= y) != (y2 <= y))
            at = x1 + (y[crossed] - y1) * dx / (dy or 1.0)
            self.east[crossed, np.floor((at - x[0]) / CELL).astype(int)] = False
            crossed = np.flatnonzero((x1 <= x) != (x2 <= x))
            at = y1 + (x[crossed] - x1) * dy / (dx or 1.0)
            self.north[np.floor((at - y[0]) / CELL).astype(int), crossed] = False

    def cell(self, x: float, y: float) -> tuple[float, float]:
        """(column, row) of a point, with fractions."""
        return (x - self.origin[0]) / CELL, (y - self.origin[1]) / CELL

    def reachable(self, x: float, y: float) -> np.ndarray:
        """uint8 (rows, columns): 0 where a player who starts at (x, y) can walk (four neighbours), 1 elsewhere."""
        column, row = self.cell(x, y)
        cells = np.argwhere(self.free)
        nearest = np.hypot(cells[:, 0] + 0.5 - row, cells[:, 1] + 0.5 - column).argmin()
        plan = np.ones(self.free.shape, np.uint8)
        queue = [tuple(cells[nearest].tolist())]
        while queue:
            i, j = queue.pop()
            if not (self.free[i, j] and plan[i, j]):
                continue
            plan[i, j] = 0
            steps = [(i, j + 1, self.east[i, j]), (i, j - 1, self.east[i, j - 1]),
                     (i + 1, j, self.north[i, j]), (i - 1, j, self.north[i - 1, j])]  # fmt: skip
            queue += [(k, m) for k, m, is_open in steps if is_open]
        return plan


def _starter(engine: Path, folder: Path) -> str:
    """A program that starts the engine in `folder`, where it leaves its settings; on Linux it dies with its parent."""
    words = [str(engine)]
    if sys.platform == "linux":  # prctl(PR_SET_PDEATHSIG, SIGKILL): a killed recorder leaves no engine behind
        code = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
        words = [sys.executable, "-ISc", code, *words]
    path = folder / "start"
    path.write_text(f'#!/bin/sh\ncd {shlex.quote(str(folder))} && exec {shlex.join(words)} "$@"\n')
    path.chmod(0o700)
    return str(path)


def _quiet(vizdoom: Any, game: Any) -> None:
    """No window, no sound, nothing drawn or buffered that is not used here; the map's sectors are told."""
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    buffers = [f"{name}_buffer_enabled" for name in ("audio", "automap", "depth", "labels", "notifications")]
    for extra in ("window_visible", "sound_enabled", "render_crosshair", "render_messages", *buffers):
        getattr(game, f"set_{extra}")(False)
    game.set_sectors_info_enabled(True)
    game.set_episode_timeout(0)


def _end(game: Any, folder: str) -> None:
    game.close()
    shutil.rmtree(folder, ignore_errors=True)


def _scenario(folder: Path, name: str) -> tuple[Path, Path]:
    """(configuration, WAD) of a scenario; only those for one player whose level and graphics come with ViZDoom."""
    known = {}
    for path in sorted(folder.glob("*.cfg")):
        wads = re.findall(r"^\s*doom_(?:scenario|game)_path\s*=\s*(\S+)", path.read_text(), re.MULTILINE)
        found = [place / wad for wad in wads for place in (folder, folder.parent) if (place / wad).exists()]
        if found and path.stem not in FOR_SEVERAL:
            known[path.stem] = (path, found[0])
    if name not in known:
        raise UserError(f"game 'doom' has no scenario {name!r}; there are {', '.join(known)}")
    return known[name]


def _levels(wad: Path) -> list[str]:
    """Names of a WAD's levels, from its directory: entries of (offset, size, name)."""
    data = wad.read_bytes()
    entries, start = struct.unpack_from("<ii", data, 4)
    names = [data[start + 16 * i + 8 : start + 16 * i + 16].rstrip(b"\0").decode("latin-1") for i in range(entries)]
    return [name for name in names if re.fullmatch(r"MAP\d\d|E\dM\d", name)]


def _buttons(config: str, wanted: str) -> tuple[str, ...]:
    """Names of the buttons: those asked for, else the scenario's, and a step back for whoever walks."""
    if wanted:
        chosen = {name.strip() for name in wanted.split(",")}
        if unknown := sorted(chosen - set(BUTTONS)):
            raise UserError(f"game 'doom' has no button {unknown[0]!r}; there are {', '.join(BUTTONS)}")
    else:
        block = re.search(r"available_buttons\s*=\s*\{([^}]*)\}", config)
        offered = set(block.group(1).upper().split()) if block else set()
        chosen = {name for name, button in BUTTONS.items() if button in offered}
        chosen |= {"back"} if {"forward", "turn_left"} <= chosen else set()
    return tuple(name for name in BUTTONS if name in chosen)


def _resolution(vizdoom: Any, width: int, height: int) -> Any:
    """The smallest of `RENDERED` with at least two pixels for each of ours, both ways."""
    for columns in RENDERED:
        rows = columns * 3 // 4
        if columns >= 2 * width and rows >= 2 * height:
            return getattr(vizdoom.ScreenResolution, f"RES_{columns}X{rows}")
    width, height = RENDERED[-1] // 2, RENDERED[-1] * 3 // 8
    raise UserError(f"game 'doom' cannot be drawn larger than {width}x{height}: give a smaller width or height")
