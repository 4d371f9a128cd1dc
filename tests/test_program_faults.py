"""Programs that end, crash, show nothing or read other things than keys: they work, or one sentence says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import EVENTS_FIRST, program
from test_program import made, reds

from data_collect import games
from data_collect.__main__ import main
from data_collect.dataset import Dataset
from data_collect.errors import UserError, main_guard

pytestmark = pytest.mark.slow

SHOW = "paint(7); pygame.display.flip(); clock.tick(20)\n"


def refused(game: str) -> str:
    with pytest.raises(UserError) as error:
        games.make(game)
    return str(error.value)


def test_a_program_that_shows_nothing_is_told(tmp_path: Path) -> None:
    for name, code, told in (
        ("crash.py", "paint(1)\n1 / 0\n", "crash.py, line 9: ZeroDivisionError: division by zero"),
        ("syntax.py", "if True\n", "syntax.py"),
        ("blank.py", "while True:\n    pygame.event.get()\n    clock.tick(60)\n", "shows no picture in a minute"),
        ("ends.py", "sys.exit('no level')\n", "ends before it shows a picture (no level)"),
    ):
        said = refused(program(tmp_path, code, name))
        assert told in said and f"pygame:{tmp_path / name}" in said


def test_what_is_no_program_or_no_key_is_told(tmp_path: Path) -> None:
    assert "there is no file" in refused(f"pygame:{tmp_path / 'none.py'}")
    assert "did you mean pygame:my_game.py?" in refused("my_game.py")
    assert "'K_UP' is no key (is 'up' meant?)" in refused(f"{program(tmp_path, SHOW)}?keys=left,K_UP")


def test_a_crash_loses_nothing_that_was_recorded(tmp_path: Path, capsys: Any) -> None:
    code = """
import os
while True:
    if os.path.exists("crash"): raise ValueError("the map is gone")
    pygame.event.get()
    paint(pygame.key.get_pressed()[pygame.K_LEFT]); pygame.display.flip(); clock.tick(20)
"""
    folder, game = str(tmp_path / "recording"), program(tmp_path, code) + "?keys=left"
    words = ["record", "--game", game, "--player", "random", "--out", folder]
    assert main([*words, "--frames", "30"]) == 0
    (tmp_path / "crash").touch()
    assert main_guard(lambda: main([*words, "--frames", "60"])) == 2
    told = capsys.readouterr().err
    assert "my_game.py, line 11: ValueError: the map is gone" in told and "Traceback" not in told
    assert Dataset(folder).card["frames"] == 30
    assert main(["verify", folder, "--replay", "0"]) == 0


def test_a_program_that_ends_is_started_anew(tmp_path: Path) -> None:
    code = "for i in range(5):\n    paint(i); pygame.display.flip(); clock.tick(20)\npygame.quit(); sys.exit()\n"
    with made(program(tmp_path, code)) as env:
        assert env.action_schema.names == ("nothing",)
        for seed in (1, 2):
            assert reds(env, [0] * 20, seed) == [0, 1, 2, 3, 4, 4]


def test_an_episode_ends_where_nothing_pressed_changes_the_picture(tmp_path: Path) -> None:
    with made(program(tmp_path, "while True:\n    pygame.event.get()\n    " + SHOW) + "?keys=left") as env:
        env.reset(seed=1)
        idle = [env.step(np.array([0]))[2:4] for _ in range(250)]
        pressed = [env.step(np.array([1]))[2:4] for _ in range(201)]
    assert set(idle) == {(False, False)} and pressed.index((False, True)) == 200


def test_keys_are_tried_where_the_code_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_collect.program.trial.USUAL", ("left", "w"))
    code = """
value = 100
while True:
    for event in pygame.event.get():
        if event.type == pygame.KEYDOWN and event.unicode in {"w", "W"}: value = 200
        if event.type == pygame.KEYUP: value = 100
    paint(value); pygame.display.flip(); clock.tick(20)
"""
    with made(program(tmp_path, code)) as env:
        assert env.action_schema.names == ("w",) and env.found == {"keys": "w"}
    unusual = program(tmp_path, code.replace('"w", "W"', '"j"'))
    assert "--keys left,right,space,mouse" in refused(unusual)
    with made(f"{unusual}?keys=j") as env:
        assert reds(env, [np.array([1]), np.array([0])]) == [100, 200, 100]


def test_mouse_and_joystick_are_axes(tmp_path: Path) -> None:
    mouse = """
while True:
    for event in pygame.event.get():
        if event.type == pygame.MOUSEBUTTONDOWN: paint(event.pos[0])
    if not pygame.mouse.get_pressed()[0]: paint(100 + pygame.mouse.get_pos()[0])
    pygame.display.flip(); clock.tick(20)
"""
    with made(program(tmp_path, mouse)) as env:
        assert env.action_schema.names == ("mouse x", "mouse y", "mouse left") and env.found == {"keys": "mouse"}
        moves = [np.array(move, np.float32) for move in ((-1, 0, 0), (1, 0, 0), (1, 0, 1))]
        assert reds(env, moves)[1:] == [100, 163, 63]
    stick = """
joystick = pygame.joystick.Joystick(0) if pygame.joystick.get_count() else None
while True:
    pygame.event.get()
    paint(100 + 50 * joystick.get_axis(0) + 10 * joystick.get_button(1) if joystick else 0)
    pygame.display.flip(); clock.tick(20)
"""
    with made(program(tmp_path, stick)) as env:
        assert env.found == {"keys": "joystick"}
        assert reds(env, [np.array([1, 0, 0, 0, 0, 0], np.float32), np.array([-1, 0, 0, 1, 0, 0])]) == [100, 150, 60]


def test_other_windows_and_files_of_a_package_work(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "level.py").write_text("SIZE = (96, 48)\n")
    code = f"""
from .level import SIZE
from pygame import Window
second = Window("map", (32, 32))
screen = pygame.display.set_mode(SIZE)
{EVENTS_FIRST}"""
    with made(program(tmp_path / "pack", code)) as env:
        assert env.observation_space.shape == (64, 128, 3) and env.action_schema.names == ("left",)
        assert reds(env, [np.array([1])]) == [100, 200]
