"""Prompts of the dreams on a server: read once, at a small share of the others' time."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")


from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play.web import dreams  # noqa: E402

pytestmark = pytest.mark.slow


class Clock:
    """A clock that a test turns, and that reading a prompt turns by two seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


def test_prompts_are_read_at_a_twentieth_of_the_others_time(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begin = Clock(), loaded.model.begin

    def slow(*arguments: Any) -> Any:
        clock.now += 2.0
        return begin(*arguments)

    monkeypatch.setattr(dreams, "time", clock)
    monkeypatch.setattr(loaded.model, "begin", slow)
    play = dreams.Dreams(loaded, None)
    idle, place = loaded.schema.raw(loaded.schema.noop()), dreams.Begin
    assert len(play.turn({0: place(0, 0), 1: place(0, 1)})) == 2 and clock.now == 2.0  # nobody plays yet; read once

    def turn(**wishes: dreams.Wish) -> set[int]:
        shown = play.turn({0: idle} | {int(name[1:]): wish for name, wish in wishes.items()})
        return {player for player, what in shown.items() if player and what.began}

    assert turn(p1=place(1, 1), p2=place(2, 2)) == set()  # 38 seconds, nineteen times as long, for player 0
    assert turn(p1=place(0, 7), p2=place(2, 2)) == {1}  # what has been read costs nothing
    clock.now = 40.0
    assert turn(p1=place(1, 1), p2=place(2, 2)) == {2}  # who has waited for longer comes first
    assert clock.now == 42.0 and turn(p1=place(1, 1), p2=idle) == set()
    clock.now = 80.0
    assert turn(p1=place(1, 1), p2=idle) == {1} and not play.read_ahead()


def test_what_is_kept_of_prompts_is_bounded(loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    play = dreams.Dreams(loaded, None)
    assert play.read_ahead()
    size = sum(state.nbytes for state in play.prompts.values())
    monkeypatch.setattr(dreams, "PROMPT_BYTES", 2 * size)
    assert play.read_ahead() and not play.read_ahead()
    for context in (2, 0, 1, 2):
        play.turn({0: dreams.Begin(context, 0)})
        assert len(play.prompts) == 2


def test_a_dream_begins_as_if_its_prompt_had_been_read_for_it(loaded: Checkpoint) -> None:
    play = dreams.Dreams(loaded, None)
    idle = loaded.schema.raw(loaded.schema.noop())
    for seed in (3, 4, 3):
        play.turn({0: dreams.Begin(1, seed)})
        fresh = loaded.model.begin(*loaded.prompt(1)[:2], seed, None).to_dict()
        kept = play.copy(0).state.to_dict()
        assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
        play.turn({0: idle})  # and changes nothing of what is kept
