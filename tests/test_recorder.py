"""Recording: the same whatever the workers, and after any interruption; what cannot go on says why."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from recorded import make, run, same
from tiny_game import GAME, LONG, record_without_end

from data_collect import lock as lock_module
from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording import record as record_module
from data_collect.recording.plan import Plan
from data_collect.recording.record import record
from data_collect.recording.workers import Children, Pool
from data_collect.shards import writer as shards_module
from data_collect.shards.verify import verify
from data_collect.shards.writer import ShardWriter, part_files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_sync")]


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_carries_out_the_same_plan(workers: int) -> None:
    """Workers of random speed on episodes of random length get to exactly what one worker does."""
    for seed in range(30):
        rng = random.Random(seed)
        frames, longest = rng.randint(2, 900), rng.randint(2, 120)
        natural = [rng.randint(2, 150) for _ in range(frames)]
        expected: dict[int, int] = {}
        total = 0
        while total < frames:
            expected[len(expected)] = min(natural[len(expected)], longest, max(frames - total, 2))
            total = sum(expected.values())
        plan = Plan(frames, longest)
        running: dict[int, int] = {}
        limits: dict[int, tuple[int, bool]] = {}
        for _ in range(100_000):
            while len(running) < workers and (number := plan.take()) is not None:
                running[number], limits[number] = 1, plan.limit(number)
            if not running:
                break
            number = rng.choice(list(running))
            limit, final = limits[number]
            if running[number] == natural[number] or (running[number] >= limit and final):
                plan.finish(number, running.pop(number))
            elif running[number] >= limit:
                limits[number] = plan.limit(number)
            else:
                running[number] += 1
        assert plan.done == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_a_recording_may_end_by_the_clock(workers: int, tmp_path: Path) -> None:
    """After whole episodes; the same command without goes on to the frames that were wanted."""
    short = record(tmp_path, GAME, "random", 5000, workers, seed=5, minutes=0)
    assert 1 <= len(short.by_episode) <= 2 and short.card["frames"] < 400
    assert all(refs[-1].last for refs in short.by_episode.values())
    assert record(tmp_path, GAME, "random", 600, seed=5).card["frames"] == 600


# --- content ------------------------------------------------------------------------------------------------------


def test_workers_do_not_change_what_is_recorded(tmp_path: Path) -> None:
    one = make(tmp_path / "one", frames=900, seed=5, episode_frames=100)
    make(tmp_path / "three", frames=900, seed=5, episode_frames=100, workers=3)
    assert same(tmp_path / "one", tmp_path / "three")
    assert one.card["frames"] == 900 and one.card["recording_seed"] == 5
    lengths = [len(episode.frames) for episode in one.episodes()]
    assert max(lengths) == 100 and len(set(lengths)) > 3 and sum(lengths) == 900
    last = list(one.episodes())[-1]
    assert last.truncated[-1] and not last.terminated[-1] and not last.truncated[:-1].any()
    assert "10 episodes replayed exactly" in verify(tmp_path / "three", replay="10")
    make(tmp_path / "other", frames=900, seed=6, episode_frames=100)
    assert not same(tmp_path / "one", tmp_path / "other")


def test_long_episodes_span_chunks(tmp_path: Path) -> None:
    dataset = record(tmp_path, LONG, "random", 1500, seed=1, episode_frames=700)
    assert [(ref.steps, ref.frames, ref.last) for ref in dataset.by_episode[0]] == [
        (256, 256, False), (256, 256, False), (187, 188, True)]  # fmt: skip
    episode = dataset.episode(0)
    assert len(episode.actions) == 699 and len(episode.frames) == 700 and episode.truncated[-1]
    assert "replayed exactly" in verify(tmp_path, replay="all")


def test_recording_again_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, frames=300)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")}
    make(tmp_path, frames=300)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")} == before
    assert make(tmp_path, frames=700).card["frames"] == 700
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())
    assert "replayed exactly" in verify(tmp_path, replay="all")
    words = ["record", "--game", GAME, "--player", "random", "--frames", "800", "--out", str(tmp_path)]
    assert run(*words) == 0
    assert "800 frames" in capsys.readouterr().out


def test_a_lost_shard_is_recorded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "ShardWriter", partial(ShardWriter, shard_chunks=2))
    record(tmp_path / "whole", LONG, "random", 2000, episode_frames=900)
    record(tmp_path / "lost", LONG, "random", 2000, episode_frames=900)
    for path in sorted((tmp_path / "lost").glob("shard-*"))[1::2]:
        path.unlink()
    with pytest.raises(UserError, match="is missing"):
        verify(tmp_path / "lost")
    record(tmp_path / "lost", LONG, "random", 2000)
    assert same(tmp_path / "whole", tmp_path / "lost")


# --- interruptions ------------------------------------------------------------------------------------------------


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """kill -9 at 20 random moments leaves a folder that verifies, continues, and holds what one run would have."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_collect.recording.record", "data_collect.games.gym"])
    folder, rng = tmp_path / "killed", random.Random(0)
    frames = 0
    for _ in range(18):
        begun = context.Event()
        process = context.Process(target=record_without_end, args=(folder, begun))
        process.start()
        assert begun.wait(60)
        time.sleep(rng.uniform(0.0, 0.2))
        process.kill()
        process.join()
        frames = _check_killed(folder, frames)
    for _ in range(2):
        recorder = start_recorder(folder)
        time.sleep(rng.uniform(0.0, 0.2))
        recorder.kill()  # the parent alone: its workers must notice
        recorder.communicate()
        frames = _check_killed(folder, frames)
    assert frames > 500
    dataset = make(folder, frames=frames + 500)
    assert dataset.card["frames"] >= frames + 500 and not part_files(folder)
    assert "replayed exactly" in verify(folder, replay="10")
    fresh = make(tmp_path / "fresh", frames=frames, episode_frames=400)
    for number in list(fresh.by_episode)[:-1]:
        pairs = zip(dataset.by_episode[number], fresh.by_episode[number], strict=True)
        assert all(dataset.read(one).same(fresh.read(other)) for one, other in pairs)


def start_recorder(folder: Path) -> subprocess.Popen:
    """A recorder with two workers in a process group of its own; both have begun to write."""
    path = os.pathsep.join([str(Path(__file__).parent), os.getcwd()])
    words = ["record", "--game", GAME, "--player", "random", "--workers", "2", "--frames", "10000000"]
    before = set(part_files(folder))
    recorder = subprocess.Popen(
        [sys.executable, "-m", "data_collect", *words, "--out", str(folder)],
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    started = time.monotonic()
    while len(set(part_files(folder)) - before) < 2 and time.monotonic() < started + 60:
        time.sleep(0.02)
    return recorder


def _check_killed(folder: Path, before: int) -> int:
    """The frames in the folder, after having verified that none was lost."""
    if not (folder / "dataset.json").exists():
        return 0
    assert "sound" in verify(folder, replay="1")
    frames = Dataset(folder).card["frames"]
    assert frames >= before
    return frames


def test_interrupting_the_workers_keeps_what_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = start_recorder(tmp_path)
    monkeypatch.setattr(lock_module, "LOCK_SECONDS", 0.2)
    with pytest.raises(UserError, match="another process is writing"):
        make(tmp_path, frames=100)
    os.killpg(recorder.pid, signal.SIGINT)
    _, told = recorder.communicate(timeout=60)
    assert recorder.returncode == 130 and b"Traceback" not in told
    assert not part_files(tmp_path) and "sound" in verify(tmp_path)
    assert json.loads((tmp_path / "dataset.json").read_text())["frames"] > 0


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room, real = [30_000], os.write

    def write(file: int, data: Any) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, bytes(data)[: room[0]])
        room[0] -= written
        return written

    words = ["record", "--game", GAME, "--player", "random", "--frames", "1000", "--out", str(tmp_path)]
    monkeypatch.setattr(shards_module.os, "write", write)
    assert run(*words) == 2
    monkeypatch.undo()
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: the disk is full") and str(tmp_path) in message
    assert "sound" in verify(tmp_path)
    assert run(*words) == 0
    make(tmp_path / "fresh", frames=1000)
    assert same(tmp_path, tmp_path / "fresh")


def test_what_does_not_repeat_itself_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted episode of a policy that plays otherwise each time keeps its chunks; the next one goes on."""
    chaotic = partial(record, tmp_path, LONG, "policy:tiny_game:chaos", episode_frames=600)
    real = ShardWriter.add

    def third_fails(self: ShardWriter, chunk: Any) -> Any:
        if chunk.meta["chunk"] == 2:
            raise KeyboardInterrupt
        return real(self, chunk)

    monkeypatch.setattr(ShardWriter, "add", third_fails)
    with pytest.raises(KeyboardInterrupt):
        chaotic(frames=1000)
    monkeypatch.undo()
    dataset = chaotic(frames=1000)
    assert [refs[-1].last for refs in dataset.by_episode.values()] == [False, True]
    assert len(dataset.episode(0).actions) == 511 and len(dataset.episode(0).frames) == 512
    summary = verify(tmp_path, replay="all")
    assert "2 episodes replayed exactly" in summary and "1 episodes are cut short" in summary


def test_a_gap_is_filled_only_by_the_same_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode of which a shard is lost, and which plays otherwise now, is not pieced together from both plays."""
    monkeypatch.setattr(record_module, "ShardWriter", partial(ShardWriter, shard_chunks=1))
    chaotic = partial(record, tmp_path, LONG, "policy:tiny_game:chaos", 700, episode_frames=700)
    chaotic()
    (tmp_path / "shard-000000-0000.tar").unlink()
    dataset = chaotic()
    assert [ref.key for ref in dataset.index if ref.episode == 0] == ["000000-0001", "000000-0002"]
    with pytest.raises(UserError, match="chunk 0 is missing; restore its shard"):
        verify(tmp_path)


def test_an_index_that_was_edited_is_made_again(tmp_path: Path) -> None:
    make(tmp_path, frames=100)
    index = tmp_path / "index.jsonl"
    whole = index.read_text()
    row = json.loads(whole)
    row["chunks"]["steps"][0] += 1
    index.write_text(json.dumps(row) + "\n")
    make(tmp_path, frames=100)
    assert index.read_text() == whole


def test_what_a_worker_said_last_is_told(tmp_path: Path) -> None:
    """A worker that has ended cannot be sent anything; it may have said why before."""
    dataset = make(tmp_path, frames=50)
    for message, told in ((("user", "no such level"), "no such level"), (("frames", 3), "was killed")):
        pool = Pool(dataset, Plan(99, 9), dataset.settings, Children(1), lambda _: None, lambda _: None, print)
        ours, theirs = multiprocessing.Pipe()
        pool.episodes[ours] = None
        theirs.send(message)
        theirs.close()
        with pytest.raises(UserError, match=told):
            pool.hand_out()
