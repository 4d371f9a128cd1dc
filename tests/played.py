"""Games of this process that are played as guests are: `Torus` is what the games of evaluation's tests are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from fakes import SIZE

from data_collect.guest.match import Leg, Match, Steps
from data_collect.schema import ActionSchema


class Torus(gymnasium.Env):
    """A world without an edge, with a texture of its seed's own, seen through a window at (x, y).

    `play` is what an evaluation asks of a guest.
    """

    buttons: tuple[str, ...]
    world, patch, brightest = 64, 4, 256  # pixels a side, of a patch of one colour, and the colours' limit

    def __init__(self, surface: bool = False) -> None:
        self.surface = surface
        self.action_schema = ActionSchema("multibinary", self.buttons, fps=20)
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.match = Match(self)

    def play(self, legs: Sequence[Leg], env_seed: int | None = None) -> Steps:
        return self.match.play(legs, env_seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        generator, patches = np.random.default_rng(seed), self.world // self.patch
        coarse = generator.integers(0, self.brightest, (patches, patches, 3)).astype(np.uint8)
        self.texture = np.kron(coarse, np.ones((self.patch, self.patch, 1), np.uint8))
        self.begin(generator)
        return self.frame(), self.info()

    def begin(self, generator: np.random.Generator) -> None:
        """Where an episode begins."""
        self.x, self.y = 10, 10

    def view(self, world: np.ndarray) -> np.ndarray:
        return np.roll(world, (-self.y, -self.x), (0, 1))[:SIZE, :SIZE].copy()

    def frame(self) -> np.ndarray:
        """The first pixel tells where the window is."""
        frame = self.view(self.texture)
        frame[0, 0] = self.x, self.y, 0
        return frame

    def info(self) -> dict[str, Any]:
        numbers = np.arange(self.world**2).reshape(self.world, self.world)
        return {"surface": self.view(numbers)} if self.surface else {}
