"""A model that dreams by playing the true game, for tests of what is measured; its tokenizer loses nothing.

class Fake(TrueGame): ...      # says which game, and what of it is dreamt; wants the fixture `in_32_bits`
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from game_wm.world import Outcome

SIZE = 32  # pixels of a side


@dataclass
class Playing:
    """The dreams of some players: their games, and the frames that are shown."""

    games: list[Any]
    frames: Tensor

    def clone(self) -> Playing:
        return copy.deepcopy(self)


class TrueGame(nn.Module):
    """Dreams what the game does; with `frozen`, shows the last frame for ever."""

    height = width = SIZE
    window, steps, low_precision, quantised, compiled = 4, 1, False, False, False
    config = SimpleNamespace(dynamics=SimpleNamespace(tokens=7))
    frozen = False

    def game(self, seed: int, last: np.ndarray) -> Any:
        """The game of this seed, where its last frame, uint8 (H, W, 3), shows it to be."""
        raise NotImplementedError

    def encode(self, frames: Tensor, before: Tensor | None = None) -> Tensor:
        return frames.permute(0, 3, 1, 2).float()

    def decode(self, latents: Tensor, before: Tensor | None = None) -> Tensor:
        return latents.permute(0, 2, 3, 1).to(torch.uint8)

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor, poses: Tensor | None = None) -> Playing:
        assert actions.shape[:2] == (frames.shape[0], frames.shape[1] - 1)
        games = []
        for seed, last in zip(seeds.tolist(), frames[:, -1].numpy(), strict=True):
            games.append(self.game(seed, last))
            assert np.array_equal(games[-1].frame(), last)
        return Playing(games, frames[:, -1].clone())

    def step(self, state: Playing, action: Tensor, steps: int | None = None) -> tuple[Outcome, Playing]:
        rewards = ended = torch.zeros(len(action))
        if not self.frozen:
            results = [game.step(a) for game, a in zip(state.games, action.numpy(), strict=True)]
            state.frames = torch.from_numpy(np.stack([result[0] for result in results]))
            rewards, ended = (torch.tensor([float(result[i]) for result in results]) for i in (1, 2))
        return Outcome(state.frames, rewards, ended), state
