"""The gallery in the window: what is in it, choosing, playing and coming back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from windowed import key  # noqa: E402

from game_wm import library  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.play import gallery  # noqa: E402
from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import Window, opening  # noqa: E402


@pytest.fixture
def home(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two dreams that came with the program, one of them with a card, a run of the user's, and a damaged file."""
    shipped = tmp_path / "checkpoints"
    for name in ("checkpoints/tiny", "checkpoints/zoo", "runs/mine/mine"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny, tmp_path / f"{name}.safetensors")
    card = {
        "line": "Corridors.",
        "fidelity": {"psnr": {"1": 30.04}, "repeat_psnr": {"1": 20}},
        "cost": {"fps_median": 61.7},
    }
    (shipped / "zoo.json").write_text(json.dumps(card))
    (shipped / "broken.safetensors").write_text("nothing")
    monkeypatch.setattr(gallery, "SHIPPED", shipped)
    monkeypatch.setattr(folder, "FOLDER", tmp_path / "recordings")
    monkeypatch.chdir(tmp_path)
    return shipped


@pytest.fixture
def window(home: Path) -> Iterator[Window]:
    """One that begins in the gallery."""
    made = Window(opener=lambda path: lambda report: Session(load(path)), folders=[home])
    opening.choose(made)
    made.draw()
    yield made
    pygame.display.quit()


def press(window: Window, *keys: str) -> None:
    for each in keys:
        key(each)
        window.pump()
        window.draw()


def test_what_is_in_it(home: Path, tiny: Path) -> None:
    tiles = gallery.checkpoints([home])
    assert [(tile.group, tile.name) for tile in tiles] == [
        ("Dreams", "broken"), ("Dreams", "tiny"), ("Dreams", "zoo"), ("Your own", "mine"),
    ]  # fmt: skip
    broken, first, second, _ = tiles
    assert broken.problem.startswith("broken.safetensors is not a whole checkpoint") and not len(broken.frames)
    assert second.line == "Corridors." and first.line == "Maze"
    assert second.figures[:3] == (("30.0 dB", "next frame"), ("20.0 dB", "repeating"), ("62", "frames/s"))
    assert first.figures[0] == ("places", "memory") and first.figures[1][0].endswith("MiB")
    contexts = load(tiny).contexts_frames
    assert np.array_equal(first.frames, contexts[0].numpy()) and first.fps == 20
    newer = home.parent / "runs" / "newer" / "newer.safetensors"
    newer.parent.mkdir()
    shutil.copy(tiny, newer)
    assert [tile.name for tile in gallery.checkpoints([home])[3:]] == ["newer", "mine"]
    assert [tile.name for tile in gallery.checkpoints([home / ".." / "runs" / "mine"])] == ["newer", "mine"]


@pytest.mark.parametrize("card", ["[1]", "{", '{"fidelity": [1], "cost": {"fps_median": "fast"}, "line": ""}'])
def test_a_card_that_is_none_costs_only_its_figures(card: str, home: Path) -> None:
    (home / "zoo.json").write_text(card)
    tile = gallery.checkpoints([home])[2]
    assert tile.line == "Maze" and not tile.problem and [what for _, what in tile.figures] == ["memory", ""]


def test_a_line_is_made_of_game_and_training() -> None:
    assert gallery.line_of("gym:ALE/Pong-v5?skip=4", 0.5) == "Pong, learnt in 30 minutes"
    assert gallery.line_of("gym:my_game:MyGame-v0", 5.03) == "MyGame, learnt in 5.0 hours"
    assert gallery.line_of("dream:maze", None) == "Maze"


def test_what_training_begins_with_is_no_game() -> None:
    names = [tile.name for tile in gallery.checkpoints([library.SHIPPED])]
    assert library.BASE not in names and {"doom", "maze"} <= set(names)
    assert gallery.read(library.SHIPPED / f"{library.BASE}.safetensors", "") is None


def test_nothing_waits_for_pytorch() -> None:
    look = "import sys; from game_wm.play.window import Window, opening; from game_wm.play import gallery, flags; " \
           "print(len(gallery.checkpoints([flags.SHIPPED])), 'torch' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-2]) >= 2 and done.stdout.split()[-1] == "False"


def test_choosing_playing_and_coming_back(window: Window, tmp_path: Path) -> None:
    assert not window.playing and window.chooser is not None
    press(window, "right", "right", "return")
    assert window.name == "zoo" and window.chooser is None and window.playing
    for _ in range(3):
        window.advance()
    press(window, "escape")
    assert window.chooser is not None and window.chooser.tile is not None and window.chooser.tile.name == "zoo"
    window.turn()
    assert window.session.now.frames == 3  # the game waits
    press(window, "o")
    assert window.chooser is None and window.session.now.frames == 3
    press(window, "escape", "left", "return")
    assert window.name == "tiny" and window.session.now.frames == 0
    left = list((tmp_path / "recordings").glob("tiny-*-left.dream"))
    assert len(left) == 1
    press(window, "escape", "escape")
    assert not window.running


def test_what_cannot_be_read_says_so_in_its_tile(window: Window, capsys: pytest.CaptureFixture[str]) -> None:
    press(window, "return")
    assert window.chooser is not None and window.chooser.tile is not None
    assert not window.playing and window.running and "broken.safetensors" in window.chooser.tile.problem
    assert len(capsys.readouterr().err.splitlines()) == 1
    press(window, "right", "return")
    assert window.name == "tiny" and window.playing


def test_mouse_wheel_and_gamepad_choose(window: Window) -> None:
    def post(kind: int, **fields: Any) -> int:
        pygame.event.post(pygame.event.Event(kind, **fields))
        window.pump()
        window.draw()
        return window.chooser.chosen if window.chooser else -1

    assert window.chooser is not None
    boxes = window.chooser.boxes
    assert post(pygame.MOUSEMOTION, pos=boxes[2].center, buttons=(0, 0, 0), rel=(0, 0)) == 2
    assert post(pygame.MOUSEWHEEL, y=-1, x=0) == 3 and post(pygame.MOUSEWHEEL, y=1, x=0) == 0
    assert post(pygame.JOYAXISMOTION, axis=0, value=0.9) == 1
    assert post(pygame.JOYAXISMOTION, axis=0, value=0.95) == 1  # held is one step
    assert post(pygame.JOYAXISMOTION, axis=0, value=0.0) == 1
    assert post(pygame.JOYHATMOTION, value=(1, 0)) == 2
    assert post(pygame.JOYBUTTONDOWN, button=0) == -1 and window.name == "zoo"
    assert post(pygame.JOYBUTTONDOWN, button=6) == 2  # back
    assert post(pygame.MOUSEBUTTONDOWN, button=1, pos=boxes[1].center) == -1 and window.name == "tiny"
    post(pygame.JOYBUTTONDOWN, button=6)
    post(pygame.JOYBUTTONDOWN, button=6)
    assert not window.running


def test_the_chosen_tile_moves(window: Window) -> None:
    chooser = window.chooser
    assert chooser is not None
    chooser.chosen = 1

    def picture(number: int, now: float) -> bytes:
        from game_wm.play.window import paint

        chooser.draw(paint.Board(window.surface), "", now)
        return pygame.image.tobytes(window.surface.subsurface(chooser.boxes[number]), "RGB")

    assert picture(1, 0.0) != picture(1, 0.12) and picture(2, 0.0) == picture(2, 0.12)


def test_a_saved_dream_goes_on(window: Window, tmp_path: Path) -> None:
    press(window, "right", "return")
    for _ in range(2):
        window.advance()
    press(window, "s", "escape")
    assert window.chooser is not None and window.chooser.tiles[-1].group == "Saved moments"
    window.advance()
    window.chooser.chosen = len(window.chooser.tiles) - 1
    press(window, "return")
    assert window.chooser is None and window.session.now.frames == 2
    again = Window(opener=window.opener, folders=window.folders)
    opening.choose(again)
    assert again.chooser is not None and again.chooser.tiles[-1].path.suffix == ".dream"
    again.chooser.chosen = len(again.chooser.tiles) - 1
    press(again, "return")
    assert again.name == "tiny" and again.session.now.frames == 2
    for path in tmp_path.glob("*/tiny.safetensors"):
        path.unlink()
    other = Window(opener=window.opener, folders=window.folders)
    opening.choose(other)
    assert other.chooser is not None and other.chooser.tile is not None
    other.chooser.chosen = len(other.chooser.tiles) - 1
    press(other, "return")
    assert "dreamt by tiny, which is not here" in other.chooser.tile.problem and not other.playing


def test_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gallery, "SHIPPED", tmp_path / "checkpoints")
    window = Window(folders=[tmp_path / "checkpoints"])
    opening.choose(window)
    assert window.chooser is not None and window.chooser.tile is None
    press(window, "right", "down", "return")
    assert window.running and not window.playing
    press(window, "escape")
    assert not window.running
    pygame.display.quit()
