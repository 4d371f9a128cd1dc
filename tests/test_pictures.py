"""Pictures, metadata, keys and action spaces as games have them: taken as they are meant, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import odd_games
import pytest

from data_collect import __main__ as cli
from data_collect import games
from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.games.actions import Actions
from data_collect.games.resize import default_size, resize
from data_collect.keys import is_key, right_key
from data_collect.recording.record import record
from data_collect.shards.check import findings, measure
from data_collect.shards.verify import verify


def make(name: str, **options: Any) -> Any:
    return games.make(f"gym:odd_games:{name}-v0", **options)


def first(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first frame of a game of 64x64, and the picture that it stands for."""
    frame, _ = env.reset(seed=1)
    return frame, env.env.unwrapped.picture()


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", odd_games.WAYS)
def test_a_picture_is_taken_however_it_comes(way: str) -> None:
    frame, picture = first(make("Shown", way=way))
    assert frame.dtype == np.uint8 and np.array_equal(frame, picture)


@pytest.mark.parametrize("way", odd_games.GREY)
def test_a_grey_picture_has_three_equal_colours(way: str) -> None:
    frame, picture = first(make("Shown", way=way))
    assert np.array_equal(frame, picture[..., :1].repeat(3, 2))


@pytest.mark.parametrize(("way", "told"), [(way, told) for way, (_, told) in odd_games.NONE.items()])
def test_what_is_no_picture_is_named(way: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        make("Shown", way=way)
    assert told in str(error.value) and "'gym:odd_games:Shown-v0'" in str(error.value)


def test_black_and_white_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(odd_games.WAYS, "rgb", lambda picture: picture > 100)
    frame, picture = first(make("Shown"))
    assert np.array_equal(frame, np.where(picture > 100, 255, 0))


def test_a_dark_start_does_not_decide_how_bright_floats_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(odd_games.WAYS, "rgb", lambda picture: np.zeros(picture.shape))
    env = make("Shown")
    env.env.unwrapped.way = lambda picture: picture.astype(float)
    frame, picture = first(env)
    assert np.array_equal(frame, picture)


def test_floats_that_change_their_range_are_told() -> None:
    env = make("Brightens")
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"floats up to 250\.0 after pictures with floats from 0 to 1"):
        for _ in range(6):
            env.step(1)


def test_a_picture_that_grows_is_scaled_to_the_frame() -> None:
    env = make("Growing")
    env.reset(seed=0)
    for _ in range(8):
        frame, *_ = env.step(2)
        assert np.array_equal(frame, env.env.unwrapped.picture())


def test_frames_that_are_kept_do_not_change() -> None:
    env = make("Reused")
    before, _ = env.reset(seed=0)
    copy = before.copy()
    after, *_ = env.step(2)
    assert np.array_equal(before, copy) and not np.array_equal(before, after)


@pytest.mark.parametrize("kind", odd_games.SEEN)
def test_observations_are_seen_where_nothing_is_rendered(kind: str) -> None:
    frame, picture = first(make("Seen", kind=kind))
    seen = {"symbols": picture[:7, :7] // 64, "wide_symbols": picture[:48, :48] // 16}.get(kind, picture)
    if kind.startswith("grey"):
        seen = picture[..., :1].repeat(3, 2)
    assert np.array_equal(frame, resize(seen, 64, 64))


@pytest.mark.parametrize("kind", odd_games.SEEN)
def test_symbols_are_not_taken_for_a_picture_where_one_is_rendered(kind: str) -> None:
    frame, picture = first(make("Seen", kind=kind, drawn=True))
    assert np.array_equal(frame, picture)


@pytest.mark.parametrize(
    ("size", "frame"),
    [
        ((64, 64), (64, 64)), ((128, 128), (64, 64)), ((160, 210), (64, 80)), ((600, 400), (96, 64)),
        ((7, 7), (64, 64)),
        ((600, 150), (256, 64)), ((1600, 100), (256, 16)), ((320, 240), (80, 64)), ((1920, 1080), (112, 64)),
    ],
)  # fmt: skip
def test_the_default_size_keeps_the_aspect(size: tuple[int, int], frame: tuple[int, int]) -> None:
    assert default_size(*size) == frame
    assert abs(np.log(frame[0] / frame[1] / (size[0] / size[1]))) < 0.12


def test_what_becomes_of_size_and_rate_is_noted() -> None:
    assert make("Dot").note == "64x64, 15 frames/s"
    assert make("Dot", width=32, height=48, fps=60).note == "64x64 → 32x48, 60 → 15 frames/s"
    assert "metadata has no render_fps" in make("NoModes").note


def test_a_recording_or_a_model_has_its_own_size() -> None:
    assert games.make("gym:odd_games:Dot-v0", frame=(48, 32)).observation_space.shape == (32, 48, 3)
    assert games.make("gym:odd_games:Dot-v0?width=64", frame=(48, 32)).observation_space.shape == (64, 64, 3)
    assert games.make("maze", frame=(48, 32)).observation_space.shape == (32, 48, 3)


@pytest.mark.slow
def test_a_recording_is_continued_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = "gym:odd_games:Changes-v0"
    monkeypatch.setenv("ODD_WIDTH", "2")
    assert record(tmp_path, game, "random", 60).frame_size == (128, 64)
    monkeypatch.setenv("ODD_WIDTH", "1")
    dataset = record(tmp_path, game, "random", 120, workers=2)
    assert dataset.frame_size == (128, 64) and dataset.card["frames"] == 120
    assert {chunk.frames.shape[1:] for chunk in dataset.chunks()} == {(64, 128, 3)}
    assert make("Changes").note == "64x64, 15 frames/s"


@pytest.mark.slow
def test_other_keys_are_no_other_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = "gym:odd_games:Changes-v0"
    record(tmp_path, game, "random", 60)
    monkeypatch.setenv("ODD_KEY", "left")
    dataset = record(tmp_path, game, "random", 120)
    assert dataset.schema.keys == {"left": "action0"} and dataset.card["frames"] == 120
    assert "sound" in verify(tmp_path) and Dataset(tmp_path, rebuild=True).schema.keys == {"left": "action0"}
    monkeypatch.setenv("ODD_FPS", "10")
    with pytest.raises(UserError, match=r"action2 at 15 frames/s, not discrete actions .* at 10 frames/s: choose"):
        record(tmp_path, game, "random", 180)


def test_a_recording_with_keys_that_no_keyboard_has_is_read_and_told(tmp_path: Path) -> None:
    record(tmp_path, "gym:odd_games:Dot-v0", "random", 60)
    card = json.loads((tmp_path / "dataset.json").read_text())
    card["schema"]["keys"] = {"ArrowLeft": "action0", "hyper": "action2"}
    (tmp_path / "dataset.json").write_text(json.dumps(card))
    dataset = Dataset(tmp_path)
    assert dataset.schema.from_keys(["ArrowLeft"]) == 0
    (found,) = [finding for finding in findings(measure(dataset)) if finding.kind == "keys"]
    assert "'ArrowLeft' (it is called 'left'), 'hyper' are no keys" in found.sentence


def test_record_says_what_becomes_of_size_and_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snake.py").write_text("import odd_games")
    words = ["--player", "random", "--frames", "20", "--out", str(tmp_path / "data")]
    monkeypatch.syspath_prepend(tmp_path)  # a module whose name is that of an emoji
    assert cli.main(["record", "--game", "gym:snake:Dot-v0?width=32&height=48&fps=30", *words]) == 0
    told = "gym:snake:Dot-v0: 64x64 → 32x48, 30 → 15 frames/s; choose them by ?width=…&height=…&skip=…"
    assert told in capsys.readouterr().err


# --- how it is made, names, keys and rate -----------------------------------------------------------------------------


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


# --- actions ----------------------------------------------------------------------------------------------------------


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


# --- ids --------------------------------------------------------------------------------------------------------------


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
