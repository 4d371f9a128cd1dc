"""Deadlines by a fake clock: how much of some work is begun, and what each stage of a pipeline has."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from game_wm.deadline import NEVER, Deadline, OutOfTime
from game_wm.evaluation.report.progress import progress
from train.data.spans import spread_out
from train.pipeline.clock import Clock
from train.stages.callbacks import Budget


class Now:
    """Seconds that pass only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.seconds)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    return Now(monkeypatch)


def test_as_many_steps_are_taken_as_end_in_time(now: Now) -> None:
    deadline = Deadline(20)
    assert deadline.fits(10_000, lambda: now.wait(0.1), least=50) == pytest.approx(195, abs=2)  # trials took some
    assert Deadline(20).fits(10, lambda: now.wait(0.1)) == 10
    assert Deadline(20).fits(10_000, lambda: now.wait(4), least=50) == 50
    assert Deadline(20).fits(100, lambda: now.wait(4), together=3) == 12
    began = now.seconds
    assert NEVER.fits(10_000, lambda: now.wait(4)) == 10_000 and now.seconds == began


def test_pieces_are_begun_as_long_as_one_more_ends_in_time(now: Now) -> None:
    def done(sizes: list[int], seconds: float, least: int) -> list[int]:
        found = []
        for size in Deadline(seconds).each(sizes, least, float):
            now.wait(2 * size)
            found.append(size)
        return found

    assert done([1, 1, 1, 1, 1], 7, 1) == [1, 1, 1]
    assert done([1, 1, 5, 1], 7, 1) == [1, 1]  # the long one would end too late
    assert done([1, 1, 1, 1, 1], 0, 2) == [1, 1]
    for _ in NEVER.each(range(3), 0):
        now.wait(1e9)


def test_a_measurement_ends_where_its_end_cannot_be_reached(now: Now) -> None:
    with pytest.raises(OutOfTime), progress("stability", 100, Deadline(20)) as tick:
        for _ in range(100):
            now.wait(1)
            tick(1)
    assert now.seconds < 6
    with pytest.raises(OutOfTime), progress("rollouts", 100, Deadline(20), whole=False) as tick:
        for _ in range(100):
            now.wait(1)
            tick(1)
    assert now.seconds == pytest.approx(20, abs=6)


def test_any_beginning_of_what_is_spread_out_is_spread_evenly() -> None:
    order = spread_out([64, 3])
    assert sorted(order) == [(0, i) for i in range(64)] + [(1, i) for i in range(3)]
    assert set(order[:4]) == {(0, 63), (0, 31), (1, 2), (1, 0)}
    first = sorted(number for group, number in order[:20] if group == 0)
    assert max(b - a for a, b in pairwise(first)) <= 8


def test_stages_that_train_nothing_have_half_of_the_minutes_at_most(now: Now, tmp_path: Path) -> None:
    clock = Clock(20, tmp_path / "pipeline.json")
    stages = ["latents", "level", "motion", "depth", "atlas", "obstacles", "views", "dynamics", "export", "evaluate"]
    clock.divide(stages)
    assert sum(clock.most.values()) == pytest.approx(10) and "dynamics" not in clock.most
    clock = Clock(20, tmp_path / "pipeline.json")
    clock.divide(["latents", "views", "dynamics"])
    before = clock.left
    clock.keep_back("latents", 0.5)
    assert clock.left == pytest.approx(before + 1.5)
    assert clock.deadline("latents").left == pytest.approx(120)  # though it should take half a minute
    clock.keep_back("latents", 1.0)
    assert "latents" not in clock.kept
    now.wait(18 * 60)
    assert 0 < clock.deadline("views").left < 60  # some of what is left is for training
    now.wait(3 * 60)
    assert clock.deadline("views").left == 0
    clock = Clock(None, tmp_path / "pipeline.json")
    clock.divide(["latents", "views"])
    assert clock.deadline("views").never


def test_the_card_has_all_that_is_left(now: Now, tmp_path: Path) -> None:
    clock = Clock(12, tmp_path / "pipeline.json")
    clock.divide(["latents", "export", "evaluate"])
    assert clock.kept["evaluate"] == pytest.approx(3)
    clock.deadline("latents")
    now.wait(10 * 60)
    del clock.kept["export"]  # it is written
    assert clock.deadline("evaluate").left == pytest.approx(120, abs=1)


def test_a_training_that_has_a_deadline_ends_then_however_long_it_took_to_begin(now: Now) -> None:
    budget = Budget(minutes=10, deadline=Deadline(120))
    trainer = SimpleNamespace(global_step=0, should_stop=False, world_size=1)
    budget.load_state_dict({"seconds": 60.0})
    now.wait(90)
    budget.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert budget.progress(trainer) == pytest.approx(60 / 90)  # type: ignore[arg-type]
    now.wait(30)
    assert budget.progress(trainer) == 1 and budget.seconds == 90  # type: ignore[arg-type]
    late = Budget(minutes=10, deadline=Deadline(-5))
    late.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert not trainer.should_stop and late.progress(trainer) == 0  # type: ignore[arg-type]
