"""The training of a small network: one loop for all that is too small for a stage of its own; and of any network,
whether its weights came out sound.

descend("depth", torch.optim.AdamW(network.parameters()), 3000, lambda i: loss(network, batch(i)))
if broken := unsound(model.state_dict()): raise UserError(f"{path}: {diverged(broken)}")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.deadline import Deadline, left_out

LEAST = 50  # steps, however little time there is


def descend(
    name: str,
    optimizer: torch.optim.Optimizer,
    steps: int,
    loss: Callable[[int], Tensor],
    rate: Callable[[int], float] | None = None,
    clip: float = float("inf"),
    after: Callable[[int, Tensor], object] | None = None,
) -> None:
    """So many steps down the gradient of `loss(i)`, which draws its own batch; i counts from 0.

    Args:
        name: what learns, for messages.
        rate: the learning rate of step i; None leaves it to the optimiser or to a scheduler called in `after`.
        clip: largest norm of the gradient.
        after: told of each finished step: how many there have been, and its loss.

    Raises `UserError`, and takes no step, where a loss or its gradient is not finite.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for i in range(steps):
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(i)
        value = loss(i)
        optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, clip)
        if not bool(value.isfinite() & norm.isfinite()):
            raise UserError(
                f"{name}: step {i + 1}: the loss ({float(value.detach()):g}) or its gradient ({float(norm):g}) is not "
                "finite; nothing was written. Look for damage in what it learns from"
            )
        optimizer.step()
        if after is not None:
            after(i + 1, value.detach())


def affordable(name: str, steps: int, loss: Callable[[int], Tensor], deadline: Deadline) -> int:
    """As many of `steps` as end before the deadline, by how fast `loss` has a gradient; a line tells what is left
    out."""
    kept = deadline.fits(steps, lambda: loss(0).backward(), LEAST)
    if kept < steps:
        print(left_out(name, kept, steps, "steps"), flush=True)
    return kept


def unsound(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the tensors with a value that is not finite."""
    numbers = {k: v for k, v in tensors.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return [name for name, value in numbers.items() if not bool(value.isfinite().all())]


def diverged(broken: list[str]) -> str:
    return (
        f"{len(broken)} of its tensors are not finite, for one {broken[0]}: its training diverged. Train it again with "
        "a lower learning rate"
    )
