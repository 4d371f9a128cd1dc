"""Which key does what: the game's own keys from the action schema, the window's commands on keys that are left.

Keys are pygame's names ("left", "space", "page down").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_collect.schema import ActionSchema

ARROWS = ("up", "down", "left", "right")


@dataclass(frozen=True)
class Command:
    """Something the window does; the first key is the one that is shown, a key of the game is never taken."""

    name: str
    text: str
    keys: tuple[str, ...]


COMMANDS = (
    Command("pause", "pause", ("p", "f3")),
    Command("single", "one frame at a time", (".", "f4")),
    Command("restart", "start this place again", ("r", "f5")),
    Command("next", "next place", ("n", "f6", "page down")),
    Command("previous", "previous place", ("b", "f7", "page up")),
    Command("take_over", "let another player play", ("t", "f8")),
    Command("record", "film, and stop filming", ("v", "f9")),
    Command("save_log", "save the actions", ("l", "f10")),
    Command("memory", "what memory shows", ("m", "f11")),
    Command("fewer", "fewer denoiser calls", ("-", "[")),
    Command("more", "more denoiser calls", ("=", "+", "]")),
    Command("hud", "hide what is written here", ("tab", "f2")),
    Command("help", "these keys", ("h", "f1")),
    Command("quit", "leave", ("escape", "f12")),
)


def command_keys(schema: ActionSchema) -> dict[str, str]:
    """Key -> command name, without the keys of the game."""
    return {key: command.name for command in COMMANDS for key in command.keys if key not in schema.keys}


def shown_keys(schema: ActionSchema) -> list[tuple[str, str]]:
    """(key, text) of every command, under the first of its keys that the game leaves free."""
    free = [(next((k for k in command.keys if k not in schema.keys), None), command.text) for command in COMMANDS]
    return [(key, text) for key, text in free if key]


def key_of(schema: ActionSchema, name: str) -> str:
    """The shown key of one command."""
    command = next(c for c in COMMANDS if c.name == name)
    return next((key for key in command.keys if key not in schema.keys), "")


def shown(key: str) -> str:
    """A key's name as it stands on the key."""
    return {"escape": "esc", "-": "−"}.get(key, key.upper() if len(key) == 1 else key)


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
    """How far each of the game's keys is down, 0 to 1, for a raw action (D,), whoever chose it."""
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
