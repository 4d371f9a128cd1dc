"""Reading episodic memory where the detail is made: every cell of the latent grid looks for itself in recalled frames.

Cross-attention at the grid's full resolution. A recalled frame was seen from elsewhere, so a small network shifts its
cells to where they would appear now, from its relative pose and the cell's own place; attention falls off with the
distance that is left, and with how far away the frame was seen. So it begins as a copy of what lies in the same place
of the nearest frame, and learns to move it and to tell what fits.

Legend: B batch, C latent channels, W width of the denoiser's outer level, h, w grid, N = h * w cells, R frames
recalled, K = R * N keys, H heads, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.attention import Norm
from game_wm.config import DynamicsConfig
from game_wm.memory.episodic import FEATURES

INNER = 128


class Recollection(nn.Module):
    """Recalled frames as the next frame's grid: what the outer level gains from them, and what they tell by themselves.

    It is called once a frame, however many calls the denoiser takes.
    """

    places: Tensor

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.heads = config.heads
        depth = INNER // config.heads
        self.see = nn.Sequential(nn.Conv2d(config.channels, INNER, 3, padding=1), nn.SiLU(), nn.Conv2d(INNER, INNER, 1))
        self.about = nn.Linear(FEATURES, INNER)
        self.shift = nn.Sequential(nn.Linear(FEATURES + 2, 64), nn.SiLU(), nn.Linear(64, 2))
        self.norm = Norm(INNER)
        self.q, self.kv = nn.Linear(INNER, INNER), nn.Linear(INNER, 2 * INNER)
        self.q_norm, self.k_norm = Norm(depth), Norm(depth)
        self.none = nn.Parameter(torch.randn(2, 1, config.heads, depth) * 0.02)  # key and value of finding nothing
        # How fast attention falls off with cells, places and turns between: some heads look closer than others.
        self.narrow = nn.Parameter(torch.linspace(1.0, -1.0, config.heads))
        self.near = nn.Parameter(torch.tensor([1.0, 3.0])[:, None].repeat(1, config.heads))
        self.nothing = nn.Parameter(torch.full((config.heads,), -4.0))
        self.mix = nn.Conv2d(INNER, INNER, 3, padding=1)
        self.out = nn.Conv2d(INNER, config.widths[0], 1)
        self.told = nn.Conv2d(INNER, config.channels, 1)
        for layer in (self.shift[-1], self.out):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        rows, columns = torch.meshgrid(torch.arange(config.height), torch.arange(config.width), indexing="ij")
        self.register_buffer("places", torch.stack((columns, rows), -1).flatten(0, 1).float(), persistent=False)

    def _closeness(self, about_BR6: Tensor) -> Tensor:
        """What is added to the scores (B, H, N, K + 1): the last key is that of nothing."""
        batch, recalled = about_BR6.shape[:2]
        cells = len(self.places)
        told = about_BR6[:, :, None].expand(-1, -1, cells, -1)
        here = (self.places / 8).expand(batch, recalled, -1, -1)
        moved = self.places + 8 * self.shift(torch.cat((told, here), -1)).float()  # (B, R, N, 2)
        apart = torch.cdist(self.places.expand(batch, -1, -1), moved.flatten(1, 2)).square()  # (B, N, K)
        away, turned = about_BR6[..., :2].square().sum(-1), 1 - about_BR6[..., 3]
        near = self.near.exp()[..., None, None]
        frame = near[0] * away[:, None, None] + near[1] * turned[:, None, None]  # (B, H, 1, R)
        closeness = -self.narrow.exp()[:, None, None] * apart[:, None] - frame.repeat_interleave(cells, -1)
        there = (about_BR6[..., -1] > 0).repeat_interleave(cells, 1)[:, None, None]
        nothing = self.nothing[:, None, None].expand(batch, -1, cells, 1)
        return torch.cat((closeness.masked_fill(~there, -1e4), nothing), -1)

    def _see(self, latents: Tensor) -> Tensor:
        """Features (..., N, INNER) of the cells of latents (..., C, h, w)."""
        return self.see(latents.flatten(0, -4)).flatten(2).transpose(1, 2).unflatten(0, latents.shape[:-3])

    def forward(self, last_BChw: Tensor, latents_BRChw: Tensor, about_BR6: Tensor) -> tuple[Tensor, Tensor]:
        """What the outer level gains (B, W, h, w) and the next latent (B, C, h, w) by recalled frames alone.

        `last` is the last latent, by which a cell knows what it looks for; `about` is as `EpisodicMemory.read` gives
        it: a frame whose last entry is zero is none.
        """
        batch = len(last_BChw)
        seen = self.norm(self._see(latents_BRChw) + self.about(about_BR6)[:, :, None])
        k, v = self.kv(seen.flatten(1, 2)).unflatten(-1, (2, self.heads, -1)).unbind(-3)  # (B, K, H, D)
        q = self.q_norm(self.q(self.norm(self._see(last_BChw))).unflatten(-1, (self.heads, -1)))
        none_k, none_v = (x.expand(batch, 1, -1, -1) for x in self.none)
        k, v = torch.cat((self.k_norm(k), none_k.to(k.dtype)), 1), torch.cat((v, none_v.to(v.dtype)), 1)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + self._closeness(about_BR6)
        y = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(-2)
        y = y.transpose(1, 2).unflatten(2, last_BChw.shape[-2:])
        y = y + F.silu(self.mix(y))
        return self.out(y), self.told(y)
