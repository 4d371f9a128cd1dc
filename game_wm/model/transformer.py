"""The trunk of the discrete models: a transformer over the tokens of one frame, whose first block reads the context.

It is conditioned on the same past as the U-Net: the last latents, the actions, the context. Latents and actions go
through convolutions once a frame; their output is added to each token's embedding.

Legend: B batch or players, K target frames of a sequence, N tokens of a frame in raster order, n those of a
call, V codes, C channels (latent unless said), E width, h, w latent grid, A action vector, H heads, D channels of a
head, P history frames, L blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.model.attention import Norm, Projections, SwiGLU, attend
from game_wm.model.config import DynamicsConfig
from game_wm.model.convolution import ResidualBlock
from game_wm.model.denoiser import ContextReader, embed_level
from game_wm.model.fsq import Codebook


@dataclass
class FrameCache:
    """Keys and values (L, B, N, H, D) of the tokens of one frame, of which the first `count` are there."""

    keys: Tensor
    values: Tensor
    count: int = 0

    def add(self, layer: int, keys_BnHD: Tensor, values_BnHD: Tensor) -> tuple[Tensor, Tensor]:
        """Write those of the next tokens; returns all of this layer so far."""
        end = self.count + keys_BnHD.shape[1]
        self.keys[layer, :, self.count : end] = keys_BnHD.to(self.keys.dtype)
        self.values[layer, :, self.count : end] = values_BnHD.to(self.values.dtype)
        return self.keys[layer, :, :end].to(keys_BnHD.dtype), self.values[layer, :, :end].to(values_BnHD.dtype)


class FrameBlock(nn.Module):
    """Attention over the frame's tokens, a look at the context of the frames before (first block), feed-forward."""

    def __init__(self, config: DynamicsConfig, first: bool) -> None:
        super().__init__()
        width = config.widths[-1]
        self.space = Projections(width, config.heads)
        self.context = Projections(width, config.heads, source=config.context_width) if first else None
        self.feed_forward = SwiGLU(width)

    def forward(
        self, x_BnE: Tensor, context: ContextReader, mask: Tensor | None, cache: FrameCache | None, layer: int
    ) -> Tensor:
        p, x = self.space, x_BnE
        normed = p.norm(x)
        q, (k, v) = p.queries(normed), p.keys_values(normed)
        if cache is not None:
            k, v = cache.add(layer, k, v)
        x = x + p.out(attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask).transpose(1, 2).flatten(-2))
        if self.context is not None:
            x = x + self.context.out(context.read(self.context.queries(self.context.norm(x))))
        return x + self.feed_forward(x)


class FrameTransformer(nn.Module):
    """Codes of a frame, as far as they are known, -> logits of all of them."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config, self.codebook, width = config, Codebook(config.levels), config.widths[-1]
        self.levels = config.condition // 4
        e = config.condition
        self.condition = nn.Sequential(
            nn.Linear(config.history * config.actions + self.levels, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU()
        )
        self.conv_in = nn.Conv2d(config.channels * (config.history + config.compressed), width, 3, padding=1)
        self.history = nn.ModuleList(ResidualBlock(width, width, e) for _ in range(config.blocks[0]))
        self.positions = nn.Parameter(torch.randn(config.height * config.width, width) * 0.02)
        self.digits = nn.Embedding(sum(config.levels), width)
        self.unknown = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(FrameBlock(config, i == 0) for i in range(config.blocks[-1]))
        self.norm = Norm(width)
        # A code's logit: the sum of those of its digits, which is learnt at once, and one of its own.
        self.digit_logits, self.code_logits = nn.Linear(width, sum(config.levels)), nn.Linear(width, self.codebook.size)
        nn.init.zeros_(self.code_logits.weight)
        nn.init.zeros_(self.code_logits.bias)
        self.table: Tensor
        rows = F.one_hot(self._rows(torch.arange(self.codebook.size)), sum(config.levels)).sum(-2)
        self.register_buffer("table", rows.float().T.contiguous(), persistent=False)

    def _rows(self, ids: Tensor) -> Tensor:
        """Rows (..., C) of the digits' embedding for codes (...): one a channel."""
        firsts = [sum(self.codebook.levels[:i]) for i in range(len(self.codebook.levels))]
        return self.codebook.digits(ids) + torch.tensor(firsts, device=ids.device)

    def keys_values(self, context_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., N, H, D) of context tokens for the first block: computed once a frame."""
        return self.blocks[0].context.keys_values(context_BNC)  # type: ignore[union-attr,operator]

    def predictor(
        self,
        history_BKPCHW: Tensor,
        actions_BKPA: Tensor,
        context_noise_BK: Tensor,
        context: ContextReader,
        views_BKMhw: Tensor | None = None,
    ) -> TokenPredictor:
        """The objective's function for K targets of each of B sequences; this trunk reads no views."""
        assert views_BKMhw is None
        shape, level = history_BKPCHW.shape[:2], embed_level(context_noise_BK.flatten(), self.levels)
        condition = self.condition(torch.cat((actions_BKPA.flatten(0, 1).flatten(1), level), -1))
        history = history_BKPCHW.flatten(0, 1).flatten(1, 2)
        x = self.conv_in(history.contiguous(memory_format=torch.channels_last))
        for block in self.history:
            x = block(x, condition)
        past = x.flatten(2).transpose(1, 2) + self.positions
        return TokenPredictor(self, past.unflatten(0, shape), context)

    def forward(
        self, ids_Bn: Tensor, past_BnE: Tensor, context: ContextReader, causal: bool, cache: FrameCache | None
    ) -> Tensor:
        """Logits (B, n, V) of tokens; `past` is what the past says at their places."""
        known = (ids_Bn < self.codebook.size)[..., None]
        codes = self.digits(self._rows(ids_Bn.clamp_max(self.codebook.size - 1))).sum(-2)
        x = past_BnE + torch.where(known, codes, self.unknown)
        x = self.norm(self.through(x, context, causal, cache))
        return self.code_logits(x) + self.digit_logits(x) @ self.table

    def through(self, x_BnE: Tensor, context: ContextReader, causal: bool, cache: FrameCache | None) -> Tensor:
        """All blocks, (B, n, E) to the same."""
        x, new, known, mask = x_BnE, x_BnE.shape[1], cache.count if cache else 0, None
        if causal and new > 1:
            mask = torch.ones(new, known + new, dtype=torch.bool, device=x.device).tril(known)
        for layer, block in enumerate(self.blocks):
            x = block(x, context, mask, cache, layer)
        if cache is not None:
            cache.count += new
        return x


class TokenPredictor:
    """`FrameTransformer` for given frames: what the discrete objectives call (`objectives/tokens.py`)."""

    def __init__(self, trunk: FrameTransformer, past_BKNE: Tensor, context: ContextReader) -> None:
        self.trunk, self.past, self.context, self.codebook = trunk, past_BKNE, context, trunk.codebook

    def cache(self) -> FrameCache:
        config, (batch, targets, tokens, width) = self.trunk.config, self.past.shape
        shape = len(self.trunk.blocks), batch * targets, tokens, config.heads, width // config.heads
        return FrameCache(self.past.new_zeros(shape), self.past.new_zeros(shape))

    def __call__(self, ids_BKn: Tensor, part: slice, causal: bool = False, cache: FrameCache | None = None) -> Tensor:
        first = cache.count if cache else 0
        past = self.past[:, part, first : first + ids_BKn.shape[2]].flatten(0, 1)
        logits = self.trunk(ids_BKn.flatten(0, 1), past, self.context.part(part), causal, cache)
        return logits.unflatten(0, ids_BKn.shape[:2])
