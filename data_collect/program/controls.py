"""Which keys, mouse and joystick a program answers to: what its code names, and what changes its picture when tried.

found = named(files)            # keys, and what is read at all
chosen = given("left, K_a, mouse")
schema = schema_of(chosen, fps)
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pygame

from data_collect.errors import UserError
from data_collect.keys import is_key, right_key
from data_collect.program.inputs import CODES
from data_collect.schema import ActionSchema

USUAL = ("left", "right", "up", "down", "space", "return", "w", "a", "s", "d", "z", "x")  # tried where none is named
KEYBOARD = {"KEYDOWN", "KEYUP", "TEXTINPUT", "key", "unicode"}  # names in the code of who reads it
MOUSE = {"MOUSEMOTION", "MOUSEBUTTONDOWN", "MOUSEBUTTONUP", "mouse"}
JOYSTICK = {"joystick", "Joystick", "JOYAXISMOTION", "JOYBUTTONDOWN"}
KINDS = {"mouse": ("mouse x", "mouse y", "mouse left"),
         "joystick": ("stick x", "stick y", "button 0", "button 1", "button 2", "button 3")}  # fmt: skip
PARTS = ("mouse middle", "mouse right", *KINDS["mouse"], *KINDS["joystick"])
AXES = ("mouse x", "mouse y", "stick x", "stick y")
COMMA = "comma"  # in an option, where the character stands between keys
NONE, NOTHING = "none", "nothing"  # of a program that reads nothing: the option, and its one action
# Keys of ours for axes and buttons, where the program leaves them free.
STAND_IN = (
    ("left", "mouse x-"), ("right", "mouse x+"), ("up", "mouse y-"), ("down", "mouse y+"), ("space", "mouse left+"),
    ("return", "mouse right+"), ("left", "stick x-"), ("right", "stick x+"), ("up", "stick y-"), ("down", "stick y+"),
    ("space", "button 0+"), ("return", "button 1+"), ("a", "button 2+"), ("s", "button 3+"),
)  # fmt: skip


@dataclass
class Named:
    """The keys that code names, in its order; whether it reads keys without naming any, the mouse, a joystick."""

    keys: list[str] = field(default_factory=list)
    keyboard: bool = False
    mouse: bool = False
    joystick: bool = False


def named(files: Iterable[Path]) -> Named:
    """What the code of these files names. A file that is no Python says nothing."""
    found, places = Named(), list[tuple[int, int, int, str]]()
    for number, file in enumerate(files):
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                word = node.id if isinstance(node, ast.Name) else node.attr
                places.append((number, node.lineno, node.col_offset, word))
    words = dict.fromkeys(word for *_, word in sorted(places))
    codes = [getattr(pygame, word) for word in words if word.startswith("K_") and hasattr(pygame, word)]
    found.keys = [name for name in dict.fromkeys(map(pygame.key.name, codes)) if is_key(name) and name != "escape"]
    found.keyboard, found.mouse, found.joystick = (bool(kind & words.keys()) for kind in (KEYBOARD, MOUSE, JOYSTICK))
    found.keyboard &= not codes
    return found


def given(keys: str) -> tuple[str, ...]:
    """The inputs that an option names, such as "left,space,mouse". `UserError` for what is no key."""
    chosen: dict[str, None] = {}
    for word in filter(None, (word.strip() for word in keys.split(","))):
        if word in KINDS:
            chosen |= dict.fromkeys(KINDS[word])
        elif word in PARTS or word in CODES:
            chosen[word] = None
        elif word == COMMA:
            chosen[","] = None
        elif keys != NONE:
            near = f" (is {near!r} meant?)" if (near := right_key(word)) else ""
            raise UserError(f"{word!r} is no key{near}: give such as --keys 'left,left shift,a,mouse,joystick'")
    return tuple(chosen)


def written(inputs: Sequence[str]) -> str:
    """The option that names these inputs, as `given` reads it."""
    names = list(inputs)
    for kind, parts in KINDS.items():
        if set(parts) <= set(names):
            names = [name for name in names if name not in parts] + [kind]
    return ",".join(COMMA if name == "," else name for name in names) or NONE


def schema_of(inputs: Sequence[str], fps: float) -> ActionSchema:
    """Buttons for keys alone; with mouse or stick, axes for all."""
    if not inputs:
        return ActionSchema("discrete", (NOTHING,), fps=fps)
    if not set(inputs) & set(PARTS):
        return ActionSchema("multibinary", tuple(inputs), keys={key: key for key in inputs}, fps=fps)
    keys = {name: f"{name}+" for name in inputs if name not in PARTS}
    for key, action in STAND_IN:
        if action[:-1] in inputs:
            keys.setdefault(key, action)
    low = tuple(-1.0 if name in AXES else 0.0 for name in inputs)
    return ActionSchema("box", tuple(inputs), low=low, high=(1.0,) * len(inputs), keys=keys, fps=fps)
