"""Convolutional parts that the tokenizer and the denoiser share.

Legend: B batch, C channels, H height, W width, E width of the conditioning vector.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def groups(channels: int) -> int:
    """Groups of a group normalisation: sixteen channels each."""
    return max(1, channels // 16)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions behind group normalisations; `condition` > 0 makes them adaptive (scale and shift).

    `hidden`: channels between the two, `outputs` if None.
    """

    def __init__(self, inputs: int, outputs: int, condition: int = 0, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or outputs
        self.norm1 = nn.GroupNorm(groups(inputs), inputs)
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups(hidden), hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.film = nn.Linear(condition, 2 * hidden) if condition else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor, condition_BE: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x_BCHW))))
        if self.film is not None:
            scale, shift = self.film(condition_BE)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x_BCHW) + self.conv2(F.silu(h))


class LightBlock(nn.Module):
    """One normalisation and two 3x3 convolutions: the tokenizer's block, cheap enough to run at every frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.conv2(F.silu(self.conv1(self.norm(x_BCHW))))
