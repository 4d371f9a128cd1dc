"""What a program reads of keyboard, mouse and joystick, from what is held.

    inputs = Inputs()
    install(inputs)                                 # pygame.key, pygame.mouse, pygame.joystick now tell it
    inputs.hold({"left": 1.0, "mouse x": -0.5}, (320, 240))     # posts the events of what is new

A key counts as held from 0.5 on. The mouse's place is from -1 (left, top) to 1 of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pygame

from data_collect.places import SCANCODES
from data_collect.program.clock import MILLI, Clock, post, put

CODES = {pygame.key.name(getattr(pygame, name)): getattr(pygame, name) for name in dir(pygame) if name.startswith("K_")}
NUMBERS = {place: number for number, place in SCANCODES.items()} | {
    "return": 40, "escape": 41, "backspace": 42, "tab": 43, "space": 44, "delete": 76,
}  # fmt: skip
MODIFIERS = {
    "left shift": pygame.KMOD_LSHIFT, "right shift": pygame.KMOD_RSHIFT, "left ctrl": pygame.KMOD_LCTRL,
    "right ctrl": pygame.KMOD_RCTRL, "left alt": pygame.KMOD_LALT, "right alt": pygame.KMOD_RALT,
}  # fmt: skip
TYPED = {"space": " ", "return": "\r", "tab": "\t", "backspace": "\b"}
CLICKS = {"mouse left": 1, "mouse middle": 2, "mouse right": 3}
PLACE, STICK = ("mouse x", "mouse y"), ("stick x", "stick y")
BUTTONS = tuple(f"button {i}" for i in range(4))


def scancode(key: str) -> int:
    """SDL's number of a key's place; keys that type nothing have it in their code."""
    return NUMBERS.get(key, CODES[key] & 511)


class Inputs:
    """What is held, and the states that pygame's functions tell of it. `joystick`: whether one is plugged in."""

    def __init__(self, clock: Clock, joystick: bool) -> None:
        self.clock, self.joystick = clock, joystick
        self.held: dict[str, float] = {}
        self.place: tuple[int, int] | None = None
        self.told_place = (0, 0)  # at the last `get_rel`
        self.news: tuple[set[str], set[str]] = (set(), set())  # pressed and released, since the events were read
        self.fresh: tuple[set[str], set[str]] = (set(), set())  # the same, as told between two readings
        self.repeat = (0, 0)  # milliseconds until a held key repeats, and between
        self.again: tuple[str, int] | None = None  # the key that repeats, and when

    def hold(self, values: Mapping[str, float], size: tuple[int, int]) -> None:
        """From now on this is held; events tell of all that changed."""
        self._move(values, size)
        for name, value in values.items():
            before, self.held[name] = self.held.get(name, 0.0), value
            down = value >= 0.5
            if name in STICK:
                if value != before:
                    self._post(pygame.JOYAXISMOTION, joy=0, instance_id=0, axis=STICK.index(name), value=value)
            elif down != (before >= 0.5) and name not in PLACE:
                self.news[not down].add(name)
                self._press(name, down)

    def _move(self, values: Mapping[str, float], size: tuple[int, int]) -> None:
        before = self.place or (size[0] // 2, size[1] // 2)
        x, y = (values.get(axis) for axis in PLACE)
        self.place = before if x is None or y is None else (_pixel(x, size[0]), _pixel(y, size[1]))
        if self.place != before:
            moved = (self.place[0] - before[0], self.place[1] - before[1])
            self._post(pygame.MOUSEMOTION, pos=self.place, rel=moved, buttons=self.buttons(), touch=False)

    def _press(self, name: str, down: bool) -> None:
        if name in CLICKS:
            kind = pygame.MOUSEBUTTONDOWN if down else pygame.MOUSEBUTTONUP
            self._post(kind, pos=self.place, button=CLICKS[name], touch=False)
        elif name in BUTTONS:
            kind = pygame.JOYBUTTONDOWN if down else pygame.JOYBUTTONUP
            self._post(kind, joy=0, instance_id=0, button=BUTTONS.index(name))
        else:
            self._key(name, down)
            self.again = (name, self.clock.now + self.repeat[0] * MILLI) if down else None

    def _key(self, name: str, down: bool) -> None:
        mods = self.modifiers()
        text = TYPED.get(name, name if len(name) == 1 else "")
        text = text.upper() if mods & pygame.KMOD_SHIFT else text
        about = {"key": CODES[name], "mod": mods, "unicode": text, "scancode": scancode(name)}
        self._post(pygame.KEYDOWN if down else pygame.KEYUP, **about)
        if down and text.isprintable() and text:
            self._post(pygame.TEXTINPUT, text=text)

    def _post(self, kind: int, **about: Any) -> None:
        post(pygame.event.Event(kind, about))

    def reading(self) -> None:
        """The program reads its events now."""
        self.fresh, self.news = self.news, (set(), set())
        if self.again and self.repeat[0] and self.clock.now >= self.again[1]:
            self.again = (self.again[0], self.clock.now + max(1, self.repeat[1]) * MILLI)
            self._key(self.again[0], True)

    def modifiers(self) -> int:
        return sum(mod for key, mod in MODIFIERS.items() if self.held.get(key, 0.0) >= 0.5)

    def keys(self) -> Any:
        return pressed(key for key, value in self.held.items() if value >= 0.5)

    def buttons(self, num_buttons: int = 3) -> tuple[bool, ...]:
        clicks = tuple(self.held.get(name, 0.0) >= 0.5 for name in CLICKS)
        return (*clicks, False, False)[:num_buttons]

    def moved(self) -> tuple[int, int]:
        """How far the mouse moved since this was asked last."""
        place, before = self.place or (0, 0), self.told_place
        self.told_place = place
        return place[0] - before[0], place[1] - before[1]

    def move(self, *place: Any) -> None:
        """The program puts the mouse somewhere."""
        x, y = place if len(place) == 2 else place[0]
        self.place = (int(x), int(y))


def _pixel(place: float, side: int) -> int:
    return round((place + 1) / 2 * (side - 1))


def pressed(names: Any) -> Any:
    """pygame's state of the keyboard with these keys down."""
    down = {scancode(name) for name in names if name in CODES}
    return pygame.key.ScancodeWrapper(tuple(number in down for number in range(512)))


def install(inputs: Inputs) -> None:
    """Have pygame's functions tell of these inputs."""
    key, mouse = pygame.key, pygame.mouse
    # A window that nobody sees has no focus, and some programs pause without.
    functions: dict[Any, dict[str, Any]] = {
        key: {
            "get_pressed": inputs.keys, "get_mods": inputs.modifiers, "get_focused": lambda: True,
            "get_just_pressed": lambda: pressed(inputs.fresh[0]), "get_just_released": lambda: pressed(inputs.fresh[1]),
            "set_repeat": lambda delay=0, interval=0: setattr(inputs, "repeat", (delay, interval or delay)),
            "get_repeat": lambda: inputs.repeat,
        },
        mouse: {
            "get_pos": lambda *_, **__: inputs.place or (0, 0), "get_pressed": inputs.buttons, "get_rel": inputs.moved,
            "set_pos": inputs.move, "get_focused": lambda: True,
            "get_just_pressed": lambda: tuple(name in inputs.fresh[0] for name in CLICKS),
            "get_just_released": lambda: tuple(name in inputs.fresh[1] for name in CLICKS),
        },
    }  # fmt: skip
    if inputs.joystick:
        functions[pygame.joystick] = {
            "get_count": lambda: 1, "get_init": lambda: True, "Joystick": lambda *_: stick(inputs),
        }  # fmt: skip
    for module, replacements in functions.items():
        put(module, **replacements)


def stick(inputs: Inputs) -> Any:
    """What stands for a `pygame.joystick.Joystick`, which has two axes and four buttons."""
    value = lambda names, i: inputs.held.get(names[i], 0.0) if i < len(names) else 0.0  # noqa: E731
    fixed = {"get_id": 0, "get_instance_id": 0, "get_name": "joystick", "get_guid": "0" * 32, "get_init": True,
             "get_numaxes": len(STICK), "get_numbuttons": len(BUTTONS), "get_numhats": 0, "get_numballs": 0,
             "init": None, "quit": None, "rumble": False, "stop_rumble": None, "get_hat": (0, 0),
             "get_power_level": "wired"}  # fmt: skip
    methods: dict[str, Any] = {name: (lambda *_, answer=answer: answer) for name, answer in fixed.items()}
    methods["get_axis"] = lambda _, i: value(STICK, i)
    methods["get_button"] = lambda _, i: value(BUTTONS, i) >= 0.5
    return type("Joystick", (), methods)()
