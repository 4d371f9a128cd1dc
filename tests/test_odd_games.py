"""Metadata, keys, interfaces and action spaces as games have them: taken as they are meant, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import odd_games
import pytest

from data_collect import games
from data_collect.errors import UserError
from data_collect.games.actions import Actions
from data_collect.keys import is_key, right_key


def make(name: str, **options: Any) -> Any:
    return games.make(f"gym:odd_games:{name}-v0", **options)


def first(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first frame of a game of 64x64, and the picture that it stands for."""
    frame, _ = env.reset(seed=1)
    return frame, env.env.unwrapped.picture()


@pytest.mark.parametrize(
    "name",
    ["NoModes", "NoArgument", "ListOnly", "Factory", "FactoryByName", "PlainFactory", "Lambda", "Named", "Strict"],
)
def test_render_modes_are_offered(name: str) -> None:
    frame, picture = first(make(name))
    assert np.array_equal(frame, picture)


def test_metadata_of_wrappers_count() -> None:
    named, renamed, fewer = (make(name).action_schema for name in ("Named", "Renamed", "Fewer"))
    assert (named.names, named.fps) == (("left", "stay", "right"), 10)
    assert named.keys == {"a": "left", "d": "right"} and named.noop() == 1
    assert (renamed.names, renamed.fps, renamed.keys) == (named.names, 10, {"left": "left", "right": "right"})
    assert (fewer.names, fewer.keys) == (("LEFT", "RIGHT"), {"left": "LEFT", "right": "RIGHT"})


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("action_keys", {"ArrowRight": "right"}, "'ArrowRight' (it is called 'right') is no key"),
        ("action_keys", {"LEFT": "left", "right": "right"}, "'LEFT' (it is called 'left')"),
        (
            "action_keys",
            {"Space": "stay", "KeyD": "right"},
            "'Space' (it is called 'space'), 'KeyD' (it is called 'd')",
        ),
        ("action_keys", {"hyperspace!": "stay"}, "'hyperspace!' is no key by pygame's names"),
        ("action_keys", {1073741904: "left"}, "1073741904 is no key"),
        ("action_keys", {"stay": "space"}, "the other way round: {'space': 'stay'}"),
        ("action_keys", {"left": "lift"}, "unknown actions ['lift']; there are left, stay, right"),
        ("action_keys", {"left": 0}, "action_keys must map keys to names of actions"),
        ("action_keys", ["left"], "action_keys must map keys to names of actions"),
        ("action_names", ["left", "right"], "2 action names for the 3 actions"),
        ("action_names", "abc", "action_names must be a list of words"),
        ("action_names", {0: "left"}, "action_names must be a list of words"),
        ("action_names", [0, 1, 2], "action_names must be a list of words"),
        ("action_names", ["left", "left", "right"], "are empty or repeat"),
        ("action_names", 3, "action_names must be a list of words"),
        ("render_fps", "fast", "render_fps in the environment's metadata is 'fast'"),
        ("render_fps", -5, "must be positive"),
    ],
)
def test_metadata_that_is_wrong_is_told(entry: str, value: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        make("Told", entry=entry, value=value)
    assert told in str(error.value)


def test_keys_are_called_as_pygame_calls_them() -> None:
    import pygame

    names = {pygame.key.name(getattr(pygame, name)) for name in dir(pygame) if name.startswith("K_")} - {""}
    assert all(map(is_key, names))
    right = {
        "ArrowRight": "right", "LEFT": "left", "Space": "space", " ": "space", "K_UP": "up", "pygame.K_a": "a",
        "KeyA": "a",
        "A": "a", "Digit1": "1", "Enter": "return", "Esc": "escape", "left arrow": "left", "Arrow_Up": "up",
        "PageUp": "page up", "Shift": "left shift", "ShiftLeft": "left shift", "Numpad5": "[5]", "F1": "f1",
        "rigth": "right", "é": "é", "foo": None, "": None, "mouse1": None,
    }  # fmt: skip
    assert {name: right_key(name) for name in right} == right


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("arguments", "unexpected keyword argument 'seed'"),
        ("reset", "reset gave float32 of shape (2,)"),
        ("step", "step gave a tuple of 4"),
        ("reward", "step gave None, False, False, a dict of nothing"),
        ("rewards", "step gave a list of 2, an object of type float the last, False"),
        ("info", "an object of type str after the observation"),
    ],
)
def test_games_that_do_not_follow_gymnasium_are_told_how(what: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        env = make("OldApi", what=what)
        env.reset(seed=0)
        env.step(1)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Leveled", "needs an option: --game 'gym:odd_games:Leveled-v0?level=…'"),
        ("Spaceless", "has no attribute 'action_space'"),
        ("Vector", "must inherit from the gymnasium.Env class"),
        ("Packaged", "needs a package (No module named 'no_such_package')"),
    ],
)
def test_a_game_that_cannot_be_made_says_why(name: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        make(name)
    assert told in str(error.value)
    assert make("Leveled", level=3).action_schema.size == 3


def test_the_old_interface_is_told_through_wrappers_of_gymnasium() -> None:
    env = make("Limited")
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"does not follow Gymnasium.*expected 5, got 4"):
        env.step(1)


@pytest.mark.parametrize("space", odd_games.SPACES)
def test_actions_of_every_space_are_given_as_it_wants_them(space: str) -> None:
    env = make("Acts", space=space, skip=1)
    env.reset(seed=0)
    env.action_space.seed(0)
    schema, given = env.action_schema, env.env.unwrapped.given
    for _ in range(20):
        action = env.action_space.sample()
        env.step(action)
        env.step(schema.action(schema.raw(action)))
        env.step(schema.decode(schema.encode(action)))
        for other in given[-2:]:
            for one, two in zip(gymnasium.spaces.flatten(odd_games.SPACES[space], given[-3]),
                                gymnasium.spaces.flatten(odd_games.SPACES[space], other), strict=True):  # fmt: skip
                assert one == pytest.approx(two, abs=1e-6)


def test_parts_of_actions_have_names() -> None:
    names = {space: make("Acts", space=space).action_schema.names for space in ("dict", "buttons", "axes", "nested")}
    assert names == {
        "dict": ("fire 0", "fire 1", "move 0", "move 1", "move 2"),
        "buttons": ("jump", "walk.0", "walk.1"),
        "axes": ("gas", "turn.0", "turn.1"),
        "nested": ("a.part0 0", "a.part0 1", *(f"a.part1 {i}" for i in range(5))),
    }


@pytest.mark.parametrize("text", ["Tuple(Discrete(2), Box(-1, 1, (1,)))", "Text(1, 3, charset=abc)"])
def test_an_action_space_that_cannot_be_is_told(text: str) -> None:
    box = gymnasium.spaces.Box(-1, 1, (1,))
    space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2), box]) if "Tuple" in text else gymnasium.spaces.Text(3)
    with pytest.raises(UserError, match="is not supported: wrap it"):
        Actions(space)


@pytest.mark.parametrize(
    ("game", "told"),
    [
        (
            "gym:MiniGrid-FourRooms-v0",
            "it comes with minigrid; pip install minigrid, then --game gym:minigrid:MiniGrid-Fo",
        ),
        ("gym:highway-v0", "pip install highway-env, then --game gym:highway_env:highway-v0"),
        ("gym:procgen-coinrun-v0", "procgen2 is made for gym, not for Gymnasium; wrap it"),
        ("gym:PyFlyt/QuadX-Hover-v4", "gym:PyFlyt.gym_envs:PyFlyt/QuadX-Hover-v4"),
        ("gym:MiniWorld-Hallway-v0", "gym:miniworld:MiniWorld-Hallway-v0"),
        ("gym:no_such_module:MyGame-v0", "cannot be imported: No module named 'no_such_module'; run this from"),
        (
            "gym:minigrid:MiniGrid-Empty-5x5-v0",
            "cannot be imported: import of minigrid halted; None in sys.modules: pip install minigrid",
        ),
        ("gym:CartPol-v1", "did you mean gym:CartPole-v1?"),
        ("gym:cartpole-v1", "did you mean gym:CartPole-v1?"),
        ("gym:CartPole", "did you mean gym:CartPole-v1?"),
        ("gym:CartPole-v7", "did you mean gym:CartPole-v1?"),
        ("gym:odd_games:Dott-v0", "did you mean gym:odd_games:Dot-v0?"),
        ("gym:odd_games:Dot", "did you mean gym:odd_games:Dot-v0?"),
        ("gym:own_game:Other-v0", "own_game registers MyOwn-v0"),
        ("gym:own_gam:MyOwn-v0", "did you mean own_game?"),
        ("gym:own_game.py:MyOwn-v0", "name the module as Python imports it: own_game"),
        ("gym:MyOwn-v0", "own_game.py names it, so --game gym:own_game:MyOwn-v0"),
        ("gym:SomethingElse-v3", "name that before it: gym:my_module:SomethingElse-v3"),
        ("gym:own_game", "own_game.py is a module; name the id that it registers as well, gym:own_game:ID"),
        ("gym:", "names no id"),
        ("CartPole-v1", "did you mean gym:CartPole-v1?"),
    ],
)
def test_an_unknown_id_gets_a_hint(game: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_game.py").write_text("import gymnasium\ngymnasium.register('MyOwn-v0', entry_point=dict)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "minigrid", None)
    before = dict(gymnasium.registry)
    try:
        with pytest.raises(UserError) as error:
            games.make(game)
    finally:
        if "odd_games" not in game:
            gymnasium.registry.clear()
            gymnasium.registry.update(before)
            __import__("sys").modules.pop("own_game", None)
    assert told in str(error.value)
