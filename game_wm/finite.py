"""Numbers that are none (NaN, infinity): found before they reach a weight, a file or a player.

descend(optimizer, loss, "obstacles: step 12")      # a step of training, or a `UserError` and the weights as before
if broken := unsound(model.state_dict()): raise UserError(f"{path}: {diverged(broken)}")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data_collect.errors import UserError


def unsound(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the tensors with a value that is not finite."""
    return [
        name
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())
    ]


def diverged(broken: list[str]) -> str:
    """What to say of such tensors."""
    return (
        f"{len(broken)} of its tensors are not finite, for one {broken[0]}: its training diverged. Train it again with "
        "a lower learning rate"
    )


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, what: str, clip: float = float("inf")) -> None:
    """One step down, the gradient's norm at most `clip`. `UserError` that begins with `what`, and no step, where the
    loss or its gradient is not finite."""
    optimizer.zero_grad()
    loss.backward()
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(weights, clip)
    if not bool(loss.isfinite() & norm.isfinite()):
        raise UserError(
            f"{what}: the loss ({float(loss.detach()):g}) or its gradient ({float(norm):g}) is not finite; nothing "
            "was written. Look for damage in what it learns from"
        )
    optimizer.step()
