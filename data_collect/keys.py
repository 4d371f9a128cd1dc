"""Keys for action names when a game names none, names spelt from other names (UPFIRE), and what keys are called.

default_keys("discrete", ("NOOP", "LEFT", "RIGHT", "FIRE"))     # {"left": "LEFT", ...}
right_key("ArrowRight")                                         # "right", as pygame calls it
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

IDLE_NAMES = ("noop", "nop", "none", "nothing", "null", "idle", "stay", "still", "wait", "pass", "stand", "neutral")
# Keys for names that games use often; what is not listed gets a key from SPARE_KEYS.
USUAL_KEYS = {
    "up": "up", "down": "down", "left": "left", "right": "right", "forward": "up", "back": "down", "backward": "down",
    "turn_left": "left", "turn_right": "right", "strafe_left": "a", "strafe_right": "d", "fire": "space",
    "attack": "space", "shoot": "space", "jump": "space", "use": "e", "interact": "e", "run": "left shift",
}  # fmt: skip
SPARE_KEYS = tuple("1234567890qwertyuiopfghjklzxcvbnm")


# pygame's names of keys, beside the single characters.
KEY_NAMES = frozenset(
    ["up", "down", "left", "right", "space", "return", "enter", "escape", "tab", "backspace", "delete", "insert",
     "home", "end", "page up", "page down", "caps lock", "scroll lock", "numlock", "print screen", "break", "clear",
     "help", "menu", "power", "sys req", "alt gr", "equals", "euro", "AC Back", "CurrencySubUnit"]
    + [f"{side} {key}" for side in ("left", "right") for key in ("shift", "ctrl", "alt", "meta")]
    + [f"f{i}" for i in range(1, 16)]
    + [f"[{key}]" for key in "0123456789+-*/."]
)  # fmt: skip
# What other programs, browsers and keyboards call them, without spaces: "pageup" stands for "Page_Up" as well.
OTHER_NAMES = {
    "esc": "escape", "enter": "return", "spacebar": "space", "": "space", "del": "delete", "ins": "insert",
    "pgup": "page up", "pgdn": "page down", "pgdown": "page down", "bksp": "backspace", "capslock": "caps lock",
    "shift": "left shift", "ctrl": "left ctrl", "control": "left ctrl", "alt": "left alt", "option": "left alt",
    "meta": "left meta", "super": "left meta", "cmd": "left meta", "command": "left meta", "altgr": "alt gr",
    "comma": ",", "period": ".", "dot": ".", "minus": "-", "plus": "+", "slash": "/", "backslash": "\\",
    "semicolon": ";", "colon": ":", "quote": "'", "apostrophe": "'", "backquote": "`", "equal": "=",
    "bracketleft": "[", "bracketright": "]",
    **{f"{word}{i}": f"[{i}]" for word in ("numpad", "kp", "keypad", "num") for i in range(10)},
    **{f"{letter}{key}": f"{side} {name}" for side, letter in (("left", "l"), ("right", "r"))
       for key, name in (("shift", "shift"), ("ctrl", "ctrl"), ("control", "ctrl"), ("alt", "alt"), ("meta", "meta"))},
    **{f"{key}{side}": f"{side} {name}" for side in ("left", "right")
       for key, name in (("shift", "shift"), ("ctrl", "ctrl"), ("control", "ctrl"), ("alt", "alt"), ("meta", "meta"))},
}  # fmt: skip


def is_key(name: Any) -> bool:
    """Whether pygame has a key of that name: one of `KEY_NAMES`, or a character, small where it has two sizes."""
    if not isinstance(name, str):
        return False
    return name in KEY_NAMES or (len(name) == 1 and name.isprintable() and name != " " and name == name.lower())


def right_key(name: str) -> str | None:
    """pygame's name of the key that is called so elsewhere ("ArrowRight", "KeyA", "LEFT", "Esc"); None for none."""
    if is_key(name) or not name:
        return name or None
    bare = re.sub(r"^(pygame\.)?K_", "", name.strip())
    short = re.sub(r"[\s_-]+", "", bare).lower() if len(bare) > 1 else bare.lower()
    short = re.sub(r"^(key|arrow|digit)(?=.)|(?<=.)(key|arrow)$", "", short)
    known = {re.sub(r"\s", "", key).lower(): key for key in KEY_NAMES} | OTHER_NAMES
    if len(short) == 1:
        return short
    if (found := known.get(short)) is not None:
        return found
    near = difflib.get_close_matches(short, known, 1, 0.75)
    return known[near[0]] if near else None


def check_keys(keys: Mapping[Any, Any], names: tuple[str, ...]) -> str | None:
    """What is wrong with the keys of a map, in words; None where all of them exist."""
    if keys and set(keys) <= set(names) and all(is_key(key) for key in keys.values()) and not all(map(is_key, keys)):
        turned = {key: name for name, key in keys.items()}
        return f"action_keys says which key stands for which action, so the other way round: {turned}"
    wrong = []
    for key in keys:
        if not is_key(key):
            right = right_key(key) if isinstance(key, str) else None
            wrong.append(repr(key) + (f" (it is called {right!r})" if right else ""))
    if not wrong:
        return None
    are = "is no key" if len(wrong) == 1 else "are no keys"
    return f"{', '.join(wrong)} {are} by pygame's names, such as 'left', 'space', 'left shift', 'return', 'a', '1'"


def is_idle(name: str) -> bool:
    """Whether an action's name says that nothing is done: NOOP, do_nothing, "move: none"."""
    words = re.split(r"[\W_]+", name.lower())
    return words[-1] in IDLE_NAMES or words[-2:] == ["no", "op"]


def _usual(name: str) -> str | None:
    """The key that games use for such an action: "left" for "Left", "move_left" and "go left"."""
    return USUAL_KEYS.get(re.sub(r"^(move|go|walk)[_ -]", "", name.lower()))


def parts(name: str, known: set[str]) -> set[str]:
    """The known names that spell `name` (UPFIRE -> {UP, FIRE}, the longest first), empty when they do not."""
    if name in known:
        return {name}
    found, rest = set(), name
    while rest:
        fits = [part for part in known if rest.startswith(part)]
        if not fits:
            return set()
        found.add(max(fits, key=len))
        rest = rest[len(max(fits, key=len)) :].lstrip("_+- ")
    return found


def default_keys(kind: str, names: tuple[str, ...]) -> dict[str, str]:
    """A key map for action names: usual keys for usual names, digits and letters for the rest."""
    if kind == "box":
        pairs = [("left", "right"), ("down", "up"), ("a", "d"), ("s", "w"), ("q", "e")]
        usual = zip(pairs, names, strict=False)
        return {key: name + sign for (minus, plus), name in usual for key, sign in ((minus, "-"), (plus, "+"))}
    keys: dict[str, str] = {}
    single = {name for name in names if _usual(name)}
    for name in names:
        key = _usual(name)
        if key and key not in keys:
            keys[key] = name
    spare = iter(key for key in SPARE_KEYS if key not in keys)
    for name in names:
        idle = kind != "multibinary" and is_idle(name)
        if name in keys.values() or idle or (kind == "discrete" and name not in single and parts(name, single)):
            continue
        if (key := next(spare, None)) is None:
            break
        keys[key] = name
    return keys
