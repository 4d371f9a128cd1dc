"""How much each pixel and each latent cell weighs in a loss, so that a ball of two pixels is not forgotten.

    weights = pixel_weights(frames, before, medians, 30.0)          # of a tokenizer's batch
    weights = cell_weights(goals, before, medians, 30.0)            # of the dynamics' targets

What differs from its episode's median picture or from the frame before weighs more. The weights of a picture have a
mean of one: where everything moves (a game that scrolls) they are all one.

Legend: B pictures, K targets, H, W pixels, C channels, h, w latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

SURELY = 24 / 127.5  # a difference in [-1, 1] from which on something moves for sure: 24 grey levels of 256
SURELY_LATENT = 0.5  # the same of latents, whose deviation is one: root mean square over channels


def pixel_weights(images_BCHW: Tensor, before_BCHW: Tensor, medians_BCHW: Tensor, weight: float) -> Tensor:
    """(B, 1, H, W) of pictures in [-1, 1]."""
    away = [(images_BCHW - x).abs().amax(1, keepdim=True) for x in (before_BCHW, medians_BCHW)]
    return normalised(torch.maximum(*away) / SURELY, weight)


def cell_weights(goals_BKCHW: Tensor, before_BKCHW: Tensor, medians_BKCHW: Tensor, weight: float) -> Tensor:
    """(B, K, 1, h, w) of latents."""
    away = [(goals_BKCHW - x).square().mean(2, keepdim=True).sqrt() for x in (before_BKCHW, medians_BKCHW)]
    return normalised(torch.maximum(*away) / SURELY_LATENT, weight)


def normalised(moved: Tensor, weight: float) -> Tensor:
    """Weights from how surely something moves (1 or more: for sure), with a mean of one over the last two axes."""
    weights = 1 + weight * moved.clamp(max=1)
    return weights / weights.mean((-2, -1), keepdim=True)


def weighed(errors: Tensor, weights: Tensor | None) -> Tensor:
    """The mean error; of all alike where there are no weights."""
    return errors.mean() if weights is None else (weights * errors).mean()
