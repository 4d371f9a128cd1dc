"""Step caching: of a walk of several denoiser calls, some take over from the call before what most blocks would add.

    model = cache(model, bound=0.1)     # in place; it counts where a frame takes more than one call

From one call to the next the noise falls and little else changes. The first block runs at every call; where what it
gives has changed by at most `bound`, relative to when the other blocks ran last, what they added then is added again
(DeepCache, Ma et al., 2024; judged by what goes in, as in TeaCache, Liu et al., 2025). Nothing is kept from frame to
frame. In a batch the bound holds for every player, so that which calls are spared depends on who plays beside.

Legend: B players, C channels, h, w latent grid, E condition.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.model.denoiser import ContextReader, Denoiser
from game_wm.world import WorldModel, unet


class CachedDenoiser(Denoiser):
    """A denoiser, weights and all, that keeps what the other blocks added when they ran last, and the first block's
    output then; `ran` and `spared`: how many calls ran all blocks, and how many the first alone."""

    def __init__(self, denoiser: Denoiser, bound: float) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(denoiser))
        self.bound = bound
        self.first: Tensor | None = None
        self.added: Tensor | None = None
        self.ran = self.spared = 0

    def forget(self) -> None:
        self.first = self.added = None

    def trunk(self, x_BCHW: Tensor, condition_BE: Tensor, context: ContextReader) -> Tensor:
        """`Denoiser.trunk`, or its first block and what is kept of the others."""
        first = self.down[0][0](x_BCHW, condition_BE)  # type: ignore[index]
        if self.first is not None and self.added is not None and change(first, self.first) <= self.bound:
            self.spared += 1
            return first + self.added
        self.ran += 1
        last = self.after_first_block(first, condition_BE, context)
        self.first, self.added = first, last - first
        return last


def change(now_BCHW: Tensor, before_BCHW: Tensor) -> float:
    """The largest relative change, of all players."""
    now, before = now_BCHW.float().flatten(1), before_BCHW.float().flatten(1)
    return float(((now - before).norm(dim=1) / before.norm(dim=1).clamp_min(1e-9)).max())


def cache(model: WorldModel, bound: float) -> WorldModel:
    """The same model with a `CachedDenoiser`, changed in place.

    Raises UserError for a bound that is no bound, and for a model that is compiled or a cascade.
    """
    if not 0 <= bound < 1:
        raise UserError(f"a bound of {bound:g} for reusing what blocks gave: take one from 0 (never) to 1 (excluded)")
    if model.compiling is not None:
        raise UserError("compiled code has no branches, and so no step caching: take one or the other")
    if model.config.objective.kind == "cascade":
        raise UserError("from a cascade's coarse call to its fine one there is nothing to take over: play it uncached")
    kept = model.dynamics.denoiser = CachedDenoiser(unet(model), bound)
    own = model.parts

    def denoise(*arguments: Any) -> Tensor:
        kept.forget()
        return own.denoise(*arguments)

    model.parts = replace(own, denoise=denoise)
    return model
