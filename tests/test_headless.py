"""Playing without a window: the cost object, and its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from fakes import MAZE, fake  # noqa: E402
from tiny import tiny_checkpoint  # noqa: E402
from windowed import frames_of  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from data_collect.system import resident_bytes  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.dream.actions import ActionLog  # noqa: E402
from game_wm.evaluation.cost import in_turn, measure  # noqa: E402
from game_wm.play import headless  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.timing import Pacer, process_age  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def test_rewinding_a_replay_hands_over_to_the_keyboard(tiny: Path) -> None:

    session = Session(load(tiny))
    session.scene.steps = 2
    for _ in range(5):
        session.tick()
    dream = session.snapshot()
    session.scene.steps = 1
    session.replay(dream)
    for _ in range(4):
        session.tick()
    assert (session.controls.name, session.scene.steps) == ("replay", 2)
    session.rewind()
    assert (session.controls.name, session.scene.steps, session.now.frames) == ("keyboard", 1, 3)
    session.tick()
    assert session.now.frames == 4 and bytes(session.dream.calls) == b"\2\2\2\1"


def test_pacing_is_steady_and_does_not_hurry_after_a_late_frame() -> None:
    pacer = Pacer(10)
    assert pacer.wait(5.0) == 0
    pacer.advance(5.0)
    assert pacer.wait(5.04) == pytest.approx(0.06)
    pacer.advance(5.101)  # a millisecond late: the next one is due on the beat
    assert pacer.wait(5.101) == pytest.approx(0.099)
    pacer.advance(9.0)
    assert pacer.wait(9.0) == pytest.approx(0.1)
    assert Pacer(0).wait(1.0) == 0


COST = (
    "fps_median", "p50_ms", "p95_ms", "p50_ms_first", "p50_ms_last", "rss_mb_first", "rss_mb_last", "first_frame_s",
    "state_mb_first", "state_mb", "frames", "device",
)  # fmt: skip


def test_the_cost_object() -> None:
    session = Session(fake(end=50), player="random")
    cost = headless.play(session, 300)
    assert tuple(cost) == COST
    assert cost["frames"] == 300 and len(session.scene.model.calls) == 300 + headless.WARM_UP_FRAMES
    assert cost["state_mb"] == 1.0 and cost["device"].startswith("cpu, ")
    assert 0 < cost["p50_ms"] <= cost["p95_ms"] and cost["fps_median"] > 0
    assert cost["first_frame_s"] > 0 and cost["rss_mb_last"] > 10


def test_figures_look_at_either_end() -> None:
    seconds = np.concatenate([np.full(200, 0.01), np.full(9600, 0.02), np.full(200, 0.04)])
    figures = headless.summary(seconds, np.full(10_000, 500_000_000))
    assert (figures["p50_ms_first"], figures["p50_ms"], figures["p50_ms_last"]) == (10, 20, 40)
    assert (figures["fps_median"], figures["rss_mb_last"]) == (50, 500)


def test_what_is_played_does_not_depend_on_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    for warm_up in (1, 64):
        monkeypatch.setattr(headless, "WARM_UP_FRAMES", warm_up)
        session = Session(fake(end=30), seed=3, player="random")
        headless.play(session, 100)
        played.append(session.dream.log.actions.tolist())
        assert len(session.dream.log) == 100 and session.dream.log.episodes == {
            0: (3, 3),
            30: (0, 3),
            60: (1, 3),
            90: (2, 3),
        }
    assert played[0] == played[1]


def test_this_process_has_an_age_and_a_size() -> None:
    assert 0 < process_age() < 24 * 3600
    assert 10e6 < resident_bytes() < 1e12


def run(*arguments: Any, **environment: str | None) -> subprocess.CompletedProcess[str]:
    changed = {**os.environ, **environment}
    env = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, "play.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_headless_json_is_all_that_is_printed(saved: Path, tmp_path: Path) -> None:
    log = ActionLog(MAZE)
    log.begin(2, 5)
    log.add(np.eye(4))
    log.save(tmp_path / "log.npz", "tiny", 1)
    video = tmp_path / "dream.mp4"
    done = run(saved, "--headless", "--json", "--actions", tmp_path / "log.npz", "--video", video, "--threads", 1,
               "--precision", 32, SDL_VIDEODRIVER=None)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    cost = json.loads(done.stdout)
    assert tuple(cost) == COST and (cost["frames"], cost["device"]) == (4, "cpu, 1 thread, balanced")
    assert len(frames_of(video)) == 4


@pytest.mark.slow
def test_cost_from_a_fresh_process(saved: Path) -> None:
    cost = measure(saved, frames=3, threads=1, steps=2)
    assert tuple(cost) == COST and cost["frames"] == 3
    with pytest.raises(UserError, match="does not exist"):
        measure(saved.with_name("none.safetensors"), frames=3)


@pytest.mark.slow
def test_a_network_with_long_memory_is_timed_beside_the_same_one_without(saved: Path, tmp_path: Path) -> None:
    assert in_turn(load(saved), frames=50) == {}
    found = in_turn(load(tiny_checkpoint(tmp_path / "scrolls.safetensors", scroll=True)), frames=50)
    assert found["p50_ms_without_memory"] > 0 and found["times_without_memory"] > 0


@pytest.mark.slow
def test_no_display_says_how_to_go_on(saved: Path) -> None:
    done = run(saved, SDL_VIDEODRIVER=None, DISPLAY=None, WAYLAND_DISPLAY=None)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "--headless" in done.stderr and "DISPLAY" in done.stderr
