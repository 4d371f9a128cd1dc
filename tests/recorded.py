"""Recordings of the tiny game, made, given to the command line and compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tiny_game import GAME

from data_collect import __main__ as cli
from data_collect.dataset import Dataset
from data_collect.errors import main_guard
from data_collect.recording.record import record

make = partial(record, game=GAME, player="random")


def run(*words: str) -> int:
    """`python -m data_collect` with these words; its exit status."""
    return main_guard(lambda: cli.main(list(words)))


def same(one: Path, other: Path) -> bool:
    first, second = Dataset(one), Dataset(other)
    pairs = zip(first.chunks(), second.chunks(), strict=True)
    return first.settings == second.settings and all(a.same(b) and a.meta == b.meta for a, b in pairs)
