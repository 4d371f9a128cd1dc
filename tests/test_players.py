"""Players: they play by their seed, whatever the action space; a human plays by keys and stops when he likes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest
from gymnasium import spaces
from tiny_game import GAME, LONG

from data_collect import games, players
from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.players import Human, Random, open_window
from data_collect.recording.record import record
from data_collect.schema import ActionSchema
from data_collect.shards.verify import verify

SPACES = [
    spaces.MultiBinary(4),
    spaces.Discrete(6),
    spaces.MultiDiscrete([3, 2]),
    spaces.Box(np.array([-1, 0], np.float32), np.array([1, 1], np.float32)),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_random_is_sticky_and_repeats_by_seed(space: Any) -> None:
    schema = ActionSchema.from_space(space, fps=20)

    def play(seed: int) -> np.ndarray:
        player = Random(schema, seed)
        actions = [player.act() for _ in range(400)]
        assert all(space.contains(action) for action in actions)
        return schema.raw(np.stack([schema.raw(action) for action in actions]))

    raw = play(1)
    np.testing.assert_array_equal(raw, play(1))
    assert not np.array_equal(raw, play(2))
    changes = np.flatnonzero((np.diff(raw, axis=0) != 0).any(1))
    assert 10 < len(changes) < 100 and np.diff(changes).min() >= 4  # held 0.2 s at least
    assert (schema.encode(raw).std(0) > 0).all()  # every button, choice and axis is used


def test_players_by_name() -> None:
    with games.make(GAME) as env:
        frame, info = env.reset(seed=0)
        player = players.make("policy:tiny_game:steady", env)
        player.reset(env, frame, info)
        assert player.act(frame, info) == 1
        for name in ("nobody", "policy:tiny_game", "policy:no_such_module:f", "policy:tiny_game:nothing"):
            with pytest.raises(UserError, match=name):
                players.make(name, env)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def decide(frame):\n    return 0", "fails: TypeError"),
        ("def decide(frame, info):\n    raise KeyError('x')", "my_bot.py, line 2: KeyError"),
        ("def decide(frame, info):\n    return 0\ndecide.reset = lambda: 1", "fails: TypeError"),
        ("decide = 3", "is no function"),
        ("1 / 0", "my_bot.py, line 1: ZeroDivisionError"),
        ("def decide(:", "SyntaxError"),
    ],
)
def test_a_policy_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    (tmp_path / "my_bot.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_bot", raising=False)
    with pytest.raises(UserError, match="policy:my_bot:decide") as error:
        record(tmp_path / "out", GAME, "policy:my_bot:decide", 20)
    assert told in str(error.value)


def test_a_policy_may_stop(tmp_path: Path) -> None:
    record(tmp_path, LONG, "policy:tiny_game:tired", 1000)
    assert len(Dataset(tmp_path).episode(0).actions) == 5


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Any]]]:
    """Events of each frame that a human sees, in a window without a screen; afterwards he presses nothing."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    script: list[list[Any]] = []
    monkeypatch.setattr(pygame.event, "get", lambda: script.pop(0) if script else [])
    monkeypatch.setattr(pygame.time, "Clock", lambda: type("Clock", (), {"tick": lambda self, rate: 0})())
    yield script
    pygame.display.quit()


@pytest.mark.slow
def test_a_window_that_does_not_come_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(UserError, match="use --player explorer or random"):
        record(tmp_path, GAME, "human", 100, seed=3)
    assert record(tmp_path, GAME, "random", 100).card["recording_seed"] == 0
    with pytest.raises(UserError, match="choose another --out"):
        record(tmp_path, GAME, "human", 100)


def key(kind: int, code: int) -> Any:
    return pygame.event.Event(kind, key=code)


@pytest.mark.slow
def test_a_human_plays_by_keys_and_stops_with_escape(tmp_path: Path, keyboard: list[list[Any]]) -> None:
    keyboard += [[]] * 3 + [[key(pygame.KEYDOWN, pygame.K_LEFT)]] + [[]] * 4 + [[key(pygame.KEYDOWN, pygame.K_RIGHT)]]
    keyboard += [[], [key(pygame.KEYUP, pygame.K_RIGHT)], [key(pygame.KEYUP, pygame.K_LEFT)]]
    keyboard += [[]] * 300 + [[key(pygame.KEYDOWN, pygame.K_ESCAPE)]]
    dataset = record(tmp_path, LONG, "human", 10_000, workers=2)
    episode = dataset.episode(0)
    assert episode.actions[:14, 0].tolist() == [0] * 3 + [1] * 5 + [2] * 2 + [1] + [0] * 3
    assert len(episode.actions) == 312 and episode.truncated[-1]
    keyboard += [[]] * 256 + [[pygame.event.Event(pygame.QUIT)]]  # exactly at the end of a chunk
    dataset = record(tmp_path, LONG, "human", 10_000)
    assert [len(episode.actions) for episode in dataset.episodes()] == [312, 256]
    assert dataset.episode(1).meta["seed"] != episode.meta["seed"]
    keyboard += [[key(pygame.KEYDOWN, pygame.K_ESCAPE)]]  # before anything was done
    assert record(tmp_path, LONG, "human", 10_000).card["episodes"] == 2
    assert "2 episodes replayed exactly" in verify(tmp_path)


def test_the_window_shows_the_frame(keyboard: list[list[Any]]) -> None:
    with games.make(GAME) as env:
        frame, info = env.reset(seed=0)
        human = Human(env.get_wrapper_attr("action_schema"))
        human.reset(env, frame, info)
        human.act(frame, info)
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    scale = shown.shape[0] // 16
    np.testing.assert_array_equal(shown[scale // 2 :: scale, scale // 2 :: scale], frame)


@pytest.mark.parametrize("driver", ["", "nonsense"])
def test_a_missing_display_is_one_sentence(monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    pygame.display.quit()
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if driver:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    with pytest.raises(UserError, match="use --player explorer or random"):
        open_window(64, 64)
