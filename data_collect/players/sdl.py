"""SDL's connection to the display, for whoever opens a window."""

from __future__ import annotations

import os


def connect() -> str:
    """The name of the driver that it goes through. Raises pygame.error without one.

    On X11 a plain picture is drawn without GL, unless SDL_FRAMEBUFFER_ACCELERATION says otherwise: GL brings a library
    of its own size into the process (Mesa's LLVM) and nothing that is seen. On Wayland SDL has no other way.
    """
    import pygame

    pygame.display.init()
    driver = pygame.display.get_driver()
    if driver == "x11":
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    return driver
