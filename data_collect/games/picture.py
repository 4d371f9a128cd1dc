"""Whatever a game gives for a picture, as the frame that is recorded: uint8 (H, W, 3).

    read = PictureReader("render()")
    frame = read(env.render())
    entry = picture_entry(env.observation_space)        # where in an observation a picture is

A picture is RGB, RGBA (the alpha is dropped) or grey, (H, W), (H, W, 1) or with the colours first. Its values are
uint8, other integers from 0 to 255, booleans, or floats from 0 to 1 or to 255. PIL images and pygame surfaces count
too, and a list of pictures, whose last is the newest (Gymnasium's `rgb_array_list`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from data_collect.errors import UserError

COLOURS = (1, 3, 4)  # grey, RGB, RGBA
LIGHT = 2.0  # floats up to 1 may go this far above it where something shines; a screen cuts them at 1
STACK = 16  # at most so many frames in one observation
SMALL_SIDE = 32  # pixels: smaller than this, an observation may be a table of symbols
DARK = 32  # of 255: so may one without a value above this
SURELY = ("image", "rgb", "pixels", "screen", "frame", "pov", "camera")  # names of the picture among observations


class PictureReader:
    """Makes frames of what one game gives. `what` names that in the sentences of a `UserError`.

    Whether floats go to 1 or to 255 is said by `limit`, or else by the first picture that is not black, and holds from
    then on: a dark picture is not made brighter than the one before it.
    """

    def __init__(self, what: str, limit: float | None = None) -> None:
        self.what, self.limit = what, limit

    def __call__(self, given: Any) -> np.ndarray:
        """uint8 (H, W, 3). `UserError`: it is no picture; the sentence says what it is."""
        array = _array(given)
        coloured = None if array is None else _colours_last(array)
        if coloured is None:
            raise UserError(
                f"{self.what} gave {told(given)}, which is no picture: it must be an array (height, width, 3) of uint8"
            )
        pixels = self._bytes(coloured)
        if pixels.shape[2] < 3:
            pixels = pixels[:, :, :1].repeat(3, 2)
        return np.ascontiguousarray(pixels[:, :, :3])

    def _bytes(self, array: np.ndarray) -> np.ndarray:
        if array.dtype == np.uint8:
            return array
        if array.dtype == np.bool_:
            return array.astype(np.uint8) * np.uint8(255)
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 255):  # neither does what is not finite
            raise UserError(
                f"{self.what} gave {told(array)} with values from {low} to {high}: a picture has 0 to 255, or 0 to 1 "
                "as floats"
            )
        if array.dtype.kind in "iu":
            return array.astype(np.uint8)
        if self.limit is None and high > 0:
            self.limit = 1.0 if high <= LIGHT else 255.0
        if self.limit == 1.0 and high > LIGHT:
            raise UserError(f"{self.what} gave floats up to {high} after pictures with floats from 0 to 1")
        return np.rint(np.minimum(array.astype(np.float64) * (255.0 / (self.limit or 1.0)), 255.0)).astype(np.uint8)


def told(given: Any) -> str:
    """What something is, in a few words: its type, and the shape where it has one."""
    if given is None:
        return "None"
    if isinstance(given, np.ndarray):
        return f"{given.dtype} of shape {given.shape}"
    if isinstance(given, Mapping):
        return f"a dict of {', '.join(map(str, list(given)[:5])) or 'nothing'}"
    if isinstance(given, list | tuple):
        return f"a {type(given).__name__} of {len(given)}" + (f", {told(given[-1])} the last" if given else "")
    shape = getattr(given, "shape", None)
    return f"an object of type {type(given).__name__}" + (f" and shape {tuple(shape)}" if shape is not None else "")


def short(given: Any) -> str:
    """A value in a few words: itself where it is small, else as `told`."""
    return repr(given) if given is None or np.isscalar(given) else told(given)


def _array(given: Any) -> np.ndarray | None:
    """The numbers of a picture in whatever it comes; None where there are none."""
    if isinstance(given, list | tuple) and given and not isinstance(given[-1], list | tuple | int | float):
        return _array(given[-1])  # pictures one after the other
    if isinstance(given, Image.Image):
        return np.asarray(given.convert("RGB"))
    if type(given).__module__.startswith("pygame") and type(given).__name__ == "Surface":
        import pygame

        return pygame.surfarray.array3d(given).swapaxes(0, 1)
    if not isinstance(given, np.ndarray | list | tuple) and not hasattr(given, "__array__"):
        return None
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # of uneven rows, or on another device
        return None
    return array if array.dtype.kind in "buif" else None


def _colours_last(array: np.ndarray) -> np.ndarray | None:
    """(H, W, C), C = 1 to 4, of a picture however its axes lie; None where it is none."""
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in COLOURS:
        if array.shape[0] in COLOURS:
            array = array.transpose(1, 2, 0)
        elif array.shape[2] != 2:  # grey and its alpha
            return None
    if array.ndim == 2:
        array = array[:, :, None]
    return array if array.ndim == 3 and min(array.shape[:2]) > 1 else None


@dataclass(frozen=True)
class Entry:
    """Where the picture is in an observation: keys or numbers on the way to it.

    `newest` is the axis along which several lie, the newest last. `limit` is what its floats go to; `binary` pictures
    have 0 and 1. `plain`: the whole observation is an RGB picture of bytes.
    """

    path: tuple[Any, ...]
    newest: int | None
    limit: float | None
    binary: bool
    plain: bool

    def of(self, observation: Any) -> Any:
        for key in self.path:
            observation = observation[key]
        if self.newest is not None:
            observation = np.take(observation, -1, self.newest)
        return np.asarray(observation, np.bool_) if self.binary else observation

    def unstacked(self, observation: Any) -> Entry:
        """This entry; the last of four grey frames where this observation shows that the fourth colour is no alpha."""
        picture = self.of(observation)
        grey = (
            self.newest is None and picture.ndim == 3 and picture.shape[2] == 4 and len(np.unique(picture[..., 3])) > 1
        )
        return replace(self, newest=2) if grey else self


def picture_entry(space: spaces.Space) -> Entry | None:
    """Where a picture is in the observations of `space`: one that is called so, else the first; None without any."""
    found = list(_entries(space, ()))
    called = [entry for entry in found if any(word in str(entry.path[-1:]).lower() for word in SURELY)]
    return (called or found or [None])[0]


def looks_symbolic(picture: np.ndarray) -> bool:
    """Whether an RGB observation may be a table of symbols (MiniGrid's 7x7x3), by its size and its values."""
    return min(picture.shape[:2]) < SMALL_SIDE or 0 < picture.max() < DARK


def _entries(space: spaces.Space, path: tuple[Any, ...]) -> Any:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _entries(part, (*path, key))
    elif isinstance(space, spaces.Box) and space.dtype is not None:
        high = float(space.high.max()) if space.high.size else 0.0
        stack = _stacked(space.shape)
        shape = space.shape[1:] if stack else space.shape
        if high in (1.0, 255.0) and (space.low >= 0).all() and len(shape) in (2, 3) and min(shape[:2]) > 1:
            floats = space.dtype.kind == "f"
            plain = not path and space.dtype == np.uint8 and high == 255 and shape[2:] == (3,)
            yield Entry(path, 0 if stack else None, high if floats else None, high == 1 and not floats, plain)


def _stacked(shape: tuple[int, ...]) -> bool:
    """Whether frames lie behind each other, the newest last: (4, 84, 84), (4, 84, 84, 3)."""
    if len(shape) == 4:
        return True
    return len(shape) == 3 and shape[2] not in COLOURS and shape[0] not in (1, 3) and shape[0] <= STACK
