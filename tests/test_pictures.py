"""Pictures as games have them: taken as they are meant, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import odd_pictures
import pytest

from data_collect import __main__ as cli
from data_collect import games
from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.games.resize import default_size, resize
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


@pytest.mark.parametrize("way", odd_pictures.WAYS)
def test_a_picture_is_taken_however_it_comes(way: str) -> None:
    frame, picture = first(make("Shown", way=way))
    assert frame.dtype == np.uint8 and np.array_equal(frame, picture)


@pytest.mark.parametrize("way", odd_pictures.GREY)
def test_a_grey_picture_has_three_equal_colours(way: str) -> None:
    frame, picture = first(make("Shown", way=way))
    assert np.array_equal(frame, picture[..., :1].repeat(3, 2))


@pytest.mark.parametrize(("way", "told"), [(way, told) for way, (_, told) in odd_pictures.NONE.items()])
def test_what_is_no_picture_is_named(way: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        make("Shown", way=way)
    assert told in str(error.value) and "'gym:odd_games:Shown-v0'" in str(error.value)


def test_black_and_white_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(odd_pictures.WAYS, "rgb", lambda picture: picture > 100)
    frame, picture = first(make("Shown"))
    assert np.array_equal(frame, np.where(picture > 100, 255, 0))


def test_a_dark_start_does_not_decide_how_bright_floats_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(odd_pictures.WAYS, "rgb", lambda picture: np.zeros(picture.shape))
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


@pytest.mark.parametrize("kind", odd_pictures.SEEN)
def test_observations_are_seen_where_nothing_is_rendered(kind: str) -> None:
    frame, picture = first(make("Seen", kind=kind))
    seen = {"symbols": picture[:7, :7] // 64, "wide_symbols": picture[:48, :48] // 16}.get(kind, picture)
    if kind.startswith("grey"):
        seen = picture[..., :1].repeat(3, 2)
    assert np.array_equal(frame, resize(seen, 64, 64))


@pytest.mark.parametrize("kind", odd_pictures.SEEN)
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
    options = "--game 'gym:snake:Dot-v0?width=…&height=…&skip=…'"
    told = f"gym:snake:Dot-v0: 64x64 → 32x48, 30 → 15 frames/s; for another size or rate: {options}"
    assert told in capsys.readouterr().err
