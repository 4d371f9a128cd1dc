"""Keys by their names and by their places."""

from __future__ import annotations

import numpy as np
import pytest

from data_collect.schema import ActionSchema
from game_wm.play import keymap

pygame = pytest.importorskip("pygame")

GAME, COMMANDS = {"w", "a", "s", "d", "up"}, {"z", "q", "h", "n", "o", "ctrl+s"}


@pytest.mark.parametrize(
    ("key", "place", "stands_for"),
    [
        ("w", "w", "w"), ("n", "n", "n"), ("up", None, "up"),
        ("ц", "w", "w"), ("ф", "a", "a"), ("р", "h", "h"),  # Russian
        ("z", "w", "w"), ("q", "a", "a"), ("a", "q", "a"), ("a", "d", "d"),  # French; a letter of the game elsewhere
        (",", "w", "w"), ("o", "s", "s"), ("e", "d", "d"),  # Dvorak
        ("n", "l", "n"), ("щ", "o", "o"), ("ж", ";", "ж"), ("ё", "`", "ё"),
    ],
)  # fmt: skip
def test_a_key_is_known_by_its_name_or_its_place(key: str, place: str | None, stands_for: str) -> None:
    assert keymap.resolve(key, place, GAME, COMMANDS) == stands_for


def test_places_are_those_of_sdl() -> None:
    assert len(keymap.SCANCODES) == len(keymap.CODES) == 26 + 10 + 11
    assert list(keymap.CODES.values()) == list(keymap.SCANCODES.values())
    names = {
        "-": "MINUS", "=": "EQUALS", "[": "LEFTBRACKET", "]": "RIGHTBRACKET", "\\": "BACKSLASH", ";": "SEMICOLON",
        "'": "APOSTROPHE", "`": "GRAVE", ",": "COMMA", ".": "PERIOD", "/": "SLASH",
    }  # fmt: skip
    for scancode, key in keymap.SCANCODES.items():
        assert getattr(pygame, f"KSCAN_{names.get(key, key.upper())}") == scancode


@pytest.mark.parametrize("letters", ["wd", "zd", "цв"])
def test_who_plays_a_recording_walks_by_the_same_places(letters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_collect.players import Human, Quit

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    schema = ActionSchema("multibinary", ("forward", "right"), keys={"w": "forward", "d": "right"}, fps=500)
    player, frame = Human(schema), np.zeros((16, 16, 3), np.uint8)
    player.reset(None, frame, {})
    for letter, scancode, done in zip(letters, (pygame.KSCAN_W, pygame.KSCAN_D), ([1, 0], [0, 1])):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ord(letter), scancode=scancode))
        assert player.act(frame, {}).tolist() == done
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=ord(letter), scancode=scancode))
        assert player.act(frame, {}).tolist() == [0, 0]
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
    with pytest.raises(Quit):
        player.act(frame, {})
    pygame.display.quit()
