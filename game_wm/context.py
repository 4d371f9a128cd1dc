"""The context stream: reads every finished frame once, and is the only writer of memory.

`forward` takes whole sequences (training, prompts), `step` one frame in play; both give the same tokens.

Legend: B batch or players, T time, N tokens of a frame, C channels (latent unless said), h, w latent grid, A action
vector, H heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from game_wm.attention import Norm, Projections, SpatialAttention, SwiGLU, attend, rotate, window_mask
from game_wm.config import DynamicsConfig
from game_wm.memory.recurrent import GatedDelta, RecurrentMemory
from game_wm.memory.working import WorkingMemory

REWARD_BINS = 41
PART = 256  # frames of a long prompt that are read at once


def reward_bins(device: torch.device) -> Tensor:
    """Centres of the reward's bins in symmetric-logarithm space (Hafner et al., 2023, two-hot rewards)."""
    return torch.linspace(-5, 5, REWARD_BINS, device=device)


def two_hot(rewards: Tensor) -> Tensor:
    """Rewards (...,) -> weights (..., bins) on the two nearest bins."""
    value = rewards.sign() * rewards.abs().log1p()
    place = ((value.clamp(-5, 5) + 5) / 10 * (REWARD_BINS - 1)).unsqueeze(-1)
    return (1 - (place - torch.arange(REWARD_BINS, device=rewards.device)).abs()).clamp_min(0)


def expected_reward(logits: Tensor) -> Tensor:
    """Logits (..., bins) -> expected reward (...,)."""
    value = (logits.float().softmax(-1) * reward_bins(logits.device)).sum(-1)
    return value.sign() * value.abs().expm1()


class CausalAttention(nn.Module):
    """A token attends to the tokens at its own position in the last W frames, the present one included."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.projections, self.window = Projections(channels, heads), window

    def forward(self, x_BTNC: Tensor, memory: WorkingMemory | None, layer: int, first: int) -> Tensor:
        """Frames from number `first` on; those before it are in `memory`, to which these are written."""
        p = self.projections
        x = p.norm(x_BTNC)
        time = torch.arange(first, first + x.shape[1], device=x.device)
        q, (k, v) = p.queries(x), p.keys_values(x)
        q, k = rotate(q, time[:, None, None]), rotate(k, time[:, None, None])
        times = time
        if memory is not None:
            times = torch.arange(max(0, first - self.window), first + x.shape[1], device=x.device)
            past = memory.last(layer, first)
            memory.fill(layer, k, v, first)
            k, v = (torch.cat((old.to(new), new), 1) for old, new in zip(past, (k, v), strict=True))
        order = (0, 2, 3, 1, 4)  # B N H T D
        mask = window_mask(time, times, self.window)
        y = attend(q.permute(order), k.permute(order), v.permute(order), mask)
        return p.out(y.permute(0, 3, 1, 2, 4).flatten(-2))

    def step(self, x_BNC: Tensor, memory: WorkingMemory, layer: int) -> Tensor:
        """One frame; writes its keys and values to the ring."""
        p = self.projections
        x = p.norm(x_BNC)
        now = memory.count[:, None, None]
        q, (k, v) = p.queries(x), p.keys_values(x)
        memory.write(layer, rotate(k, now), v)
        keys, values, valid = memory.read(layer, writing=True)
        q = rotate(q, now)[:, :, :, None]
        y = attend(q, keys.permute(0, 2, 3, 1, 4), values.permute(0, 2, 3, 1, 4), valid[:, None, None, None])
        return p.out(y.flatten(-3))


@dataclass
class ContextMemory:
    """What the context stream carries from frame to frame: its ring, and its recurrent memory if it has one."""

    working: WorkingMemory
    recurrent: RecurrentMemory | None = None


class ContextBlock(nn.Module):
    """Attention over time, recurrent memory, attention over the frame, feed-forward."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        channels, heads = config.context_width, config.heads
        self.time = CausalAttention(channels, heads, config.window)
        self.recurrent = GatedDelta(channels, heads) if config.recurrent else None
        self.space = SpatialAttention(channels, heads)
        self.feed_forward = SwiGLU(channels)

    def forward(self, x_BTNC: Tensor, memory: ContextMemory | None, layer: int, first: int) -> Tensor:
        x = x_BTNC + self.time(x_BTNC, memory and memory.working, layer, first)
        if self.recurrent is not None:
            kept = memory.recurrent if memory is not None else None
            more, state = self.recurrent(x, None if kept is None else kept.states[:, layer])
            if kept is not None:
                kept.states[:, layer] = state
            x = x + more
        x = x + self.space(x)
        return x + self.feed_forward(x)

    def step(self, x_BNC: Tensor, memory: ContextMemory, layer: int) -> Tensor:
        x = x_BNC + self.time.step(x_BNC, memory.working, layer)
        if self.recurrent is not None and memory.recurrent is not None:
            more, memory.recurrent.states[:, layer] = self.recurrent.step(x, memory.recurrent.states[:, layer])
            x = x + more
        x = x + self.space(x)
        return x + self.feed_forward(x)


class ContextStream(nn.Module):
    """Finished latents and the actions that led to them -> context tokens, reward and termination."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        width = config.context_width
        # Half the width at the full grid, all of it from the first halving on.
        stem: list[nn.Module] = [nn.Conv2d(config.channels, width // 2, 3, padding=1)]
        for i in range(len(config.widths) - 1):
            stem += [nn.SiLU(), nn.Conv2d(width // 2 if i == 0 else width, width, 3, stride=2, padding=1)]
        self.stem = nn.Sequential(*stem)
        self.action = nn.Linear(config.actions, width)
        self.positions = nn.Parameter(torch.randn(config.tokens, width) * 0.02)
        self.registers = config.registers
        self.blocks = nn.ModuleList(ContextBlock(config) for _ in range(config.context_blocks))
        self.norm = Norm(width)
        self.outcome = nn.Linear(width, 1 + REWARD_BINS)

    def embed(self, latents_BCHW: Tensor, actions_BA: Tensor) -> Tensor:
        """One token a cell of the half-size grid, then the registers: (B, N, C)."""
        cells = self.stem(latents_BCHW).flatten(2).transpose(1, 2)
        registers = cells.new_zeros(len(cells), self.registers, cells.shape[-1])
        return torch.cat((cells, registers), dim=1) + self.positions + self.action(actions_BA)[:, None]

    def forward(
        self, latents_BTCHW: Tensor, actions_BTA: Tensor, memory: ContextMemory | None = None, first: int = 0
    ) -> Tensor:
        """Whole sequences -> (B, T, N, C); `actions[:, t]` led to `latents[:, t]`, frame number `first + t`."""
        batch, time = latents_BTCHW.shape[:2]
        x = self.embed(latents_BTCHW.flatten(0, 1), actions_BTA.flatten(0, 1)).unflatten(0, (batch, time))
        for layer, block in enumerate(self.blocks):
            x = block(x, memory, layer, first)
        if memory is not None:
            memory.working.advance(time)
        return self.norm(x)

    def read(self, latents_BTCHW: Tensor, actions_BTA: Tensor, memory: ContextMemory) -> Tensor:
        """The same for sequences of any length, part by part, at a cost that grows with T and not with its square."""
        time, parts = latents_BTCHW.shape[1], []
        for first in range(0, time, PART):
            part = slice(first, first + PART)
            parts.append(self(latents_BTCHW[:, part], actions_BTA[:, part], memory, first))
        return torch.cat(parts, dim=1)

    def step(self, latents_BCHW: Tensor, actions_BA: Tensor, memory: ContextMemory) -> Tensor:
        """One frame -> (B, N, C), with the ring as its past."""
        x = self.embed(latents_BCHW, actions_BA)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, memory, layer)  # type: ignore[operator]
        memory.working.advance()
        return self.norm(x)

    def outcomes(self, tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the termination (...,) and of the reward's bins (..., bins) of the step that led here."""
        logits = self.outcome(tokens_BNC.mean(-2))
        return logits[..., 0], logits[..., 1:]
