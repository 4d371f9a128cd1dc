"""A game and the agent that plays it, step by step, in one process: a guest's or this one.

match = Match(env)
for raw, reward, terminated, truncated, frame, info in match.play([Leg("explorer", seed=7, steps=100)], env_seed=1):
    ...                                             # the first frame, then 100 steps
match.play([Leg("random", seed=8)])                 # goes on from there to the episode's end
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_collect import players
from data_collect.errors import Fault, UserError, blamed
from data_collect.schema import ActionSchema

# What a step was and what came of it: raw action (D,) (None: of an episode's first frame), reward, terminated,
# truncated, frame, info.
Step = tuple[np.ndarray | None, float, bool, bool, np.ndarray, dict[str, Any]]
Steps = Generator[Step, int | None, None]
LEADER, NOBODY = "leader", "nobody"


@dataclass(frozen=True)
class Leg:
    """A stretch of an episode: who plays, and how many steps at most (None: to the episode's end).

    `player` is a name of `players.make`, LEADER (see `leading`), NOBODY, raw actions (T, D) to be played, or None:
    whoever has played goes on.
    """

    player: str | np.ndarray | None
    seed: int = 0
    steps: int | None = None


def leading(schema: ActionSchema, info: dict[str, Any]) -> str:
    """The player that leads: the explorer where the game has a map and the buttons to walk it, else `random`."""
    walks = {"forward", "turn_left", "turn_right"} <= set(schema.names) or players.seen_from_above(schema)
    return "explorer" if walks and "map" in info else "random"


class Match:
    """The game `env`, called `what` where it fails, and its player. A deep copy goes on by itself."""

    def __init__(self, env: Any, what: str = "the game") -> None:
        self.env, self.what = env, what
        self.schema: ActionSchema = env.action_schema
        self.player: Any = None
        self.frame, self.info = np.empty(0), dict[str, Any]()

    def reset(self, seed: int | None, options: dict[str, Any] | None = None) -> Step:
        """Another episode. `Fault` where the game fails."""
        with blamed(self.what):
            self.frame, self.info = self.env.reset(seed=seed, options=options)
        return None, 0.0, False, False, self.frame, self.info

    def step(self, action: Any) -> Step:
        """One step of an action. `Fault` where the game fails."""
        with blamed(self.what):
            self.frame, reward, terminated, truncated, self.info = self.env.step(action)
        return None, reward, terminated, truncated, self.frame, self.info

    def play(self, legs: Sequence[Leg], env_seed: int | None = None) -> Steps:
        """The steps of an episode that begins with this seed, after its first frame, or goes on without one.

        Raises `Fault` where the game or a policy fails, `players.Quit`, and `UserError` for a player that cannot play
        this game.
        """
        if env_seed is not None:
            yield self.reset(env_seed)
        for leg in legs:
            for raw in self._actions(leg):
                _, reward, terminated, truncated, frame, info = self.step(self.schema.action(raw))
                yield raw, reward, terminated, truncated, frame, info
                if terminated or truncated:
                    return

    def _actions(self, leg: Leg) -> Generator[np.ndarray, None, None]:
        """The raw actions (D,) of a leg, each on seeing what came of the one before."""
        turns = itertools.count() if leg.steps is None else range(leg.steps)
        if isinstance(leg.player, np.ndarray):
            yield from leg.player[: leg.steps]
            return
        if leg.player == NOBODY:
            for _ in turns:
                yield self.schema.raw(self.schema.noop())
            return
        if leg.player is not None:
            name = leading(self.schema, self.info) if leg.player == LEADER else leg.player
            self.player = players.make(name, self.env, leg.seed)
            self.player.reset(self.env, self.frame, self.info)
        for _ in turns:
            action = self.player.act(self.frame, self.info)
            try:
                raw = self.schema.raw(action)
            except UserError as error:
                raise Fault(f"player {leg.player!r} gives no action of this game: {error}") from None
            yield raw
