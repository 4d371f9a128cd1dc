"""Compressed history: older frames at a resolution that falls with their age, a few channels for any number of them.

Level 1 is the mean of the frames P + 1 to 2P ago on half the grid, level 2 that of those 2P + 1 to 4P ago on a quarter,
and so on, where P is the number of frames that are seen whole (after FramePack, Zhang and Agrawala, 2025).

Legend: B players, S frames kept, P of them seen whole, L levels, C channels, h, w latent grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def compress(latents_BSChw: Tensor, whole: int, levels: int) -> Tensor:
    """(B, L + P, C, h, w), oldest first: S = P * 2^L frames as L means at the full grid's size, and the last P."""
    height, width = latents_BSChw.shape[-2:]
    parts = []
    for level in range(levels, 0, -1):
        mean = latents_BSChw[:, -whole * 2**level : -whole * 2 ** (level - 1)].mean(1)
        small = F.adaptive_avg_pool2d(mean, (max(1, height >> level), max(1, width >> level)))
        parts.append(F.interpolate(small, size=(height, width)))
    recent = latents_BSChw[:, -whole:]
    return torch.cat((torch.stack(parts, 1), recent), 1) if parts else recent
