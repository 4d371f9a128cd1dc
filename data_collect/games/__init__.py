"""Games by name: everything that can be recorded, evaluated against, or played for real.

    env = make("maze?size=9&creatures=0")
    env = make("isles?size=40&crates=0")
    env = make("doom?scenario=my_way_home&width=128&height=96")
    env = make("gym:my_module:MyGame-v0")       # imports my_module, which registers the id: your own game
    env = make("pygame:my_game.py")             # a pygame program as it is

A game is a `gymnasium.Env` with an `action_schema` whose observation is its frame, uint8 (H, W, 3). The same seed and
actions give the same frames, where `replayable` says so. `info` may hold `pose` (x, y, angle in radians), `map` (uint8
(rows, columns), 1 = wall), `map_pose` where the map has units of its own, and `surface`, int (H, W): which patch of the
world is behind each pixel, -1 where something moves, -2 where something can be taken, -3 where something can be pushed.
A game seen from above tells the camera's place in pixels and the angle by which the picture is turned. `depth(poses,
height, width)`, where a game has it, tells how deep the world looks, in the poses' units.

A game made here lives in the caller's process; `data_collect.guest.guest.Guest` gives it a process of its own.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
import typing
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import gymnasium

from data_collect.errors import UserError

# Imported when asked for: a game must not need what another one needs.
GAMES = {
    "maze": "data_collect.games.maze:Maze",
    "isles": "data_collect.games.isles.env:Isles",
    "doom": "data_collect.games.doom:Doom",
    "scroll": "data_collect.games.scroll:Scroll",
}
# Kinds of games: what follows the prefix is their first argument.
KINDS = {"gym:": "data_collect.games.gym:Gym", "pygame:": "data_collect.program.env:Program"}
MARKS = {"taken": -2, "pushed": -3}  # of `info["surface"]`: what can be done to the things that pixels show
DREAM = "dream:"  # the game of a recording that was played in a dream
# What must be said wherever a game's pictures, or what learnt from them, are passed on.
NOTICES = {
    "doom": "Levels, textures and sprites are Freedoom's (https://freedoom.github.io), copyright 2001-2024 the "
    "contributors to the Freedoom project, under the 3-clause BSD licence; the scenarios are ViZDoom's (MIT licence)."
}


def parse(game_id: str) -> tuple[str, dict[str, str]]:
    """("maze", {"size": "9"}) from "maze?size=9"; `UserError` when the options are no query string."""
    name, mark, query = game_id.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark))
    except ValueError:
        raise UserError(f"the options of game {game_id!r} must look like {name}?option=value&other=value") from None
    return name, dict(pairs)


def with_options(game_id: str, options: dict[str, str]) -> str:
    """The id with these options behind those that it has."""
    more = urlencode(options, safe=",", quote_via=quote)
    return f"{game_id}{'&' if '?' in game_id else '?'}{more}" if options else game_id


def make(game_id: str, frame: tuple[int, int] | None = None, **options: Any) -> gymnasium.Env:
    """The game `game_id`; `options` add to those in the id and win over them. `UserError`: unknown game or option.

    `frame` is the (width, height) that a recording or a model of it has, whatever the id leaves to the game's default.
    """
    name, written = parse(game_id)
    cls, arguments = _game(game_id)
    wanted, sides = {**written, **options}, ("width", "height")
    if frame is not None and not set(sides) & set(wanted) and set(sides) <= set(inspect.signature(cls).parameters):
        wanted |= dict(zip(sides, frame))
    return cls(*arguments, **_options(name, cls, wanted))


def notice(game_id: str) -> str:
    """Whose pictures a game's are, and under which licence; empty where they are this project's own or not known."""
    return NOTICES.get(parse(game_id)[0], "")


def option_names(game_id: str) -> Collection[str]:
    """The names of the options that a game has, without making it. `UserError` as in `make`."""
    return inspect.signature(_game(game_id)[0]).parameters.keys()


def _game(game_id: str) -> tuple[type, list[str]]:
    """The class of a game, and its arguments beside the options."""
    name, _ = parse(game_id)
    kind = next((prefix for prefix in KINDS if name.startswith(prefix)), None)
    if kind is not None:
        target, arguments = KINDS[kind], [name.removeprefix(kind)]
    elif name.startswith(DREAM):
        raise UserError(f"{name!r} is what a model dreamt, not a game: only its checkpoint can play it")
    elif name in GAMES:
        target, arguments = GAMES[name], []
    else:
        meant = "gym:" if "-v" in name or ":" in name or "/" in name else ""
        meant = "pygame:" if name.endswith(".py") else meant
        hint = f": did you mean {meant}{name}?" if meant else ""
        raise UserError(
            f"unknown game {name!r}{hint}; there are {', '.join(GAMES)}, gym:ID for any Gymnasium id, and "
            "pygame:FILE.py for any pygame program"
        )
    module, _, cls_name = target.partition(":")
    return getattr(importlib.import_module(module), cls_name), arguments


def _options(name: str, cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Values given as text, converted to the types in the constructor's signature."""
    parameters = inspect.signature(cls).parameters
    types_of = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    keywords = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY or p.default is not p.empty]
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    converted = {}
    for key, value in values.items():
        if key in keywords:
            converted[key] = _convert(value, types_of.get(key, str), f"option {key!r} of game {name!r}")
        elif passes_on:
            converted[key] = _literal(value)
        else:
            raise UserError(f"game {name!r} has no option {key!r}; it has {', '.join(keywords)}")
    return converted


def _convert(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, str):
        return value
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    truth = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return truth[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        raise UserError(f"{what} is {value!r}, which is no {kind.__name__}") from None


def _literal(value: Any) -> Any:
    """An option of unknown type: a number, true, false or none where it reads as one, else the text itself."""
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return words[value.lower()]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
