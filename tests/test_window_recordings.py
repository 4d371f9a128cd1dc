"""What the window records: films, shards, action files and marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from fakes import MAZE, fake  # noqa: E402
from windowed import frames_of, key  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from data_collect.recording.mp4 import VideoWriter  # noqa: E402
from game_wm.dream.actions import read_actions  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import paint, window  # noqa: E402


def test_filming_and_saving_the_actions(opened: Any, tmp_path: Path) -> None:
    w = opened()
    w.advance()
    key("v", "up")
    w.pump()
    for _ in range(7):
        w.advance()
    key("v", "l")
    w.pump()
    w.advance()
    film, log = sorted((tmp_path / "recordings").iterdir(), key=lambda path: path.suffix)
    frames = frames_of(film)
    assert len(frames) == 7 and frames[0].shape == (510, 766, 3)  # 51 times 10 by 15, made even
    assert abs(int(frames[-1][100, 100, 1]) - 7) <= 3
    read = read_actions(log, MAZE)
    assert read.episodes == {0: (0, 0)}
    assert read.actions.tolist() == [[0, 0, 0, 0]] + [[1, 0, 0, 0]] * 7


def test_a_bad_moment_is_marked(opened: Any, tmp_path: Path) -> None:
    w = opened(seed=2)
    for _ in range(3):
        w.advance()
    key("x")
    w.pump()
    w.advance()
    key("x")
    w.pump()
    first, second = map(json.loads, (tmp_path / "recordings" / "marks.jsonl").read_text().splitlines())
    assert {"checkpoint", "time", "seconds", "calls"} < set(first)
    assert (first["frame"], first["context"], first["seed"]) == (3, 2, 2) and second["frame"] == 4
    assert first["actions"] == second["actions"] and len(read_actions(second["actions"], MAZE)) == second["step"] == 4
    w.session.rewind()
    w.session.step([0, 1, 0, 0])
    key("x")
    w.pump()
    third = json.loads((tmp_path / "recordings" / "marks.jsonl").read_text().splitlines()[-1])
    assert third["actions"] != second["actions"]  # what led to the marks before is still there
    assert read_actions(third["actions"], MAZE).actions[-1, 1]
    assert not read_actions(second["actions"], MAZE).actions.any()


def test_a_mark_in_a_dream_of_the_real_game_is_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load
    from game_wm.dream import saved

    w = opened(load(tiny))
    key("c")
    w.pump()
    w.advance()
    key("x")
    w.pump()
    mark = json.loads((tmp_path / "recordings" / "marks.jsonl").read_text())
    assert mark["context"] == -1 and len(saved.load(Path(mark["dream"]), w.session.checkpoint).actions) == 1


def test_coming_back_to_a_dream_finishes_what_was_recorded_of_the_real_game(
    opened: Any, tiny: Path, tmp_path: Path
) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("s", "g", "k")
    w.pump()
    w.advance()
    assert w.session.data is not None and w.session.data.steps
    key("u")
    w.pump()
    assert w.session.scene.view == "dream" and w.session.data is None and "-data" in w.hint


def test_a_recording_of_the_real_game_says_that_it_waits_after_going_back(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load
    from game_wm.play.window import display

    w = opened(load(tiny))
    key("g", "k")
    w.pump()
    w.advance()
    states = display.states(w.session, False, w.recording_waits())
    assert states == [("recording data, 12 steps", paint.RED)]
    w.rewind()
    assert w.hint == "the recording waits: N begins the next episode"
    w.advance()
    assert (
        display.states(w.session, False, w.recording_waits())[0][0] == "recording data waits: N begins the next episode"
    )
    w.draw()
    for again in ("n", "r"):
        key(again)
        w.pump()
        assert not w.recording_waits() and w.session.data.playing
        w.advance()
        w.rewind()
        assert w.recording_waits()
    key("k")
    w.pump()
    assert not w.recording_waits()


def test_data_is_recorded_by_a_key(opened: Any, tmp_path: Path) -> None:
    from data_collect.shards.verify import verify

    w = opened()
    key("k")
    w.pump()
    for _ in range(3):
        w.advance()
    key("k")
    w.pump()
    (folder,) = (tmp_path / "recordings").glob("*-data")
    assert "sound" in verify(folder) and w.session.data is None
    key("k")
    w.pump()
    w.advance()
    w.commands.finish(w.session)  # closing the window finishes it
    assert len(list((tmp_path / "recordings").glob("*-data*"))) == 2


def test_closing_the_window_finishes_the_film(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "dream.mp4"

    def load(report: Any) -> Session:
        session = Session(fake(), fps=0)
        session.record(path)
        return session

    w = window.Window("fake", load)
    advance, count = w.advance, 0

    def counted() -> None:
        nonlocal count
        advance()
        count += 1
        w.running = count < 5

    w.advance = counted  # type: ignore[method-assign]
    w.run()
    assert len(frames_of(path)) == 5 and list(path.parent.iterdir()) == [path]


def test_a_film_that_cannot_be_written_stops_alone(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = opened()
    w.session.record(tmp_path / "dream.mp4")

    def full(self: VideoWriter, picture: np.ndarray) -> None:
        self._abandon()
        raise UserError("the disk is full while writing dream.mp4; free some space or record elsewhere")

    monkeypatch.setattr(VideoWriter, "write", full)
    w.session.take_over("random")
    w.advance()
    assert w.session.video is None and "disk is full" in w.hint
    assert w.session.controls.name == "random" and w.session.now.frames == 1
    assert not list(tmp_path.glob("*.mp4*"))
