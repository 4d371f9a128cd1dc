"""Where an action leads the screen: one of the steps that the recording knows, by the action, the last steps and what
the last picture shows around the player.

A choice among steps is exact where a regression is not: the step there and the step back add up to nothing, and a wall
stops the player or does not. In a game whose screen goes a fraction of a pixel a frame, pictures show now one step and
now the next, and the mean of the two is taken. `train/scroll/` finds the steps and trains the choice, without labels.

Legend: B players, K candidate steps, A action vector, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.scroll.registration import REACH

BEFORE = 2  # steps, with their actions, that tell the next one
FINEST = 1 / 16  # pixels: a power of two
CERTAIN = 1 / 8  # pixels: a mean so near to the likeliest step is that step
CELL = 4  # pixels along the side of what the network reads as one place


@dataclass(frozen=True)
class ScrollConfig:
    """Sizes of the memory: `height`, `width` of the screen, `actions` (length of an encoded one), `slots` for tiles,
    `candidates` for a step, and the `hidden` width of the network that chooses one. `axes`, where poses tell where the
    screen is: by how many pixels it goes down for each unit of x and of y, and by how many to the right. `fractions`:
    whether the screen goes fractions of a pixel."""

    height: int = 64
    width: int = 64
    actions: int = 4
    slots: int = 4096
    candidates: int = 64
    hidden: int = 64
    axes: tuple[float, ...] = ()
    fractions: bool = True
    ways: ClassVar[int] = 2  # numbers of a step

    @property
    def outputs(self) -> int:
        """Numbers that the network gives."""
        return self.candidates


@dataclass(frozen=True)
class TurningConfig(ScrollConfig):
    """The same where the picture turns in its plane, too: a pixel of it is `aspect` times as wide as high."""

    aspect: float = 1.0
    ways: ClassVar[int] = 3

    @property
    def outputs(self) -> int:
        return self.ways


class Motion(nn.Module):
    """Chooses the next step (down, right, in pixels) of each player. Before it is trained, all steps are zero."""

    steps: Tensor

    def __init__(self, config: ScrollConfig) -> None:
        super().__init__()
        width, features, self.fractions = config.hidden, 4 * config.hidden, config.fractions
        self.register_buffer("steps", torch.zeros(config.candidates, 2))
        self.look = nn.Sequential(
            nn.Conv2d(3 * CELL**2, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.LazyLinear(features), nn.SiLU(),
        )  # fmt: skip
        past = config.actions + BEFORE * (config.ways + config.actions)
        self.choose = nn.Sequential(
            nn.Linear(features + past, features), nn.SiLU(), nn.Linear(features, config.outputs)
        )
        self.look(torch.zeros(1, 3 * CELL**2, config.height // CELL, config.width // CELL))  # now it knows its sizes

    def forward(self, picture_BHWC: Tensor, action_BA: Tensor, steps_BP2: Tensor, actions_BPA: Tensor) -> Tensor:
        """How likely each candidate is, logits (B, K): from the last picture uint8, the coming action, and the `BEFORE`
        steps before with their actions."""
        pixels = F.pixel_unshuffle(picture_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1, CELL)
        past = (steps_BP2 / REACH).clamp(-2, 2).flatten(1), actions_BPA.flatten(1)
        return self.choose(torch.cat((self.look(pixels), action_BA, *past), 1))

    def predict_step(self, *seen: Tensor) -> Tensor:
        """The step (B, 2): the likeliest; where the screen goes fractions, its mean with those a pixel beside it where
        these are likely too. It is a multiple of `FINEST`, so that sums are exact. Arguments as those of `forward`."""
        likely = self(*seen).softmax(1)
        best = self.steps[likely.argmax(1)]
        if not self.fractions:
            return best
        weights = likely * ((self.steps - best[:, None]).abs() <= 1).all(2)
        mean = (weights @ self.steps) / weights.sum(1, keepdim=True)
        return torch.where((mean - best).abs() < CERTAIN, best, (mean / FINEST).round() * FINEST)


class TurningMotion(Motion):
    """Where the picture turns: by how much the next step (down, right, degrees) differs from the last one. What drives
    goes on smoothly, and does not come back by the same steps."""

    def predict_step(self, *seen: Tensor) -> Tensor:
        """The step (B, 3), of multiples of `FINEST`, so that what stands stands. Arguments as those of `forward`."""
        return ((seen[2][:, -1] + self(*seen)) / FINEST).round() * FINEST
