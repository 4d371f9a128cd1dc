"""What a program answers to, by trying: it runs from the same seed with one input held for a while, and without.

inputs = inputs_of("pygame:my_program.py", start, named([path]))   # start() begins a run
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from data_collect.errors import UserError
from data_collect.program.controls import KINDS, USUAL, Named
from data_collect.program.run import Run

BEFORE, HELD, AFTER = 6, 6, 6  # steps of a trial: nothing is held, an input is, nothing is
Start = Callable[[], Run]  # a run of the program, from the same seed


def inputs_of(game: str, start: Start, named: Named) -> tuple[str, ...]:
    """The inputs of a program whose code names these, none where it reads none.

    Of the keys that it names, all but those that end it, for most do nothing yet while it shows its title. Where it
    names none, the usual ones that change its picture. `UserError` where it reads the keyboard, and none of them does.
    """
    idle = watch(start, {})
    chosen: list[str] = []
    for key in named.keys or (USUAL if named.keyboard else ()):
        pictures = watch(start, {key: [1.0]})
        ends = len(pictures) < min(len(idle), BEFORE + HELD + AFTER)
        if not ends and (named.keys or pictures != idle):
            chosen.append(key)
    if named.mouse:
        moves = {"mouse x": (-0.5, 0.5, 0.0), "mouse y": (-0.5, 0.5, 0.0), "mouse left": (1.0, 0.0)}
        chosen += KINDS["mouse"] if watch(start, moves) != idle else ()
    if named.joystick and not chosen:
        chosen += KINDS["joystick"]
    if not chosen and (named.keyboard or named.mouse):
        raise UserError(
            f"{game!r} answers to none of the keys {', '.join(USUAL)} in its first second: name what it is played "
            "with, such as --keys left,right,space,mouse"
        )
    return tuple(chosen)


def watch(start: Start, held: Mapping[str, Sequence[float]]) -> list[bytes]:
    """A digest of each step's picture; inputs take their values in turn while they are held."""
    run = start()
    pictures = [_digest(run)]
    try:
        for step in range(BEFORE + HELD + AFTER):
            if run.over:
                break
            now = BEFORE <= step < BEFORE + HELD
            run.hold({name: values[step % len(values)] if now else 0.0 for name, values in held.items()})
            pictures.append(_digest(run))
    finally:
        run.close()
    return pictures


def _digest(run: Run) -> bytes:
    return hashlib.sha256(run.pixels).digest()
