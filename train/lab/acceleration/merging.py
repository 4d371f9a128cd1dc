"""Token merging (Bolya et al., 2023; Bolya & Hoffman, 2023): the blocks of a model of codes see fewer tokens than a
frame has, since tokens that are much alike are read as one.

    model = merge(model, share=0.5)     # in place; half of a frame's tokens go into others

Of every two by two cells the first one stays. Of the others, those that are most like one that stays, up to the stated
share of all tokens, are averaged with it before the first block; behind the last one each gets what the blocks added
to their mean, so that it stays itself. A merged token counts as many times as it has parts, so that to merge equal ones
changes nothing. The head, which gives each token its logits, is as before. For masked decoding: a model that draws one
token after another has nothing to merge.

Legend: B frames, N tokens of a frame, n of them after merging, S that stay, E width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.model.denoiser import ContextReader
from game_wm.model.transformer import FrameCache, FrameTransformer
from game_wm.objectives.masked import Masked
from game_wm.world import WorldModel

MOST = 0.75  # where all of two by two cells are one


class MergingTransformer(FrameTransformer):
    """A transformer, weights and all, whose blocks see merged tokens."""

    def __init__(self, trunk: FrameTransformer, share: float) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(trunk))
        self.share = share
        rows, columns = torch.arange(trunk.config.height) % 2 == 0, torch.arange(trunk.config.width) % 2 == 0
        self.stays_N = (rows[:, None] & columns).flatten()

    def through(
        self, x_BnE: Tensor, context: ContextReader, causal: bool = False, cache: FrameCache | None = None
    ) -> Tensor:
        """All blocks: (B, N, E) to the same."""
        group = groups(x_BnE, self.stays_N.to(x_BnE.device), round(self.share * x_BnE.shape[1]))
        merged, sizes = means(x_BnE, group)
        x = merged
        for layer, block in enumerate(self.blocks):
            x = block(x, context, sizes.log()[:, None, None], None, layer)
        return x_BnE + (x - merged).gather(1, group[..., None].expand_as(x_BnE))


def groups(x_BNE: Tensor, stays_N: Tensor, count: int) -> Tensor:
    """Which of the N - count merged tokens each token is a part of (B, N): `count` of those that do not stay go to the
    one that is most like them (by angle)."""
    batch, staying, going = len(x_BNE), int(stays_N.sum()), int((~stays_N).sum())
    x = F.normalize(x_BNE.float(), dim=-1)
    alike, to = (x[:, ~stays_N] @ x[:, stays_N].transpose(1, 2)).max(-1)
    order = alike.sort(dim=-1, descending=True, stable=True).indices
    gone, alone = order[:, :count], order[:, count:]
    first = torch.arange(going - count, device=x.device)
    group = torch.empty(batch, len(stays_N), dtype=torch.long, device=x.device)
    found = torch.empty_like(alike, dtype=torch.long)
    found.scatter_(1, alone, first.expand(batch, -1)).scatter_(1, gone, to.gather(1, gone) + len(first))
    group[:, ~stays_N], group[:, stays_N] = found, torch.arange(staying, device=x.device) + len(first)
    return group


def means(x_BNE: Tensor, group_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Merged tokens (B, n, E), the means of their parts, and how many parts each has (B, n)."""
    count = int(group_BN.max()) + 1
    sizes = x_BNE.new_zeros(len(x_BNE), count).scatter_add_(1, group_BN, torch.ones_like(x_BNE[..., 0]))
    sums = x_BNE.new_zeros(len(x_BNE), count, x_BNE.shape[-1])
    sums.scatter_add_(1, group_BN[..., None].expand_as(x_BNE), x_BNE)
    return sums / sizes[..., None], sizes


def merge(model: WorldModel, share: float) -> WorldModel:
    """The same model with a stated share of its tokens merged, changed in place: to be played, not trained.

    Raises UserError for a share that cannot be, and for a model that does not draw its tokens at once.
    """
    trunk = model.dynamics.denoiser
    if not isinstance(trunk, FrameTransformer) or not isinstance(model.config.objective, Masked):
        raise UserError("merging is for models that draw all tokens of a frame at once (objective: {kind: masked})")
    merging = MergingTransformer(trunk, share)
    most = int((~merging.stays_N).sum())
    if not 0 <= round(share * trunk.config.height * trunk.config.width) <= most:
        raise UserError(f"a share of {share:g} of a frame's tokens cannot be merged: take one from 0 to {MOST:g}")
    model.dynamics.denoiser = merging
    return model
