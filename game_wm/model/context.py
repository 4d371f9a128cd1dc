"""The context stream: reads every finished frame once, and is the only writer of memory.

`forward` takes whole sequences (training, prompts), `step` one frame in play; both give the same tokens.

Legend: B batch or players, T time, N tokens of a frame, C channels (latent unless said), h, w latent grid, A action
vector, H heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from game_wm.memory.recurrent import GatedDelta, RecurrentMemory
from game_wm.memory.working import WorkingMemory
from game_wm.model.attention import (
    Norm,
    Projections,
    SpatialAttention,
    SwiGLU,
    attend,
    attend_in_window,
    attend_with_sink,
    best_blocks,
    rotate,
    widen,
    window_mask,
)
from game_wm.model.config import DynamicsConfig

REWARD_BINS = 41
PART = 256  # frames of a long prompt that are read in one pass


def two_hot(rewards: Tensor) -> Tensor:
    """Rewards (...,) -> weights (..., bins) on the two nearest bins."""
    value = rewards.sign() * rewards.abs().log1p()
    place = ((value.clamp(-5, 5) + 5) / 10 * (REWARD_BINS - 1)).unsqueeze(-1)
    return (1 - (place - torch.arange(REWARD_BINS, device=rewards.device)).abs()).clamp_min(0)


def expected_reward(logits: Tensor) -> Tensor:
    """Logits (..., bins) -> expected reward (...,); bins lie in symmetric-logarithm space (Hafner et al., 2023)."""
    bins = torch.linspace(-5, 5, REWARD_BINS, device=logits.device)
    value = (logits.float().softmax(-1) * bins).sum(-1)
    return value.sign() * value.abs().expm1()


class CausalAttention(nn.Module):
    """A token attends to those at its own position in the present and earlier frames, as the configuration says."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.projections = Projections(config.context_width, config.heads, kv_heads=config.kv_heads)
        self.window, self.sink = config.window, config.sink
        self.top, self.block = (config.top, config.block) if config.attention == "sparse" else (0, 0)

    def forward(self, x_BTNC: Tensor, memory: WorkingMemory | None, layer: int, first: int) -> Tensor:
        """Frames from number `first` on; those before it are in `memory`, to which these are written."""
        p = self.projections
        x = p.norm(x_BTNC)
        time = torch.arange(first, first + x.shape[1], device=x.device)
        plain, (k, v) = p.queries(x), p.keys_values(x)
        q, k, times = rotate(plain, time[:, None, None]), self._stored(k, time[:, None, None]), time
        if memory is not None:
            *past, before = memory.last(layer, first, self.sink)
            memory.fill(layer, k, v, first, self.sink)
            k, v = (torch.cat((old.to(new), new), 1) for old, new in zip(past, (k, v), strict=True))
            times = torch.cat((before, time))
        order = (0, 2, 3, 1, 4)  # B N H T D
        q, k, v = q.permute(order), widen(k, p.heads).permute(order), widen(v, p.heads).permute(order)
        if self.top:
            y = attend(q, k, v, self._blocks(q, k, time, times))
        elif self.sink and int(times[0]) < self.sink:
            y = self._sunk(q, plain, k, v, time, times)
        else:
            y = attend_in_window(q, k, v, time, times, self.window)
        return p.out(y.permute(0, 3, 1, 2, 4).flatten(-2))

    def _stored(self, keys: Tensor, frames: Tensor) -> Tensor:
        """Keys as stored: rotated by their frame's number, those of the sink unrotated."""
        return rotate(keys, torch.where(frames < self.sink, 0, frames))

    def _blocks(self, q: Tensor, k: Tensor, time: Tensor, times: Tensor) -> Tensor:
        """The mask (B, N, H, Q, K) of a query's own block, the one before, and the best of the others."""
        own, of = time // self.block, times // self.block
        numbers = torch.arange(int(of[0]), int(of[-1]) + 1, device=of.device)
        member = (of[:, None] == numbers).to(k.dtype)  # (K, M)
        whole = member.sum(0) == self.block
        means = torch.einsum("...kd,km->...md", k, member) / self.block
        allowed = (numbers < own[:, None] - 1) & (numbers > own[:, None] - self.window // self.block) & whole
        best = best_blocks(q, means, allowed, self.top)[..., of - numbers[0]]
        near = (of <= own[:, None]) & (of >= own[:, None] - 1)
        return (best | near) & (times <= time[:, None])

    def _sunk(self, q: Tensor, plain: Tensor, k: Tensor, v: Tensor, time: Tensor, times: Tensor) -> Tensor:
        """Attention to the window and to the sink, whose distance is clamped to the window's reach."""
        sunk = times < self.sink
        away = (time[:, None] - times[sunk]).clamp(0, self.window - self.sink)
        near = rotate(plain[:, :, None], away[:, :, None, None])  # (B, T, S, N, H, D)
        scores = torch.einsum("btsnhd,bnhsd->bnhts", near, k[..., sunk, :]) * q.shape[-1] ** -0.5
        rows = torch.cat(((~sunk).nonzero()[:, 0], sunk.nonzero()[:, 0]))
        mask = window_mask(time, times, self.window - self.sink) | (sunk & (times <= time[:, None]))
        return attend_with_sink(q, k[..., rows, :], v[..., rows, :], mask[:, rows], scores)

    def step(self, x_BNC: Tensor, memory: WorkingMemory, layer: int) -> Tensor:
        """One frame; writes its keys and values to the ring."""
        p = self.projections
        x = p.norm(x_BNC)
        now = memory.count[:, None, None]
        q, (k, v) = p.queries(x), p.keys_values(x)
        memory.write(layer, self._stored(k, now), v, self.sink)
        q = rotate(q, now)[:, :, :, None]
        keys, values, valid = memory.read(layer, writing=True)
        if self.top:
            return p.out(self._step_blocks(q, keys, values, memory, layer).flatten(-3))
        if self.sink:
            frames = torch.arange(self.sink, device=now.device)
            seen = torch.maximum(frames[None], memory.count[:, None] - (self.window - self.sink))
            keys = torch.cat((rotate(keys[:, : self.sink], seen[:, :, None, None]), keys[:, self.sink :]), 1)
        keys, values = (widen(part, p.heads).permute(0, 2, 3, 1, 4) for part in (keys, values))
        return p.out(attend(q, keys, values, valid[:, None, None, None]).flatten(-3))

    def _step_blocks(self, q: Tensor, keys: Tensor, values: Tensor, memory: WorkingMemory, layer: int) -> Tensor:
        """Attention (B, N, H, 1, D) to a query's own block, the one before, and the best of the others."""
        heads, count = self.projections.heads, self.window // self.block
        own = memory.count // self.block  # (B,)
        ring = torch.arange(count, device=own.device)
        behind = (own[:, None] - ring) % count  # blocks ago that each block of the ring is
        allowed = (behind > 1) & (behind <= own[:, None])
        means = widen(memory.sums[:, layer] / self.block, heads).permute(0, 2, 3, 1, 4)
        scores = (q.float() @ means.float().transpose(-1, -2))[..., 0, :]  # (B, N, H, M)
        scores = scores.masked_fill(~allowed[:, None, None], -torch.inf)
        best = scores.topk(min(self.top, count), -1)
        near = torch.stack((own % count, (own - 1) % count), -1)[:, None, None].expand(*scores.shape[:3], -1)
        chosen = torch.cat((near, best.indices), -1)  # (B, N, H, 2 + top)
        there = torch.cat(
            (torch.ones_like(near[..., :1]) > 0, (own > 0)[:, None, None, None].expand_as(near[..., :1])), -1
        )
        there = torch.cat((there, best.values > -torch.inf), -1)
        inner = torch.arange(self.block, device=own.device)
        slots = (chosen[..., None] * self.block + inner).flatten(-2)  # (B, N, H, K)
        late = (chosen == near[..., :1])[..., None] & (inner > (memory.count % self.block)[:, None, None, None, None])
        mask = (there[..., None] & ~late).flatten(-2)[..., None, :]
        found = []
        for part in (keys, values):
            wide = widen(part, heads).permute(0, 2, 3, 1, 4)
            found.append(wide.gather(3, slots[..., None].expand(-1, -1, -1, -1, wide.shape[-1])))
        return attend(q, found[0], found[1], mask)


@dataclass
class ContextMemory:
    """The context stream's state between frames: its ring, and its recurrent memory if it has one."""

    working: WorkingMemory
    recurrent: RecurrentMemory | None = None


class ContextBlock(nn.Module):
    """Attention over time, recurrent memory, attention over the frame, feed-forward."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        channels, heads = config.context_width, config.heads
        self.time = CausalAttention(config) if config.attention != "linear" else None
        self.recurrent = GatedDelta(channels, heads) if config.has_recurrent else None
        self.space = SpatialAttention(channels, heads)
        self.feed_forward = SwiGLU(channels)

    def forward(self, x_BTNC: Tensor, memory: ContextMemory | None, layer: int, first: int) -> Tensor:
        x = x_BTNC
        if self.time is not None:
            x = x + self.time(x, memory and memory.working, layer, first)
        if self.recurrent is not None:
            kept = memory.recurrent if memory is not None else None
            more, state = self.recurrent(x, None if kept is None else kept.states[:, layer])
            if kept is not None:
                kept.states[:, layer] = state
            x = x + more
        x = x + self.space(x)
        return x + self.feed_forward(x)

    def step(self, x_BNC: Tensor, memory: ContextMemory, layer: int) -> Tensor:
        x = x_BNC
        if self.time is not None:
            x = x + self.time.step(x, memory.working, layer)
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
