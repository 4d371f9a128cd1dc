"""The dream as a gymnasium.Env, so that whatever takes a game takes a dream.

env = DreamEnv("checkpoints/maze.safetensors")
frame, info = env.reset(seed=0)
frame, reward, terminated, truncated, info = env.step(env.action_space.sample())
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from game_wm.checkpoint import Checkpoint, load
from game_wm.dream import Dream


class DreamEnv(gymnasium.Env):
    """One player in a dream. Observations are uint8 (H, W, 3); actions are those of the game's own schema.

    `reset(seed=s)` begins from seed context `s` modulo their number with the noise of `s`; without a seed, a random
    one is drawn. `reset(options={"context": i})` names the context. An episode ends when the model predicts that it
    does, as in the real game.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, checkpoint: Checkpoint | str | Path, steps: int | None = None, device: str = "cpu") -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint, device)
        self.steps = steps
        self.action_schema = self.checkpoint.schema
        self.action_space = self.action_schema.space()
        model = self.checkpoint.model
        self.observation_space = gymnasium.spaces.Box(0, 255, (model.height, model.width, 3), np.uint8)
        self.dream: Dream | None = None  # None before the first `reset`

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """First frame of a dream: the last one of its seed context."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        context = int((options or {}).get("context", seed)) % len(self.checkpoint.contexts_frames)
        prompt = self.checkpoint.prompt(context)
        self.dream = Dream.begin(self.checkpoint, self.checkpoint.model, prompt, seed=seed, context=context)
        return self.dream.moment.picture.copy(), {"context": context, "seed": seed}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame on. Raises `UserError` for an action outside the schema, RuntimeError before `reset`."""
        if self.dream is None:
            raise RuntimeError("call reset() before step()")
        moment = self.dream.advance(self.checkpoint.model, self.action_schema.raw(action), self.steps)
        return moment.picture, moment.reward, moment.ended, False, {"termination": moment.termination}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        return None if self.dream is None else self.dream.moment.picture
