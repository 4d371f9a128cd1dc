"""Doom: it turns evenly, replays exactly, leaves nothing behind, and tells its map and depth."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_collect import games
from data_collect.errors import UserError
from tests.test_games import play


@pytest.fixture(scope="module")
def doom() -> Any:
    pytest.importorskip("vizdoom")
    with games.make("doom") as env:
        yield env


def held(env: Any, *names: str) -> np.ndarray:
    return np.array([name in names for name in env.action_schema.names], np.int8)


def test_doom_turns_evenly_and_walks_where_it_looks(doom: Any) -> None:
    frame, info = doom.reset(seed=4)
    assert frame.shape == (96, 128, 3) and doom.action_schema.fps == 17.5
    for name, sign in (("turn_left", 1), ("turn_right", -1)):
        angles = [info["pose"][2]]
        for _ in range(5):
            *_, info = doom.step(held(doom, name))
            angles.append(info["pose"][2])
        turned = (np.diff(angles) + math.pi) % (2 * math.pi) - math.pi
        np.testing.assert_allclose(turned, sign * math.radians(4.5), atol=2e-3)
    *_, both = doom.step(held(doom, "turn_left", "turn_right"))
    assert both["pose"][2] == info["pose"][2]
    moved = 0.0
    for seed in range(5, 10):
        _, info = doom.reset(seed=seed)
        x, y, angle = info["pose"]
        for _ in range(3):
            *_, info = doom.step(held(doom, "forward"))
        dx, dy = info["pose"][:2] - (x, y)
        moved = max(moved, dx * math.cos(angle) + dy * math.sin(angle))
    assert moved > 10


def test_doom_replays_exactly_in_another_instance(doom: Any) -> None:
    play(doom, 1)  # what was played before leaves no trace
    frames, rewards = play(doom, 2)
    with games.make("doom") as other:
        again, rewards_again = play(other, 2)
    assert np.array_equal(frames, again) and rewards == rewards_again
    assert not np.array_equal(frames[0], play(doom, 3, 1)[0][0])


def test_doom_holds_its_head_still_unless_asked(doom: Any) -> None:
    frames, poses = [], []
    with games.make("doom?bob=1") as other:
        for env in (doom, other):
            frame, info = env.reset(seed=5)
            shown = [frame.copy()]
            for _ in range(4):
                frame, *_, info = env.step(held(env, "forward"))
                shown.append(frame.copy())
            frames.append(shown)
            poses.append(info["pose"])
    assert np.array_equal(poses[0], poses[1]) and np.array_equal(frames[0][0], frames[1][0])
    assert not np.array_equal(frames[0][4], frames[1][4])


def test_doom_map_is_where_one_can_walk(doom: Any) -> None:
    _, info = doom.reset(seed=0)
    plan = info["map"]
    assert plan.dtype == np.uint8 and set(np.unique(plan)) == {0, 1} and 200 < (plan == 0).sum() < 300
    assert plan[0].all() and plan[-1].all() and plan[:, 0].all() and plan[:, -1].all()
    rng = np.random.default_rng(0)
    cells = set()
    for i in range(400):
        if i % 8 == 0:
            action = rng.integers(0, 2, doom.action_schema.size)
        *_, terminated, _, info = doom.step(action)
        x, y, _ = info["map_pose"]
        assert plan[int(y), int(x)] == 0
        cells.add((int(x), int(y)))
        if terminated:
            break
    assert len(cells) > 5


def test_doom_ends_where_the_armour_lies(doom: Any) -> None:
    """Walk the map's shortest way to the armour in the room at the south-east, as the explorer would."""
    _, info = doom.reset(seed=0)
    steps = (np.array([1040, -336]) - info["pose"][:2]) / 32  # units a cell
    column, row = (info["map_pose"][:2] + steps).astype(int).tolist()
    far = np.full(info["map"].shape, 9999)
    far[row, column] = 0
    queue = [(row, column)]
    for i, j in queue:
        for k, m in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if info["map"][k, m] == 0 and far[k, m] == 9999:
                far[k, m] = far[i, j] + 1
                queue.append((k, m))
    rewards, terminated = [0.0], False
    for _ in range(1500):
        x, y, angle = info["map_pose"]
        i, j = int(y), int(x)
        i, j = min(((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1), (i, j)), key=lambda cell: far[cell])
        error = (math.atan2(i + 0.5 - y, j + 0.5 - x) - angle + math.pi) % (2 * math.pi) - math.pi
        names = ["forward"] if abs(error) < 0.3 else []
        names += ["turn_left" if error > 0 else "turn_right"] if abs(error) > 0.06 else []
        frame, reward, terminated, truncated, info = doom.step(held(doom, *names))
        rewards.append(reward)
        if terminated:
            break
    assert terminated and not truncated and sum(rewards) > 0.5
    assert frame.shape == (96, 128, 3)  # the last frame stays


def test_doom_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir(), temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    env = games.make("doom?timeout=3&width=64&height=64&scenario=deathmatch")
    env.reset(seed=0)
    assert [env.step(env.action_schema.noop())[3] for _ in range(3)] == [False, False, True]
    assert env.observation_space.shape == (64, 64, 3) and "attack" in env.action_schema.names
    env.close()
    env.close()  # twice is no error
    assert not list(work.iterdir()) and not list(temporary.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the engine is told by Linux")
def test_doom_dies_with_a_killed_recorder(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    code = "from data_collect import games; env = games.make('doom'); env.reset(seed=0); print(1, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout and child.stdin and child.stdout.readline() == b"1\n"

    def engines() -> list[str]:
        found = []
        for status in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may end while we look
                if status.joinpath("cwd").readlink().is_relative_to(tmp_path):
                    found.append(status.name)
        return found

    assert len(engines()) == 1
    child.kill()
    child.communicate()
    for _ in range(100):
        if not engines():
            return
        time.sleep(0.05)
    raise AssertionError("the engine is still there")


@pytest.mark.parametrize(
    ("game", "told"),
    [
        ("doom?scenario=e1m1", "there are basic"),
        ("doom?scenario=freedoom2&map=map99", "there are MAP01"),
        ("doom?buttons=forward,fly", "no button 'fly'"),
        ("doom?width=100", "multiples of 8"),
        ("doom?skip=0", "must be positive"),
        ("doom?width=2048&height=1600", "larger than 800x600"),
    ],
)
def test_doom_tells_what_is_wrong(game: str, told: str) -> None:
    pytest.importorskip("vizdoom")
    with pytest.raises(UserError) as error:
        games.make(game)
    assert told in str(error.value)


def test_doom_level_with_a_thin_wall_and_a_high_step() -> None:
    from data_collect.games.doom import Level

    def sector(left: float, right: float, floor: float, blocking: str = "") -> SimpleNamespace:
        corners = [(left, 0), (right, 0), (right, 160), (left, 160)]
        lines = [
            SimpleNamespace(x1=a[0], y1=a[1], x2=b[0], y2=b[1], is_blocking=side in "bt" + blocking)
            for side, a, b in zip("brtl", corners, corners[1:] + corners[:1], strict=True)
        ]
        return SimpleNamespace(lines=lines, floor_height=floor, ceiling_height=floor + 128.0)

    # Four halls in a row: an open doorway, a step too high, a thin wall.
    level = Level([sector(0, 160, 0, "l"), sector(160, 320, 24), sector(320, 480, 72, "r"), sector(480, 640, 72, "lr")])
    first, third, fourth = (level.reachable(x, 80) == 0 for x in (80, 400, 560))
    assert first.sum() == 5 * 10 and third.sum() == 5 * 5 and fourth.sum() == 5 * 5
    assert not (first & third).any() and not (third & fourth).any()


def test_doom_depth_is_that_of_walls_floors_and_steps() -> None:
    from data_collect.games.doom_depth import EYE, LevelDepth

    def sector(left: float, right: float, floor: float, ceiling: float) -> SimpleNamespace:
        corners = [(left, 0), (right, 0), (right, 256), (left, 256)]
        sides = zip(corners, corners[1:] + corners[:1], strict=True)
        lines = [SimpleNamespace(x1=a[0], y1=a[1], x2=b[0], y2=b[1]) for a, b in sides]
        return SimpleNamespace(lines=lines, floor_height=floor, ceiling_height=ceiling)

    # Two halls in a row; the floor of the second is a step higher, its ceiling lower.
    known = LevelDepth([sector(0, 256, 0, 128), sector(256, 512, 24, 96)])
    poses = np.array([[128, 128, 0], [128, 128, np.pi / 2], [384, 128, np.pi]])
    ahead, side, back = known(poses, 96, 128)
    down = 1.6 / ((np.arange(96) + 0.5) / 48 - 1)  # depth of what lies a unit below the eye, of every row
    floor, over = EYE * down, (EYE - 128) * down
    middle = ahead[:, 64]
    assert middle[48] == pytest.approx(384)  # through to the far wall of the second hall
    assert middle[-1] == pytest.approx(floor[-1]) and middle[0] == 128  # above the lintel
    at = np.arange(96)
    step = at[(down > 0) & ((EYE - 24) * down < 128) & (EYE * down > 128)]  # rows of the step's riser
    lintel = at[(down < 0) & ((EYE - 96) * down < 128) & (over > 128)]
    assert len(step) and len(lintel) and np.allclose(middle[step], 128) and np.allclose(middle[lintel], 128)
    raised = at[(down > 0) & ((EYE - 24) * down > 128) & ((EYE - 24) * down < 384)]
    assert len(raised) and np.allclose(middle[raised], (EYE - 24) * down[raised])
    assert np.allclose(side[44:52], 128)  # one wall, along the view as deep everywhere
    assert back[48, 64] == pytest.approx(384)  # looking down from the step
    square = known(poses[:1], 96, 96, aspect=1.0)[0]  # what is left of the picture at its sides
    assert np.allclose(square[:, 48], middle, rtol=0.02)


@pytest.mark.slow
def test_doom_depth_is_what_the_engine_draws() -> None:
    with games.make("doom?scenario=freedoom2&map=map01") as env:
        game: Any = env.unwrapped
        engine = game.engine
        engine.close()
        engine.set_depth_buffer_enabled(True)  # eight bits, about seven units each
        engine.set_render_weapon(False)
        engine.init()
        env.reset(seed=1)
        apart = []
        for _ in range(8):
            for _ in range(5):
                env.step(held(env, "turn_left"))
            state = engine.get_state()
            x, y, angle = state.game_variables[:3]
            known = game.depth(np.array([[x, y, math.radians(angle)]]), 48, 64)[0]
            drawn = 7.25 * (state.depth_buffer.astype(float) + 0.5).reshape(48, 4, 64, 4).mean((1, 3))
            far = drawn > 60
            apart.append(np.log(known[far] / drawn[far]))
        apart = np.abs(np.concatenate(apart))
        assert np.median(apart) < 0.08 and np.quantile(apart, 0.9) < 0.25
    with games.make("doom?hud=1") as env, pytest.raises(UserError, match="status bar"):
        env.unwrapped.depth(np.zeros((1, 3)), 4, 4)  # type: ignore[attr-defined]
