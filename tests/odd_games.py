"""Games that are odd in one way each, for tests: `gym:odd_games:NAME-v0`. A dot on stripes, left and right."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 64


class Dot(gymnasium.Env[Any, Any]):
    """The sound one: a picture of 64x64, an observation that is none, left, stay, right."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}
    observation_space: Any = spaces.Box(-1, 1, (2,), np.float32)
    action_space: Any = spaces.Discrete(3)
    length = 40

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.x, self.steps = render_mode, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.steps = int(self.np_random.integers(SIDE)), 0
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.x = (self.x + 2 * self.move(action)) % SIDE
        return self.observation(), 0.0, self.steps >= self.length, False, {}

    def move(self, action: Any) -> int:
        return int(action) - 1

    def observation(self) -> Any:
        return np.zeros(2, np.float32)

    def picture(self) -> np.ndarray:
        """uint8 (64, 64, 3)."""
        picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
        picture[:, ::16] = 90
        picture[28:36, self.x : self.x + 6] = (250, 200, 50)
        return picture

    def render(self) -> Any:
        return self.picture()


# --- what an inspection finds -----------------------------------------------------------------------------------------


class Deaf(Dot):
    """Moves by itself, whatever the action."""

    def move(self, action: Any) -> int:
        return 1


class HalfDeaf(Dot):
    """Fire does what nothing does."""

    metadata = Dot.metadata | {"action_names": ["noop", "right", "fire"]}

    def move(self, action: Any) -> int:
        return int(action == 1)


class Black(Dot):
    """Shows nothing, as a window that is covered."""

    def render(self) -> Any:
        return np.zeros((SIDE, SIDE, 3), np.uint8)


class Brief(Dot):
    """Over after six steps."""

    length = 6


for cls in Dot.__subclasses__():
    gymnasium.register(f"{cls.__name__}-v0", entry_point=cls)
gymnasium.register("Dot-v0", entry_point=Dot)
