"""What the denoiser is shown: views drawn from recalled frames or from the last one, as latents with their masks.

Legend: B views, H, W pixels, C latent channels, h, w latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.model.tokenizer import Tokenizer

COVER = 4  # channels that tell what is drawn: quarters of every cell
RESTING = 0.01  # the mean square by which the latent of a cell changes at most where nothing happens


def as_latents(tokenizer: Tokenizer, views: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Several views of every player, one after another: (B, V * (C + COVER), h, w)."""
    pictures, known = (torch.cat(x) for x in zip(*views, strict=True))
    return torch.cat(as_latent(tokenizer, pictures, known).chunk(len(views)), 1)


def unmoved(views_BMhw: Tensor, last_BChw: Tensor, step_B3: Tensor) -> Tensor:
    """Views whose last one, the warped, is the last latent itself where no step was taken: to draw and to code a
    picture again costs it a little each time."""
    last = torch.cat((last_BChw, torch.ones_like(last_BChw[:, :COVER])), 1).to(views_BMhw)
    others, warped = views_BMhw.split((views_BMhw.shape[1] - last.shape[1], last.shape[1]), 1)
    return torch.cat((others, torch.where((step_B3 == 0).all(1)[:, None, None, None], last, warped)), 1)


def at_rest(made_BChw: Tensor, last_BChw: Tensor, views_BMhw: Tensor | None) -> Tensor:
    """A frame for which no step was taken (see `unmoved`), with the last one's cells wherever it changes them little:
    what a network changes by mistake would add up."""
    if views_BMhw is None:
        return made_BChw
    warped, cover = views_BMhw[:, -last_BChw.shape[1] - COVER :].split((last_BChw.shape[1], COVER), 1)
    still = (warped == last_BChw).flatten(1).all(1) & (cover == 1).flatten(1).all(1)
    little = (made_BChw - last_BChw).square().mean(1, keepdim=True) < RESTING
    return torch.where(still[:, None, None, None] & little, last_BChw.to(made_BChw), made_BChw)


def as_latent(tokenizer: Tokenizer, view_BCHW: Tensor, known_BHW: Tensor) -> Tensor:
    """A drawn view with its mask as channels on the latent grid."""
    grid = tokenizer.config.grid
    cover = F.adaptive_avg_pool2d(known_BHW[:, None].to(view_BCHW), (2 * grid[0], 2 * grid[1]))
    cover = F.pixel_unshuffle(cover, 2)
    latents = tokenizer.encode_images(view_BCHW).float()
    return torch.cat((latents * (cover.amax(1, keepdim=True) > 0), cover), 1)
