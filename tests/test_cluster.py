"""Recording on a Ray cluster of this machine alone: the same chunks as here, also when workers are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import make, run, same
from tiny_game import GAME, LONG

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording.plan import Plan
from data_collect.recording.workers import LOST, Children, Pool
from data_collect.shards.verify import verify
from data_collect.shards.writer import part_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), str(Path(__file__).parent)]))
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
        yield
        ray.shutdown()


def recorders() -> list[int]:
    """Processes of the cluster that record."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cmdline").read_bytes().startswith(b"ray::record_episodes"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_eight_workers_of_which_one_is_killed_record_what_one_does(cluster: None, tmp_path: Path) -> None:
    killed = list[int]()

    def kill() -> None:
        while not part_files(tmp_path / "ray"):  # somebody is in the middle of an episode
            time.sleep(0.01)
        killed.append(recorders()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    words = ["--game", LONG, "--player", "random", "--frames", "12000", "--episode-frames", "1200", "--seed", "3"]
    assert run("record", *words, "--workers", "ray:8", "--out", str(tmp_path / "ray")) == 0
    thread.join()
    assert run("record", *words, "--out", str(tmp_path / "here")) == 0
    assert killed and same(tmp_path / "here", tmp_path / "ray") and not part_files(tmp_path / "ray")
    assert "sound" in verify(tmp_path / "ray", replay="1")
    kept = Dataset(tmp_path / "ray").index_text()
    assert sorted(kept.splitlines()) == sorted(Dataset(tmp_path / "ray", rebuild=True).index_text().splitlines())


def test_an_episode_in_which_every_worker_dies_is_given_up(tmp_path: Path) -> None:
    dataset = make(tmp_path, frames=50)
    crew = Children(1)
    crew.replaces = True
    pool = Pool(dataset, Plan(99, 9), dataset.settings, crew, lambda _: None, lambda _: None, print)
    with pytest.raises(UserError, match=f"{LOST + 1} workers died in episode 0"):
        for _ in range(LOST + 1):
            ours, theirs = multiprocessing.Pipe()
            pool.episodes[ours] = 0
            theirs.close()
            pool.hear(ours)


@pytest.mark.parametrize("workers", ["many", "ray:x", "0"])
def test_workers_that_are_none(workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            "record",
            "--game",
            GAME,
            "--player",
            "random",
            "--frames",
            "50",
            "--workers",
            workers,
            "--out",
            str(tmp_path),
        )
        == 2
    )
    assert "--workers" in capsys.readouterr().err
