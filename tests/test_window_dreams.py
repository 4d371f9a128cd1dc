"""Dreams that the window saves, keeps when it is left, and goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from windowed import key  # noqa: E402

from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import opening  # noqa: E402


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


def test_escape_twice_leaves_and_the_next_start_goes_on_with_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    checkpoint = load(tiny)
    w = opened(checkpoint)
    for _ in range(3):
        w.advance()
    key("escape")
    w.pump()
    assert w.running and w.chooser is not None and not kept_in(tmp_path)
    key("return")  # on the tile of what is played
    w.pump()
    assert w.chooser is None and w.session.now.frames == 3
    picture = w.session.now.picture
    key("escape", "escape")
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
    opening.play(w, Path(shutil.copy(tiny, tmp_path / "other.safetensors")))
    assert w.name == "other" and [name.endswith("-left.dream") for name in kept_in(tmp_path)] == [True]
