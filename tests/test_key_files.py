"""Key maps: a game's keys and the window's commands do not collide, and a file changes both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

import windowed  # noqa: E402, F401  SDL draws on nothing
from fakes import ATARI, CAR, MAZE, MAZE_WASD, WASD  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from data_collect.schema import ActionSchema  # noqa: E402
from game_wm.play import keymap  # noqa: E402
from game_wm.play.window.commands import SWITCHES, Commands  # noqa: E402


def test_ctrl_is_a_commands_where_it_is_not_the_games() -> None:
    ctrl_plays = replace(WASD, keys={**WASD.keys, "left ctrl": "back"})
    for schema, meant in ((WASD, (None, "quality")), (ctrl_plays, ("a", None))):
        assert keymap.meant(schema, keymap.command_keys(schema), "q", "a", ctrl=True) == meant  # AZERTY
    assert keymap.meant(ctrl_plays, keymap.command_keys(ctrl_plays), "s", "s", ctrl=True) == (None, "save")


def test_a_key_of_the_game_is_never_a_command() -> None:
    commands = keymap.command_keys(ATARI)
    assert "p" not in commands and commands["ctrl+p"] == "pause"
    assert ("ctrl+p", "pause") in keymap.shown_keys(ATARI, "Time")
    assert "s" not in keymap.command_keys(MAZE_WASD) and keymap.command_keys(MAZE_WASD)["ctrl+s"] == "save"
    assert set(keymap.command_keys(MAZE).values()) == {command.name for command in keymap.COMMANDS}
    for command in keymap.COMMANDS:
        assert command.name in (*keymap.PLACES, *SWITCHES) or callable(getattr(Commands, command.name))


def test_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("game: {w: forward, e: turn_right}\nwindow: {rewind: left shift, pause: [1, home]}\n")
    schema, commands = keymap.read(path, MAZE)
    keys = keymap.command_keys(schema, commands)
    assert schema.keys == {"w": "forward", "e": "turn_right"} and schema.names == MAZE.names
    assert (keys["left shift"], keys["1"], keys["home"]) == ("rewind", "pause", "pause") and "backspace" not in keys
    (tmp_path / "keys.json").write_text('{"window": {"help": "f2"}}')
    schema, commands = keymap.read(tmp_path / "keys.json", MAZE)
    assert schema == MAZE and keymap.key_of(schema, "help", commands) == "f2"
    path.write_text("game: {w: fly}\nwindow: {pause: up, help: f2}\n")  # given for another model
    schema, commands = keymap.read(path, MAZE, other=True)
    keys = keymap.command_keys(schema, commands)
    assert schema == MAZE and (keys["f2"], keys["ctrl+up"]) == ("help", "pause")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("game: {w: fly}", "fly"), ("game: {hyper: forward}", "hyper"), ("game: {ArrowUp: forward}", "called .up."),
        ("game: [w]", "action for each key"),
        ("window: {jump: w}", "jump"), ("window: {pause: up}", "key of the game"), ("window: {pause: r}", "both"),
        ("window: {pause: []}", "no key"), ("keys: {}", "keys"), ("{", "cannot be read"), ("", "must hold"),
    ],
)  # fmt: skip
def test_a_faulty_key_map_is_told_in_a_sentence(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(UserError, match=word) as error:
        keymap.read(tmp_path / "keys.yaml", MAZE)
    assert "keys.yaml" in str(error.value) and "\n" not in str(error.value)


def test_keys_light_up_by_the_action_whoever_chose_it() -> None:
    assert keymap.pressed(MAZE, np.array([1, 0, 0, 1])) == {"up": 1, "down": 0, "left": 0, "right": 1}
    assert keymap.pressed(ATARI, np.array([3])) == {"up": 1, "space": 1, "p": 1}
    assert keymap.pressed(ATARI, np.array([0])) == {"up": 0, "space": 0, "p": 0}
    down = keymap.pressed(CAR, np.array([-0.5, 0.25], np.float32))
    assert down == pytest.approx({"left": 0.5, "right": 0, "up": 0.25})


def test_keys_of_one_action_stand_together() -> None:
    both = ActionSchema("multibinary", ("go", "use"), keys={"w": "go", "e": "use", "up": "go"}, fps=20)
    assert keymap.game_keys(both) == [(("up", "w"), "go"), (("e",), "use")]
    assert [words for _, words in keymap.game_keys(CAR)] == ["steer −", "steer +", "gas"]
