"""Procgen's sixteen games as a Gymnasium environment; every episode is another level.

    make("gym:data_collect.games.procgen:Procgen-v0?name=coinrun")

The package is `procgen2` (Cobbe et al., 2020). It asks for gym and for numpy below 2 but runs without either bound:
see `INSTALL`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from data_collect.errors import UserError

INSTALL = "pip install --no-deps procgen2 gym3 gym gym-notices glfw moderngl glcontext imageio imageio-ffmpeg"
# The stick's nine places, then buttons that mean something else in every game.
NAMES = (
    "leftdown", "left", "leftup", "down", "noop", "up", "rightdown", "right", "rightup", "d", "a", "w", "s", "q", "e",
)  # fmt: skip
KEYS = {"left": "left", "right": "right", "up": "up", "down": "down", "space": "d", "a": "a", "w": "w", "s": "s"}


class Procgen(gymnasium.Env[np.ndarray, Any]):
    """The game `name` at 64x64 pixels, 15 steps a second; `level` says how hard ("easy" or "hard")."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15, "action_names": NAMES, "action_keys": KEYS}

    def __init__(self, name: str = "coinrun", level: str = "hard", render_mode: str | None = None) -> None:
        try:
            from procgen import ProcgenGym3Env
            from procgen.env import ENV_NAMES
        except ImportError as error:
            raise UserError(f"Procgen's {name} needs procgen2 ({error}): {INSTALL}") from None
        if name not in ENV_NAMES:
            raise UserError(f"Procgen has no game {name!r}; there are {', '.join(ENV_NAMES)}")
        self.render_mode = render_mode
        self._make = lambda seed: ProcgenGym3Env(
            num=1, env_name=name, rand_seed=seed, start_level=seed, num_levels=0, distribution_mode=level
        )
        self._env: Any = None
        self.observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(NAMES))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.close()
        self._env = self._make(int(self.np_random.integers(2**31)))
        return self._see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._env.act(np.array([action], np.int32))
        reward, _, first = self._env.observe()
        return self._see(), float(reward[0]), bool(first[0]), False, {}

    def _see(self) -> np.ndarray:
        return self._env.observe()[1]["rgb"][0].copy()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None


gymnasium.register("Procgen-v0", entry_point="data_collect.games.procgen:Procgen")
