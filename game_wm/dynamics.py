"""The dynamics in two streams: what has happened is read once, what comes next may be refined several times.

The context stream reads every finished frame once (`context` for whole sequences in training and for prompts,
`encode_context` for one frame in play) and is the only writer of memory. The denoiser, a small U-Net over the latent
grid, is called once per denoising step; its bottleneck reads the context of the frames before.

Legend: B batch or players, T time, K target frames of a sequence, N tokens of a frame, C channels (latent unless
said), h, w latent grid, A action vector, E conditioning width, H heads, D channels of a head, P history frames.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.attention import Norm, Projections, SpatialAttention, SwiGLU, attend, rotate, window_mask
from game_wm.convolution import ResidualBlock, groups
from game_wm.memory.working import WorkingMemory
from game_wm.objectives.flow import FlowMatching, Predict


@dataclass(frozen=True)
class DynamicsConfig:
    """Sizes of the network. `history`: last latents the denoiser sees whole; `window`: frames of working memory."""

    channels: int = 8
    height: int = 8
    width: int = 8
    actions: int = 4
    history: int = 4
    window: int = 32
    widths: tuple[int, ...] = (192, 256)
    blocks: tuple[int, ...] = (2, 3)
    condition: int = 256
    context_width: int = 192
    context_blocks: int = 2
    heads: int = 4
    registers: int = 2

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or len(self.widths) < 2:
            raise ValueError("widths and blocks must have the same number of levels, two at least")

    def grid(self, halvings: int) -> tuple[int, int]:
        """Height and width of the latent grid after so many halvings."""
        height, width = self.height, self.width
        for _ in range(halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    @property
    def tokens(self) -> int:
        """Tokens of a frame in the context stream: the grid of the innermost level, and the registers."""
        height, width = self.grid(len(self.widths) - 1)
        return height * width + self.registers


@dataclass
class DynamicsState:
    """All that is remembered between two frames; the player is the first axis of every tensor.

    `latents` (B, P, C, h, w), oldest first; `actions` (B, P, A), `actions[:, -1]` led to `latents[:, -1]`; `context`:
    the context stream's own ring; `bottleneck`: the ring that the denoiser reads.
    """

    latents: Tensor
    actions: Tensor
    context: WorkingMemory
    bottleneck: WorkingMemory


def embed_level(level_B: Tensor, channels: int) -> Tensor:
    """Sinusoidal features (B, channels) of a level in [0, 1]."""
    frequencies = torch.exp(torch.linspace(0, 5, channels // 2, device=level_B.device))
    angles = level_B.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class CausalAttention(nn.Module):
    """A token attends to the tokens at its own position in the last W frames, the present one included."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.projections, self.window = Projections(channels, heads), window

    def forward(self, x_BTNC: Tensor, memory: WorkingMemory | None, layer: int) -> Tensor:
        p = self.projections
        x = p.norm(x_BTNC)
        time = torch.arange(x.shape[1], device=x.device)
        q, (k, v) = p.queries(x), p.keys_values(x)
        q, k = rotate(q, time[:, None, None]), rotate(k, time[:, None, None])
        if memory is not None:
            memory.fill(layer, k, v)
        order = (0, 2, 3, 1, 4)  # B N H T D
        mask = window_mask(time, time, self.window)
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


class ContextBlock(nn.Module):
    """Attention over time, attention over the frame, feed-forward."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.time = CausalAttention(channels, heads, window)
        self.space = SpatialAttention(channels, heads)
        self.feed_forward = SwiGLU(channels)

    def forward(self, x_BTNC: Tensor, memory: WorkingMemory | None, layer: int) -> Tensor:
        x = x_BTNC + self.time(x_BTNC, memory, layer)
        x = x + self.space(x)
        return x + self.feed_forward(x)

    def step(self, x_BNC: Tensor, memory: WorkingMemory, layer: int) -> Tensor:
        x = x_BNC + self.time.step(x_BNC, memory, layer)
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
        self.blocks = nn.ModuleList(
            ContextBlock(width, config.heads, config.window) for _ in range(config.context_blocks)
        )
        self.norm = Norm(width)
        self.outcome = nn.Linear(width, 1 + REWARD_BINS)

    def embed(self, latents_BCHW: Tensor, actions_BA: Tensor) -> Tensor:
        """One token a cell of the half-size grid, then the registers: (B, N, C)."""
        cells = self.stem(latents_BCHW).flatten(2).transpose(1, 2)
        registers = cells.new_zeros(len(cells), self.registers, cells.shape[-1])
        return torch.cat((cells, registers), dim=1) + self.positions + self.action(actions_BA)[:, None]

    def forward(self, latents_BTCHW: Tensor, actions_BTA: Tensor, memory: WorkingMemory | None = None) -> Tensor:
        """Whole sequences -> (B, T, N, C); `actions[:, t]` led to `latents[:, t]`."""
        batch, time = latents_BTCHW.shape[:2]
        x = self.embed(latents_BTCHW.flatten(0, 1), actions_BTA.flatten(0, 1)).unflatten(0, (batch, time))
        for layer, block in enumerate(self.blocks):
            x = block(x, memory, layer)
        if memory is not None:
            memory.advance(time)
        return self.norm(x)

    def step(self, latents_BCHW: Tensor, actions_BA: Tensor, memory: WorkingMemory) -> Tensor:
        """One frame -> (B, N, C), with the ring as its past."""
        x = self.embed(latents_BCHW, actions_BA)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, memory, layer)  # type: ignore[operator]
        memory.advance()
        return self.norm(x)

    def outcomes(self, tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the termination (...,) and of the reward's bins (..., bins) of the step that led here."""
        logits = self.outcome(tokens_BNC.mean(-2))
        return logits[..., 0], logits[..., 1:]


class BottleneckBlock(nn.Module):
    """A convolutional block and a look at the context of the frames before; the first one attends over the frame."""

    def __init__(self, config: DynamicsConfig, first: bool) -> None:
        super().__init__()
        width = config.widths[-1]
        self.convolution = ResidualBlock(width, width, config.condition)
        self.space = SpatialAttention(width, config.heads) if first else None
        self.context = Projections(width, config.heads, source=config.context_width) if first else None

    def forward(self, x_BCHW: Tensor, condition_BE: Tensor, context: ContextReader) -> Tensor:
        x = self.convolution(x_BCHW, condition_BE)
        if self.space is None or self.context is None:
            return x
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.space(tokens)
        queries = self.context.queries(self.context.norm(tokens))
        tokens = tokens + self.context.out(context.read(queries))
        return tokens.transpose(1, 2).unflatten(2, x.shape[-2:]).contiguous(memory_format=torch.channels_last)


class ContextReader:
    """What the bottleneck attends to: a sequence's context in training, the ring in play."""

    def read(self, q_BNHD: Tensor) -> Tensor:
        """Queries (B, N, H, D) -> (B, N, H*D)."""
        raise NotImplementedError


class SequenceReader(ContextReader):
    """K targets a sequence, each reading the W frames before it; the batch of queries is B*K."""

    def __init__(self, denoiser: Denoiser, context_BTNC: Tensor, targets: Tensor, window: int) -> None:
        self.targets, self.batch = targets, len(context_BTNC)
        tokens = context_BTNC.shape[2]
        time = torch.arange(context_BTNC.shape[1], device=context_BTNC.device)
        k, v = denoiser.keys_values(context_BTNC)
        k = rotate(k, time[:, None, None])
        self.keys, self.values = (x.flatten(1, 2).transpose(1, 2) for x in (k, v))
        self.mask_KT, self.tokens = window_mask(targets, time, window, strict=True), tokens

    def part(self, part: slice) -> SequenceReader:
        """The same for some of the targets."""
        other = copy(self)
        other.targets, other.mask_KT = self.targets[part], self.mask_KT[part]
        return other

    def read(self, q_BNHD: Tensor) -> Tensor:
        count, cells = len(self.targets), q_BNHD.shape[1]
        q = q_BNHD.unflatten(0, (self.batch, count))
        q = rotate(q, self.targets[:, None, None]).flatten(1, 2).transpose(1, 2)
        mask = self.mask_KT.repeat_interleave(cells, 0).repeat_interleave(self.tokens, 1)
        y = attend(q, self.keys, self.values, mask)
        return y.transpose(1, 2).unflatten(1, (count, cells)).flatten(0, 1).flatten(-2)


class RingReader(ContextReader):
    """The ring of one frame in play."""

    def __init__(self, memory: WorkingMemory) -> None:
        self.memory = memory

    def read(self, q_BNHD: Tensor) -> Tensor:
        keys, values, valid = self.memory.read(0)
        q = rotate(q_BNHD, self.memory.count[:, None, None]).transpose(1, 2)
        mask = valid[:, None, None, :, None].expand(-1, 1, 1, -1, keys.shape[2]).flatten(-2)
        y = attend(q, keys.flatten(1, 2).transpose(1, 2), values.flatten(1, 2).transpose(1, 2), mask)
        return y.transpose(1, 2).flatten(-2)


class Denoiser(nn.Module):
    """U-Net over the latent grid; predicts the clean next latent as a correction to the last one.

    Every level but the innermost halves the grid; the innermost reads the context.
    """

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        *outer, inner = config.widths
        *depths, depth_inner = config.blocks
        e = config.condition
        self.channels, self.levels = config.channels, e // 4
        self.condition = nn.Sequential(
            nn.Linear(config.history * config.actions + 3 * self.levels, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU()
        )
        self.enter = nn.Conv2d(config.channels * (1 + config.history), config.widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList(ResidualBlock(w, w, e) for _ in range(d)) for w, d in zip(outer, depths, strict=True)
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(outer, config.widths[1:], strict=True)
        )
        self.positions = nn.Parameter(torch.zeros(1, inner, *config.grid(len(outer))))
        self.bottleneck = nn.ModuleList(BottleneckBlock(config, i == 0) for i in range(depth_inner))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in zip(outer, config.widths[1:], strict=True))
        self.up = nn.ModuleList(
            nn.ModuleList(ResidualBlock(2 * w if i == 0 else w, w, e) for i in range(d))
            for w, d in zip(outer, depths, strict=True)
        )
        self.norm = nn.GroupNorm(groups(config.widths[0]), config.widths[0])
        self.leave = nn.Conv2d(config.widths[0], config.channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def keys_values(self, context_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., N, H, D) of context tokens for the bottleneck: computed once a frame."""
        return self.bottleneck[0].context.keys_values(context_BNC)  # type: ignore[union-attr,operator]

    def forward(
        self,
        noisy_BCHW: Tensor,
        history_BPCHW: Tensor,
        actions_BPA: Tensor,
        level_B: Tensor,
        stride_B: Tensor,
        context_noise_B: Tensor,
        context: ContextReader,
    ) -> Tensor:
        """Clean latent (B, C, h, w) from one at noise level `level` (0 noise, 1 clean) and the step size `stride`.

        `actions[:, -1]` is the action that leads from the last latent of `history` to the one predicted.
        """
        levels = [embed_level(level, self.levels) for level in (level_B, stride_B, context_noise_B)]
        condition = self.condition(torch.cat((actions_BPA.flatten(1), *levels), dim=-1))
        x = torch.cat((noisy_BCHW, history_BPCHW.flatten(1, 2)), dim=1)
        x = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, condition)
            skips.append(x)
            x = shrink(x)
        x = x + self.positions
        for block in self.bottleneck:
            x = block(x, condition, context)
        for blocks, grow in zip(reversed(self.up), reversed(self.grow), strict=True):  # type: ignore[call-overload]
            skip = skips.pop()
            x = torch.cat((grow(F.interpolate(x, size=skip.shape[-2:], mode="nearest")), skip), dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, condition)
        return history_BPCHW[:, -1] + self.leave(F.silu(self.norm(x))).float()


REWARD_BINS = 41


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


class Dynamics(nn.Module):
    """Context stream and denoiser, and the state that ties frame to frame in play."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.context = ContextStream(config)
        self.denoiser = Denoiser(config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def start(self, latents_BTCHW: Tensor, actions_BTA: Tensor) -> DynamicsState:
        """State after a prompt of T >= 1 frames; `actions[:, t]` led from frame t to t + 1, T - 1 of them."""
        config = self.config
        batch, time = latents_BTCHW.shape[:2]
        led = torch.cat((actions_BTA.new_zeros(batch, 1, config.actions), actions_BTA), dim=1)
        like = latents_BTCHW.float()
        context = self._ring(batch, config.context_blocks, config.context_width, like)
        bottleneck = self._ring(batch, 1, config.widths[-1], like)
        tokens = self.context(like, led, context)
        k, v = self.denoiser.keys_values(tokens)
        bottleneck.fill(0, rotate(k, torch.arange(time, device=k.device)[:, None, None]), v)
        bottleneck.advance(time)
        return DynamicsState(
            pad_front(like, config.history)[:, -config.history :].clone(),
            F.pad(led, (0, 0, config.history, 0))[:, -config.history :].clone(),
            context,
            bottleneck,
        )

    def _ring(self, players: int, layers: int, width: int, like: Tensor) -> WorkingMemory:
        c = self.config
        return WorkingMemory.start(players, layers, c.window, c.tokens, c.heads, width // c.heads, like)

    def encode_context(self, state: DynamicsState, latents_BCHW: Tensor, actions_BA: Tensor) -> tuple[Tensor, Tensor]:
        """Read one finished frame into the state, in place; rewards (B,) and termination probabilities (B,)."""
        tokens = self.context.step(latents_BCHW, actions_BA, state.context)
        k, v = self.denoiser.keys_values(tokens)
        state.bottleneck.write(0, rotate(k, state.bottleneck.count[:, None, None]), v)
        state.bottleneck.advance()
        for past, new in ((state.latents, latents_BCHW), (state.actions, actions_BA)):
            past[:, :-1] = past[:, 1:].clone()
            past[:, -1] = new
        termination, reward = self.context.outcomes(tokens)
        return expected_reward(reward), termination.float().sigmoid()

    def generate(
        self, state: DynamicsState, action_BA: Tensor, noise_BCHW: Tensor, steps: int, objective: FlowMatching
    ) -> Tensor:
        """The next clean latent (B, C, h, w); the state is read, not written."""
        actions = torch.cat((state.actions[:, 1:], action_BA[:, None]), dim=1)
        reader = RingReader(state.bottleneck)
        quiet = torch.zeros(len(action_BA), device=action_BA.device)

        def predict(noisy: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            args = (noisy[:, 0], state.latents, actions, level[:, 0], stride[:, 0], quiet, reader)
            return self.denoiser(*args)[:, None]

        return objective.sample(predict, noise_BCHW[:, None], steps)[:, 0]

    def forward(
        self,
        latents_BTCHW: Tensor,
        actions_BTA: Tensor,
        targets: Tensor,
        context_noise_B: Tensor,
        goals_BTCHW: Tensor,
    ) -> tuple[Predict, Tensor, tuple[Tensor, Tensor]]:
        """Training form: `read` of the sequences with context noise of these levels put on them."""
        amount = context_noise_B[:, None, None, None, None]
        noised = latents_BTCHW + amount * torch.randn_like(latents_BTCHW)
        return self.read(noised, actions_BTA, targets, context_noise_B, goals_BTCHW)

    def read(
        self,
        seen: Tensor,
        actions_BTA: Tensor,
        targets: Tensor,
        context_noise_B: Tensor,
        goals_BTCHW: Tensor,
    ) -> tuple[Predict, Tensor, tuple[Tensor, Tensor]]:
        """What the objective calls, the goals (B, K, C, h, w), and the outcome logits of every frame.

        `seen` (B, T, C, h, w) is what is read, as noised; `actions[:, t]` led from frame t to t + 1; `targets` (K,) are
        frame numbers >= 1, the same in every sequence; `goals_BTCHW` holds what should have come.
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

        def predict(noisy: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            count = noisy.shape[1]
            args = (noisy, history[:, part], acts[:, part], level, stride, context_noise_B[:, None].expand(-1, count))
            flat = (x.flatten(0, 1) for x in args)
            return self.denoiser(*flat, reader.part(part)).unflatten(0, (batch, count))

        return predict, goals_BTCHW[:, targets], self.context.outcomes(tokens)


def pad_front(latents_BTCHW: Tensor, frames: int) -> Tensor:
    """Repeat the first latent `frames` times before the sequence: what lies before an episode's first frame."""
    return torch.cat((latents_BTCHW[:, :1].expand(-1, frames, -1, -1, -1), latents_BTCHW), dim=1)
