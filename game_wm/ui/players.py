"""Who presses the buttons of a dream: the keyboard, a player of `data_collect`, or a recorded action file.

All have `act(picture, info) -> action`, what the game's `env.step` would take.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.schema import ActionSchema

NAMES = "keyboard, random, policy:MODULE:FUNCTION"


class Keyboard:
    """The keys that are down, in the order in which they went down. A key tapped between two frames acts for one."""

    def __init__(self, schema: ActionSchema) -> None:
        self.schema = schema
        self.pressed_at: float | None = None  # when the oldest change that no frame has answered yet was made
        self._held: dict[str, None] = {}
        self._tapped: dict[str, None] = {}

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(self._held)

    def press(self, key: str, at: float) -> bool:
        """A key goes down at time `at`; False when it means nothing in this game."""
        if key not in self.schema.keys:
            return False
        if key not in self._held:
            self._held[key] = self._tapped[key] = None
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
        keys = tuple(self._tapped | self._held)
        self._tapped.clear()
        return self.schema.from_keys(keys)


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
