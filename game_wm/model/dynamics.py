"""The dynamics in two streams: the past is read once a frame, the next frame may be refined several times.

The context stream (`context.py`) reads every finished frame once and is the only writer of memory; the denoiser
(`denoiser.py`) is called once per denoising step. This module joins them: the state between two frames of play, and
the training form over whole sequences.

Legend: B batch or players, T time, K target frames of a sequence, C channels, h, w latent grid, A action vector,
P history frames, S frames kept for it, M channels of the views of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.compressed import compress
from game_wm.memory.recurrent import RecurrentMemory
from game_wm.memory.working import WorkingMemory
from game_wm.model.attention import rotate
from game_wm.model.config import DynamicsConfig
from game_wm.model.context import ContextMemory, ContextStream, expected_reward
from game_wm.model.denoiser import Denoiser, RingReader, SequenceReader
from game_wm.model.transformer import FrameTransformer
from game_wm.objectives import Objective

DenoiserCall = Callable[..., Tensor]
"""One call of the denoiser: `Dynamics.denoise`, or what an acceleration puts in its place."""


class Reading(NamedTuple):
    """A batch of sequences as training reads it: the function that the objective calls, the goals (B, K, C, h, w), the
    context's tokens (B, T, N, C), and the function for another denoiser, without gradients to the context."""

    predict: Any
    goals: Tensor
    tokens: Tensor
    predict_with: Callable[[Denoiser | FrameTransformer], Any]


@dataclass
class DynamicsState:
    """The network's state between two frames; the player is the first axis of every tensor.

    `latents` (B, S, C, h, w), oldest first; `actions` (B, P, A), `actions[:, -1]` led to `latents[:, -1]`; `context`:
    the context stream's own memory; `bottleneck`: the ring that the denoiser reads.
    """

    latents: Tensor
    actions: Tensor
    context: ContextMemory
    bottleneck: WorkingMemory


class Dynamics(nn.Module):
    """Context stream and denoiser, and the state between two frames of play."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.context = ContextStream(config)
        self.denoiser = Denoiser(config) if config.trunk == "unet" else FrameTransformer(config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def start(self, latents_BTCHW: Tensor, actions_BTA: Tensor) -> DynamicsState:
        """State after a prompt of T >= 1 frames; `actions[:, t]` led from frame t to t + 1, T - 1 of them."""
        config = self.config
        batch, time = latents_BTCHW.shape[:2]
        previous = torch.cat((actions_BTA.new_zeros(batch, 1, config.actions), actions_BTA), dim=1)
        like = latents_BTCHW.float()
        layers, channels = config.context_blocks, config.context_width // config.heads
        frames = config.window if config.attention != "linear" else 1
        blocks = config.window // config.block if config.attention == "sparse" else 0
        size = (config.tokens, config.kv_heads or config.heads, channels)
        context = ContextMemory(WorkingMemory.start(batch, layers, frames, size, like, blocks))
        if config.has_recurrent:
            context.recurrent = RecurrentMemory.start(batch, layers, config.tokens, config.heads, channels, like)
        size = (config.tokens, config.heads, config.widths[-1] // config.heads)
        bottleneck = WorkingMemory.start(batch, 1, config.bottleneck_window or config.window, size, like)
        tokens = self.context.read(like, previous, context)
        k, v = self.denoiser.keys_values(tokens)
        bottleneck.fill(0, rotate(k, torch.arange(time, device=k.device)[:, None, None]), v)
        bottleneck.advance(time)
        latents = pad_front(like, config.span)[:, -config.span :].clone()
        actions = F.pad(previous, (0, 0, config.history, 0))[:, -config.history :].clone()
        return DynamicsState(latents, actions, context, bottleneck)

    def encode_context(self, state: DynamicsState, latents_BCHW: Tensor, actions_BA: Tensor) -> tuple[Tensor, Tensor]:
        """Read one finished frame into the state, in place; rewards (B,) and termination probabilities (B,)."""
        tokens = self.context.step(latents_BCHW, actions_BA, state.context)
        k, v = self.denoiser.keys_values(tokens)
        state.bottleneck.write(0, rotate(k, state.bottleneck.count[:, None, None]), v)
        state.bottleneck.advance()
        state.latents = torch.cat((state.latents[:, 1:], latents_BCHW[:, None]), 1)
        state.actions = torch.cat((state.actions[:, 1:], actions_BA[:, None]), 1)
        termination, reward = self.context.outcomes(tokens)
        return expected_reward(reward), termination.float().sigmoid()

    def denoise(
        self,
        state: DynamicsState,
        action_BA: Tensor,
        noisy_BCHW: Tensor,
        level_B: Tensor,
        stride_B: Tensor,
        views_BMhw: Tensor | None = None,
    ) -> Tensor:
        """The next clean latent (B, C, h, w) by one call of the denoiser; the state is read, not written.

        `views`: those that the denoiser reads (`denoiser.py`), if any.
        """
        actions = torch.cat((state.actions[:, 1:], action_BA[:, None]), dim=1)
        quiet = torch.zeros(len(action_BA), device=action_BA.device)
        history = compress(state.latents, self.config.history, self.config.compressed)
        reader = RingReader(state.bottleneck)
        return self.denoiser(noisy_BCHW, history, actions, level_B, stride_B, quiet, reader, views_BMhw)

    def generate(
        self,
        state: DynamicsState,
        action_BA: Tensor,
        noise_BCHW: Tensor,
        steps: int,
        objective: Objective,
        views_BMhw: Tensor | None = None,
        call: DenoiserCall | None = None,
    ) -> Tensor:
        """The same by a walk of `steps` calls from pure noise; `call`: what makes one of a U-Net's in play."""
        if self.config.trunk == "unet":
            call = call or self.denoise

            def predict(noisy: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
                return call(state, action_BA, noisy[:, 0], level[:, 0], stride[:, 0], views_BMhw)[:, None]

            return objective.sample(predict, noise_BCHW[:, None], steps)[:, 0]
        actions = torch.cat((state.actions[:, 1:], action_BA[:, None]), dim=1)
        quiet = torch.zeros(len(action_BA), 1, device=action_BA.device)
        history = compress(state.latents, self.config.history, self.config.compressed)
        reader = RingReader(state.bottleneck)
        predictor = self.denoiser.predictor(history[:, None], actions[:, None], quiet, reader)
        return objective.sample(predictor, noise_BCHW[:, None], steps)[:, 0]

    def forward(
        self,
        seen: Tensor,
        actions_BTA: Tensor,
        targets: Tensor,
        context_noise_B: Tensor,
        goals_BTCHW: Tensor,
        views_BKMhw: Tensor | None = None,
    ) -> Reading:
        """Training form: see `Reading`.

        `seen` (B, T, C, h, w) is what is read, with noise of these levels; `actions[:, t]` led from frame t to t + 1;
        `targets` (K,) are frame numbers >= 1, the same in every sequence; `goals_BTCHW` the true frames; `views`
        (B, K, M, h, w) those of each target.
        """
        config = self.config
        previous = F.pad(actions_BTA, (0, 0, 1, 0))[:, :-1]
        tokens = self.context(seen, previous)
        # Frame t is predicted from the frames before it; before the first frame, it repeats.
        padded = pad_front(seen, config.span - 1)
        near = targets[:, None] - 1 + torch.arange(config.span, device=targets.device)
        spans = padded[:, near]
        history = compress(spans.flatten(0, 1), config.history, config.compressed).unflatten(0, spans.shape[:2])
        acts = F.pad(previous, (0, 0, config.history - 1, 0))
        acts = acts[:, targets[:, None] + torch.arange(config.history, device=targets.device)]
        noise = context_noise_B[:, None].expand(-1, len(targets))

        def predictor(denoiser: Denoiser | FrameTransformer, tokens: Tensor) -> Any:
            reader = SequenceReader(denoiser, tokens, targets, config.bottleneck_window or config.window)
            return denoiser.predictor(history, acts, noise, reader, views_BKMhw)

        goals, detached = goals_BTCHW[:, targets], tokens.detach()
        return Reading(predictor(self.denoiser, tokens), goals, tokens, lambda denoiser: predictor(denoiser, detached))


def pad_front(latents_BTCHW: Tensor, frames: int) -> Tensor:
    """Repeat the first latent `frames` times before the sequence, as the past of an episode's first frame."""
    return torch.cat((latents_BTCHW[:, :1].expand(-1, frames, -1, -1, -1), latents_BTCHW), dim=1)
