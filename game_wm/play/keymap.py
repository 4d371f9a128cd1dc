"""Which key does what: the game's own keys from the action schema, the window's commands on keys that are left.

Keys are pygame's names ("left", "space", "page down"). A command whose keys the game uses has them with Ctrl: "ctrl+p".
A file changes them:

    game: {w: forward, s: back, a: turn_left, d: turn_right}    # these keys, and no others
    window: {rewind: left shift, pause: [p, home]}

The game's keys are places, so that W A S D lie together on every keyboard. A command's key is a letter; where a letter
means nothing (Cyrillic, Greek), its place does (`resolve` in `data_collect/places.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.keys import is_key, right_key
from data_collect.places import CODES as CODES
from data_collect.places import SCANCODES as SCANCODES
from data_collect.places import resolve as resolve
from data_collect.schema import ActionSchema

ARROWS = ("up", "down", "left", "right")
PLACES = {"restart": 0, "next": 1, "previous": -1}  # command -> places on
CTRL = "ctrl+"
CTRL_KEYS = {"left ctrl", "right ctrl"}


@dataclass(frozen=True)
class Command:
    """Something the window does; the first key is the one that is shown, a key of the game is never taken."""

    name: str
    text: str
    keys: tuple[str, ...]
    group: str


COMMANDS = (
    Command("pause", "pause", ("p",), "Time"),
    Command("single", "one frame at a time", (".",), "Time"),
    Command("rewind", "hold: time runs backwards", ("backspace",), "Time"),
    Command("restart", "start this place again", ("r",), "Time"),
    Command("next", "next place", ("n", "page down"), "Time"),
    Command("previous", "previous place", ("b", "page up"), "Time"),
    Command("save", "save the dream", ("s",), "Time"),
    Command("back", "back to the saved moment", ("u",), "Time"),
    Command("open", "the gallery, and back", ("o",), "Time"),
    Command("switch", "dream or real game", ("g",), "See"),
    Command("beside", "both, side by side", ("c",), "See"),
    Command("memory", "what memory shows", ("m",), "See"),
    Command("latents", "the latent picture", ("z",), "See"),
    Command("graph", "times of the frames", ("f",), "See"),
    Command("fewer", "fewer denoiser calls", ("-", "["), "See"),
    Command("more", "more denoiser calls", ("=", "+", "]"), "See"),
    Command("quality", "quality", ("q",), "See"),
    Command("hud", "hide what is written here", ("tab",), "See"),
    Command("full_screen", "full screen", ("f11",), "See"),
    Command("record", "film, and stop filming", ("v",), "Record"),
    Command("record_data", "record data to train on", ("k",), "Record"),
    Command("save_log", "save the actions", ("l",), "Record"),
    Command("mark", "mark a bad moment", ("x",), "Record"),
    Command("take_over", "let another player play", ("t",), "Play"),
    Command("help", "these keys", ("h", "f1"), "Play"),
    Command("quit", "the gallery; there: leave", ("escape",), "Play"),
)


def keys_of(schema: ActionSchema, command: Command) -> list[str]:
    """The keys of a command that the game leaves free; all of them with Ctrl where it leaves none."""
    return [key for key in command.keys if key not in schema.keys] or [CTRL + key for key in command.keys]


def command_keys(schema: ActionSchema, commands: tuple[Command, ...] = COMMANDS) -> dict[str, str]:
    """Key -> command name, without the keys of the game."""
    return {key: command.name for command in commands for key in keys_of(schema, command)}


def shown_keys(schema: ActionSchema, group: str, commands: tuple[Command, ...] = COMMANDS) -> list[tuple[str, str]]:
    """(key, text) of every command of a group, under the first of its keys."""
    return [(keys_of(schema, command)[0], command.text) for command in commands if command.group == group]


def key_of(schema: ActionSchema, name: str, commands: tuple[Command, ...] = COMMANDS) -> str:
    return keys_of(schema, next(c for c in commands if c.name == name))[0]


def meant(
    schema: ActionSchema, commands: Mapping[str, str], key: str, place: str | None, ctrl: bool = False
) -> tuple[str | None, str | None]:
    """(key of the game, command) that a key stands for which is called `key` and lies at `place`; one of them or both
    are None. `commands` is `command_keys`.

    What lies where a key of the game does has its own letter's command with Ctrl.
    """
    names = [key] if place is None else [key, place]
    held = [commands[CTRL + name] for name in names if CTRL + name in commands]
    if not CTRL_KEYS & schema.keys.keys():  # else Ctrl is held to play
        held += [commands[name] for name in names if name in commands]
    if ctrl and held:
        return None, held[0]
    name = resolve(key, place, schema.keys, commands)
    return (name, None) if name in schema.keys else (None, commands.get(name))


def read(path: Path, schema: ActionSchema, other: bool = False) -> tuple[ActionSchema, tuple[Command, ...]]:
    """The schema and the commands with a file's keys, YAML or JSON.

    `other`: the file was given for another model, so keys of another game's actions are left out, and a key that this
    game has already stands for its command with Ctrl.

    `UserError`: missing, neither YAML nor JSON, an unknown key, action or command, or a key that stands for two.
    """
    try:
        content = _content(path)
        if unknown := sorted(set(content) - {"game", "window"}):
            raise ValueError(f"{unknown[0]!r} is neither game nor window")
        game, window = content.get("game"), content.get("window") or {}
        if game is not None:
            if not isinstance(game, dict):
                raise ValueError("game must name an action for each key")
            chosen = {_key(key): str(name) for key, name in game.items()}
            try:
                schema = replace(schema, keys=chosen)
            except UserError:
                if not other:
                    raise
                print(f"{path} has the keys of another game: this one keeps its own", file=sys.stderr)
        names = [command.name for command in COMMANDS]
        if not isinstance(window, dict) or (unknown := sorted(set(map(str, window)) - set(names))):
            what = "window must name keys" if not isinstance(window, dict) else f"{unknown[0]!r} is no command"
            raise ValueError(f"{what}; commands are {', '.join(names)}")
        commands = []
        for command in COMMANDS:
            given = window.get(command.name, command.keys)
            keys = tuple(_key(key) for key in (given if isinstance(given, list | tuple) else [given]))
            if not keys:
                raise ValueError(f"{command.name} has no key")
            taken = next((key for key in keys if key in schema.keys), None)
            if command.name in window and taken and not other:
                raise ValueError(f"{taken!r} is a key of the game ({schema.keys[taken]}), not free for {command.name}")
            commands.append(replace(command, keys=keys))
        owner: dict[str, str] = {}
        for command in commands:
            for key in keys_of(schema, command):
                if owner.setdefault(key, command.name) != command.name:
                    raise ValueError(f"{key!r} stands for both {owner[key]} and {command.name}")
    except (ValueError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no key map: {reason}; docs/how-to/play.md shows one") from None
    return schema, tuple(commands)


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"it cannot be read ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError("it must hold `game` or `window`")
    return content


def _key(key: Any) -> str:
    """A key's name as pygame spells it; YAML reads digits as numbers."""
    name = str(key).lower()
    if not is_key(name):
        right = right_key(str(key))
        hint = f"it is called {right!r}" if right else "as in: w, left, space, left shift, page down, f5"
        raise ValueError(f"{name!r} is no key ({hint})")
    return name


def shown(key: str) -> str:
    if key.startswith(CTRL):
        return f"Ctrl {shown(key.removeprefix(CTRL))}"
    function = key[:1] == "f" and key[1:].isdecimal()
    return {"escape": "esc", "-": "−"}.get(key, key.upper() if len(key) == 1 or function else key)


def pretty(name: str) -> str:
    """An action's name for people: "turn_left" -> "turn left", "UPFIRE" -> "upfire", "steer+" -> "steer +"."""
    if name[-1:] in "+-":
        name = f"{name[:-1]} {name[-1].replace('-', '−')}"
    return name.replace("_", " ").lower()


def meaning(schema: ActionSchema, key: str) -> str:
    """What one of the game's keys does, in words; of an axis that has one key, its name alone."""
    name = schema.keys[key]
    opposite = name[:-1] + ("-" if name[-1] == "+" else "+")
    return pretty(name if schema.kind != "box" or opposite in schema.keys.values() else name[:-1])


def game_keys(schema: ActionSchema) -> list[tuple[tuple[str, ...], str]]:
    """(keys, what they do) of every action that has a key, arrows first: "up" and "w" may both go forward."""
    rows: dict[str, list[str]] = {}
    for key in sorted(schema.keys, key=lambda key: key not in ARROWS):
        rows.setdefault(schema.keys[key], []).append(key)
    return [(tuple(keys), meaning(schema, keys[0])) for keys in rows.values()]


def pressed(schema: ActionSchema, raw: np.ndarray) -> dict[str, float]:
    """How far each of the game's keys is down, 0 to 1, for a raw action (D,), by hand or by an agent."""
    vector = schema.encode(raw)
    if schema.kind == "box":
        rest = schema.encode(schema.noop())
        pull = {}
        for name, value, zero in zip(schema.names, vector, rest):
            pull[f"{name}+"] = max(0.0, float(value - zero) / max(1 - float(zero), 1e-6))
            pull[f"{name}-"] = max(0.0, float(zero - value) / max(1 + float(zero), 1e-6))
        return {key: pull.get(name, 0.0) for key, name in schema.keys.items()}
    chosen = {name for name, value in zip(schema.names, vector) if value > 0.5}
    if schema.kind == "discrete" and not chosen & set(schema.keys.values()):
        # Atari's UPFIRE is the keys of UP and FIRE together.
        chosen |= {part for part in schema.keys.values() for name in tuple(chosen) if part in name}
    return {key: float(name in chosen) for key, name in schema.keys.items()}


def describe(schema: ActionSchema, raw: np.ndarray) -> str:
    """The action in words, for schemas with more choices than keys fit on the screen."""
    vector = schema.encode(raw)
    if schema.kind == "box":
        return "  ".join(f"{pretty(name)} {value:+.2f}" for name, value in zip(schema.names, vector))
    return " + ".join(pretty(name) for name, value in zip(schema.names, vector) if value > 0.5)
