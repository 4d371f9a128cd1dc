"""A gamepad and the mouse as keys that may be half down.

    pad = Gamepad(schema)
    pad.press(event, size)          # [("left", 0.4), ("right", 0.0)]: what changed, and how far it is down

The left stick and the directional pad are the arrow keys, the buttons the game's other keys in their order; of those
left, the fifth (a shoulder) runs time backwards and the eighth (start) pauses. Where actions are axes, the mouse is a
stick too as long as its left button is held: how far it is from the middle.
"""

from __future__ import annotations

from typing import Any

import pygame

from data_collect.schema import ActionSchema
from game_wm.ui import keymap

DEAD = 0.15  # of a stick's way that is nothing
STICK = {"left": "a", "right": "d", "up": "w", "down": "s"}  # arrows, and what stands for them where there are none
SPARE = {4: "rewind", 7: "pause"}  # commands of buttons that the game leaves free
MOUSE = 0.6  # of the way from the middle to the edge is all the way

Change = tuple[str, float]


class Gamepad:
    """Any gamepads that are plugged in, now or later."""

    def __init__(self, schema: ActionSchema) -> None:
        self.axes = schema.kind == "box"
        self.arrows = {arrow: arrow if arrow in schema.keys else other for arrow, other in STICK.items()}
        firsts = [keys[0] for keys, _ in keymap.game_keys(schema)]
        self.buttons = [key for key in firsts if key not in self.arrows.values()]
        self._plugged: list[Any] = []  # a pad is silent once nobody holds it
        pygame.joystick.init()

    def press(self, event: pygame.event.Event, size: tuple[int, int]) -> list[Change]:
        """The keys that an event moves, and how far down each is then; `size` is the window's."""
        if event.type == pygame.JOYDEVICEADDED:
            self._plugged.append(pygame.joystick.Joystick(event.device_index))
        elif event.type == pygame.JOYAXISMOTION and event.axis < 2:
            return self._stick(*(("left", "right") if event.axis == 0 else ("up", "down")), event.value)
        elif event.type == pygame.JOYHATMOTION:
            x, y = event.value
            return self._stick("left", "right", x) + self._stick("down", "up", y)
        elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button < len(self.buttons):
            return [(self.buttons[event.button], float(event.type == pygame.JOYBUTTONDOWN))]
        elif self.axes and event.type in (pygame.MOUSEMOTION, pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
            held = event.buttons[0] if event.type == pygame.MOUSEMOTION else event.button == 1
            if held:
                up = event.type == pygame.MOUSEBUTTONUP
                x, y = ((2 * at / side - 1) / MOUSE * (not up) for at, side in zip(event.pos, size))
                return self._stick("left", "right", x) + self._stick("up", "down", y)
        return []

    def command(self, event: pygame.event.Event) -> str | None:
        """The window's command that a button gives."""
        if event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button >= len(self.buttons):
            return SPARE.get(event.button)
        return None

    def _stick(self, less: str, more: str, value: float) -> list[Change]:
        value = max(-1.0, min(1.0, value))
        changes = []
        for arrow, way in ((less, -value), (more, value)):
            level = way if way > DEAD else 0.0
            # A button knows only up and down.
            changes.append((self.arrows[arrow], level if self.axes else float(level > 0.5)))
        return changes
