"""What the explorer does between walks: glances, pauses, turns, buttons at random. Each function draws one gesture.

A gesture is a sequence of the buttons to hold in each of the next frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Buttons = tuple[str, ...]


def fidget(rng: np.random.Generator, names: Sequence[str]) -> Sequence[Buttons]:
    """A few frames in passing: a swerve, a pause, steps back, or buttons at random."""
    roll = rng.random()
    side, other = _sides(rng)
    length = int(rng.integers(2, 8))
    if roll < 0.35:
        return [("forward", side)] * length + [("forward", other)] * length
    if roll < 0.55:
        return [()] * length
    if roll < 0.75 and "back" in names:
        return [("back",) if rng.random() < 0.5 else ("back", side)] * length
    return _at_random(rng, names, int(rng.integers(1, 4)), 0.35, 4)


def let_go(rng: np.random.Generator, names: Sequence[str]) -> Sequence[Buttons]:
    """Some 80 frames of random buttons, each held a while, or of standing still."""
    length, held = int(rng.integers(40, 121)), list[Buttons]()
    while len(held) < length:
        if rng.random() < 0.15:
            held += [()] * int(rng.integers(20, 81))
        else:
            pressed = tuple(name for name in names if rng.random() < 0.35)
            held += [pressed] * int(rng.integers(4, 25))
    return held


def at_a_place(rng: np.random.Generator, names: Sequence[str], turn: float) -> Sequence[Buttons]:
    """At a place that was reached: turn round once, look aside, stand, back up, press at random, or nothing.

    `turn` is the angle that one frame of turn_left adds.
    """
    roll = rng.random()
    side, other = _sides(rng)
    full = round(2 * math.pi / max(abs(turn), 0.02))
    if roll < 0.12:
        return [(side,)] * (full + int(rng.integers(0, full // 4 + 1)))
    if roll < 0.28:
        length = int(rng.integers(full // 18 + 1, full // 4 + 2))
        return [(side,)] * length + [()] * int(rng.integers(0, 6)) + [(other,)] * length
    if roll < 0.38:
        return [()] * int(rng.integers(8, 60))
    if roll < 0.45 and "back" in names:
        length = int(rng.integers(4, 14))
        return [("back",)] * length + [("forward",)] * int(rng.integers(0, length))
    return _at_random(rng, names, int(rng.integers(3, 12)), 0.4, 16) if roll < 0.55 else []


def _sides(rng: np.random.Generator) -> tuple[str, str]:
    return ("turn_left", "turn_right") if rng.random() < 0.5 else ("turn_right", "turn_left")


def _at_random(
    rng: np.random.Generator, names: Sequence[str], times: int, chance: float, longest: int
) -> Sequence[Buttons]:
    held = list[Buttons]()
    for _ in range(times):
        pressed = tuple(name for name in names if rng.random() < chance)
        held += [pressed] * int(rng.integers(1, longest))
    return held
