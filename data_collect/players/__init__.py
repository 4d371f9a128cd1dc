"""Agents: what plays a game while it is recorded, programmed players and a person at the keyboard.

    player = make("random", env, seed=7)        # explorer, wanderer, random, human, policy:MODULE:FUNCTION
    player.reset(env, frame, info)
    action = player.act(frame, info)

`explorer` walks a game that gives its map, `wanderer` does so half of the time and plays at random otherwise, `random`
holds random actions for a while, `human` plays in a window, and `policy:my_bot:decide` calls
`decide(frame, info) -> action` of `my_bot.py` (where the callable has an attribute `reset(env, frame, info)`, it is
called before each episode). The same seed plays the same way, but for a human.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from data_collect.errors import UserError, failed
from data_collect.places import SCANCODES, resolve
from data_collect.players import sdl
from data_collect.schema import ActionSchema

NAMES = ("explorer", "wanderer", "random", "human", "policy:MODULE:FUNCTION")
HOLD_SECONDS = (0.2, 1.2)

HERE = ""  # where the program started: a game may go elsewhere
with suppress(OSError):
    HERE = os.getcwd()


class Player(Protocol):
    """An agent, which plays one episode at a time."""

    def reset(self, env: Any, frame: np.ndarray, info: dict[str, Any]) -> None:
        """Get ready for an episode that begins with `frame`, uint8 (H, W, 3)."""

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """The action on seeing `frame`; may raise `Quit`."""


class Quit(Exception):
    """The player wants to stop: the episode ends here and recording with it."""


def make(name: str, env: Any, seed: int = 0) -> Player:
    """The player called `name` for `env` (which has `action_schema`). `UserError`: unknown, or unable to play it."""
    if name in ("explorer", "wanderer"):
        from data_collect.players.explorer import Explorer
        from data_collect.players.walker import Walker

        cls = Walker if seen_from_above(env.action_schema) else Explorer
        return cls(env, seed, wander=name == "wanderer")
    if name == "random":
        return Random(env.action_schema, seed)
    if name == "human":
        return Human(env.action_schema)
    if name.startswith("policy:"):
        return Policy(name)
    raise UserError(f"unknown player {name!r}; there are {', '.join(NAMES)}")


def seen_from_above(schema: ActionSchema) -> bool:
    """Whether a game has the buttons to walk into four directions."""
    return schema.kind == "multibinary" and {"left", "right", "up", "down"} <= set(schema.names)


class Random:
    """Sticky: holds each random action for 0.2 to 1.2 seconds of game time. Needs no frame, so it can play a dream."""

    def __init__(self, schema: ActionSchema, seed: int = 0) -> None:
        self.schema, self.seed = schema, seed
        self.reset()

    def reset(self, env: Any = None, frame: np.ndarray | None = None, info: dict[str, Any] | None = None) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.left = 0
        self.action: Any = None

    def act(self, frame: np.ndarray | None = None, info: dict[str, Any] | None = None) -> Any:
        if self.left == 0:
            short, long = (max(1, round(seconds * self.schema.fps)) for seconds in HOLD_SECONDS)
            self.left = int(self.rng.integers(short, long + 1))
            self.action = self._draw()
        self.left -= 1
        return self.action

    def _draw(self) -> Any:
        schema = self.schema
        if schema.kind == "multibinary":
            return (self.rng.random(schema.size) < 0.35).astype(np.int8)
        if schema.kind == "discrete":
            return int(self.rng.integers(schema.size))
        if schema.kind == "multidiscrete":
            return self.rng.integers(schema.nvec)
        # Axes: all the way or at rest as often as in between, as keys would have it.
        low, high = np.array(schema.low), np.array(schema.high)
        choices = np.stack([low, high, schema.noop(), self.rng.uniform(low, high)])
        return choices[self.rng.integers(4, size=schema.size), np.arange(schema.size)].astype(np.float32)


class Policy:
    """`policy:MODULE:FUNCTION`, a callable of the user's, found from the current folder on."""

    def __init__(self, name: str) -> None:
        module, colon, function = name.removeprefix("policy:").partition(":")
        if not (module and colon and function):
            raise UserError(f"player {name!r} must look like policy:MODULE:FUNCTION, such as policy:my_bot:decide")
        self.name = name
        for folder in (os.getcwd(), HERE or os.getcwd()):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        try:
            self.function: Callable[..., Any] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UserError(f"player {name!r} cannot be imported: {error}") from None
        except Exception as error:
            raise failed(f"the module of player {name!r}", error) from error
        if not callable(self.function):
            raise UserError(f"player {name!r} is no function: it must take (frame, info) and give an action")

    def reset(self, env: Any, frame: np.ndarray, info: dict[str, Any]) -> None:
        if reset := getattr(self.function, "reset", None):
            self._call(reset, env, frame, info)

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        return self._call(self.function, frame, info)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (UserError, Quit):
            raise
        except (Exception, SystemExit) as error:
            raise failed(f"player {self.name!r}", error) from error


class Human:
    """A window in which somebody plays in real time: the schema's keys, ESC ends the recording and keeps all of it."""

    def __init__(self, schema: ActionSchema) -> None:
        self.schema = schema
        self.held: list[str] = []

    def reset(self, env: Any, frame: np.ndarray, info: dict[str, Any]) -> None:
        import pygame

        self.pygame = pygame
        self.screen = pygame.display.get_surface() or open_window(frame.shape[1], frame.shape[0])
        keys = ", ".join(f"{key} = {name}" for key, name in self.schema.keys.items())
        pygame.display.set_caption(f"recording – {keys} – ESC ends")
        self.clock = pygame.time.Clock()
        self.held = []

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        pygame = self.pygame
        picture = pygame.image.frombuffer(np.ascontiguousarray(frame).tobytes(), frame.shape[1::-1], "RGB")
        self.screen.blit(pygame.transform.scale(picture, self.screen.get_size()), (0, 0))
        pygame.display.flip()
        self.clock.tick(self.schema.fps)
        # By events: under some drivers `key.get_pressed` stays silent, and the order of keys would be lost.
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                raise Quit
            if event.type == pygame.KEYDOWN:
                self.held.append(self._key(event))
            elif event.type == pygame.KEYUP:
                self.held = [key for key in self.held if key != self._key(event)]
            elif event.type == pygame.WINDOWFOCUSLOST:
                self.held = []
        return self.schema.from_keys(self.held)

    def _key(self, event: Any) -> str:
        """The game's key that is meant, by its place."""
        return resolve(self.pygame.key.name(event.key), SCANCODES.get(getattr(event, "scancode", 0)), self.schema.keys)


def open_window(width: int, height: int) -> Any:
    """A pygame window of `width` x `height` game pixels, an integer times as large. `UserError` without a display."""
    import pygame

    remedy = "run this where there is a screen (or through `ssh -X`), or use --player explorer or random"
    try:
        if sdl.connect() in ("offscreen", "dummy") and not os.environ.get("SDL_VIDEODRIVER"):
            pygame.display.quit()
            raise UserError(f"no display was found, so nobody can play: {remedy}")
        sizes = pygame.display.get_desktop_sizes() or [(1280, 720)]
        scale = max(1, min(int(sizes[0][0] * 0.8) // width, int(sizes[0][1] * 0.8) // height, 12))
        return pygame.display.set_mode((width * scale, height * scale))
    except pygame.error as error:
        raise UserError(f"no window can be opened ({error}), so nobody can play: {remedy}") from None
