"""Sprites of games that are known here: is the ball in the dream where the game has one?

find = finder("gym:ALE/Pong-v5")        # None for a game whose sprites nothing finds
places = find(frames)                   # name -> (B, 2), row and column in pixels, NaN where there is none
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from data_collect import games
from game_wm.evaluation.sprites import breakout, pong

Find = Callable[[Tensor], dict[str, Tensor]]
FINDERS: dict[str, Find] = {"Pong": pong.find, "Breakout": breakout.find}


def finder(game_id: str) -> Find | None:
    """What finds the sprites of this game, in frames uint8 (B, H, W, 3)."""
    name, _ = games.parse(game_id)
    return FINDERS.get(name.removeprefix("gym:ALE/").partition("-v")[0]) if name.startswith("gym:ALE/") else None
