"""Where something moves: the pixels of a frame that differ from its episode's median picture.

    mask = moving(frames, median_picture(episode))

Legend: B frames, T frames of an episode, H, W pixels.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

MOVED = 24  # grey levels of 256 between a pixel and its episode's median picture where something moves
MEDIAN_FRAMES = 64  # of an episode, evenly spread: its median picture is theirs


def median_picture(frames_THWC: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): what stays where it is, each pixel's median over an episode."""
    chosen = np.linspace(0, len(frames_THWC) - 1, min(MEDIAN_FRAMES, len(frames_THWC))).astype(np.int64)
    return np.median(frames_THWC[chosen], axis=0).astype(np.uint8)


def moving(frames_BHWC: Tensor, medians_BHWC: Tensor) -> Tensor:
    """Bool (B, H, W): where frames differ from the median pictures of their episodes, by more than `MOVED` in any
    colour."""
    return (frames_BHWC.short() - medians_BHWC.short()).abs().amax(-1) > MOVED
