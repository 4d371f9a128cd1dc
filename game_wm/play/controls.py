"""Who presses the buttons of a dream: the keyboard, a player of `data_collect`, or a saved dream.

All have `act(picture, info) -> action`, what the game's `env.step` would take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_collect.errors import UserError
from data_collect.schema import ActionSchema

if TYPE_CHECKING:
    from game_wm.play.session import Session

NAMES = "keyboard, random, policy:MODULE:FUNCTION"


class Keyboard:
    """The keys that are down, in the order in which they went down. A key tapped between two frames acts for one."""

    def __init__(self, schema: ActionSchema) -> None:
        self.schema = schema
        self.pressed_at: float | None = None  # when the oldest change that no frame has answered yet was made
        self._held: dict[str, float] = {}  # key -> how far it is down, 0 to 1
        self._tapped: dict[str, float] = {}

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(self._held)

    def press(self, key: str, at: float, level: float = 1.0) -> bool:
        """A key goes down at time `at`, a stick only so far (0 to 1); False when it means nothing in this game."""
        if key not in self.schema.keys:
            return False
        if self._held.get(key) != level:
            if key not in self._held:
                self._tapped[key] = level
            self._held[key] = level
            self.pressed_at = at if self.pressed_at is None else self.pressed_at
        return True

    def release(self, key: str, at: float) -> None:
        """A key comes up."""
        if key in self._held:
            del self._held[key]
            self.pressed_at = at if self.pressed_at is None else self.pressed_at

    def release_all(self) -> None:
        """The window has lost the keyboard: what is down now comes up elsewhere."""
        self._held.clear()
        self.forget()

    def forget(self) -> None:
        """Nobody is to answer what was tapped so far: it was meant for another episode, or came during a pause."""
        self._tapped.clear()
        self.pressed_at = None

    def act(self, picture: np.ndarray, info: dict[str, Any]) -> Any:
        keys = self._tapped | self._held
        self._tapped.clear()
        action = self.schema.from_keys(keys)
        if self.schema.kind == "box":
            rest, pull = self.schema.noop(), dict.fromkeys(self.schema.names, 0.0)
            for key, level in keys.items():
                axis = self.schema.keys[key][:-1]
                pull[axis] = max(pull[axis], level)
            action = (rest + (action - rest) * list(pull.values())).astype(np.float32)
        return action


class Replay:
    """Raw actions (T, D) once more, with the denoiser calls (T,) of each; then the session's keyboard takes over, with
    `steps` calls a frame, as before."""

    def __init__(self, session: Session, actions: np.ndarray, steps: np.ndarray) -> None:
        self.session, self.steps = session, session.steps
        self._left = list(zip(actions, steps.tolist()))[::-1]

    def act(self, picture: np.ndarray, info: dict[str, Any]) -> Any:
        if not self._left:
            self.session.take_over("keyboard")
            return self.session.player.act(picture, info)
        raw, self.session.steps = self._left.pop()
        return self.session.schema.action(raw)


class Dream:
    """What a player may ask its game for, as far as a dream can answer."""

    def __init__(self, schema: ActionSchema) -> None:
        self.action_schema = schema

    @property
    def action_space(self) -> Any:
        return self.action_schema.space()

    @property
    def unwrapped(self) -> Dream:
        return self


def make(name: str, schema: ActionSchema, picture: np.ndarray, seed: int) -> Any:
    """A player other than the keyboard, by its name in `data_collect`, already looking at `picture`."""
    from data_collect import players

    if name != "random" and not name.startswith("policy:"):
        raise UserError(f"{name!r} cannot play a dream, which has no map; players are {NAMES}")
    game = Dream(schema)
    player = players.make(name, game, seed)
    player.reset(game, picture, {})
    return player
