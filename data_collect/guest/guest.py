"""A game in a process of its own: whatever it does to that process, ours goes on.

    with Guest("gym:my_module:MyGame-v0") as env:       # a gymnasium.Env with `action_schema`, as `games.make` gives
        frame, info = env.reset(seed=1)
        frame, reward, terminated, truncated, info = env.step(env.action_schema.noop())
        for raw, reward, terminated, truncated, frame, info in env.play([Leg("random", seed=2)], env_seed=1): ...

A game that raises (SystemExit too), is killed, or does not answer in time is one `Fault`, which says in which step; the
next `reset` starts a new process. Of `info`, only `pose`, `map_pose`, `map` and `surface` come across.
"""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from data_collect.errors import Fault, UserError
from data_collect.guest.host import CLOSE_SECONDS, Host
from data_collect.guest.match import Leg, Steps
from data_collect.schema import ActionSchema

STEP_SECONDS = 60.0  # for a step or a reset, unless GAME_SECONDS says otherwise


class Guest(gymnasium.Env):
    """The game `game_id` in a process of its own; `frame` and `options` as in `games.make`.

    `game` is the id with the options that were found by trying. `seconds` is how long a step or a reset may take.
    `copy.deepcopy` copies the game as it stands, in the same process.
    `UserError` where the game cannot be made; it is a `Fault` where the game's own code fails.
    """

    def __init__(
        self, game_id: str, seconds: float | None = None, /, frame: tuple[int, int] | None = None, **options: Any
    ) -> None:
        self.game, self._seconds, self._options = game_id, seconds or _patience(), {"frame": frame, **options}
        self._place = 0  # which of the games in the process it is
        self._steps = 0
        self.host: Host | None = self._start()
        about = self.host.about
        self.game = about["game"]
        self.action_schema: ActionSchema = about["schema"]
        self.replayable: bool = about["replayable"]
        self._knows_depth: bool = about["depth"]
        self.render_mode = "rgb_array"
        self.metadata = about["metadata"]
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, about["shape"], np.uint8)
        self._frame = np.zeros(about["shape"], np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._steps = 0
        *_, self._frame, info = self._alive().ask("the reset", "reset", self._place, seed, options)
        return self._frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        answer = self._playing().ask(f"step {self._steps}", "step", self._place, action)
        _, reward, terminated, truncated, self._frame, info = answer
        return self._frame, reward, terminated, truncated, info

    def play(self, legs: Sequence[Leg], env_seed: int | None = None) -> Steps:
        """Steps of an episode by players that live with the game, as `Match.play` has it.

        They play ahead of the listener, within the legs. `send` how many steps they may play for now, from the first
        step on, and they wait there; `next` alone lets them play all.
        """
        begins = env_seed is not None
        host = self._alive() if begins else self._playing()
        self._steps = -1 if begins else self._steps
        seen, told, over = 0, 1, False
        host.begin_stream(mine := object(), self._place, legs, env_seed)
        try:
            while host.stream is mine:  # not another one, or a step, since
                over, number = True, self._steps + 1  # over where it raises
                answer = host.hear(f"step {number}" if number else "the reset")
                if answer is None:
                    return
                step = host.step(answer, seen)
                self._steps, self._frame, over, seen = number, step[4], False, seen + 1
                allowed = yield step
                until = min(seen + host.slots, allowed or sys.maxsize)
                if until > told and told - seen <= host.slots // 2:
                    host.post("until", until)
                    told = until
        finally:
            if host.stream is mine:
                host.end_stream(stop=not over)

    def check(self, player: str) -> None:
        """`UserError` where no such player can play this game."""
        self._alive().ask(f"player {player!r}", "check", self._place, player)

    def __getattr__(self, name: str) -> Any:
        if name == "depth" and self.__dict__.get("_knows_depth"):
            return partial(self._alive().ask, "the depth", "depth", self._place)
        raise AttributeError(name)

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self._frame

    def close(self) -> None:
        """End the process, or let go of a copy."""
        host, self.host = self.host, None
        if host is not None and self._place:
            host.dropped.append(self._place)
        elif host is not None:
            host.end(CLOSE_SECONDS)

    def __deepcopy__(self, memo: dict[int, Any]) -> Guest:
        host, other = self._playing(), copy.copy(self)
        other._place = host.ask("a copy", "copy", self._place, host.dropped)
        host.dropped = []
        return other

    def __del__(self) -> None:
        if self.__dict__.get("_place"):
            self.close()

    def _start(self) -> Host:
        return Host(self.game, self._options, self._seconds)

    def _playing(self) -> Host:
        """The process, in the midst of an episode."""
        if self.host is None or self.host.ended:
            raise Fault(f"the game {self.game!r} has ended: it must be reset")
        return self.host

    def _alive(self) -> Host:
        """The process, a new one where the last has gone."""
        if self.host is not None and not self.host.ended and self.host.child.running():
            return self.host
        if self._place:
            raise Fault(f"the game {self.game!r} has ended, and this copy of it with it")
        if self.host is not None:
            self.host.end()
        try:
            self.host = self._start()
        except UserError as error:
            raise Fault(str(error)) from error
        return self.host


def _patience() -> float:
    given = os.environ.get("GAME_SECONDS", "")
    try:
        seconds = float(given or STEP_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"GAME_SECONDS={given!r} is no number of seconds that a game may take for a step")
    return seconds
