"""Keys for action names when a game names none, and names spelt from other names (UPFIRE).

default_keys("discrete", ("NOOP", "LEFT", "RIGHT", "FIRE"))     # {"left": "LEFT", ...}
"""

from __future__ import annotations

import re

IDLE_NAMES = ("noop", "nop", "none", "nothing", "null", "idle", "stay", "still", "wait", "pass", "stand", "neutral")
# Keys for names that games use often; what is not listed gets a key from SPARE_KEYS.
USUAL_KEYS = {
    "up": "up", "down": "down", "left": "left", "right": "right", "forward": "up", "back": "down", "backward": "down",
    "turn_left": "left", "turn_right": "right", "strafe_left": "a", "strafe_right": "d", "fire": "space",
    "attack": "space", "jump": "space", "use": "e", "run": "left shift",
}  # fmt: skip
SPARE_KEYS = tuple("1234567890qwertyuiopfghjklzxcvbnm")


def is_idle(name: str) -> bool:
    """Whether an action's name says that nothing is done: NOOP, do_nothing, "move: none"."""
    words = re.split(r"[\W_]+", name.lower())
    return words[-1] in IDLE_NAMES or words[-2:] == ["no", "op"]


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
    single = {name for name in names if name.lower() in USUAL_KEYS}
    for name in names:
        key = USUAL_KEYS.get(name.lower())
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
