"""Opening a window, or saying in a sentence why there is none and how to go on."""

from __future__ import annotations

import os
import sys
import warnings

import pygame

from data_collect.errors import UserError
from data_collect.players import sdl
from game_wm.play.window import paint
from game_wm.play.window.display import scaled_to_fit

SQUARE = (64, 64)  # a picture's height and width as long as they are not known
GALLERY = (3, 4)  # the proportions of a window that begins in the gallery
LARGEST_WINDOW = (1024, 768)
HIDDEN_DRIVERS = ("dummy", "offscreen")


def no_display() -> UserError:
    return UserError(
        "there is no display to open a window on: play without one (`--headless --frames 200 --video dream.mp4`), "
        "or set DISPLAY or WAYLAND_DISPLAY (over ssh: `ssh -X`)"
    )


def require_display() -> None:
    """`UserError` where no window can be opened, before anything is loaded."""
    if "SDL_VIDEODRIVER" in os.environ or not sys.platform.startswith(("linux", "freebsd", "openbsd", "netbsd")):
        return
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise no_display()


def caption(name: str) -> str:
    return f"{name} – game_wm" if name else "game_wm"


def open_screen(name: str, shape: tuple[int, int] = SQUARE) -> pygame.Surface:
    """A resizable window's surface, in the proportions of a picture (H, W); `UserError` without a display."""
    require_display()
    try:
        driver = sdl.connect()
    except pygame.error:
        raise no_display() from None
    if driver in HIDDEN_DRIVERS and "SDL_VIDEODRIVER" not in os.environ:
        pygame.display.quit()
        raise no_display()
    pygame.display.set_caption(caption(name))
    pygame.display.set_icon(paint.icon())
    try:
        return pygame.display.set_mode(first_size(shape), pygame.RESIZABLE)
    except pygame.error as error:
        pygame.display.quit()
        raise UserError(f"no window can be opened ({error}); play without one: --headless --frames 200") from None


def fit(surface: pygame.Surface, shape: tuple[int, ...]) -> pygame.Surface:
    """The window in the proportions of a picture (H, W), unless the user has resized it already."""
    size = first_size(shape)
    if surface.get_size() == first_size(SQUARE) != size:
        return pygame.display.set_mode(size, pygame.RESIZABLE)
    return surface


def first_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """The window's first size for pictures (H, W): enlarged to 768 pixels or what the desktop has room for."""
    desktop = pygame.display.get_desktop_sizes()[0]
    room = (min(LARGEST_WINDOW[0], int(desktop[0] * 0.9)), min(LARGEST_WINDOW[1], int(desktop[1] * 0.85)))
    return scaled_to_fit((shape[1], shape[0]), room).size


def full(surface: pygame.Surface, windowed: tuple[int, int] | None) -> tuple[pygame.Surface, tuple[int, int] | None]:
    """To full screen, or back to a window of the size `windowed`; the surface, and the size to come back to."""
    if windowed is not None:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            pygame.display.set_mode(windowed, pygame.RESIZABLE)  # on X11 it leaves full screen, but keeps its size
        return pygame.display.set_mode(windowed, pygame.RESIZABLE), None
    size = surface.get_size()
    return pygame.display.set_mode((0, 0), pygame.FULLSCREEN), size
