"""Flow matching with step-size conditioning (shortcut models, Frans et al., 2024), predicting the clean latent.

One network serves 1, 2, 4 ... steps. A share of the targets trains the single call that plays: from pure noise, at
stride 1, to the data. Most others learn the flow on the finest stride. The rest must agree, on the strides between,
with two of the network's own steps of half the size. Without a share for the single call, stride 1 is trained like
those between, as in the paper; one call is then a sample of what may come and not its mean. The context is noised too,
and the network is conditioned on its noise level (diffusion forcing, Chen et al., 2024; in `Dynamics.forward`). The
loss is on the clean latent (Dreamer 4, Hafner et al., 2025).

Legend: B sequences, K target frames of each, C channels, h, w latent grid. Level 0 is noise, level 1 is clean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from game_wm.model.config import Trunk

Predict = Callable[[Tensor, Tensor, Tensor, slice], Tensor]
"""(noisy (B, K, C, h, w), level (B, K), stride (B, K), which of the K targets) -> clean (B, K, C, h, w)."""


@dataclass(frozen=True)
class FlowMatching:
    """`finest`: steps of the finest stride; `one_call`: share of the targets trained for play in a single call;
    `bootstrap`: share trained on the network's own half steps; `ramp`: how much less level 0 weighs than level 1;
    `bound`: largest absolute value of a clean latent that is sampled (static thresholding, Saharia et al., 2022), which
    keeps errors from growing from frame to frame; 0 for none."""

    finest: int = 8
    one_call: float = 0.5
    bootstrap: float = 0.0
    ramp: float = 0.5
    bound: float = 0.0

    kind: ClassVar[str] = "flow"
    trunks: ClassVar[tuple[Trunk, ...]] = ("unet",)
    adjustable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.finest < 1 or self.finest & (self.finest - 1):
            raise ValueError(f"finest must be a power of two, not {self.finest}")
        if self.bound < 0:
            raise ValueError(f"bound must be positive, or 0 for none, not {self.bound}")

    def calls(self, tokens: int) -> int:
        return 1

    @property
    def _between(self) -> int:
        """How many strides lie between 1 and the finest."""
        return self.finest.bit_length() - 2

    @property
    def _coarsest(self) -> int:
        """How often the coarsest stride that half steps teach is halved from 1."""
        return 1 if self.one_call else 0

    def single(self, targets: int) -> slice:
        """Which of a sequence's targets train the single call that plays; those of bootstrap come before them."""
        coarse = round(targets * self.bootstrap) if self._between >= self._coarsest else 0
        return slice(coarse, targets if self.finest == 1 else coarse + round(targets * self.one_call))

    def loss(
        self, predict: Predict, clean_BKCHW: Tensor, slow: Predict | None = None, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted squared error of every target (B, K), and the prediction (B, K, C, h, w) that it judges. `cells`:
        how much each cell weighs (B, K, 1, h, w).

        `slow` takes the half steps: a network with averaged weights (Frans et al., 2024), or the same one if None,
        which may diverge with many strides (`finest`).
        """
        batch, targets = clean_BKCHW.shape[:2]
        device = clean_BKCHW.device
        single = self.single(targets)
        coarse = single.start
        noise = torch.randn_like(clean_BKCHW)
        stride = torch.full((batch, targets), 1 / self.finest, device=device)
        halvings = self._coarsest, max(self._coarsest, self._between) + 1
        stride[:, :coarse] = 0.5 ** torch.randint(*halvings, (batch, coarse), device=device)
        stride[:, single] = 1
        level = (torch.rand_like(stride) / stride).floor() * stride
        weight = 1 - self.ramp * (1 - level)
        weight[:, single] = 1
        noisy = mix(noise, clean_BKCHW, level)
        goal = clean_BKCHW
        if coarse:
            with torch.no_grad():
                part = slice(0, coarse)
                goal = clean_BKCHW.clone()
                goal[:, part] = self.two_steps(
                    slow or predict, noisy[:, part], level[:, part], stride[:, part] / 2, part
                )
        predicted = predict(noisy, level, stride, slice(0, targets))
        errors = (predicted - goal).float().square()
        errors = errors if cells is None else errors * cells
        return weight * errors.mean(dim=(2, 3, 4)), predicted

    @staticmethod
    def two_steps(predict: Predict, noisy: Tensor, level: Tensor, half: Tensor, part: slice) -> Tensor:
        """The clean latent towards which one whole step ends where two steps of half the stride do."""
        first = advance(noisy, predict(noisy, level, half, part), level, half)
        last = advance(first, predict(first, level + half, half, part), level + half, half)
        return noisy + (last - noisy) * expand((1 - level) / (2 * half), noisy)

    def conditioned_stride(self, steps: int) -> float:
        """The stride that the network is conditioned on when a frame takes `steps`: without bootstrap it knows the
        finest only."""
        return 1 / steps if steps == 1 or self.bootstrap else 1 / self.finest

    def hold(self, clean: Tensor) -> Tensor:
        """Within the bound, if there is one."""
        return clean.clamp(-self.bound, self.bound) if self.bound else clean

    def sample(self, predict: Predict, noise_BKCHW: Tensor, steps: int) -> Tensor:
        """Clean latents from pure noise in `steps` equal Euler steps."""
        x = noise_BKCHW
        stride, given = (x.new_full(x.shape[:2], value) for value in (1 / steps, self.conditioned_stride(steps)))
        everything = slice(0, x.shape[1])
        for i in range(steps):
            level = x.new_full(x.shape[:2], i / steps)
            clean = self.hold(predict(x, level, given, everything))
            x = clean if i == steps - 1 else advance(x, clean, level, stride)
        return x


def expand(value_BK: Tensor, like: Tensor) -> Tensor:
    return value_BK.to(like.dtype)[:, :, None, None, None]


def mix(noise: Tensor, clean: Tensor, level_BK: Tensor) -> Tensor:
    """The straight path from noise (level 0) to clean (level 1)."""
    level = expand(level_BK, clean)
    return noise * (1 - level) + clean * level


def advance(noisy: Tensor, clean: Tensor, level_BK: Tensor, stride_BK: Tensor) -> Tensor:
    """One Euler step of `stride` along the path from `noisy` to the predicted `clean`."""
    return noisy + (clean - noisy) * expand(stride_BK / (1 - level_BK).clamp_min(1e-6), noisy)
