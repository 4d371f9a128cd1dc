"""Diffusion with the preconditioning of EDM (Karras et al., 2022), on the trunk that flow matching takes.

A noisy latent is the clean one plus noise of deviation σ. The trunk reads it scaled to unit variance, and its target
has unit variance whatever σ is: nearly the clean latent where σ is large, nearly the noise where it is small. DIAMOND
(Alonso et al., 2024) plays Atari this way, in three Euler steps.

Legend: B sequences, K target frames of each, C channels, h, w latent grid. The trunk is conditioned on
levels as in flow matching: 0 is noise (`sigma_max`), 1 is clean (`sigma_min`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from game_wm.model.config import Trunk
from game_wm.objectives.flow import Predict, expand
from game_wm.objectives.samplers import intervals, karras_sigmas, solve

SAMPLERS = ("euler", "heun", "dpmpp_2m")


@dataclass(frozen=True)
class Diffusion:
    """`sampler`: euler, heun or dpmpp_2m; `steps`: calls of the network a frame; `sigma_data`: the latents' deviation;
    `sigma_min`, `sigma_max`, `rho`: noise levels of the sampler; `p_mean`, `p_std`: of log σ in training."""

    sampler: str = "euler"
    steps: int = 3
    sigma_data: float = 1.0
    sigma_min: float = 0.004
    sigma_max: float = 10.0
    rho: float = 7.0
    p_mean: float = 0.3
    p_std: float = 1.2

    kind: ClassVar[str] = "diffusion"
    trunks: ClassVar[tuple[Trunk, ...]] = ("unet",)
    adjustable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {self.sampler}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must lie between 0 and sigma_max {self.sigma_max}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def calls(self, tokens: int) -> int:
        return self.steps

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in at this level (Karras et al., 2022, table 1)."""
        variance = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / variance, sigma * self.sigma_data * variance.rsqrt(), variance.rsqrt()

    def level(self, sigma_BK: Tensor) -> Tensor:
        """The level that stands for σ: from 0 at `sigma_max` to 1 at `sigma_min`, even in log σ."""
        return (self.sigma_max / sigma_BK).log() / math.log(self.sigma_max / self.sigma_min)

    def raw(self, predict: Predict, noisy: Tensor, sigma_BK: Tensor) -> Tensor:
        """The trunk's own output (B, K, C, h, w), F in the paper."""
        scaled = noisy * expand(self.scales(sigma_BK)[2], noisy)
        return predict(scaled, self.level(sigma_BK), torch.zeros_like(sigma_BK), slice(0, noisy.shape[1]))

    def denoise(self, predict: Predict, noisy: Tensor, sigma_BK: Tensor) -> Tensor:
        """The expected clean latent (B, K, C, h, w), D in the paper."""
        skip, out, _ = (expand(scale, noisy) for scale in self.scales(sigma_BK))
        return skip * noisy + out * self.raw(predict, noisy, sigma_BK)

    def loss(self, predict: Predict, clean_BKCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of every target (B, K) in the trunk's own scale, and the clean latent (B, K, C, h, w)."""
        shape, device = clean_BKCHW.shape[:2], clean_BKCHW.device
        sigma = (self.p_mean + self.p_std * torch.randn(shape, device=device)).exp()
        sigma = sigma.clamp(self.sigma_min, self.sigma_max)
        noisy = clean_BKCHW + expand(sigma, clean_BKCHW) * torch.randn_like(clean_BKCHW)
        skip, out, _ = (expand(scale, noisy) for scale in self.scales(sigma))
        raw = self.raw(predict, noisy, sigma)
        errors = (raw - (clean_BKCHW - skip * noisy) / out).float().square().mean(dim=(2, 3, 4))
        return errors, skip * noisy + out * raw

    def sample(self, predict: Predict, noise_BKCHW: Tensor, steps: int) -> Tensor:
        """Clean latents from standard normal noise in `steps` calls."""
        sigmas = karras_sigmas(intervals(self.sampler, steps), self.sigma_min, self.sigma_max, self.rho)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.denoise(predict, x, x.new_full(x.shape[:2], sigma))

        return solve(self.sampler, denoise, noise_BKCHW * sigmas[0], sigmas, steps)
