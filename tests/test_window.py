"""Playing in the window, under SDL's dummy driver."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from fakes import fake  # noqa: E402
from windowed import key  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import opening, paint, window  # noqa: E402
from game_wm.play.window.display import scaled_to_fit  # noqa: E402


def test_memory_is_shown_where_there_is_one(opened: Any, tmp_path: Path) -> None:
    from tiny import tiny_checkpoint

    from game_wm.checkpoint import load

    w = opened()
    key("m")
    w.pump()
    assert not w.session.scene.inspect and "no episodic memory" in w.hint
    w = opened(load(tiny_checkpoint(tmp_path / "tiny.safetensors", prompt=12, recall=True)))
    before = pygame.surfarray.array3d(w.surface)
    key("m")
    w.pump()
    assert w.session.scene.inspect and (pygame.surfarray.array3d(w.surface) != before).any()
    w.advance()
    found = w.session.dream.remembered
    assert found is not None and len(found.ages) == len(found.pictures) > 0
    assert found.ages.min() > 4 and found.view.shape == found.pictures.shape[1:] and len(found.trail) > 0
    w.session.scene.begin()
    assert w.session.dream.remembered is None


def test_pause_and_single_step(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    w = opened(fps=0)
    w.turn()
    key("p")
    w.turn()
    before = w.session.now.frames
    waits: list[int] = []
    monkeypatch.setattr(pygame.event, "wait", lambda ms: waits.append(ms) or pygame.event.Event(pygame.NOEVENT))
    w.turn()
    assert w.session.paused and w.session.now.frames == before
    assert waits == [window.IDLE * 1000]  # asleep, not spinning
    key(".")
    w.turn()
    assert w.session.now.frames == before + 1 and w.session.paused
    key("p")
    w.turn()
    w.turn()
    assert w.session.now.frames > before + 1


def test_places_and_a_new_start(opened: Any) -> None:
    w = opened(seed=6)  # place 6 modulo 4
    assert w.session.dream.context == 2 and w.session.now.picture[0, 0, 0] == 20
    key("up")
    w.pump()
    w.advance()
    key("r")
    w.pump()
    assert w.session.now.frames == 0 and w.session.now.score == 0 and w.session.now.picture[0, 0].tolist() == [20, 0, 0]
    key("n", "n")
    w.pump()
    assert w.session.dream.context == 0
    key("b")
    w.pump()
    assert w.session.dream.context == 3


def test_the_end_of_an_episode_is_shown_and_another_begins(opened: Any) -> None:
    w = opened(fake(end=2), fps=0)
    w.advance()
    w.advance()
    assert w.session.scene.ended and w.wait(time.perf_counter()) > window.NOTICE / 2
    w.resume_at = 0.0
    w.turn()
    assert (w.session.dream.context, w.session.now.frames, w.session.scene.ended) == (1, 1, False)


def test_the_display_can_be_hidden(opened: Any) -> None:
    w = opened()
    w.hint = ""
    w.draw()
    shown = pygame.surfarray.array3d(w.surface)
    key("tab")
    w.turn()
    assert not w.hud
    w.draw()
    hidden = pygame.surfarray.array3d(w.surface)
    assert (shown != hidden).any()
    assert len(np.unique(hidden[::7, ::7].reshape(-1, 3), axis=0)) <= 2  # the picture and the ground


def test_help_holds_the_game_and_names_its_keys(opened: Any) -> None:
    w = opened(fps=0)
    key("h")
    w.turn()
    assert w.help and w.wait(time.perf_counter()) == window.IDLE
    key("escape")
    w.pump()
    assert not w.help and w.running


def test_time_runs_backwards_while_a_key_is_held(opened: Any) -> None:
    w = opened(fps=0)
    key("up")
    for _ in range(6):
        w.turn()
    assert w.session.now.frames == 6 and w.session.now.picture[0, 0, 1] == 6
    key("backspace")
    for _ in range(4):
        w.turn()
    assert w.keys.rewinding and (w.session.now.frames, w.session.now.picture[0, 0, 1], w.session.now.score) == (2, 2, 2)
    for _ in range(4):
        w.turn()
    assert w.session.now.frames == 0 and "no further back" in w.hint
    key("backspace", up=True)
    w.turn()
    assert w.session.now.frames == 1 and len(w.session.dream.log) == 1
    key("p", "backspace")  # while paused as well
    w.turn()
    key("backspace", up=True)
    w.turn()
    assert w.session.paused and w.session.now.frames == 0


def test_the_end_of_an_episode_can_be_taken_back(opened: Any) -> None:
    w = opened(fake(end=3), fps=0)
    for _ in range(3):
        w.advance()
    assert w.session.scene.ended
    key("backspace")
    w.turn()
    assert not w.session.scene.ended and w.session.now.frames == 2
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    w.turn()
    assert not w.keys.rewinding


def test_real_game_and_dream_in_the_window(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("c", "up")
    w.pump()
    w.advance()
    session = w.session
    assert session.scene.view == "both" and session.scene.real.moment.action.tolist() == [1, 0, 0, 0]
    w.hud = False
    w.hint = ""
    w.draw()
    shown = pygame.surfarray.array3d(w.surface)
    half = shown.shape[0] // 2
    middle = shown.shape[1] // 2
    assert (shown[: half - 2, middle] != shown[half + 2 :, middle]).any()
    key("g")
    w.pump()
    assert session.scene.view == "real" and "real game" in w.hint
    key("s")
    w.pump()
    assert "only a dream" in w.hint
    key("g")
    w.pump()
    assert session.scene.view == "dream" and session.scene.linked
    w = opened(replace(load(tiny), game="gym:Nowhere-v0"))
    key("c")
    w.pump()
    assert w.session.scene.view == "dream" and "Nowhere" in w.hint


def test_latents_and_times_are_shown(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    w.advance()
    w.draw()
    before = pygame.surfarray.array3d(w.surface)
    key("z", "f")
    w.pump()
    w.draw()
    after = pygame.surfarray.array3d(w.surface)
    changed = (before != after).any(-1)
    assert w.latents and w.graph and changed[: changed.shape[0] // 2].any() and not changed[-20:].any()


def test_full_screen_and_back(opened: Any) -> None:
    w = opened()
    size = w.surface.get_size()
    key("f11")
    w.pump()
    assert w.commands.windowed == size
    w.draw()
    key("f11")
    w.pump()
    assert w.commands.windowed is None and w.surface.get_size() == size


def test_escape_goes_back_while_another_model_loads(opened: Any, tmp_path: Path) -> None:
    w = opened()
    w.advance()
    session, wait = w.session, threading.Event()
    w.opener = lambda path: lambda report: wait.wait(20) and None
    key("escape")
    opening.play(w, tmp_path / "other.safetensors")
    assert w.running and w.session is session and w.name == "fake"
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    opening.play(w, tmp_path / "other.safetensors")
    wait.set()
    assert not w.running


def test_an_error_is_told_whole(opened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    w = opened()
    words = "recordings/a-long-name.mp4 cannot be written (no space left on the device): " + "free some space " * 8
    w.fail(UserError(words.strip()))
    w.draw()
    assert words.strip() in capsys.readouterr().err
    lines = paint.wrapped(words, 12, 300, 3)
    assert len(lines) == 3 and all(line.get_width() <= 300 for line in lines)
    assert len(paint.wrapped("saved", 12, 300, 3)) == 1


def test_the_window_says_what_went_wrong(opened: Any, tiny: Path, tmp_path: Path) -> None:
    import shutil

    from game_wm.checkpoint import load

    w = opened(replace(load(tiny), game="dream:tiny"))
    w.opener = lambda path: lambda report: Session(load(path))
    w.advance()

    def said(*keys: str) -> str:
        w.hint = ""
        key(*keys)
        w.pump()
        w.draw()
        return w.hint

    assert "no moment is saved" in said("u")
    assert "only" in said("q") and "not a game" in said("g") and "not a game" in said("c")
    assert "saved" in said("s")
    w.commands.saved.unlink()
    assert "does not exist" in said("u")

    model = tmp_path / "model.safetensors"
    w.folders = [tmp_path]
    for content, words in ((None, "is gone: choose"), (b"damaged", "not a whole")):
        model.write_bytes(tiny.read_bytes())
        said("o")
        w.chooser.chosen = next(i for i, tile in enumerate(w.chooser.tiles) if tile.path == model)
        model.unlink() if content is None else model.write_bytes(content)
        assert words in said("return") and words in w.chooser.tile.problem and w.name == "fake"
        said("o")

    shutil.rmtree(tmp_path / "recordings")
    (tmp_path / "recordings").write_text("in the way")
    for letter in "vkslx":
        assert "recordings" in said(letter), letter


def test_tiny_windows_are_drawn(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("c", "z", "f", "m")
    w.pump()
    for _ in range(3):
        w.advance()
    for size in ((40, 30), (90, 20)):
        pygame.display.set_mode(size, pygame.RESIZABLE)
        w.draw()
        for page in ("h", "h", "o"):
            key(page)
            w.pump()
            w.draw()
        w.chooser = None


def test_an_error_while_loading_reaches_the_user() -> None:
    def load(report: Any) -> Session:
        report("Reading x", 0.5)
        raise UserError("x is no checkpoint")

    with pytest.raises(UserError, match="no checkpoint"):
        window.Window("x", load).run()
    assert not pygame.display.get_init()


def test_pictures_are_enlarged_in_whole_pixels() -> None:
    assert scaled_to_fit((64, 64), (800, 700)) == pygame.Rect(80, 30, 640, 640)
    assert scaled_to_fit((160, 210), (100, 100)).height == 100
    for size in ((200, 150), (1600, 400)):
        assert paint.type_size(pygame.Surface(size)) >= 10
