"""The real game of an evaluation: a guest whose faults end only the play at hand, unless there are too many.

tally = Tally(game_id)
env = Forgiving(game_id, tally)
tally.told()                        # for the card: {} where the game never failed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_collect.errors import Fault, UserError
from data_collect.guest.guest import Guest
from data_collect.guest.match import Leg, Steps
from data_collect.recording.plan import FAULTS, FAULTY

NAMED = 5  # faults that get a line each
ELSEWHERE = 1_000_003  # added to a seed of which nothing can be played


class Tally:
    """How many plays of a game were begun, and how it failed in some of them."""

    def __init__(self, game_id: str) -> None:
        self.game_id, self.plays = game_id, 0
        self.faults: list[str] = []

    def note(self, seed: int | None, fault: Fault) -> None:
        """Count a fault; `UserError` when there are too many."""
        self.faults.append(f"seed {seed}: {fault}")
        if len(self.faults) <= NAMED:
            print(f"{self.faults[-1]}; the play ends there", file=sys.stderr)
        elif len(self.faults) == NAMED + 1:
            print(f"{self.game_id} fails again; further faults are counted alone", file=sys.stderr)
        if len(self.faults) >= FAULTS and len(self.faults) > FAULTY * self.plays:
            raise UserError(f"{self.game_id} failed in {len(self.faults)} of {self.plays} plays ({self.faults[-1]})")

    def told(self) -> dict[str, Any]:
        """For the card, where the game failed: in how many of how many plays, and how the first time."""
        if not self.faults:
            return {}
        return {"faults": {"failed": len(self.faults), "plays": self.plays, "first": self.faults[0]}}


class Forgiving(Guest):
    """A step in which the game fails shows the frame before it again and truncates the play (`info["fault"]` says why);
    a seed at which it cannot be reset is replaced by another."""

    def __init__(self, game_id: str, tally: Tally, /, frame: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(game_id, frame=frame, **options)
        self.tally = tally
        self._seed: int | None = None
        self._info: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._seed = seed
        while True:
            self.tally.plays += 1
            try:
                frame, self._info = super().reset(seed=self._seed, options=options)
                return frame, self._info
            except Fault as fault:
                self.tally.note(self._seed, fault)
                self._seed = None if self._seed is None else (self._seed + ELSEWHERE) % 2**31

    def play(self, legs: Sequence[Leg], env_seed: int | None = None) -> Steps:
        begun = env_seed is None
        if env_seed is not None:
            self._seed, self.tally.plays = env_seed, self.tally.plays + 1
        try:
            for step in super().play(legs, env_seed):
                begun, self._info = True, step[5]
                yield step
        except Fault as fault:
            self.tally.note(self._seed, fault)
            if begun:
                noop = self.action_schema.raw(self.action_schema.noop())
                yield noop, 0.0, False, True, self._frame, self._info | {"fault": str(fault)}
            else:
                assert env_seed is not None
                yield from self.play(legs, (env_seed + ELSEWHERE) % 2**31)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        try:
            outcome = super().step(action)
        except Fault as fault:
            self.tally.note(self._seed, fault)
            return self._frame, 0.0, False, True, self._info | {"fault": str(fault)}
        self._info = outcome[4]
        return outcome
