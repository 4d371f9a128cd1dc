"""A cascade (Ho et al., 2022; pyramidal flow matching, Jin et al., 2025): coarse first, then fine, by one network.

The coarse stage makes the frame at half the grid, from noise; after the first convolution that costs a quarter of a
full call. The fine stage starts from that frame, with noise in the differences within two by two cells, and ends with
the full frame. Both are flow matching that predicts the clean latent; the network is conditioned on the stage in place
of the stride: 0 coarse, 1 fine. The coarse stage alone is a preview: a tokenizer trained with `halved` decodes it to
the frame at half its resolution.

    preview = dynamics.generate(state, action, noise, objective.coarse, replace(objective, fine=0))

Legend: B sequences, K target frames of each, C channels, h, w latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.model.config import Trunk
from game_wm.objectives.flow import Predict, advance, mix

COARSE, FINE = 0.0, 1.0  # the stage, in place of the stride


def halve(x: Tensor) -> Tensor:
    """Means of two by two cells: (..., h, w) -> (..., h / 2, w / 2)."""
    return F.avg_pool2d(x.flatten(0, -3), 2).unflatten(0, x.shape[:-2])


def double(x: Tensor) -> Tensor:
    """Every cell as two by two: (..., h, w) -> (..., 2 h, 2 w)."""
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


@dataclass(frozen=True)
class Cascade:
    """`coarse`, `fine`: calls of the network a frame, at half the grid and at all of it; with `fine` 0 the sample is
    the coarse frame. `start`: share of the targets that are trained at a stage's beginning, as a single call needs;
    `ramp`: how much less the beginning weighs than the end; `slack`: noise on the coarse frame in training,
    since a sampled one will not be the true one."""

    coarse: int = 1
    fine: int = 1
    start: float = 0.5
    ramp: float = 0.5
    slack: float = 0.1

    kind: ClassVar[str] = "cascade"
    trunks: ClassVar[tuple[Trunk, ...]] = ("unet",)
    adjustable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.coarse < 1 or self.fine < 0:
            raise ValueError(f"a cascade has one coarse call at least, and none or more fine ones, not {self}")

    def calls(self, tokens: int) -> int:
        return self.coarse + self.fine

    def loss(self, predict: Predict, clean_BKCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted squared error of every target (B, K), the mean of both stages, and the fine prediction."""
        seen = halve(clean_BKCHW)
        coarse, _ = self._stage(predict, torch.randn_like(seen), seen, COARSE)
        begun = self.begin(seen + self.slack * torch.randn_like(seen), torch.randn_like(clean_BKCHW))
        fine, predicted = self._stage(predict, begun, clean_BKCHW, FINE)
        return (coarse + fine) / 2, predicted

    def _stage(self, predict: Predict, begun: Tensor, clean: Tensor, stage: float) -> tuple[Tensor, Tensor]:
        """Errors (B, K) of a stage that leads from `begun` to `clean`, and what it predicts."""
        level = torch.rand(clean.shape[:2], device=clean.device)
        level[:, : round(self.start * clean.shape[1])] = 0
        predicted = predict(mix(begun, clean, level), level, torch.full_like(level, stage), slice(0, clean.shape[1]))
        errors = (predicted - clean).float().square().mean((2, 3, 4))
        return (1 - self.ramp * (1 - level)) * errors, predicted

    @staticmethod
    def begin(coarse_BKCHW: Tensor, noise_BKCHW: Tensor) -> Tensor:
        """Where the fine stage begins: the coarse frame, plus the noise (B, K, C, h, w) without its mean over two by
        two cells, so that halving gives the coarse frame again."""
        return double(coarse_BKCHW) + noise_BKCHW - double(halve(noise_BKCHW))

    def sample(self, predict: Predict, noise_BKCHW: Tensor, steps: int) -> Tensor:
        """Clean latents, or coarse ones (B, K, C, h / 2, w / 2) where `fine` is none. Raises ValueError when `steps` is
        not the number of calls."""
        if steps != self.coarse + self.fine:
            raise ValueError(f"this cascade takes {self.coarse} + {self.fine} calls a frame, not {steps}")
        # The mean of four standard normal numbers has half their deviation, and is independent of their differences.
        x = self._walk(predict, 2 * halve(noise_BKCHW), self.coarse, COARSE)
        return self._walk(predict, self.begin(x, noise_BKCHW), self.fine, FINE) if self.fine else x

    @staticmethod
    def _walk(predict: Predict, x: Tensor, steps: int, stage: float) -> Tensor:
        given, stride = (x.new_full(x.shape[:2], value) for value in (stage, 1 / steps))
        for i in range(steps):
            level = x.new_full(x.shape[:2], i / steps)
            clean = predict(x, level, given, slice(0, x.shape[1]))
            x = clean if i == steps - 1 else advance(x, clean, level, stride)
        return x
