"""Frames to the size that a model wants: cut to its aspect, averaged over areas."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_collect.errors import UserError

MULTIPLE = 8  # pixels of most latents
USUAL_MULTIPLE = 16  # latents are halved once more inside the network


def check_size(width: int, height: int) -> None:
    """Raise `UserError` unless both are multiples of 8, of 16 at least."""
    if min(width, height) < USUAL_MULTIPLE or width % MULTIPLE or height % MULTIPLE:
        raise UserError(
            f"a frame of {width}x{height} is not possible: width and height must be multiples of {MULTIPLE}, 16 or more"
        )


def default_size(width: int, height: int, short: int = 64, long: int = 256) -> tuple[int, int]:
    """(width, height) in proportion to a picture of that size: the short side `short`, the long one at most `long`."""
    scale = min(short / min(width, height), long / max(width, height))
    step = USUAL_MULTIPLE
    return tuple(max(step, step * round(side * scale / step)) for side in (width, height))  # type: ignore


def resize(frame: np.ndarray, width: int, height: int, cut: bool = False) -> np.ndarray:
    """uint8 (height, width, 3) from uint8 (H, W, 3), averaged over areas; `cut` keeps the middle at the new aspect."""
    rows, columns = frame.shape[:2]
    if (columns, rows) == (width, height):
        return frame.copy()  # a game may draw into the same array again
    box = None
    if cut:
        kept_columns, kept_rows = min(columns, rows * width / height), min(rows, columns * height / width)
        left, top = (columns - kept_columns) / 2, (rows - kept_rows) / 2
        box = (left, top, left + kept_columns, top + kept_rows)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX, box=box))
