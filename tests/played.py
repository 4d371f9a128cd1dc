"""Games of this process that are played as guests are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_collect.guest.match import Leg, Match, Steps


class Played:
    """For a `gymnasium.Env` with `action_schema`: what an evaluation asks of a guest."""

    _match: Match | None = None

    def play(self: Any, legs: Sequence[Leg], env_seed: int | None = None) -> Steps:
        self._match = self._match or Match(self)
        return self._match.play(legs, env_seed)
