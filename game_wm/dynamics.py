"""The dynamics in two streams: what has happened is read once, what comes next may be refined several times.

The context stream (`context.py`) reads every finished frame once and is the only writer of memory; the denoiser
(`denoiser.py`) is called once per denoising step. Here they meet: the state that ties frame to frame in play, and the
training form over whole sequences.

Legend: B batch or players, T time, K target frames of a sequence, C channels, h, w latent grid, A action vector,
P history frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.attention import rotate
from game_wm.config import DynamicsConfig
from game_wm.context import ContextStream, expected_reward
from game_wm.denoiser import Denoiser, Recalled, RingReader, SequenceReader
from game_wm.memory.episodic import EpisodicMemory, Places, move
from game_wm.memory.working import WorkingMemory
from game_wm.objectives.flow import FlowMatching, Predict


class Reading(NamedTuple):
    """What training gets of a batch of sequences: the objective's function, the goals (B, K, C, h, w), the context's
    tokens (B, T, N, C) and what recalled frames tell of each target by themselves (B * K, C, h, w)."""

    predict: Predict
    goals: Tensor
    tokens: Tensor
    told: Tensor | None


@dataclass
class DynamicsState:
    """All that is remembered between two frames; the player is the first axis of every tensor.

    `latents` (B, P, C, h, w), oldest first; `actions` (B, P, A), `actions[:, -1]` led to `latents[:, -1]`; `context`:
    the context stream's own ring; `bottleneck`: the ring that the denoiser reads; `episodic`: what places looked like,
    in a network that has such a memory. A frame enters it when it leaves the history.
    """

    latents: Tensor
    actions: Tensor
    context: WorkingMemory
    bottleneck: WorkingMemory
    episodic: EpisodicMemory | None = None


class Dynamics(nn.Module):
    """Context stream and denoiser, and the state that ties frame to frame in play."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.context = ContextStream(config)
        self.denoiser = Denoiser(config)
        self.places = Places(config.place, config.headings)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def start(self, latents_BTCHW: Tensor, actions_BTA: Tensor, remember: bool = True) -> DynamicsState:
        """State after a prompt of T >= 1 frames; `actions[:, t]` led from frame t to t + 1, T - 1 of them.

        Without `remember` it has no episodic memory: whoever generates says what is recalled.
        """
        config = self.config
        batch, time = latents_BTCHW.shape[:2]
        led = torch.cat((actions_BTA.new_zeros(batch, 1, config.actions), actions_BTA), dim=1)
        like = latents_BTCHW.float()
        context = self._ring(batch, config.context_blocks, config.context_width, like)
        bottleneck = self._ring(batch, 1, config.widths[-1], like)
        tokens = self.context.read(like, led, context)
        k, v = self.denoiser.keys_values(tokens)
        bottleneck.fill(0, rotate(k, torch.arange(time, device=k.device)[:, None, None]), v)
        bottleneck.advance(time)
        state = DynamicsState(
            pad_front(like, config.history)[:, -config.history :].clone(),
            F.pad(led, (0, 0, config.history, 0))[:, -config.history :].clone(),
            context,
            bottleneck,
        )
        if self.context.motion is not None and remember:
            state.episodic = EpisodicMemory.start(batch, config.slots, config.history, config.context_width, like)
            summary = tokens.mean(-2)
            steps = self.context.motion.led_here(summary)
            for t in range(time):
                past = like[:, max(0, t - config.history)]
                self._remember(state.episodic, past, summary[:, t], steps[:, t] * (t > 0), t)
        return state

    def _remember(
        self, memory: EpisodicMemory, leaving_BCHW: Tensor, summary_BC: Tensor, step_B3: Tensor, now: Tensor | int
    ) -> None:
        """A frame is finished, number `now`: where it was seen, and what leaves the history goes into the store."""
        times = torch.zeros_like(memory.keys[:, 0]) + now - self.config.history
        memory.write(self.places, leaving_BCHW, memory.trail[:, 0], times)
        memory.pose = move(memory.pose, step_B3)
        memory.trail = torch.cat((memory.trail[:, 1:], memory.pose[:, None]), dim=1)
        memory.summary = summary_BC.float()

    def _ring(self, players: int, layers: int, width: int, like: Tensor) -> WorkingMemory:
        c = self.config
        return WorkingMemory.start(players, layers, c.window, c.tokens, c.heads, width // c.heads, like)

    def encode_context(self, state: DynamicsState, latents_BCHW: Tensor, actions_BA: Tensor) -> tuple[Tensor, Tensor]:
        """Read one finished frame into the state, in place; rewards (B,) and termination probabilities (B,)."""
        tokens = self.context.step(latents_BCHW, actions_BA, state.context)
        k, v = self.denoiser.keys_values(tokens)
        state.bottleneck.write(0, rotate(k, state.bottleneck.count[:, None, None]), v)
        state.bottleneck.advance()
        if state.episodic is not None and self.context.motion is not None:
            summary, now = tokens.mean(-2), state.context.count - 1
            self._remember(state.episodic, state.latents[:, 0], summary, self.context.motion.led_here(summary), now)
        for past, new in ((state.latents, latents_BCHW), (state.actions, actions_BA)):
            past[:, :-1] = past[:, 1:].clone()
            past[:, -1] = new
        termination, reward = self.context.outcomes(tokens)
        return expected_reward(reward), termination.float().sigmoid()

    def generate(
        self,
        state: DynamicsState,
        action_BA: Tensor,
        noise_BCHW: Tensor,
        steps: int,
        objective: FlowMatching,
        recalled: Recalled | None = None,
    ) -> Tensor:
        """The next clean latent (B, C, h, w); the state is read, not written.

        `recalled` stands in for what episodic memory would give.
        """
        recalled = recalled or self.recall(state, action_BA)
        actions = torch.cat((state.actions[:, 1:], action_BA[:, None]), dim=1)
        reader = RingReader(state.bottleneck)
        gained = self._recollect(state.latents[:, -1], recalled)[0]
        quiet = torch.zeros(len(action_BA), device=action_BA.device)

        def predict(noisy: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            args = (noisy[:, 0], state.latents, actions, level[:, 0], stride[:, 0], quiet, reader, gained)
            return self.denoiser(*args)[:, None]

        return objective.sample(predict, noise_BCHW[:, None], steps)[:, 0]

    def recall(self, state: DynamicsState, action_BA: Tensor) -> Recalled | None:
        """What episodic memory gives for the frame that this action leads to."""
        memory, motion = state.episodic, self.context.motion
        if memory is None or motion is None:
            return None
        pose = move(memory.pose, motion.to_come(memory.summary, action_BA))
        return memory.read(self.places, pose, state.context.count, self.config.recall)

    def _recollect(self, last_BCHW: Tensor, recalled: Recalled | None) -> tuple[Tensor | None, Tensor | None]:
        """What the denoiser gains from recalled frames, and the latent that they tell by themselves."""
        if self.denoiser.recollection is None or recalled is None:
            return None, None
        return self.denoiser.recollection(last_BCHW, *recalled)

    def forward(
        self,
        latents_BTCHW: Tensor,
        actions_BTA: Tensor,
        targets: Tensor,
        context_noise_B: Tensor,
        goals_BTCHW: Tensor,
        recalled: Recalled | None = None,
    ) -> Reading:
        """Training form: `read` of the sequences with context noise of these levels put on all that is seen."""
        amount = context_noise_B[:, None, None, None, None]
        noised = latents_BTCHW + amount * torch.randn_like(latents_BTCHW)
        if recalled is not None:
            latents, about = recalled
            there = about[..., -1:, None, None]
            recalled = latents + there * amount[:, None] * torch.randn_like(latents), about
        return self.read(noised, actions_BTA, targets, context_noise_B, goals_BTCHW, recalled)

    def read(
        self,
        seen: Tensor,
        actions_BTA: Tensor,
        targets: Tensor,
        context_noise_B: Tensor,
        goals_BTCHW: Tensor,
        recalled: Recalled | None = None,
    ) -> Reading:
        """See `Reading`.

        `seen` (B, T, C, h, w) is what is read, as noised; `actions[:, t]` led from frame t to t + 1; `targets` (K,) are
        frame numbers >= 1, the same in every sequence; `goals_BTCHW` holds what should have come; `recalled`
        (B, T, R, ...) what episodic memory gives for each frame.
        """
        config, batch = self.config, len(seen)
        led = F.pad(actions_BTA, (0, 0, 1, 0))[:, :-1]
        tokens = self.context(seen, led)
        # Frame t is predicted from the `history` frames before it; before the first frame, it repeats.
        padded = pad_front(seen, config.history - 1)
        history = torch.stack([padded[:, t - 1 : t - 1 + config.history] for t in targets.tolist()], 1)
        acts = F.pad(led, (0, 0, config.history - 1, 0))
        acts = torch.stack([acts[:, t : t + config.history] for t in targets.tolist()], 1)
        reader = SequenceReader(self.denoiser, tokens, targets, config.window)
        found = recalled and (recalled[0][:, targets].flatten(0, 1), recalled[1][:, targets].flatten(0, 1))
        gained, told = self._recollect(history[:, :, -1].flatten(0, 1), found)
        if gained is not None:
            gained = gained.unflatten(0, (batch, -1))

        def predict(noisy: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            count = noisy.shape[1]
            args = (noisy, history[:, part], acts[:, part], level, stride, context_noise_B[:, None].expand(-1, count))
            flat = [x.flatten(0, 1) for x in args]
            more = None if gained is None else gained[:, part].flatten(0, 1)
            return self.denoiser(*flat, reader.part(part), more).unflatten(0, (batch, count))

        return Reading(predict, goals_BTCHW[:, targets], tokens, told)


def pad_front(latents_BTCHW: Tensor, frames: int) -> Tensor:
    """Repeat the first latent `frames` times before the sequence: what lies before an episode's first frame."""
    return torch.cat((latents_BTCHW[:, :1].expand(-1, frames, -1, -1, -1), latents_BTCHW), dim=1)
