"""Convolutional auto-encoder: a frame of uint8 pixels to a small grid of latents, and back.

The latent is noise-regularised: in training, noise of a fixed deviation is added to it and its scale is
penalised (a variational auto-encoder with a constant posterior variance), so that neighbouring latents decode
to neighbouring pictures and the dynamics may be a little wrong without being seen. With `levels` it is discrete
instead: finite scalar quantisation (`fsq.py`) to one of a few thousand codes a cell.

Legend: B batch, H height, W width in pixels; h, w of the latent grid; C latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from game_wm.convolution import LightBlock
from game_wm.fsq import Codebook


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the auto-encoder. One width a halving: three widths make 8 pixels a latent, four make 16.

    `levels`: to how many levels each channel is rounded; none where latents are continuous, with noise of `noise`.
    """

    height: int = 64
    width: int = 64
    channels: int = 8
    encoder_widths: tuple[int, ...] = (48, 96, 192)
    decoder_widths: tuple[int, ...] = (48, 96, 192)
    decoder_blocks: int = 2
    noise: float = 0.1
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise ValueError("encoder_widths and decoder_widths must have the same number of levels")
        if self.levels and (len(self.levels) != self.channels or min(self.levels) < 3):
            raise ValueError(f"levels {list(self.levels)} must be three or more for each of {self.channels} channels")
        if self.height % self.factor or self.width % self.factor:
            raise ValueError(f"frames of {self.width}x{self.height} are no multiple of {self.factor} pixels a latent")

    @property
    def factor(self) -> int:
        """Pixels per latent and side."""
        return 2 ** len(self.encoder_widths)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the latent grid."""
        return self.height // self.factor, self.width // self.factor


class Tokenizer(nn.Module):
    """`encode` gives normalised latents (zero mean, unit variance a channel as tracked in training), or codes."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook = Codebook(config.levels) if config.levels else None
        enc, dec = config.encoder_widths, config.decoder_widths
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, enc[0], 3, padding=1), LightBlock(enc[0])]
        for a, b in pairwise(enc):
            down += [nn.Conv2d(a, b, 4, stride=2, padding=1), LightBlock(b)]
        down += [nn.GroupNorm(enc[-1] // 16, enc[-1]), nn.SiLU(), nn.Conv2d(enc[-1], config.channels, 3, padding=1)]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = [nn.Conv2d(config.channels, dec[-1], 3, padding=1)]
        up += [LightBlock(dec[-1]) for _ in range(config.decoder_blocks)]
        for a, b in pairwise(reversed(dec)):
            up += [nn.Conv2d(a, 4 * b, 1), nn.PixelShuffle(2)]
            up += [LightBlock(b) for _ in range(config.decoder_blocks)]
        up += [nn.SiLU(), nn.Conv2d(dec[0], 12, 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*up)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(config.channels, 1, 1))
        self.register_buffer("deviation", torch.ones(config.channels, 1, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def to_unit(frames_BHWC: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1], channels last in memory."""
        return frames_BHWC.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    @staticmethod
    def to_frames(images_BCHW: Tensor) -> Tensor:
        """float (B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
        pixels = images_BCHW.float().add(1).mul(127.5).round().clamp(0, 255)
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def encode(self, frames_BHWC: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> normalised latents (B, C, h, w)."""
        return self.encode_images(self.to_unit(frames_BHWC))

    def encode_images(self, images_BCHW: Tensor) -> Tensor:
        """Float images (B, 3, H, W) in [-1, 1] -> normalised latents (B, C, h, w)."""
        images = images_BCHW.contiguous(memory_format=torch.channels_last)
        return (self.quantise(self.encoder(images).float()) - self.mean) / self.deviation

    def quantise(self, raw_BCHW: Tensor) -> Tensor:
        """Raw latents as they are, or the codes next to them."""
        return raw_BCHW if self.codebook is None else self.codebook.quantise(raw_BCHW)

    def decode_images(self, latents_BCHW: Tensor) -> Tensor:
        """Normalised latents (B, C, h, w) -> float images (B, 3, H, W) in [-1, 1], differentiable."""
        return self.decoder(latents_BCHW * self.deviation + self.mean)

    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Normalised latents (B, C, h, w) -> uint8 (B, H, W, 3)."""
        return self.to_frames(self.decode_images(latents_BCHW))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> their reconstruction."""
        return self.decoder(self.quantise(self.encoder(images_BCHW)))

    @torch.no_grad()
    def track(self, latents_BCHW: Tensor, momentum: float = 0.01) -> None:
        """Move mean and deviation of the raw latents, a channel, towards those of a training batch."""
        self.mean.lerp_(latents_BCHW.mean(dim=(0, 2, 3))[:, None, None], momentum)
        self.deviation.lerp_(latents_BCHW.std(dim=(0, 2, 3)).clamp_min(1e-3)[:, None, None], momentum)
