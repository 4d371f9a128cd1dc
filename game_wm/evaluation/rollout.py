"""A checkpoint dreams what the real game played: free rollouts under a truth's actions.

    rollout = roll(model, truth)        # the truth is from `truth/game.py`

Legend: E episodes, P frames of the prompt, N frames after it, H height, W width in pixels, A length of an encoded
action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.evaluation.truth.game import Tick, no_tick
from game_wm.evaluation.truth.plays import Prompt, Truth
from game_wm.memory.protocol import Memory, NoMemory


@dataclass
class DreamRollout:
    """What a model made of a truth's prompt and actions."""

    frames: Tensor  # uint8 (E, N, H, W, 3)
    rewards: np.ndarray  # float32 (E, N)
    terminated: np.ndarray  # float32 (E, N), predicted probability

    def at(self, horizon: int) -> Tensor:
        """The dreamt frames (E, H, W, 3) that many steps after the prompt."""
        return self.frames[:, horizon - 1]


def begin(
    model: Any, frames_EPHWC: Tensor, actions_EPA: Tensor, seeds: Sequence[int], poses_EP3: Tensor | None = None
) -> Any:
    """The state of dreams after their prompts; `UserError` when the game's frames are not the model's."""
    height, width = frames_EPHWC.shape[2:4]
    if (height, width) != (model.height, model.width):
        raise UserError(
            f"the checkpoint dreams frames of {model.width}x{model.height}, but its game now makes {width}x{height}: "
            "record the game with the options that the checkpoint was trained on"
        )
    device = device_of(model)
    prompt = frames_EPHWC.to(device), actions_EPA.to(device), torch.tensor(seeds, device=device)
    return model.start(*prompt) if poses_EP3 is None else model.start(*prompt, poses_EP3.to(device))


@torch.no_grad()
def begin_each(model: Any, prompts: Sequence[Prompt]) -> Any:
    """The state of dreams after these prompts of equal length, one each."""
    frames = torch.from_numpy(np.stack([prompt.frames for prompt in prompts]))
    actions = torch.from_numpy(np.stack([prompt.actions for prompt in prompts]))
    known = [prompt.poses for prompt in prompts if prompt.poses is not None]
    poses = torch.from_numpy(np.stack(known)) if len(known) == len(prompts) else None
    return begin(model, frames, actions, [prompt.seed for prompt in prompts], poses)


@torch.no_grad()
def follow(model: Any, state: Any, actions_ENA: Tensor, steps: int | None = None) -> Tensor:
    """The frames uint8 (E, N, H, W, 3) that these actions lead to from a state of dreams."""
    frames, device = [], device_of(model)
    for action in actions_ENA.unbind(1):
        outcome, state = model.step(state, action.to(device), steps)
        frames.append(outcome.frames.cpu())
    return torch.stack(frames, 1)


@torch.no_grad()
def roll(model: Any, truth: Truth, steps: int | None = None, tick: Tick = no_tick) -> DreamRollout:
    """Free rollout from the truth's prompt under its actions; `steps` denoiser calls a frame, None: the model's own."""
    device, p = device_of(model), truth.prompt
    state = begin(model, truth.frames[:, :p], truth.actions[:, : p - 1], truth.seeds, truth.poses)
    frames, rewards, terminated = [], [], []
    for n in range(truth.after.shape[1]):
        action = truth.actions[:, p - 1 + n].to(device)
        outcome, state = model.step(state, action, steps)
        frames.append(outcome.frames.cpu())
        rewards.append(outcome.rewards.float().cpu().numpy())
        terminated.append(outcome.terminated.float().cpu().numpy())
        tick(len(truth.seeds))
    return DreamRollout(torch.stack(frames, 1), np.stack(rewards, 1), np.stack(terminated, 1))


def memory_of(model: Any) -> Memory:
    """What the model remembers with; a player of the true game has none."""
    return getattr(model, "memory", NoMemory())


def device_of(model: Any) -> torch.device:
    """Where the model's weights lie."""
    return next(iter(model.parameters()), torch.zeros(0)).device


def in_threes(frames_ETHWC: Tensor, stride: int = 1) -> Tensor:
    """Every `stride`-th frame with the two before it, as rows (B, 3, H, W, 3); an episode's first frame repeats."""
    now = torch.arange(0, frames_ETHWC.shape[1], stride)
    return frames_ETHWC[:, (now[:, None] - torch.tensor([2, 1, 0])).clamp_min(0)].flatten(0, 1)


@torch.no_grad()
def round_trip(model: Any, frames_BTHWC: Tensor) -> Tensor:
    """The last of each row of frames (B, T, H, W, 3) as the tokenizer shows it (B, H, W, 3): the ceiling of dreams.

    Of three in a row a temporal tokenizer sees what it sees in play; of one, a frame that is its own past.
    """
    device, made = device_of(model), []
    for part in frames_BTHWC[:, -3:].split(32):
        now, before, first = (part[:, max(0, part.shape[1] - n)].to(device) for n in (1, 2, 3))
        made.append(model.decode(model.encode(now, before), model.encode(before, first)).cpu())
    return torch.cat(made)
