"""Recurrent memory: a state of fixed size for every token position and head, kept by the gated delta rule.

The state is a matrix from keys to values. A frame lets it fade by a gate `alpha`, takes out what its key held and
writes what it holds now, as strongly as `beta` says (Yang et al., 2025):

    S = alpha * S (I - beta k k') + beta v k'

`scan` reads a whole sequence, chunk by chunk in matrix products (the delta rule's WY form, Yang et al., 2024); `step`
one frame. Both agree.

Legend: B players, T time, N tokens of a frame, C channels, H heads, K channels of a key, V of a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.model.attention import Norm

CHUNK = 32  # frames whose products are taken at once
SHORTEST, LONGEST = 16.0, 4096.0  # half-lives of the heads at first, in frames


@dataclass
class RecurrentMemory:
    """`states` (B, L, N, H, V, K) float32, of L layers; the player is the first axis."""

    states: Tensor

    @classmethod
    def start(cls, players: int, layers: int, tokens: int, heads: int, channels: int, like: Tensor) -> RecurrentMemory:
        """Empty, on the device of `like`."""
        return cls(torch.zeros(players, layers, tokens, heads, channels, channels, device=like.device))


class GatedDelta(nn.Module):
    """A layer that reads and writes recurrent memory; returns the residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.norm = Norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.gates = nn.Linear(channels, 2 * heads)  # what fades, what is written
        self.shown = nn.Linear(channels, channels, bias=False)
        self.out_norm = Norm(channels // heads)
        self.out = nn.Linear(channels, channels, bias=False)
        lives = torch.logspace(math.log2(SHORTEST), math.log2(LONGEST), heads, base=2.0)
        with torch.no_grad():
            self.gates.weight.mul_(0.1)
            # softplus of the bias is the rate at which a state of that half-life fades.
            self.gates.bias[:heads] = (math.log(2) / lives).expm1().log()
            self.gates.bias[heads:] = 0
        nn.init.zeros_(self.out.weight)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values (..., H, D), logarithms of alpha and betas (..., H), in 32 bits."""
        q, k, v = self.qkv(x).float().unflatten(-1, (3, self.heads, -1)).unbind(-3)
        fade, write = self.gates(x).float().chunk(2, -1)
        return F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1), v, -F.softplus(fade), write.sigmoid()

    def _leave(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.out_norm(y).flatten(-2).to(x.dtype)
        return self.out(y * F.silu(self.shown(x)))

    def forward(self, x_BTNC: Tensor, state_BNHVK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Residual (B, T, N, C) of a sequence, and the state behind it."""
        x = self.norm(x_BTNC)
        q, k, v, fade, beta = self._parts(x)
        order = (0, 2, 3, 1, 4)  # B N H T D
        q, k, v = (part.permute(order) for part in (q, k, v))
        y, state = scan(q, k, v, fade.permute(order[:-1]), beta.permute(order[:-1]), state_BNHVK)
        return self._leave(y.permute(0, 3, 1, 2, 4), x), state

    def step(self, x_BNC: Tensor, state_BNHVK: Tensor) -> tuple[Tensor, Tensor]:
        """Residual (B, N, C) of one frame, and the state behind it."""
        x = self.norm(x_BNC)
        q, k, v, fade, beta = self._parts(x)
        state = state_BNHVK * fade.exp()[..., None, None]
        new = beta[..., None] * (v - (state * k[..., None, :]).sum(-1))
        state = state + new[..., None] * k[..., None, :]
        return self._leave((state * q[..., None, :]).sum(-1), x), state


def scan(
    q: Tensor, k: Tensor, v: Tensor, fade: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Reads (..., T, V) by queries (..., T, K) of the states that keys and values (..., T, K), (..., T, V) leave, in 32
    bits; `fade` (..., T) is the logarithm of alpha, `state` (..., V, K) what was there before. And the last state.
    """
    state = v.new_zeros(*v.shape[:-2], v.shape[-1], k.shape[-1]) if state is None else state
    made = []
    with torch.autocast(v.device.type, enabled=False):
        for first in range(0, v.shape[-2], CHUNK):
            part = slice(first, first + CHUNK)
            y, state = _chunk(
                q[..., part, :], k[..., part, :], v[..., part, :], fade[..., part], beta[..., part], state
            )
            made.append(y)
    return torch.cat(made, -2), state


def _chunk(q: Tensor, k: Tensor, v: Tensor, fade: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`scan` of a few frames. What frame t adds to the state, u_t k_t', depends on the frames before it in the chunk
    through a triangular system: u_t + beta_t sum_i (k_t' k_i) fade(i..t) u_i = beta_t (v_t - fade(0..t) S k_t)."""
    total = fade.cumsum(-1)
    between = (total[..., :, None] - total[..., None, :]).tril().exp()  # what is left at t of what was written at i
    system = (beta[..., None] * (k @ k.mT) * between).tril(-1)
    known = beta[..., None] * (v - total.exp()[..., None] * (k @ state.mT))
    eye = torch.eye(system.shape[-1], device=system.device)
    new = torch.linalg.solve_triangular(system + eye, known, upper=False, unitriangular=True)
    y = total.exp()[..., None] * (q @ state.mT) + ((q @ k.mT) * between).tril() @ new
    left = (total[..., -1:] - total).exp()[..., None]
    return y, total[..., -1, None, None].exp() * state + (left * new).mT @ k
