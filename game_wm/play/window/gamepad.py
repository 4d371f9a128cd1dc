"""A gamepad and the mouse as keys that may be half down.

    pad = Gamepad(schema)
    pad.press(event, size)          # [("left", 0.4), ("right", 0.0)]: what changed, and how far it is down

The left stick and the directional pad are the arrow keys, the buttons the game's other keys in their order; of those
left, the fifth (a shoulder) runs time backwards, the seventh (back) shows the gallery and the eighth (start) pauses.
Where actions are axes, the mouse is a stick too as long as its left button is held: how far it is from the middle.
"""

from __future__ import annotations

from typing import Any

import pygame

from data_collect.schema import ActionSchema
from game_wm.play import keymap

DEAD = 0.15  # of a stick's way that is nothing
STICK = {"left": "a", "right": "d", "up": "w", "down": "s"}  # arrows, and what stands for them where there are none
SPARE = {4: "rewind", 6: "quit", 7: "pause"}  # commands of buttons that the game leaves free
MOUSE = 0.6  # of the way from the middle to the edge is all the way

Change = tuple[str, float]


def plugged() -> list[Any]:
    """The gamepads that are there: one falls silent when its object is gone, and only those plugged in later send an
    event."""
    pygame.joystick.init()
    return [pygame.joystick.Joystick(i) for i in range(pygame.joystick.get_count())]


class Gamepad:
    """Any gamepads that are plugged in, now or later."""

    def __init__(self, schema: ActionSchema) -> None:
        self.axes = schema.kind == "box"
        self.arrows = {arrow: arrow if arrow in schema.keys else other for arrow, other in STICK.items()}
        firsts = [keys[0] for keys, _ in keymap.game_keys(schema)]
        self.buttons = [key for key in firsts if key not in self.arrows.values()]
        self._levels: dict[tuple[str, str], float] = {}  # how far each stick holds each key down

    def press(self, event: pygame.event.Event, size: tuple[int, int]) -> list[Change]:
        """The keys that an event moves, and how far down each is then; `size` is the window's."""
        if event.type == pygame.JOYAXISMOTION and event.axis < 2:
            return self._stick("stick", *(("left", "right") if event.axis == 0 else ("up", "down")), event.value)
        elif event.type == pygame.JOYHATMOTION:
            x, y = event.value
            return self._stick("pad", "left", "right", x) + self._stick("pad", "down", "up", y)
        elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button < len(self.buttons):
            return [(self.buttons[event.button], float(event.type == pygame.JOYBUTTONDOWN))]
        elif self.axes and event.type in (pygame.MOUSEMOTION, pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
            held = event.buttons[0] if event.type == pygame.MOUSEMOTION else event.button == 1
            if held:
                up = event.type == pygame.MOUSEBUTTONUP
                x, y = ((2 * at / side - 1) / MOUSE * (not up) for at, side in zip(event.pos, size))
                return self._stick("mouse", "left", "right", x) + self._stick("mouse", "up", "down", y)
        return []

    def command(self, event: pygame.event.Event) -> str | None:
        if event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button >= len(self.buttons):
            return SPARE.get(event.button)
        return None

    def release_all(self) -> None:
        """What is held from now on counts anew: the keyboard has let go of everything."""
        self._levels.clear()

    def _stick(self, source: str, less: str, more: str, value: float) -> list[Change]:
        """What changes; a stick that trembles where it stands leaves the keys to the keyboard."""
        value = max(-1.0, min(1.0, value))
        changes = []
        for arrow, way in ((less, -value), (more, value)):
            level = way if way > DEAD else 0.0
            # A button knows only up and down.
            level = level if self.axes else float(level > 0.5)
            if self._levels.get((source, arrow), 0.0) != level:
                self._levels[source, arrow] = level
                changes.append((self.arrows[arrow], level))
        return changes
