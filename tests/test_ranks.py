"""Several processes that train one model: what each reads, what all of them agree on, how they stop and go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import Ranks
from stage_runs import stage_flags

from train.checkpoints import read_checkpoint
from train.data import encode
from train.data.modules import LatentDataModule
from train.report.figures import read_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BATCH, LENGTH = 4, 8


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with Ranks(3) as found:
        yield found


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, one of them nine times as long as the other."""
    folder = tmp_path_factory.mktemp("uneven")
    encode.write_synthetic(folder / "long", (4, 4, 4), actions=3, episodes=9, frames=40)
    encode.write_synthetic(folder / "short", (4, 4, 4), actions=3, episodes=1, frames=40)
    return folder


def flags_of(latents: Path, runs: Path, name: str, *more: str) -> list[str]:
    small = ["--data.length", str(LENGTH), "--data.event_factor", "1", "--model.rollout", "0"]
    small += ["--model.dynamics.history", "2", "--sample_minutes", "100"]
    return [*stage_flags(latents, runs, name), *small, *more]


def read(latents: Path, first: int, batches: int) -> list[list[tuple[int, int]]]:
    """(episode, start) of the windows of so many batches, the first of which begins at item `first`."""
    data = LatentDataModule(str(latents), LENGTH, BATCH)
    found = [data.batch(first + i * BATCH, BATCH) for i in range(batches)]
    return [list(zip(batch["episode"].tolist(), batch["start"].tolist())) for batch in found]


def in_turn(told: list[Any]) -> list[list[tuple[int, int]]]:
    """The batches of all processes, step by step."""
    return list(chain(*zip(*(each.windows for each in told), strict=True)))


def test_the_gradient_of_several_is_the_mean_of_theirs(ranks: Ranks, uneven: Path, tmp_path: Path) -> None:
    """One process that stands still takes one batch after another, by the same seeds."""
    still = ["--clip", "1e9", "--trainer.precision", "32", "--model.lr", "0"]
    both = ranks.train(flags_of(uneven, tmp_path, "both", *still, "--steps", "1"), 2, gradients=True)
    [alone] = ranks.train(flags_of(uneven, tmp_path, "alone", *still, "--steps", "2"), 1, gradients=True)
    assert in_turn(both) == alone.windows
    parts = list(zip(*alone.gradients, strict=True))
    assert sum(np.abs(a - b).max() > 1e-6 for a, b in parts) > 10  # they differ
    for told in both:
        for found, (a, b) in zip(told.gradients[0], parts, strict=True):
            assert np.allclose(found, (a + b) / 2, atol=1e-6, rtol=1e-4)


def test_any_number_of_processes_goes_on_with_a_run(ranks: Ranks, uneven: Path, tmp_path: Path) -> None:
    """By torchrun, with `--trainer.devices` and without: each window is trained on once."""
    flags, first = flags_of(uneven, tmp_path, "run", "--resume"), 0
    for count, steps, more in ((2, 4, []), (1, 6, []), (3, 9, ["--trainer.devices", "3"])):
        told = ranks.train([*flags, "--steps", str(steps), *more], count)
        taken = steps - first // BATCH if count == 2 else len(told[0].windows)
        assert [(each.status, each.step, each.world, each.rank) for each in told] == [
            (0, steps, count, rank) for rank in range(count)
        ]
        assert in_turn(told) == read(uneven, first, count * taken)
        assert len({each.weights for each in told}) == 1
        first += count * taken * BATCH
    folder = tmp_path / "run" / "dynamics"
    assert [step for step, _ in read_figures(folder, "loss")] == list(range(9))  # written by one of them
    assert read_checkpoint(folder / "last.ckpt")["game_wm"]["trained"]["frames"] == (4 * 2 + 2 + 3 * 3) * BATCH * LENGTH


def test_weights_are_the_same_to_the_bit_by_different_clocks(ranks: Ranks, uneven: Path, tmp_path: Path) -> None:
    """Two hundred steps under a budget of minutes, over the last 40 % of which the learning rate falls."""
    minutes = 200 * 0.13 / 60
    flags = flags_of(uneven, tmp_path, "clocks", "--minutes", str(minutes), "--trainer.val_check_interval", "1000")
    told = ranks.train(flags, 2, pace=(0.1, 0.13))
    assert abs(told[0].step - 200) <= 1 and len({(each.step, each.weights, *each.rates) for each in told}) == 1
    assert told[0].rates[-1] < 0.1 * told[0].rates[100]


@pytest.mark.parametrize("who", ["torchrun", "srun"])
def test_a_signal_to_one_stops_all_and_they_go_on(who: str, ranks: Ranks, uneven: Path, tmp_path: Path) -> None:
    """On one machine, and on two with a process each."""
    flags = flags_of(uneven, tmp_path, "run", "--steps", "9")
    told = ranks.train(flags, 2, who, signals={1: 3})
    assert [(each.status, each.step) for each in told] == [(128 + signal.SIGTERM, 4)] * 2
    last = tmp_path / "run" / "dynamics" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == 4
    [refused, other] = ranks.train(flags, 2, who)
    assert "add --resume" in refused.error and "add --resume" in other.error
    told = ranks.train([*flags, "--resume"], 2, who)
    assert [(each.status, each.step, each.world) for each in told] == [(0, 9, 2)] * 2
    assert in_turn(told) == read(uneven, 2 * 4 * BATCH, 2 * 5) and told[0].weights == told[1].weights
