"""What events mean: the game's keys go to the keyboard of the session, the others are the window's commands.

keys = Keys(session)
command = keys.hear(event, at, size)        # "pause", or None
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pygame

from data_collect.places import SCANCODES
from game_wm.play import keymap
from game_wm.play.window.gamepad import Gamepad

if TYPE_CHECKING:
    from game_wm.play.session import Session


class Keys:
    """Keyboard, gamepads and mouse of one session."""

    def __init__(self, session: Session) -> None:
        self.session, self.pad = session, Gamepad(session.schema)
        self.rewinding = False  # whether a key or a button for it is held
        self._commands = keymap.command_keys(session.schema, session.commands)
        self._down: dict[int, tuple[str | None, str | None]] = {}  # keys that are held -> what they stood for

    def hear(self, event: pygame.event.Event, at: float, size: tuple[int, int], play: bool = True) -> str | None:
        """An event of time `at`, in a window of this size, moves keys of the game; the window's command that it gives.

        Without `play` only keys that come up count: the others are the gallery's.
        """
        keyboard, given = self.session.controls.keyboard, None
        if event.type == pygame.KEYUP:
            key, command = self._down.pop(_which(event), (None, None))
            if key is not None and (key, None) not in self._down.values():
                keyboard.release(key, at)
            if command == "rewind":
                self.rewinding = False
        elif event.type == pygame.KEYDOWN and play:
            key, given = self.meant(event)
            self._down[_which(event)] = key, given
            if key is not None:
                keyboard.press(key, at)
        elif event.type == pygame.WINDOWFOCUSLOST and play:
            self._down.clear()  # their KEYUP goes to another window
            self.release_all()
            self.rewinding = False
        if not play:
            return None
        if command := self.pad.command(event):
            if event.type == pygame.JOYBUTTONDOWN:
                given = command
            elif command == "rewind":
                self.rewinding = False
        for key, level in self.pad.press(event, size):
            keyboard.move(key, at, level)
        return given

    def meant(self, event: pygame.event.Event) -> tuple[str | None, str | None]:
        name, place = pygame.key.name(event.key), SCANCODES.get(getattr(event, "scancode", 0))
        ctrl = bool(getattr(event, "mod", 0) & pygame.KMOD_CTRL)
        return keymap.meant(self.session.schema, self._commands, name, place, ctrl)

    def release_all(self) -> None:
        self.session.controls.keyboard.release_all()
        self.pad.release_all()


def _which(event: pygame.event.Event) -> int:
    """A number of the key itself, which stays the same when the layout or Shift changes what it types."""
    scancode = getattr(event, "scancode", 0)
    return -scancode if scancode else event.key
