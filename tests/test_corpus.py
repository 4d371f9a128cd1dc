"""Many games at once: the list, what is missing, and recordings that continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_collect import games
from data_collect.commands import PROGRAM
from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording.corpus import read_list

LIST = """
frames: 24
episode_frames: 12
groups:
  maze: {game: "maze?size={}", names: [5, 7], player: wanderer}
  wide: {game: "scroll?view={}", names: [side], size: 96x64}
"""
ABSENT = "\n  absent: {game: 'gym:no_such_package:{}-v0', names: [Game]}\n"
HELD_OUT = (
    "Pong",
    "Breakout",
    "Pacman",
    "SpaceInvaders",
    "Seaquest",
    "Freeway",
    "rafter",
    "World-",
    "FourRooms",
    "racetr",
)
BASE = Path("configs/base/games.yaml")


def corpus(tmp_path: Path, text: str, *flags: str) -> int:
    (tmp_path / "games.yaml").write_text(text)
    words = ["corpus", "--config", str(tmp_path / "games.yaml"), "--out", str(tmp_path / "out"), *flags]
    return PROGRAM.run(words)


@pytest.mark.slow
def test_every_game_becomes_a_recording_and_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpus(tmp_path, LIST, "--workers", "2") == 0
    said = capsys.readouterr().out
    assert said.count("24 frames") == 3 and said.rstrip().endswith("72 frames")
    folders = ["64x64/maze-5", "64x64/maze-7", "96x64/wide-side"]
    assert [Dataset(tmp_path / "out" / folder).frame_size for folder in folders] == [(64, 64), (64, 64), (96, 64)]
    assert corpus(tmp_path, LIST.replace("frames: 24", "frames: 30")) == 0
    assert capsys.readouterr().out.count("30 frames") == 3


@pytest.mark.slow
def test_a_missing_package_is_told_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no_such_package.*--skip-missing"):
        corpus(tmp_path, LIST + ABSENT)
    assert not (tmp_path / "out").exists()
    assert corpus(tmp_path, LIST + ABSENT, "--skip-missing", "--only", "wide") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: {}", "no `groups`"),
        ("groups: {a: {game: maze}}", "group a needs"),
        ("groups: {a: {game: maze, names: [1], frame: 3}}", "'frame' that there is not; did you mean frames"),
        ("groups: {a: {game: maze, names: [1, 1]}}", "64x64/a-1 twice"),
        ("groups: {a: {game: maze, names: [1], size: 64}}", "must look like 64x64"),
        ("groups: {a: {game: maze, names: [1], frames: many}}", "frames 'many' of group a is no whole number"),
        ("{", "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_read(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "games.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_list(tmp_path / "games.yaml")


def test_the_list_of_the_base_has_no_game_that_is_held_out() -> None:
    entries = read_list(BASE)
    assert len({entry.game for entry in entries if "ALE/" in entry.game}) >= 45
    assert not [entry.game for entry in entries if any(name in entry.game for name in HELD_OUT)]


SCREEN = """
import os
import gymnasium
import numpy as np

class Screen(gymnasium.Env):  # draws nothing where the environment has SDL's dummy driver
    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}
    action_space, observation_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Box(0, 1, (2,))
    steps = 0

    def __init__(self, render_mode="rgb_array"):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[: self.steps % 64] = 0 if os.environ["SDL_VIDEODRIVER"] == "dummy" else 200
        return picture

gymnasium.register("Screen-v0", entry_point=f"{__name__}:Screen")
"""


@pytest.mark.slow
def test_pictures_that_show_nothing_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("dark", "highway_env_like"):
        (tmp_path / f"{name}.py").write_text(SCREEN)
    text = "{frames: 40, groups: {a: {game: 'gym:{}:Screen-v0', names: [dark, highway_env_like]}}}"
    assert corpus(tmp_path, text) == 0
    dark, lit, _ = capsys.readouterr().out.splitlines()
    assert "look: every picture is the same" in dark and lit.endswith("40 frames")


@pytest.mark.parametrize("view", ["top", "side"])
def test_a_scrolling_world_is_a_function_of_seed_and_actions(view: str) -> None:
    runs = []
    for _ in range(2):
        with games.make(f"scroll?view={view}&width=96") as env:
            frames = [env.reset(seed=3)[0]]
            held = env.action_schema.from_keys({"right", "up"})
            frames += [env.step(held)[0] for _ in range(20)]
        runs.append(frames)
    assert all((one == other).all() for one, other in zip(*runs, strict=True))
    assert any((one != runs[0][0]).any() for one in runs[0])
