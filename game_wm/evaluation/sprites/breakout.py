"""ALE's Breakout: the ball where nothing is beside it, and the paddle.

    places = find(frames)["ball"]        # (B, 2), row and column in pixels of the frame, NaN where there is none

Among the bricks, which have its colour, and right at them or at the paddle the ball is not looked for.

Legend: B frames, H, W pixels.
"""

from __future__ import annotations

from torch import Tensor

from game_wm.evaluation.sprites.finder import Region, area, coverage, densest

GROUND, RED, WALL = (0, 0, 0), (200, 72, 72), (142, 142, 142)
LEFT, RIGHT = 7.5, 152.5  # the walls, and a pixel's rest beyond them
BELOW, ABOVE = Region(96, 186, LEFT, RIGHT), Region(32, 54, LEFT, RIGHT)  # the bricks
FLOOR = Region(186, 197, LEFT, RIGHT)
LEAST, LEAST_PADDLE = 0.35, 0.15  # share of a sprite that must be there; the paddle goes half out of sight


def find(frames_BHWC: Tensor) -> dict[str, Tensor]:
    """Centres of the sprites (B, 2) in frames uint8 (B, H, W, 3) of any size."""
    height, width = frames_BHWC.shape[1:3]
    red = coverage(frames_BHWC, GROUND, (RED, WALL))[..., 0]
    free = BELOW.mask(height, width) | ABOVE.mask(height, width)
    return {
        "ball": densest(red * free, (3, 3), LEAST * area(4, 2, frames_BHWC)),
        "paddle": densest(
            red * FLOOR.mask(height, width), (3, 2 + round(16 * width / 160)), LEAST_PADDLE * area(4, 16, frames_BHWC)
        ),
    }
