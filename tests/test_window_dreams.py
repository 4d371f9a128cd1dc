"""Dreams that the window saves, keeps when it is left, and goes on with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from windowed import key  # noqa: E402

from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import window  # noqa: E402


def test_a_moment_is_saved_and_come_back_to(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("u")
    w.pump()
    assert "no moment" in w.hint
    for _ in range(3):
        w.advance()
    key("s", "s")
    w.pump()
    assert len(list((tmp_path / "recordings").glob("*.dream"))) == 2  # two in a second have two names
    saved = w.session.now.picture
    for _ in range(2):
        w.advance()
    key("u")
    w.pump()
    assert w.session.now.frames == 3 and np.array_equal(w.session.now.picture, saved)


def kept_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("recordings/*"))


def test_escape_asks_once_more_and_the_next_start_goes_on_with_the_dream(
    opened: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from game_wm.checkpoint import load

    checkpoint = load(tiny)
    w = opened(checkpoint)
    for _ in range(3):
        w.advance()
    key("escape")
    w.pump()
    assert w.running and "Esc again leaves" in w.hint and not kept_in(tmp_path)
    w.commands.asked_until = 0.0  # much later
    key("escape")
    w.pump()
    assert w.running
    picture = w.session.now.picture
    key("escape")
    w.pump()
    assert not w.running and len(kept_in(tmp_path)) == 1

    w = opened(checkpoint)
    assert "U goes on where you left" in w.hint and w.session.now.frames == 0
    key("u")
    w.pump()
    assert w.session.now.frames == 3 and np.array_equal(w.session.now.picture, picture)
    key("escape", "escape")
    w.pump()
    assert not w.running and len(kept_in(tmp_path)) == 1  # it is kept already
    other = load(tiny)
    other.__dict__["digest"] = "another checkpoint of that name"
    w = opened(other)
    assert "left" not in w.hint


def test_a_window_that_is_closed_or_ended_keeps_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    (tmp_path / "recordings").mkdir()
    for name in ("tiny-x-20200101-000000-left.dream", "tiny-20200101-000000.dream"):  # another's, one of the player's
        (tmp_path / "recordings" / name).write_text("")
    checkpoint = load(tiny)
    for how in ("close", "end", "close", "end"):
        w = opened(checkpoint)
        w.advance()
        if how == "close":
            pygame.event.post(pygame.event.Event(pygame.QUIT))
            w.pump()
            assert not w.running
        w.commands.finish(w.session)
    names = kept_in(tmp_path)
    assert len(names) == 2 + folder.MOST_LEFT and "tiny-x-20200101-000000-left.dream" in names
    for start in ("nothing is dreamt", "the real game"):
        w = opened(checkpoint, view="real" if start == "the real game" else "dream")
        if w.session.scene.view == "real":
            w.advance()
        w.commands.leave()
        assert not w.running and kept_in(tmp_path) == names


def test_a_dream_that_cannot_be_kept_is_told_before_it_is_left(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    w.advance()
    (tmp_path / "recordings").write_text("a file")
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    w.pump()
    assert w.running and "ask again to leave" in w.hint and "recordings" in w.hint
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    w.pump()
    assert not w.running


def test_another_model_does_not_cost_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    import shutil

    from game_wm.checkpoint import load

    w = opened(load(tiny))
    w.advance()
    w.opener = lambda path: lambda report: Session(load(path))
    w.open(Path(shutil.copy(tiny, tmp_path / "other.safetensors")))
    assert w.name == "other" and [name.endswith("-left.dream") for name in kept_in(tmp_path)] == [True]


def test_another_model_and_saved_dreams_are_chosen(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from game_wm.checkpoint import load

    monkeypatch.setattr(folder, "FOLDER", tmp_path / "recordings")
    for name in ("first", "second"):
        shutil.copy(tiny, tmp_path / f"{name}.safetensors")
    (tmp_path / "second.json").write_text('{"parameters": 2e6, "fidelity": {"psnr": {"1": 30.0}}}')
    (tmp_path / "broken.safetensors").write_text("nothing")

    def opener(path: Path) -> Any:
        return lambda report: Session(load(path))

    path = tmp_path / "first.safetensors"
    w = window.Window("first", opener(path), opener, [tmp_path])
    assert w.load()
    w.begin()
    for _ in range(2):
        w.advance()
    key("s", "o")
    w.pump()
    assert w.chooser is not None and [entry.name for entry in w.chooser.entries[:2]] == ["first", "second"]
    assert w.chooser.entries[1].lines == ("maze · 2.0 M parameters", "PSNR 30.0 dB")
    assert w.wait(time.perf_counter()) == window.IDLE  # the game waits
    w.draw()
    key("right", "return")
    w.pump()
    assert w.name == "second" and w.session.checkpoint.path == tmp_path / "second.safetensors" and not w.chooser
    key("o")
    w.pump()
    w.draw()
    dream = w.chooser.tiles[2]
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=dream.center))
    w.pump()
    assert w.session.now.frames == 2 and w.session.now.picture.shape == (64, 64, 3)
    (tmp_path / "third.safetensors").write_bytes(tiny.read_bytes())
    key("o")
    w.pump()
    (tmp_path / "third.safetensors").write_text("damaged")
    w.chooser.chosen = 2
    key("return")
    w.pump()
    assert "third" in w.hint and w.name == "second" and w.session.now.frames == 2  # what was played goes on
    key("o")
    w.pump()
    key("escape")
    w.pump()
    assert w.chooser is None and w.running
    pygame.display.quit()
