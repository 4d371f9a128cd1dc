"""Convolutional auto-encoder: a frame of uint8 pixels to a small grid of latents, and back.

The latent is noise-regularised: in training, noise of a fixed deviation is added to it and its scale is
penalised (a variational auto-encoder with a constant posterior variance), so that neighbouring latents decode
to neighbouring pictures and the dynamics may be a little wrong without being seen. With `levels` it is discrete
instead: finite scalar quantisation (`fsq.py`) to one of a few thousand codes a cell.

Options: each frame is coded together with the one before it (`temporal`); the encoder reads a lower resolution than the
decoder writes (`decoder_widths` longer than `encoder_widths`); layers that shrink and grow have skips (`shortcuts`).

Legend: B batch, T time, H height, W width in pixels; h, w of the latent grid; C latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.model.convolution import LightBlock
from game_wm.model.fsq import Codebook


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the auto-encoder. The first layer folds `patch` by `patch` pixels into channels, each further width
    halves: with patches of 2 three widths make 8 pixels a latent, four make 16, five 32. A frame that no such number
    divides is padded inside, its edges repeated.

    `levels`: levels to which each channel is rounded; empty where latents are continuous. `noise`: deviation of the
    noise on continuous latents in training. `decoder_widths`: if longer than `encoder_widths`, the encoder reads the
    frame at half the resolution for each further width. `shortcuts`: skips around layers that halve or double the grid,
    cells folded into channels (for 16 and 32 pixels a latent). `temporal`: the encoder also reads the frame before and
    the decoder its latent, so that fewer channels suffice.
    """

    height: int = 64
    width: int = 64
    channels: int = 8
    encoder_widths: tuple[int, ...] = (48, 96, 192)
    decoder_widths: tuple[int, ...] = (48, 96, 192)
    decoder_blocks: int = 2
    noise: float = 0.1
    levels: tuple[int, ...] = ()
    shortcuts: bool = False
    temporal: bool = False
    patch: int = 2

    def __post_init__(self) -> None:
        if not 0 < len(self.encoder_widths) <= len(self.decoder_widths):
            raise ValueError("decoder_widths must have as many levels as encoder_widths, or more to add detail")
        steps = [(4 * a, b) for a, b in pairwise(self.encoder_widths)]
        steps += [(b, 4 * a) for a, b in pairwise(self.decoder_widths)]
        if self.shortcuts and any(max(step) % min(step) for step in steps):
            raise ValueError("with shortcuts, four times a width must be a multiple of the next one: take 32, 64, 128")
        if self.levels and (len(self.levels) != self.channels or min(self.levels) < 3):
            raise ValueError(f"levels {list(self.levels)} must be three or more for each of {self.channels} channels")
        if min(self.patch, self.height, self.width) < 1:
            raise ValueError(f"patches of {self.patch} pixels of frames of {self.width}x{self.height}: give 1 or more")

    @property
    def factor(self) -> int:
        """Pixels per latent and side."""
        return self.patch * 2 ** (len(self.decoder_widths) - 1)

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.height // self.factor), -(-self.width // self.factor)

    @property
    def padding(self) -> tuple[int, int]:
        """Rows below the frame and columns right of it that fill the grid."""
        return -self.height % self.factor, -self.width % self.factor


class Shortcut(nn.Module):
    """A convolution that keeps or halves the grid, plus a skip without weights: cells folded into channels, averaged or
    repeated to as many as the convolution gives (residual autoencoding; DC-AE, Chen et al., 2025)."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.layer(x_BCHW)
        x, wanted = F.pixel_unshuffle(x_BCHW, x_BCHW.shape[-1] // y.shape[-1]), y.shape[1]
        if x.shape[1] < wanted:
            return y + x.repeat_interleave(wanted // x.shape[1], 1)
        return y + x.unflatten(1, (wanted, -1)).mean(2)


class Tokenizer(nn.Module):
    """`encode` gives normalised latents (zero mean, unit variance a channel as tracked in training), or codes.

    `before`, where a method takes it, is the frame or latent before each; None stands for the same one again, as at an
    episode's start. Only a `temporal` tokenizer reads it.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook = Codebook(config.levels) if config.levels else None
        enc, dec, seen = config.encoder_widths, config.decoder_widths, 1 + config.temporal

        def around(layer: nn.Conv2d) -> nn.Module:
            return Shortcut(layer) if config.shortcuts else layer

        coarser = len(dec) - len(enc)
        down: list[nn.Module] = [nn.AvgPool2d(2**coarser)] if coarser else []
        folded = 3 * config.patch**2
        down += [nn.PixelUnshuffle(config.patch), nn.Conv2d(folded * seen, enc[0], 3, padding=1), LightBlock(enc[0])]
        for a, b in pairwise(enc):
            down += [around(nn.Conv2d(a, b, 4, stride=2, padding=1)), LightBlock(b)]
        down += [nn.GroupNorm(enc[-1] // 16, enc[-1]), nn.SiLU(), nn.Conv2d(enc[-1], config.channels, 3, padding=1)]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = [nn.Conv2d(config.channels * seen, dec[-1], 3, padding=1)]
        up += [LightBlock(dec[-1]) for _ in range(config.decoder_blocks)]
        for a, b in pairwise(reversed(dec)):
            up += [around(nn.Conv2d(a, 4 * b, 1)), nn.PixelShuffle(2)]
            up += [LightBlock(b) for _ in range(config.decoder_blocks)]
        up += [nn.SiLU(), nn.Conv2d(dec[0], folded, 3, padding=1), nn.PixelShuffle(config.patch)]
        self.decoder = nn.Sequential(*up)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(config.channels, 1, 1))
        self.register_buffer("deviation", torch.ones(config.channels, 1, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def to_unit(frames_BHWC: Tensor) -> Tensor:
        """uint8 (..., H, W, 3) -> float (..., 3, H, W) in [-1, 1], channels last in memory."""
        return frames_BHWC.movedim(-1, -3).float().div_(127.5).sub_(1)

    @staticmethod
    def to_frames(images_BCHW: Tensor) -> Tensor:
        """float (B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
        pixels = images_BCHW.float().add(1).mul(127.5).round().clamp(0, 255)
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def with_previous(self, now_BCHW: Tensor, before_BCHW: Tensor | None) -> Tensor:
        """The input of encoder and decoder: channels of now and, where the tokenizer is temporal, of before."""
        if not self.config.temporal:
            return now_BCHW
        return torch.cat((now_BCHW, now_BCHW if before_BCHW is None else before_BCHW), 1)

    def encode(self, frames_BHWC: Tensor, before_BHWC: Tensor | None = None) -> Tensor:
        """uint8 (B, H, W, 3) -> normalised latents (B, C, h, w)."""
        before = self.to_unit(before_BHWC) if before_BHWC is not None and self.config.temporal else None
        return self.encode_images(self.to_unit(frames_BHWC), before)

    def encode_images(self, images_BCHW: Tensor, before_BCHW: Tensor | None = None) -> Tensor:
        """Float images (B, 3, H, W) in [-1, 1] -> normalised latents (B, C, h, w)."""
        images = self.with_previous(images_BCHW, before_BCHW)
        return (self.quantise(self._encoded(images).float()) - self.mean) / self.deviation

    def _encoded(self, images_BCHW: Tensor) -> Tensor:
        if any(self.config.padding):
            rows, columns = self.config.padding
            images_BCHW = F.pad(images_BCHW, (0, columns, 0, rows), mode="replicate")
        return self.encoder(images_BCHW.contiguous(memory_format=torch.channels_last))

    def _decoded(self, raw_BCHW: Tensor) -> Tensor:
        decoded = self.decoder(raw_BCHW)
        if any(self.config.padding):  # a base's frames may be of other sizes, none of them padded
            decoded = decoded[..., : self.config.height, : self.config.width]
        return decoded

    def quantise(self, raw_BCHW: Tensor) -> Tensor:
        """Raw latents unchanged, or the codes nearest to them."""
        return raw_BCHW if self.codebook is None else self.codebook.quantise(raw_BCHW)

    def decode_images(self, latents_BCHW: Tensor, before_BCHW: Tensor | None = None) -> Tensor:
        """Normalised latents (B, C, h, w) -> float images (B, 3, H, W) in [-1, 1], differentiable."""
        before = before_BCHW if before_BCHW is None else before_BCHW * self.deviation + self.mean
        return self._decoded(self.with_previous(latents_BCHW * self.deviation + self.mean, before))

    def decode(self, latents_BCHW: Tensor, before_BCHW: Tensor | None = None) -> Tensor:
        """Normalised latents (B, C, h, w) -> uint8 (B, H, W, 3)."""
        return self.to_frames(self.decode_images(latents_BCHW, before_BCHW))

    def raw(self, images_BTCHW: Tensor) -> Tensor:
        """Images (B, T, 3, H, W) in [-1, 1] of T successive frames -> raw latents (B, T, C, h, w), or, where the
        tokenizer is temporal, (B, T - 1, C, h, w), without the first frame's."""
        now, before = (images_BTCHW[:, 1:], images_BTCHW[:, :-1]) if self.config.temporal else (images_BTCHW, None)
        seen = self.with_previous(now.flatten(0, 1), None if before is None else before.flatten(0, 1))
        return self._encoded(seen).unflatten(0, now.shape[:2])

    def decode_raw(self, raw_BTCHW: Tensor) -> Tensor:
        """Raw latents as `raw` gives them -> the last frame (B, 3, H, W)."""
        return self._decoded(self.with_previous(raw_BTCHW[:, -1], raw_BTCHW[:, -2] if self.config.temporal else None))

    def forward(self, images_BTCHW: Tensor) -> Tensor:
        """Successive frames (B, T, 3, H, W) in [-1, 1] -> the last one's reconstruction (B, 3, H, W); T is 3 where the
        tokenizer is temporal, else 1."""
        return self.decode_raw(self.quantise(self.raw(images_BTCHW)))

    @torch.no_grad()
    def track(self, latents_BCHW: Tensor, momentum: float = 0.01) -> None:
        """Move mean and deviation of the raw latents, a channel, towards those of a training batch."""
        self.mean.lerp_(latents_BCHW.mean(dim=(0, 2, 3))[:, None, None], momentum)
        self.deviation.lerp_(latents_BCHW.std(dim=(0, 2, 3)).clamp_min(1e-3)[:, None, None], momentum)


def earlier(frames_BT: Tensor) -> Tensor:
    """Of successive frames or latents (B, T, ...) the one before each; before the first, itself."""
    return torch.cat((frames_BT[:, :1], frames_BT[:, :-1]), 1)
