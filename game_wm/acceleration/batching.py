"""A batch of players: several dreams computed as one, which players join and leave while it goes on.

    batch = Batch(model)
    ann = batch.join(model.start(frames, actions, seed))
    outcomes = batch.step({ann: action})        # Outcome by player
    state = batch.leave(ann)                    # to be kept, or to join another batch

A frame of many players takes less time than as many frames of one. A player's frames do not depend on the others,
except for rounding (with int8, for the range that activations share).

Legend: B players, A action vector.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from game_wm.state import WorldState
from game_wm.world import Outcome, WorldModel


class Batch:
    """Players are named by numbers that are not given twice; `players` are those who are there, in order."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model
        self.players: list[int] = []
        self.state: WorldState | None = None
        self._next = 0

    def join(self, state: WorldState) -> int:
        """One more dream, of one player; ValueError for more than one, or a memory of another size."""
        if len(state) != 1:
            raise ValueError(f"one player joins at a time, not {len(state)}: join each slice of the state")
        if self.state is not None:
            new, old = ({k: v.shape[1:] for k, v in each.to_dict().items()} for each in (state, self.state))
            if new != old:
                raise ValueError("the states are not of one size: players of a memory that grows cannot share a batch")
        self.state = state.clone() if self.state is None else WorldState.cat((self.state, state))
        self.players.append(self._next)
        self._next += 1
        return self.players[-1]

    def leave(self, player: int) -> WorldState:
        """This player's dream as it is now; KeyError for somebody who is not there."""
        at = self._at(player)
        assert self.state is not None
        gone = self.state[at : at + 1]
        rest = [part for part in (self.state[:at], self.state[at + 1 :]) if len(part)]
        self.state = WorldState.cat(rest) if rest else None
        del self.players[at]
        return gone

    def view(self, player: int) -> WorldState:
        """This player's dream in place: until somebody joins or leaves, what changes there has changed here. KeyError
        for somebody who is not there."""
        at = self._at(player)
        assert self.state is not None
        return self.state.view(slice(at, at + 1))

    def step(self, actions: Mapping[int, Tensor], steps: int | None = None) -> dict[int, Outcome]:
        """One frame for everybody; `actions` holds a vector (A,) of each. KeyError where one is missing or too many."""
        for player in actions:
            self._at(player)
        if self.state is None:
            return {}
        action_BA = torch.stack([actions[player] for player in self.players])
        outcome, self.state = self.model.step(self.state, action_BA, steps)
        return {player: Outcome(*(x[i] for x in outcome)) for i, player in enumerate(self.players)}

    def _at(self, player: int) -> int:
        if player not in self.players:
            raise KeyError(f"player {player} is not in the batch, which has {self.players}")
        return self.players.index(player)
