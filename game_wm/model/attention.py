"""Attention and its parts: normalisation, SwiGLU, rotary positions over time, masked attention.

Legend: B batch, T time, N tokens of a frame, H heads, D channels of a head, Q queries, K keys, C channels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE, COARSE = 8192, 2048  # rows of the tables of angles: of every frame, of every 8192nd; good for 16 million frames


def rotate(x_TND: Tensor, positions_T: Tensor, base: float = 1000.0) -> Tensor:
    """Rotary position embedding (Su et al., 2021) of `x` (..., D) by `positions`: whole numbers of frames, which
    broadcast to `...`.

    The product of two rotated vectors depends on the difference of their positions alone. Angles are computed in
    double precision, so that frame 1,000,000 is as exact as frame 100, and looked up: not every device has doubles.
    """
    half = x_TND.shape[-1] // 2
    fine, coarse = turns(half, base, x_TND.device)
    near, far = fine[positions_T % FINE], coarse[positions_T // FINE % COARSE]
    (c, s), (d, t) = near.unbind(-2), far.unbind(-2)
    cos, sin = (c * d - s * t).to(x_TND.dtype), (s * d + c * t).to(x_TND.dtype)
    a, b = x_TND[..., :half], x_TND[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


@cache
def turns(count: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (frames, 2, count) of `count` angles at every frame, and at every 8192nd."""
    rates = base ** (-np.arange(count) / count)
    angles = [np.arange(rows)[:, None] * step * rates for rows, step in ((FINE, 1), (COARSE, FINE))]
    tables = [np.stack((np.cos(angle), np.sin(angle)), 1).astype(np.float32) for angle in angles]
    fine, coarse = (torch.from_numpy(table).to(device) for table in tables)
    return fine, coarse


def attend(q_BHQD: Tensor, k_BHKD: Tensor, v_BHKD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention; `mask` is boolean, True where a query may attend.

    On a CPU in training, plain matrix products: the fused kernel's bf16 backward is several times slower there.
    """
    if q_BHQD.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q_BHQD, k_BHKD, v_BHKD, attn_mask=mask)
    scores = (q_BHQD * q_BHQD.shape[-1] ** -0.5) @ k_BHKD.transpose(-1, -2)
    if mask is not None:
        scores = scores + torch.where(mask, 0.0, -1e4).to(scores.dtype)
    return scores.softmax(-1).to(v_BHKD.dtype) @ v_BHKD


def attend_in_window(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """`attend` of queries (..., Q, D) at these times to the keys (..., K, D) of the last `window` frames, at a cost
    that grows with Q and not with its square: as many queries at once as a window is long.

    Times rise by one; the last key is as late as the last query.
    """
    made, first = [], len(keys) - len(queries)  # the key of the first query
    for begin in range(0, len(queries), window):
        part = slice(begin, begin + window)
        near = slice(max(0, first + begin - window + 1), first + begin + window)
        made.append(
            attend(q[..., part, :], k[..., near, :], v[..., near, :], window_mask(queries[part], keys[near], window))
        )
    return made[0] if len(made) == 1 else torch.cat(made, -2)


def widen(x: Tensor, heads: int) -> Tensor:
    """Keys or values (..., G, D) of G heads for `heads` queries: neighbours share one (Ainslie et al., 2023)."""
    return x if x.shape[-2] == heads else x.repeat_interleave(heads // x.shape[-2], -2)


def attend_with_sink(q_BHQD: Tensor, k_BHKD: Tensor, v_BHKD: Tensor, mask: Tensor, sink_BHQS: Tensor) -> Tensor:
    """`attend` where the scores of the last S of the keys are given, not computed; `mask` (Q, K) holds for all."""
    count = sink_BHQS.shape[-1]
    scores = (q_BHQD * q_BHQD.shape[-1] ** -0.5) @ k_BHKD[..., :-count, :].transpose(-1, -2)
    scores = torch.cat((scores, sink_BHQS), -1) + torch.where(mask, 0.0, -1e4).to(scores.dtype)
    return scores.softmax(-1).to(v_BHKD.dtype) @ v_BHKD


def best_blocks(q_BHQD: Tensor, means_BHMD: Tensor, allowed_QM: Tensor, top: int) -> Tensor:
    """Which of M blocks of keys each query reads (B, H, Q, M): the allowed `top` whose mean key fits it best."""
    scores = (q_BHQD.float() @ means_BHMD.float().transpose(-1, -2)).masked_fill(~allowed_QM, -torch.inf)
    best = scores.topk(min(top, scores.shape[-1]), -1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True) & allowed_QM


def window_mask(queries: Tensor, keys: Tensor, window: int, strict: bool = False) -> Tensor:
    """(Q, K) boolean: key times at most `window` frames back, the present one included unless `strict`."""
    age = queries[:, None] - keys[None, :]
    first = 1 if strict else 0
    return (age >= first) & (age < window + first)


class Norm(nn.Module):
    """Layer normalisation over the last axis, without a bias.

    Root-mean-square normalisation would do as well, but its backward is not fused on a CPU and ten times slower.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), None, 1e-6)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer, 2020) with its own pre-normalisation; returns the residual."""

    def __init__(self, channels: int, expansion: float = 8 / 3) -> None:
        super().__init__()
        hidden = int(channels * expansion) // 32 * 32
        self.norm = Norm(channels)
        self.up = nn.Linear(channels, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, channels, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(self.norm(x)).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Projections(nn.Module):
    """Pre-normalised queries, keys and values with query-key norm, and the output projection.

    `source` is the width of what keys and values are read from (another stream in cross-attention), `kv_heads` how many
    heads they have, if fewer than the queries.
    """

    def __init__(self, channels: int, heads: int, source: int | None = None, kv_heads: int | None = None) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.norm = Norm(channels)
        self.q = nn.Linear(channels, channels, bias=False)
        self.kv = nn.Linear(source or channels, 2 * channels // heads * self.kv_heads, bias=False)
        self.q_norm, self.k_norm = Norm(channels // heads), Norm(channels // heads)
        self.out = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def queries(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., H, D); expects `x` normalised."""
        return self.q_norm(self.q(x).unflatten(-1, (self.heads, -1)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) -> twice (..., H, D); expects `x` normalised."""
        k, v = self.kv(x).unflatten(-1, (2, self.kv_heads, -1)).unbind(-3)
        return self.k_norm(k), v


class SpatialAttention(nn.Module):
    """Every token of a frame attends to every token of the same frame; returns the residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.projections = Projections(channels, heads)

    def forward(self, x_BNC: Tensor) -> Tensor:
        p = self.projections
        x = p.norm(x_BNC)
        q, (k, v) = p.queries(x), p.keys_values(x)
        y = attend(q.transpose(-2, -3), k.transpose(-2, -3), v.transpose(-2, -3))
        return p.out(y.transpose(-2, -3).flatten(-2))
