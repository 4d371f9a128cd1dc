"""The denoiser: a U-Net over the latent grid, called once per denoising step, whose bottleneck reads the context.

Legend: B batch or players, T time, K target frames of a sequence, N tokens of a frame, C channels (latent unless said),
h, w latent grid, A action vector, E conditioning width, H heads, D channels of a head, P history frames, V views, M
their channels.
"""

from __future__ import annotations

from copy import copy
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.working import WorkingMemory
from game_wm.model.attention import Projections, SpatialAttention, attend, rotate, window_mask
from game_wm.model.config import COVER, DynamicsConfig
from game_wm.model.convolution import ResidualBlock, groups
from game_wm.objectives.cascade import double, halve
from game_wm.objectives.flow import Predict


def embed_level(level_B: Tensor, channels: int) -> Tensor:
    """Sinusoidal features (B, channels) of a level in [0, 1]."""
    frequencies = torch.exp(torch.linspace(0, 5, channels // 2, device=level_B.device))
    angles = level_B.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class BottleneckBlock(nn.Module):
    """A convolutional block; the first one also attends over the frame and to the context of the frames before."""

    def __init__(self, config: DynamicsConfig, first: bool) -> None:
        super().__init__()
        width = config.widths[-1]
        self.convolution = ResidualBlock(width, width, config.condition, config.inside[-1])
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


class SequenceReader:
    """The context of K targets a sequence, each reading the W frames before it; the batch of queries is B*K.
    `denoiser`: the trunk whose keys and values these are."""

    def __init__(self, denoiser: Any, context_BTNC: Tensor, targets: Tensor, window: int) -> None:
        self.targets, self.batch = targets, len(context_BTNC)
        tokens = context_BTNC.shape[2]
        time = torch.arange(context_BTNC.shape[1], device=context_BTNC.device)
        if len(time) > 3 * window:  # no target reads most frames of a long sequence
            near = window_mask(targets, time, window, strict=True).any(0)
            time, context_BTNC = time[near], context_BTNC[:, near]
        k, v = denoiser.keys_values(context_BTNC)
        k = rotate(k, time[:, None, None])
        self.keys, self.values = (x.flatten(1, 2).transpose(1, 2) for x in (k, v))
        self.mask_KT, self.tokens = window_mask(targets, time, window, strict=True), tokens

    def part(self, part: slice) -> SequenceReader:
        other = copy(self)
        other.targets, other.mask_KT = self.targets[part], self.mask_KT[part]
        return other

    def read(self, q_BNHD: Tensor) -> Tensor:
        """Queries (B, N, H, D) -> (B, N, H*D)."""
        count, cells = len(self.targets), q_BNHD.shape[1]
        q = q_BNHD.unflatten(0, (self.batch, count))
        q = rotate(q, self.targets[:, None, None]).flatten(1, 2).transpose(1, 2)
        mask = self.mask_KT.repeat_interleave(cells, 0).repeat_interleave(self.tokens, 1)
        y = attend(q, self.keys, self.values, mask)
        return y.transpose(1, 2).unflatten(1, (count, cells)).flatten(0, 1).flatten(-2)


class RingReader:
    """The same of the ring, for one frame in play."""

    def __init__(self, memory: WorkingMemory) -> None:
        self.memory = memory

    def part(self, part: slice) -> RingReader:
        return self  # the next frame is the only target

    def read(self, q_BNHD: Tensor) -> Tensor:
        keys, values, valid = self.memory.read(0)
        q = rotate(q_BNHD, self.memory.count[:, None, None]).transpose(1, 2)
        mask = valid[:, None, None, :, None].expand(-1, 1, 1, -1, keys.shape[2]).flatten(-2)
        y = attend(q, keys.flatten(1, 2).transpose(1, 2), values.flatten(1, 2).transpose(1, 2), mask)
        return y.transpose(1, 2).flatten(-2)


ContextReader = SequenceReader | RingReader  # what the bottleneck attends to, in training and in play


class Denoiser(nn.Module):
    """U-Net over the latent grid; predicts the clean next latent as a correction to the last one, and to the views that
    memory renders for it where they cover something.

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
        self.view_channels = config.views * (config.channels + COVER)
        self.older = config.compressed
        inputs = config.channels * (1 + config.history + config.compressed) + self.view_channels
        self.conv_in = nn.Conv2d(inputs, config.widths[0], 3, padding=1)
        levels = list(zip(outer, depths, config.inside[:-1], strict=True))
        self.down = nn.ModuleList(
            nn.ModuleList(ResidualBlock(w, w, e, hidden) for _ in range(d)) for w, d, hidden in levels
        )
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(config.widths))
        self.positions = nn.Parameter(torch.zeros(1, inner, *config.grid(len(outer))))
        self.bottleneck = nn.ModuleList(BottleneckBlock(config, i == 0) for i in range(depth_inner))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairwise(config.widths))
        self.up = nn.ModuleList(
            nn.ModuleList(ResidualBlock(2 * w if i == 0 else w, w, e, hidden) for i in range(d))
            for w, d, hidden in levels
        )
        self.norm = nn.GroupNorm(groups(config.widths[0]), config.widths[0])
        self.conv_out = nn.Conv2d(config.widths[0], config.channels, 3, padding=1)
        # How much of the correction is added, cell by cell: where it closes, the last latent is copied exactly.
        self.change = nn.Conv2d(config.widths[0], 1, 3, padding=1) if config.gated else None
        if self.change is not None:
            nn.init.zeros_(self.change.weight)
            nn.init.constant_(self.change.bias, -1.0)  # type: ignore[arg-type]
        # How much of a view's cell is copied: at first nothing of memory's view, all of the warped last frame.
        self.gate = nn.Conv2d(config.widths[0], config.views, 3, padding=1) if config.views else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]
            if config.warp:
                nn.init.ones_(self.gate.bias[-1:])  # type: ignore[index]
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def keys_values(self, context_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., N, H, D) of context tokens for the bottleneck: computed once a frame."""
        return self.bottleneck[0].context.keys_values(context_BNC)  # type: ignore[union-attr,operator]

    def predictor(
        self,
        history_BKPCHW: Tensor,
        actions_BKPA: Tensor,
        context_noise_BK: Tensor,
        context: ContextReader,
        views_BKMhw: Tensor | None = None,
    ) -> Predict:
        """The objective's function for K targets of each of B sequences, whose arguments are those of `forward`."""
        batch = len(history_BKPCHW)

        def predict(noisy: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            args = (noisy, history_BKPCHW[:, part], actions_BKPA[:, part], level, stride, context_noise_BK[:, part])
            flat = [x.flatten(0, 1) for x in args]
            views = None if views_BKMhw is None else views_BKMhw[:, part].flatten(0, 1)
            return self(*flat, context.part(part), views).unflatten(0, (batch, noisy.shape[1]))

        return predict

    def trunk(self, x_BCHW: Tensor, condition_BE: Tensor, context: ContextReader) -> Tensor:
        """All blocks, (B, widths[0], h, w) to the same."""
        return self.after_first_block(self.down[0][0](x_BCHW, condition_BE), condition_BE, context)  # type: ignore[index]

    def after_first_block(self, x: Tensor, condition: Tensor, context: ContextReader) -> Tensor:
        skips, first = [], self.down[0][0]  # type: ignore[index]
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = x if block is first else block(x, condition)
            skips.append(x)
            x = shrink(x)
        height, width = x.shape[2:]
        same = (height, width) == tuple(self.positions.shape[2:])
        x = x + (self.positions if same else F.adaptive_avg_pool2d(self.positions, (height, width)))
        for block in self.bottleneck:
            x = block(x, condition, context)
        for blocks, grow in zip(reversed(self.up), reversed(self.grow), strict=True):  # type: ignore[call-overload]
            skip = skips.pop()
            x = torch.cat((grow(F.interpolate(x, size=skip.shape[-2:], mode="nearest")), skip), dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, condition)
        return x

    def forward(
        self,
        noisy_BCHW: Tensor,
        history_BPCHW: Tensor,
        actions_BPA: Tensor,
        level_B: Tensor,
        stride_B: Tensor,
        context_noise_B: Tensor,
        context: ContextReader,
        views_BMhw: Tensor | None = None,
    ) -> Tensor:
        """Clean latent (B, C, h, w) from a noisy one at `level` (0 noise, 1 clean) with step size `stride`; both at
        half the grid in a cascade's coarse stage.

        `history`: compressed frames, then whole ones, the latest last; `actions[:, -1]` leads from that to the
        predicted frame; `views`: memory's and the warped last frame, in this order, if the network reads them; None
        stands for empty ones.
        """
        levels = [embed_level(level, self.levels) for level in (level_B, stride_B, context_noise_B)]
        condition = self.condition(torch.cat((actions_BPA.flatten(1), *levels), dim=-1))
        older, recent = history_BPCHW[:, : self.older], history_BPCHW[:, self.older :]
        last, coarse = history_BPCHW[:, -1], noisy_BCHW.shape[2:] != history_BPCHW.shape[3:]
        noisy_BCHW = double(noisy_BCHW) if coarse else noisy_BCHW
        inputs = [noisy_BCHW, recent.flatten(1, 2)]
        if self.view_channels:
            empty = noisy_BCHW.new_zeros(len(noisy_BCHW), self.view_channels, *noisy_BCHW.shape[2:])
            inputs.append(empty if views_BMhw is None else views_BMhw)
        inputs.append(older.flatten(1, 2))
        x = self.conv_in(torch.cat(inputs, dim=1).contiguous(memory_format=torch.channels_last))
        if coarse:  # the past was read at the full grid, by the first convolution
            x, last = halve(x).contiguous(memory_format=torch.channels_last), halve(last)
            views_BMhw = None if views_BMhw is None else halve(views_BMhw)
        x = F.silu(self.norm(self.trunk(x, condition, context)))
        correction = self.conv_out(x).float()
        if self.change is not None:
            correction = correction * self.change(x).float().sigmoid()
        clean = last + correction
        if self.gate is not None and views_BMhw is not None:
            gates = self.gate(x).float().unbind(1)
            for gate, each in zip(gates, views_BMhw.split(self.channels + COVER, 1), strict=True):
                view, cover = each.split((self.channels, COVER), 1)
                clean = clean + gate[:, None] * cover.amax(1, keepdim=True) * (view - last)
        return clean
