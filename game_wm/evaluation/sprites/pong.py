"""ALE's Pong: the ball, the player's paddle (right, green) and the opponent's (left, orange).

    places = find(frames)["ball"]        # (B, 2), row and column in pixels of the frame, NaN where there is none

Legend: B frames, H, W pixels.
"""

from __future__ import annotations

from torch import Tensor

from game_wm.evaluation.sprites.finder import Region, area, coverage, densest

GROUND = (144, 72, 17)
BALL, PLAYER, OPPONENT = (236, 236, 236), (92, 186, 92), (213, 130, 74)
COURT = Region(34, 194, 0, 160)
RIGHT, LEFT = Region(34, 194, 132, 152), Region(34, 194, 8, 28)  # where the paddles are, with room for a blur
LEAST, LEAST_PADDLE = 0.35, 0.15  # share of a sprite that must be there; paddles go half out of sight


def find(frames_BHWC: Tensor) -> dict[str, Tensor]:
    """Centres of the sprites (B, 2) in frames uint8 (B, H, W, 3) of any size."""
    height, width = frames_BHWC.shape[1:3]
    ball, player, opponent = coverage(frames_BHWC, GROUND, (BALL, PLAYER, OPPONENT)).unbind(-1)
    ball_area, paddle_area = area(4, 2, frames_BHWC), area(16, 4, frames_BHWC)
    paddle = (2 + round(16 * height / 210), 4)
    return {
        "ball": densest(ball * COURT.mask(height, width), (3, 3), LEAST * ball_area),
        "paddle": densest(player * RIGHT.mask(height, width), paddle, LEAST_PADDLE * paddle_area),
        "opponent": densest(opponent * LEFT.mask(height, width), paddle, LEAST_PADDLE * paddle_area),
    }
