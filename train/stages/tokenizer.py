"""The tokenizer's training: reconstruction, perceptual and edge losses on noise-regularised latents.

python -m train tokenizer --config configs/maze/tokenizer.yaml
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from game_wm.model.features import Features, perceptual_distance
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig
from game_wm.objectives.cascade import halve
from game_wm.pictures import moving
from train.stages.module import Kind, StageModule, make_optimizer
from train.stages.moving import pixel_weights, weighed


class TokenizerModule(StageModule):
    """Trains a `Tokenizer` on batches of uint8 frames (B, H, W, 3); a temporal one on triples (B, 3, H, W, 3). Where
    what moves is weighed, the median picture and the frame before come with each.

    Args:
        tokenizer: sizes of the network; set height and width to those of the recording.
        lr, weight_decay, optimizer: of the optimiser.
        perceptual: weight of the EfficientNet-Lite0 feature distance, on `perceptual_share` of every batch.
        edges: weight of the L1 distance between picture gradients.
        scale_penalty: weight of the latents' mean square, which keeps their scale near that of the noise.
        equivariance: share of every batch whose latents and targets are shifted together, by up to two cells in
            steps of a pixel.
        halved: share of every batch on which latents averaged over two by two cells must decode to the frame
            at half its resolution (EQ-VAE, Kouzelis et al., 2025). The coarse stage of a cascade needs it.
        moving: how much more than other pixels those weigh that differ from the frame before or from the median picture
            of their episode (`moving.py`); 0 is off.
    """

    def __init__(
        self,
        tokenizer: TokenizerConfig = TokenizerConfig(),
        lr: float = 1e-3, weight_decay: float = 0.01, optimizer: Kind = "adamw",
        perceptual: float = 0.1, perceptual_share: float = 0.25, edges: float = 0.5, scale_penalty: float = 1e-3,
        equivariance: float = 0.0, halved: float = 0.0, moving: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(lr, weight_decay, optimizer)
        self.perceptual, self.perceptual_share, self.edges = perceptual, perceptual_share, edges
        self.scale_penalty, self.equivariance, self.halved, self.moving = scale_penalty, equivariance, halved, moving
        if tokenizer.levels and (equivariance or halved):
            raise UserError("codes cannot be shifted or averaged: with levels, leave equivariance and halved at 0")
        if halved and any(side % (2 * tokenizer.factor) for side in (tokenizer.height, tokenizer.width)):
            size = f"{tokenizer.width}x{tokenizer.height}"
            raise UserError(f"two by two cells do not divide frames of {size}: leave --model.halved at 0")
        self.tokenizer = Tokenizer(tokenizer)
        # In a list, so that it is no submodule: its frozen weights come from a package and stay out of checkpoints.
        self.features = [Features()] if perceptual else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = asdict(self.tokenizer.config)

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.tokenizer, self.optimizer_kind, self.lr, self.weight_decay)

    def training_step(self, frames_BHWC: Tensor, index: int) -> Tensor:
        images, latents, weights = self.encode_row(frames_BHWC)
        scale = latents.float().square().mean()
        shifted = round(self.equivariance * len(images))
        if self.tokenizer.codebook:
            noisy = self.tokenizer.quantise(latents)
        else:
            self.tokenizer.track(latents.detach().float().flatten(0, 1))
            noisy = latents + self.tokenizer.config.noise * torch.randn_like(latents)
        if shifted:
            factor = self.tokenizer.config.factor
            dy, dx = torch.randint(-2 * factor, 2 * factor + 1, (2,)).tolist()
            moved = shift(noisy[:shifted].float().flatten(1, 2), dy / factor, dx / factor).to(noisy.dtype)
            noisy = torch.cat((moved.unflatten(1, noisy.shape[1:3]), noisy[shifted:]))
            images = torch.cat((shift(images[:shifted], float(dy), float(dx)), images[shifted:]))
            if weights is not None:
                weights = torch.cat((shift(weights[:shifted], float(dy), float(dx)), weights[shifted:]))
        decoded = self.tokenizer.decode_raw(noisy).float()
        reconstruction = weighed((decoded - images).abs(), weights)
        edges = sum(
            weighed((d(decoded) - d(images)).abs(), None if weights is None else d(weights, torch.maximum))
            for d in (_across, _down)
        )
        loss = reconstruction + self.edges * edges + self.scale_penalty * scale
        if self.features:
            part = slice(len(images) - max(1, int(self.perceptual_share * len(images))), None)
            distance = perceptual_distance(self.features[0].to(self.device), decoded[part], images[part])
            loss = loss + self.perceptual * distance
            self.log("feature_distance", distance)
        if count := round(self.halved * len(images)):
            small = self.tokenizer.decode_raw(halve(noisy[:count])).float()
            distance = (small - halve(images[:count])).abs().mean()
            loss = loss + self.halved * distance
            self.log("halved", distance.detach())
        mse = (decoded - images).detach().square().mean()
        self.log_dict({"loss": loss, "psnr": psnr(mse), "latent_scale": scale.sqrt()}, prog_bar=True)
        return loss

    def encode_row(self, frames_BHWC: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Target images (B, 3, H, W); the latents before normalisation (B, T, C, h, w) of each and of the T - 1 frames
        before it (T = 1 unless the tokenizer is temporal); the weights of the targets' pixels (B, 1, H, W)."""
        row, medians = self.rows(frames_BHWC)
        still = len(row) // 8 * self.tokenizer.config.temporal
        if still:  # an eighth of a temporal batch stands still, as the first frame of an episode does
            row = torch.cat((row[:still, -1:].expand_as(row[:still]), row[still:]))
        images = row[:, -1].contiguous(memory_format=torch.channels_last)
        weights = None if medians is None else pixel_weights(images, row[:, -2], medians, self.moving)
        return images, self.tokenizer.raw(row[:, -self.read :]), weights

    def rows(self, frames_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Frames in [-1, 1] as rows (B, T, 3, H, W), and the median pictures of their episodes (B, 3, H, W)."""
        rows = Tokenizer.to_unit(frames_BHWC if frames_BHWC.ndim == 5 else frames_BHWC[:, None])
        return (rows[:, 1:], rows[:, 0]) if self.moving else (rows, None)

    @property
    def read(self) -> int:
        """Frames of a row that the tokenizer reads."""
        return 3 if self.tokenizer.config.temporal else 1

    def reconstruct(self, frames_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and their reconstruction, in [-1, 1]."""
        row, _ = self.rows(frames_BHWC)
        return row[:, -1], self.tokenizer(row[:, -self.read :]).float().clamp(-1, 1)

    def sample(self, frames_BHWC: Tensor) -> Tensor:
        """uint8 (2 N, 1, H, W, 3): truth and reconstruction in turn, of N <= 8 frames of the batch."""
        pairs = self.reconstruct(frames_BHWC[:: max(1, len(frames_BHWC) // 8)][:8])
        return torch.stack([Tokenizer.to_frames(x) for x in pairs], dim=1).flatten(0, 1)[:, None]

    def validation_step(self, frames_BHWC: Tensor, index: int) -> None:
        truth, decoded = self.reconstruct(frames_BHWC)
        error = (decoded - truth).square().mean((1, 2, 3))
        self.log("val_psnr", psnr(error).mean(), prog_bar=True, batch_size=len(frames_BHWC), sync_dist=True)
        if self.moving and (mask := moving(frames_BHWC[:, -1], frames_BHWC[:, 0])).any():
            error = (decoded - truth).square().mean(1)[mask].mean()
            self.log("val_psnr_moving", psnr(error), prog_bar=True, batch_size=len(frames_BHWC))


def psnr(squared_error: Tensor) -> Tensor:
    """Decibels of a mean squared error between images in [-1, 1]."""
    return 10 * torch.log10(4 / squared_error.clamp_min(1e-10))


def shift(images_BCHW: Tensor, dy: float, dx: float) -> Tensor:
    """Pictures or latents moved down and right by `dy`, `dx` cells (bilinear), edges repeated."""
    height, width = images_BCHW.shape[-2:]
    theta = torch.tensor([[1, 0, -2 * dx / width], [0, 1, -2 * dy / height]], device=images_BCHW.device)
    grid = F.affine_grid(theta[None].expand(len(images_BCHW), -1, -1), list(images_BCHW.shape), align_corners=False)
    moved = F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


def _across(x: Tensor, by: Callable[[Tensor, Tensor], Tensor] = torch.sub) -> Tensor:
    return by(x[..., 1:], x[..., :-1])


def _down(x: Tensor, by: Callable[[Tensor, Tensor], Tensor] = torch.sub) -> Tensor:
    return by(x[..., 1:, :], x[..., :-1, :])
