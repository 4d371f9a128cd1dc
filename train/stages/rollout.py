"""Own rollouts: the end of a window as the model itself generates it, on which it is then trained.

Legend: B windows, T frames of a window, M channels of the views, C channels, h, w latent grid, A action vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from game_wm.memory.protocol import Frame, Memory, Prompt
from game_wm.model.dynamics import Dynamics
from game_wm.objectives import Objective


class Rollout(NamedTuple):
    """Windows that end in the model's own frames (B, T, C, h, w), and the views (B, T, M, h, w) that were rendered."""

    frames: Tensor
    views: Tensor | None


class Player(NamedTuple):
    """A network, its objective, denoiser calls a frame, the memory that a window suffices for, and its tokenizer."""

    dynamics: Dynamics
    objective: Objective
    steps: int
    memory: Memory
    tokenizer: Any = None


@torch.no_grad()
def roll_out(player: Player, window: Prompt, frames: int, views: Tensor | None = None) -> Rollout:
    """The window with its last `frames` replaced by the player's own, under the recorded actions.

    Of its `views` (B, T, M, h, w), those that memory gives from the window alone are rendered anew from what the player
    generated; the others, whose past is longer, stay.
    """
    dynamics, memory, latents, actions = player.dynamics, player.memory, window.latents, window.actions
    start = latents.shape[1] - frames
    state = dynamics.start(latents[:, :start], actions[:, : start - 1])
    remembered, recorded = memory.start_window(window, start, player.tokenizer)
    made = [*latents[:, :start].unbind(1)]
    shown = [] if views is None else [*views.unbind(1)]
    for t in range(start, start + frames):
        action, noise = actions[:, t - 1], torch.randn_like(latents[:, 0])
        step = memory.foresee(remembered, action) if recorded is None else recorded[t - start]
        rendered = memory.views(remembered, step, player.tokenizer)
        if rendered is not None:
            shown[t] = torch.cat((shown[t][:, : -rendered.shape[1]], rendered), 1)
        latent = dynamics.generate(state, action, noise, player.steps, player.objective, shown[t] if shown else None)
        latent = memory.settle(remembered, step, latent)
        dynamics.encode_context(state, latent, action)
        picture = player.tokenizer.decode(latent) if memory.needs_pictures else latent
        memory.commit(remembered, step, Frame(latent, picture, action))
        memory.store(remembered, step)
        made.append(latent)
    return Rollout(torch.stack(made, 1), torch.stack(shown, 1) if shown else None)
