"""Who presses the buttons: the keyboard, an agent of `data_collect`, or a saved dream that is repeated.

controls = Controls(schema)
controls.keyboard.press("up", at=now)
controls.take_over("random", picture, seed)
action = controls.agent.act(picture, {})        # what the game's `env.step` would take
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.schema import ActionSchema

AGENTS = "keyboard, random, policy:MODULE:FUNCTION"


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

    def move(self, key: str, at: float, level: float) -> None:
        """A key or a stick is down so far from now on, 0 to 1."""
        if level:
            self.press(key, at, level)
        else:
            self.release(key, at)

    def release(self, key: str, at: float) -> None:
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
    """Raw actions (T, D) once more, with the denoiser calls (T,) of each."""

    def __init__(self, schema: ActionSchema, actions: np.ndarray, steps: np.ndarray) -> None:
        self._schema = schema
        self._left = list(zip(actions, steps.tolist()))[::-1]

    @property
    def over(self) -> bool:
        return not self._left

    @property
    def steps(self) -> int:
        return self._left[-1][1]

    def act(self, picture: np.ndarray, info: dict[str, Any]) -> Any:
        return self._schema.action(self._left.pop()[0])


class Controls:
    """The keyboard, and who plays at present: `agent`, called `name`. `other` is whom the keyboard hands over to."""

    def __init__(self, schema: ActionSchema, other: str = "random") -> None:
        self.keyboard, self.other = Keyboard(schema), other
        self.agent: Any = self.keyboard
        self.name = "keyboard"

    @property
    def by_hand(self) -> bool:
        return self.agent is self.keyboard

    def take_over(self, name: str | None, picture: np.ndarray, seed: int) -> None:
        """Give the controls to `name`, who sees this picture; without one, swap between the keyboard and the other."""
        name = name or (self.other if self.by_hand else "keyboard")
        if name == "keyboard":
            self.agent = self.keyboard
        else:
            self.agent = make(name, self.keyboard.schema, picture, seed)
            self.other = name
        self.name = name

    def replay(self, actions: np.ndarray, steps: np.ndarray) -> None:
        self.agent, self.name = Replay(self.keyboard.schema, actions, steps), "replay"


class DreamGame:
    """What an agent may ask its game for, as far as a dream can answer."""

    def __init__(self, schema: ActionSchema) -> None:
        self.action_schema, self.action_space, self.unwrapped = schema, schema.space(), self


def make(name: str, schema: ActionSchema, picture: np.ndarray, seed: int) -> Any:
    """An agent of `data_collect` by its name, already looking at `picture`."""
    from data_collect import players

    if name != "random" and not name.startswith("policy:"):
        raise UserError(f"{name!r} cannot play a dream, which has no map; players are {AGENTS}")
    game = DreamGame(schema)
    agent = players.make(name, game, seed)
    agent.reset(game, picture, {})
    return agent
