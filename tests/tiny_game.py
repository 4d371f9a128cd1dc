"""A fast game for tests: `gym:tiny_game:Tiny-v0`. Its episodes end by themselves after 3 to 150 steps.

Imports little, so that a process which records it starts at once.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

GAME = "gym:tiny_game:Tiny-v0?width=16&height=16"
LONG = f"{GAME}&shortest=3000&longest=5000"
PLACELESS = "gym:tiny_game:Tiny-v0?width=64&height=64&shortest=40&longest=60&told=false"

WRONG: dict[str, dict[str, Any]] = {
    "nan": {"reward": float("nan")}, "large": {"reward": 1e39}, "no pose": {"pose": None}, "short": {"pose": (1, 2)},
    "infinite": {"pose": (1, 2, float("inf"))}, "word": {"pose": "abc"},
}  # fmt: skip


class Tiny(gymnasium.Env[np.ndarray, int]):
    """A dot that moves over a coloured floor. `noisy`: which is not a function of the seed; `told`: with its pose;
    `still`: a single picture; `choices`: how many actions there are, `names`: what they are called, with commas;
    `wrong`: what its fifth step gives no shard can hold."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "action_names": ["noop", "left", "right"]}
    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(
        self,
        render_mode: str = "rgb_array",
        noisy: bool = False,
        shortest: int = 3,
        longest: int = 150,
        told: bool = True,
        still: bool = False,
        choices: int = 3,
        names: str = "",
        wrong: str = "",
    ) -> None:
        self.told, self.still, self.wrong = told, still, wrong
        self.action_space = spaces.Discrete(choices)
        called = names.split(",") if names else self.metadata["action_names"][:choices]
        self.metadata = self.metadata | {"action_names": called}
        self.render_mode, self.noisy, self.shortest, self.longest = render_mode, noisy, shortest, longest

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        rng = np.random.default_rng() if self.noisy else self.np_random
        self.floor = rng.integers(0, 256, (16, 16, 3), np.uint8)
        self.floor[:] = 100 if self.still else self.floor
        self.left = int(self.np_random.integers(self.shortest, self.longest + 1))
        self.x, self.steps = 8, 0
        return self._frame(), self.place()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x = (self.x + (0, -1, 1)[action]) % 16
        self.steps += 1
        reward = float(self.np_random.normal()) + self.x
        wrong = WRONG.get(self.wrong, {}) if self.steps == 5 else {}
        return self._frame(), wrong.get("reward", reward), self.steps == self.left, False, self.place() | wrong

    def place(self) -> dict:
        return {"pose": (self.x, 0.0, 0.0)} if self.told else {}

    def _frame(self) -> np.ndarray:
        frame = self.floor.copy()
        if not self.still:
            frame[self.steps % 16, self.x] = 255
        return frame


class Still(Tiny):
    """Its picture never changes."""

    def _frame(self) -> np.ndarray:
        return np.full((16, 16, 3), 90, np.uint8)


gymnasium.register("Tiny-v0", entry_point=Tiny)
gymnasium.register("Still-v0", entry_point=Still)


def record_without_end(folder: Path, begun: Any) -> None:
    """Records small shards until it is killed; sets the event `begun` first."""
    from data_collect.recording import record as module
    from data_collect.shards.writer import ShardWriter

    module.ShardWriter = functools.partial(ShardWriter, shard_chunks=3)  # type: ignore[misc, assignment]
    begun.set()
    module.record(folder, GAME, "random", 10**7, episode_frames=400)


def chaos(frame: np.ndarray, info: dict[str, Any]) -> int:
    """A policy that never plays the same way twice."""
    return int(np.random.default_rng().integers(3))


def tired(frame: np.ndarray, info: dict[str, Any]) -> int:
    """A policy that stops of itself after five steps."""
    from data_collect.players import Quit

    if len(_played) == 5:
        raise Quit
    _played.append(1)
    return 1


_played: list[int] = []


def steady(frame: np.ndarray, info: dict[str, Any]) -> int:
    """A policy that always does the same."""
    return 1
