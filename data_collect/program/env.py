"""Any pygame program as a game: `pygame:FILE.py`, unmodified, and started anew for each episode.

    make("pygame:my_program.py")                                   # its keys are found
    make("pygame:my_program.py?keys=left,right,space&width=96&height=64")

An episode is a process in which the program runs from its first line on (stage.py): as fast as it can, by a clock of
its own, all that it draws by chance following from the seed. It ends when the program does, or when nothing that is
pressed changes the picture any more. A program tells no rewards: all are 0.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from data_collect.errors import UserError
from data_collect.games.resize import check_size, default_size, resize
from data_collect.guest.child import Child
from data_collect.program import controls
from data_collect.program.run import Run, waiting
from data_collect.program.stage import SECOND, Setup
from data_collect.program.trial import inputs_of

STEPS_PER_SECOND = 17  # aimed at when `skip` is not given, as of any other game
UNKNOWN_RATE = 30.0  # rounds a second of a program that tells none
LOOK_STEPS, LOOK_PERIOD = 40, SECOND // 20  # how a program is looked at whose rate is not known
STILL_SECONDS = 10.0  # of one picture, while something is pressed, after which an episode is over


class Program(gymnasium.Env[np.ndarray, Any]):
    """The pygame program `path`, seen through frames of `height` x `width` (multiples of 16; by default the short side
    has 64 pixels).

    `skip` rounds of its loop make a step, by default so many that 15 to 20 steps make a second. `keys` names what it is
    played with ("left,right,left shift,mouse,joystick", or "none"); by default that is found, and told by `found`.
    `replayable=false` says that its seed does not fix its frames. `UserError`: no such file, a program that fails or
    shows no picture, keys that cannot be found.
    """

    def __init__(
        self, path: str, *, width: int = 0, height: int = 0, skip: int = 0, keys: str = "", replayable: bool = True
    ) -> None:
        self.game = f"pygame:{path}"
        self.path = Path(path).absolute()
        if not self.path.is_file():
            raise UserError(f"{self.game!r}: there is no file {self.path}; name it as it is called from this folder")
        if width or height:
            check_size(width or height, height or width)
        if skip < 0:
            raise UserError(f"skip of {self.game!r} must be positive")
        self.replayable, self.found = replayable, dict[str, str]()
        self._run: Run | None = None
        self._next: Child | None = None
        self.inputs = controls.given(keys)
        named = self._look(skip)
        if not keys:
            quiet = replace(self._setup, quiet=True)  # it has said all once
            self.inputs = inputs_of(self.game, lambda: Run(self.game, quiet), named)
            self.found = {"keys": controls.written(self.inputs)}
        columns, rows = self._size
        if not width and not height:
            width, height = default_size(columns, rows)
        self.width, self.height = width or height, height or width
        self.action_schema = controls.schema_of(self.inputs, round(self.rate / self.skip, 3))
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        note = f"{columns}x{rows} → {self.width}x{self.height}, {self.rate:.3g} → {self.action_schema.fps:.3g} frames/s"
        note += f", played with {', '.join(self.inputs) or 'nothing, for it reads nothing'}"
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.action_schema.fps, "note": note}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        child, self._next = self._next, None
        self.close()
        setup = replace(self._setup, seed=drawn, joystick="stick x" in self.inputs)
        self._run = Run(self.game, setup, child)
        self._next = waiting()  # so that the next episode begins at once
        self._still = 0
        return self.render(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self._run is not None
        raw, before = self.action_schema.raw(action), self._run.pixels
        self._run.hold(dict(zip(self.inputs, raw.tolist())))
        if self._run.pixels != before:
            self._still = 0
        elif raw.any():
            self._still += 1
        stuck = self._still > STILL_SECONDS * self.action_schema.fps
        return self.render(), 0.0, self._run.over, stuck and not self._run.over, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        assert self._run is not None
        return resize(self._run.picture, self.width, self.height)

    def close(self) -> None:
        if self._run is not None:
            self._run.close()
        if self._next is not None:
            self._next.end()
        self._run = self._next = None

    def _look(self, skip: int) -> controls.Named:
        """Find the program's size and rate; what its code names."""
        run = Run(self.game, Setup(self.path, 0, LOOK_PERIOD, joystick="stick x" in self.inputs))
        try:
            named = controls.named([self.path, *run.files()]) if not run.over else controls.named([self.path])
            for _ in range(LOOK_STEPS):
                if run.over:
                    break
                run.hold({})
            self._size, self.rate = run.size, run.rate or UNKNOWN_RATE
        finally:
            run.close()
        self.skip = skip or max(1, round(self.rate / STEPS_PER_SECOND))
        beat = round(SECOND / self.rate)
        self._setup = Setup(self.path, 0, self.skip * beat, beat)
        return named
