"""What the denoiser is shown: views drawn from recalled frames or from the last one, as latents with their masks.

Legend: B views, H, W pixels, C latent channels, h, w latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.model.config import COVER
from game_wm.model.tokenizer import Tokenizer

SMALL_CHANGE = 0.01  # mean square change of a cell's latent, below which nothing has happened there


def as_latents(tokenizer: Tokenizer, views: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Several drawn views of every player, each with its mask as channels, one by one: (B, V * (C + COVER), h, w)."""
    pictures, known = (torch.cat(x) for x in zip(*views, strict=True))
    height, width = tokenizer.config.grid
    cover = F.adaptive_avg_pool2d(known[:, None].to(pictures), (2 * height, 2 * width))
    cover = F.pixel_unshuffle(cover, 2)
    latents = tokenizer.encode_images(pictures).float()
    made = torch.cat((latents * (cover.amax(1, keepdim=True) > 0), cover), 1)
    return torch.cat(made.chunk(len(views)), 1)


def keep_view(views_BMhw: Tensor, last_BChw: Tensor, step_B3: Tensor) -> Tensor:
    """Views whose last one, the warped, is the last latent itself where the player stands still: to draw and encode a
    picture again costs it a little each time."""
    last = torch.cat((last_BChw, torch.ones_like(last_BChw[:, :COVER])), 1).to(views_BMhw)
    others, warped = views_BMhw.split((views_BMhw.shape[1] - last.shape[1], last.shape[1]), 1)
    return torch.cat((others, torch.where(_still(step_B3), last, warped)), 1)


def keep_still(made_BChw: Tensor, last_BChw: Tensor, step_B3: Tensor) -> Tensor:
    """A generated frame that keeps the last one's cells where the player stands still and they change little: small
    mistakes of the network would add up."""
    little = (made_BChw - last_BChw).square().mean(1, keepdim=True) < SMALL_CHANGE
    return torch.where(_still(step_B3) & little, last_BChw.to(made_BChw), made_BChw)


def _still(step_B3: Tensor) -> Tensor:
    return (step_B3 == 0).all(1)[:, None, None, None]
