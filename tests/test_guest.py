"""A game in a process of its own: whatever it does there, ours goes on, and one sentence says what it did."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pygame
import pytest
from rude_game import GAME, Rude, rude
from tiny_game import GAME as TINY

from data_collect import games, players
from data_collect.errors import Fault, UserError
from data_collect.guest import host
from data_collect.guest.guest import Guest
from data_collect.guest.match import LEADER, NOBODY, Leg, Match

pytestmark = pytest.mark.slow

LINE = r"fails in .*rude_game\.py, line \d+"
ENDS = {
    "raise": f"{LINE}: ZeroDivisionError: rare bug",
    "exit": f"{LINE}: SystemExit",
    "interrupt": f"{LINE}: KeyboardInterrupt",
    "leave": f"{LINE}: GeneratorExit",
    "stop": f"{LINE}: StopIteration",
    "quit": "ended its process with exit status 3",
    "kill": "was ended by SIGKILL",
    "crash": "was ended by SIGSEGV",
    "babble": "has written into what is not its own",
    "fork": "ended its process with exit status 4",
}
GOES_ON = ("chdir", "pygame", "doubles", "state", "print", "threads", "start", "info", "thread")


def frames(env: Any, steps: int, seed: int = 1) -> np.ndarray:
    """uint8 (steps + 1, H, W, 3) of an episode of going right."""
    return np.stack([env.reset(seed=seed)[0].copy(), *(env.step(2)[0].copy() for _ in range(steps))])


def ours() -> list[Any]:
    """What a process has but once."""
    display = pygame.display.get_surface()
    return [
        os.getcwd(), random.getstate(), np.random.get_state()[1].tolist(), np.geterr(), list(warnings.filters),
        dict(os.environ), list(sys.path), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
        sys.stdout, pygame.display.get_init(), display and display.get_size(), pygame.display.get_caption(),
    ]  # fmt: skip


def gone(process: int) -> bool:
    """Whether a process has ended, or does so within a few seconds."""
    for _ in range(500):
        with suppress(ProcessLookupError):
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").exists() and " Z " in Path(f"/proc/{process}/stat").read_text():
                return True
            time.sleep(0.01)
            continue
        return True
    return False


def test_a_guest_plays_as_the_game_does() -> None:
    with Guest("maze?size=7") as env, games.make("maze?size=7") as game:
        assert env.action_schema == game.action_schema and env.action_space == game.action_space  # type: ignore[attr-defined]
        assert env.observation_space == game.observation_space and env.replayable and not hasattr(env, "depth")
        (frame, info), (real, known) = env.reset(seed=3), game.reset(seed=3)
        for action in np.random.default_rng(0).integers(0, 2, (30, 4), np.int8):
            assert np.array_equal(frame, real) and info["pose"] == known["pose"]
            assert np.array_equal(info["map"], known["map"])
            frame, *outcome, info = env.step(action)
            real, *expected, known = game.step(action)
            assert outcome == expected
        assert np.array_equal(env.render(), frame)


@pytest.mark.parametrize("deed", ENDS)
def test_what_ends_a_game_is_a_sentence_and_a_reset_begins_it_anew(deed: str) -> None:
    with Guest(rude(deed, at=5)) as env:
        before = frames(env, 4)
        with pytest.raises(Fault, match=f"{GAME.partition(chr(63))[0]}.*{ENDS[deed]}.*step 5") as told:
            env.step(2)
        assert "\n" not in str(told.value)
        with pytest.raises(Fault, match="must be reset"):
            env.step(2)
        assert np.array_equal(frames(env, 4), before)


def test_a_game_that_ends_in_its_reset_or_its_beginning_is_a_sentence() -> None:
    with Guest(rude("kill", at=0)) as env:
        for _ in range(2):
            with pytest.raises(Fault, match=r"SIGKILL.*the reset"):
                env.reset(seed=1)
    for deed in ("raise", "exit", "quit"):
        with pytest.raises(UserError, match=ENDS[deed]):
            Guest(rude(deed, when="init"))
    with pytest.raises(UserError, match="unknown game 'mase'"):
        Guest("mase")


@pytest.mark.parametrize("where", ["at=5", "at=0", "when=init"])
def test_a_game_that_never_answers_is_given_up(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "MAKE_FACTOR", 1)
    with pytest.raises(UserError, match=r"did not answer within 1.5 seconds \(.*set GAME_SECONDS"):
        frames(Guest(f"{GAME}&deed=endless&{where}", 1.5), 5)
    monkeypatch.setenv("GAME_SECONDS", "soon")
    with pytest.raises(UserError, match="GAME_SECONDS='soon' is no number"):
        Guest(GAME)


@pytest.mark.parametrize("deed", GOES_ON)
def test_what_a_game_does_to_its_process_is_not_done_to_ours(deed: str, capfd: pytest.CaptureFixture[str]) -> None:
    pygame.display.init()
    try:
        before = ours()
        with Guest(GAME) as env:
            expected = frames(env, 20)
        with Guest(rude(deed)) as env:
            assert np.array_equal(frames(env, 20), expected) and np.array_equal(frames(env, 20), expected)
        assert ours() == before
    finally:
        pygame.display.quit()
    assert capfd.readouterr().out == ""


def test_of_info_comes_what_is_used() -> None:
    with Guest(rude("info")) as env:
        env.reset(seed=1)
        infos = [env.step(2)[4] for _ in range(6)]
    assert infos[4] == {"pose": (1.0, 2.0, 0.5)} and not infos[5]


def test_what_a_game_has_started_goes_with_it(tmp_path: Path) -> None:
    left = tmp_path / "left"
    for deed in ("start", "fork"):
        with Guest(rude(deed, left=left)) as env, suppress(Fault):
            frames(env, 5)
        assert gone(int(left.read_text()))


def test_a_guest_goes_with_its_host(tmp_path: Path) -> None:
    """Killed in the midst of an endless step, with a program that the game has started."""
    left = tmp_path / "left"
    code = (
        "import sys, threading; from data_collect.guest.guest import Guest; from rude_game import rude\n"
        f"env = Guest(rude('start', at=0, left={str(left)!r})); env.reset(seed=1)\n"
        "other = Guest(rude('endless', at=0)); threading.Thread(target=other.reset, kwargs=dict(seed=1)).start()\n"
        "print(env.host.child.process.pid, other.host.child.process.pid, flush=True)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.getcwd()])
    words, variables = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(words, env=variables, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        numbers = [int(word) for word in host.stdout.readline().split()]
        host.kill()
    assert all(gone(number) for number in (*numbers, int(left.read_text())))


def test_without_shared_memory_frames_come_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    with Guest(TINY) as env:
        assert env.host is not None and env.host.ring is not None
        expected = frames(env, 20)
        played = [step[4] for step in env.play([Leg("random", 6)], 5)]

    def none(*_: object) -> int:
        raise OSError("no more files")

    monkeypatch.setattr(os, "memfd_create", none)
    with Guest(TINY) as env:
        assert env.host is not None and env.host.ring is None
        assert np.array_equal(frames(env, 20), expected)
        assert np.array_equal([step[4] for step in env.play([Leg("random", 6)], 5)], played)


def test_a_copy_goes_on_by_itself() -> None:
    with Guest("maze?size=7") as env:
        env.reset(seed=1)
        forward, left = np.eye(4, dtype=np.int8)[[0, 2]]
        for _ in range(3):
            env.step(forward)
            other = copy.deepcopy(env)  # the one before is dropped
            turned = [other.step(left)[0] for _ in range(5)]
        went = env.step(forward)[0]
        other.reset(seed=1)
        for _ in range(4):
            frame, *_ = other.step(forward)
        assert np.array_equal(frame, went) and not np.array_equal(turned[-1], went)
        env.reset(seed=2)


# --- players that live with the game --------------------------------------------------------------------------------


@pytest.mark.parametrize("player", ["random", "policy:tiny_game:steady"])
def test_an_episode_is_that_of_the_players(player: str) -> None:
    with Guest(TINY) as env, games.make(TINY) as game:
        for seed in (1, 2):
            told = list(env.play([Leg(player, 7)], seed))
            assert len(told) > 3
            for one, other in zip(told, Match(game).play([Leg(player, 7)], seed), strict=True):
                assert one[1:4] == other[1:4] and np.array_equal(one[4], other[4]) and one[5] == other[5]
                assert (one[0] is other[0] is None) or np.array_equal(one[0], other[0])


def test_a_player_plays_no_further_than_it_may() -> None:
    """A policy that raises in its sixth step: within five steps nobody hears of it."""
    with Guest(rude("raise", at=6)) as env:
        steps = env.play([Leg("random", 1)], 1)
        next(steps)
        assert [steps.send(6)[4].shape for _ in range(5)] == [(16, 16, 3)] * 5
        steps.close()
        steps = env.play([Leg("random", 1)], 1)
        next(steps)
        with pytest.raises(Fault, match="step 6"):
            for played in range(9):
                steps.send(100 + played)
        assert played == 5
        assert len(list(zip(env.play([Leg("random", 1)], 1), range(3)))) == 3  # begun anew, and stopped
        assert env.reset(seed=1)[0].shape == (16, 16, 3)


def test_a_player_that_cannot_play_is_told_before() -> None:
    with Guest(TINY) as env:
        for player, told in (
            ("nobody", "unknown player"),
            ("explorer", "use --player random"),
            ("policy:x:y", "cannot"),
        ):
            with pytest.raises(UserError, match=told):
                env.check(player)
        env.check("random")
        with pytest.raises(players.Quit):
            list(env.play([Leg("policy:tiny_game:tired")], 1))
        assert env.reset(seed=1)[0].shape == (16, 16, 3)


def test_a_policy_is_found_though_the_game_has_gone_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_bot.py").write_text("def decide(frame, info):\n    raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    with Guest(rude("chdir", when="init")) as env:
        env.check("policy:my_bot:decide")
        with pytest.raises(Fault, match=r"policy:my_bot:decide' fails in .*my_bot.py, line 2: SystemExit"):
            list(env.play([Leg("policy:my_bot:decide")], 1))


def test_an_episode_is_played_by_several_in_turn() -> None:
    """What lives with the game plays as it would here; a copy of the game has its own player."""
    forward = np.tile(np.array([1, 0, 0, 0], np.uint8), (5, 1))
    legs = [Leg(LEADER, 4, 20), Leg(NOBODY, steps=3), Leg(forward), Leg(None, steps=10), Leg("random", 2, 8)]
    with Guest("maze?size=7&creatures=0") as env, games.make("maze?size=7&creatures=0") as game:
        match = Match(game)
        told, expected = list(env.play(legs, 3)), list(match.play(legs, 3))
        assert len(told) == 1 + 20 + 3 + 5 + 10 + 8 and (told[24][0] == forward[0]).all() and not told[21][0].any()  # type: ignore[union-attr]
        other, twin = copy.deepcopy(env), copy.deepcopy(match)
        for more in ([Leg(None, steps=5)], [Leg(forward, steps=2)]):
            told, expected = told + list(other.play(more)), expected + list(twin.play(more))
        told, expected = (
            told + list(env.play([Leg(LEADER, 1, 100)])),
            expected + list(match.play([Leg(LEADER, 1, 100)])),
        )
        assert all(np.array_equal(one[4], two[4]) for one, two in zip(told, expected, strict=True))
        assert all(np.array_equal(one[0], two[0]) for one, two in zip(told[1:], expected[1:], strict=True))
        steps = env.play([Leg("random", 1)])
        next(steps)
        with pytest.raises(Fault, match="no action of this game"):
            list(env.play([Leg("policy:rude_game:nonsense", steps=3)], 1))  # the other is over with it
        assert env.reset(seed=3)[0].shape == (64, 64, 3) and next(steps, None) is None


# --- where games are found ------------------------------------------------------------------------------------------


class Mine(Rude):
    """Known to this process alone."""


def test_an_id_that_this_program_has_registered_is_known_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gymnasium.register("Mine-v0", entry_point=Rude)
    gymnasium.register("Main-v0", entry_point=Mine)
    try:
        with Guest("gym:Mine-v0") as env:
            assert env.action_schema.names == ("noop", "left", "right")
        monkeypatch.setattr(Mine, "__module__", "__main__")
        with pytest.raises(UserError, match="call it gym:MODULE:Main-v0"):
            Guest("gym:Main-v0")
    finally:
        for name in ("Mine-v0", "Main-v0"):
            gymnasium.registry.pop(name)
