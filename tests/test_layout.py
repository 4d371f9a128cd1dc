"""What the window shows, at every size: no text leaves the window or its panel, covers another or is too small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

os.environ["SDL_VIDEODRIVER"] = "dummy"

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from tiny import tiny_checkpoint  # noqa: E402

from game_wm.checkpoint import Checkpoint, load  # noqa: E402
from game_wm.memory.protocol import NEVER  # noqa: E402
from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import chooser, display, help, overlays, paint, window  # noqa: E402

pytestmark = pytest.mark.slow

SIZES = [
    (1920, 1080),
    (1024, 768),
    (960, 720),
    (640, 480),
    (480, 480),
    (480, 360),
    (480, 800),
    (320, 240),
    (90, 60),
    (40, 30),
]
READABLE = 12  # pixels of a letter's height, with what is above and below it


class Seen:
    """What is put on what: `leaves` are words and key caps, `outside` what leaves the surface that it is put on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.kept: list[Any] = []  # or another surface might get the same id
        self.words: dict[int, str] = {}
        self.inside: dict[int, list[tuple[Any, Any]]] = {}
        self.outside: list[str] = []
        self.sizes: list[int] = []
        text, cap, put = paint.text, paint.cap, paint.put

        def seen_text(words: str, size: int, *rest: Any, **options: Any) -> Any:
            return self._note(text(words, size, *rest, **options), words, size)

        def seen_cap(label: str, size: int, *rest: Any) -> Any:
            return self._note(cap(label, size, *rest), f"[{label}]", size)

        def seen_put(target: Any, image: Any, *rest: Any, **options: Any) -> Any:
            where = put(target, image, *rest, **options)
            self.kept += [target, image]
            self.inside.setdefault(id(target), []).append((image, where))
            if not target.get_rect().contains(where):
                self.outside.append(f"{self.words.get(id(image), 'a panel')}: {where} in {target.get_size()}")
            return where

        for module in (paint, display, overlays, chooser, help):
            for name, function in (("text", seen_text), ("put", seen_put)):
                if hasattr(module, name):
                    patch.setattr(module, name, function)
        patch.setattr(paint, "cap", seen_cap)

    def _note(self, image: Any, words: str, size: int) -> Any:
        self.kept.append(image)
        self.words[id(image)] = words
        self.sizes.append(size)
        return image

    def begin(self) -> None:
        """Forget: another picture is drawn."""
        self.inside.clear()
        self.outside.clear()
        self.sizes.clear()

    def leaves(self, target: Any, x: int = 0, y: int = 0) -> Iterator[tuple[str, Any]]:
        """Words and where they are, panels looked into."""
        for image, where in self.inside.get(id(target), []):
            if id(image) in self.words:
                yield self.words[id(image)], where.move(x, y)
            else:
                yield from self.leaves(image, x + where.x, y + where.y)

    def check(self, target: Any) -> list[str]:
        """The words that are there, if all of them can be read."""
        found = list(self.leaves(target))
        assert not self.outside
        for i, (words, where) in enumerate(found):
            assert target.get_rect().contains(where), (words, where)
            others = [other for other, there in found[i + 1 :] if where.colliderect(there)]
            assert not others, f"{words!r} and {others} at {where}"
        assert not self.sizes or min(self.sizes) >= READABLE
        return [words for words, _ in found]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(
        tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", prompt=12, recall=True, endless=True)
    )


@pytest.fixture(params=["a few keys", "many keys and long names"])
def shown(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[window.Window, Seen]]:
    """A window in which somebody has played for a while."""
    monkeypatch.setattr(folder, "FOLDER", tmp_path)
    if request.param != "a few keys":
        keys = dict(zip("wsijklm", (*checkpoint.schema.names, *checkpoint.schema.names)))
        schema = replace(checkpoint.schema, keys={**checkpoint.schema.keys, **keys})
        checkpoint = replace(checkpoint, schema=schema, name="a-model-of-" + "long-names-" * 9)
    assert checkpoint.path is not None
    seen = Seen(monkeypatch)
    made = window.Window("tiny", lambda report: Session(checkpoint), None, [checkpoint.path.parent])
    made.load()
    made.begin()
    for _ in range(8):
        made.advance()
    made.session.latencies.add(0.034)
    yield made, seen
    pygame.display.quit()


def at(size: tuple[int, int], shown: tuple[window.Window, Seen], words: str = "") -> list[str]:
    """The words in a window of this size, while these pass."""
    made, seen = shown
    made.surface = pygame.display.set_mode(size, pygame.RESIZABLE)
    seen.begin()
    made.hint = ""
    if words:
        made.say(words)
    made.figures.refresh()
    made.draw()
    return seen.check(made.surface)


def test_play_can_be_read(shown: tuple[window.Window, Seen], tmp_path: Path) -> None:
    made, _ = shown
    session, moment = made.session, made.session.dream.moment
    long = (
        "the disk is full while writing recordings/a-model-20260101-120000-data/shard-000001-0000.tar: free some space"
    )
    for size in SIZES:
        found = at(size, shown)
        if size[0] >= 480:
            assert f"place 1 of {session.scene.contexts}" in found and any(words.startswith("score") for words in found)
        assert any("shows the keys" in words for words in at(size, shown, "H shows the keys")) or size[0] < 100, size
        at(size, shown, long)
        session.dream.moment = replace(moment, termination=1.0)
        assert "The episode has ended" in at(size, shown) or size[0] < 480, size
        session.dream.moment = moment
    session.record(tmp_path / "film.mp4")
    session.record_data(tmp_path / "data")
    session.take_over("random")
    session.paused = True
    for size in SIZES:
        found = at(size, shown)
        states = {"filming 0:00", "recording data, 0 steps", "paused", "random plays"}
        assert states <= set(found) or size[0] < 480, size
    session.stop_recording()
    session.stop_data()


def test_the_keys_can_be_read_all_of_them(shown: tuple[window.Window, Seen]) -> None:
    made, _ = shown
    for size in SIZES:
        found = set[str]()
        made.commands.help()
        for _ in range(30):
            found |= set(at(size, shown))
            made.commands.help()
            if not made.help:
                break
        if size[0] >= 480:
            assert not made.help
            assert {command.text for command in made.session.commands} <= found, size
            assert {"forward", "back", "turn left", "turn right"} <= found
        made.help = False


def test_panels_can_be_read(shown: tuple[window.Window, Seen]) -> None:
    made, _ = shown
    made.session.scene.inspect = made.latents = made.graph = True
    made.advance()
    remembered = made.session.dream.remembered
    assert remembered is not None and len(remembered.ages)
    for size in SIZES:
        found = at(size, shown)
        if size[0] >= 480:
            assert {"memory", "latents"} <= set(found) and any(words.endswith(" s ago") for words in found), size
        at(size, shown, "no further back: the episode began here, or memory of it ends")
    made.hud = False
    for size in SIZES:
        assert "memory" in at(size, shown) or size[0] < 320, size
    made.session.dream.remembered = remembered._replace(ages=torch.full_like(remembered.ages, NEVER))
    assert {"memory", "before"} <= set(at((480, 360), shown))


def test_real_game_and_dream_can_be_read(shown: tuple[window.Window, Seen]) -> None:
    made, _ = shown
    made.session.show("both")
    made.advance()
    for size in SIZES:
        assert {"real game", "dream"} <= set(at(size, shown, "H shows the keys")) or size[0] < 480, size


def test_what_to_play_can_be_read(shown: tuple[window.Window, Seen]) -> None:
    made, seen = shown
    if made.session.checkpoint.name == "tiny":
        made.commands.save()
    made.commands.open()
    for size in SIZES:
        assert {"What to play", "playing"} <= set(at(size, shown)) or size[0] < 480, size
        assert made.chooser is not None and made.chooser.tile is not None
        made.chooser.loading = "Looking at the first frames", 0.5
        assert "Looking at the first frames" in at(size, shown) or size[0] < 480, size
        made.chooser.loading, made.chooser.tile.problem = None, "it.safetensors is not a whole checkpoint: copy it."
        assert any(words.startswith("it.saf") for words in at(size, shown)) or size[0] < 480, size
        made.chooser.tile.problem = ""
        seen.begin()
        display.loading(made.surface, made.session.checkpoint.name, "Looking at the first frames", 0.5)
        seen.check(made.surface)
