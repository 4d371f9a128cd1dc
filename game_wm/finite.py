"""NaN and infinity: found before they reach a weight, a file or a player.

if broken := unsound(model.state_dict()): raise UserError(f"{path}: {diverged(broken)}")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def unsound(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the tensors with a value that is not finite."""
    numbers = {k: v for k, v in tensors.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return [name for name, value in numbers.items() if not bool(value.isfinite().all())]


def diverged(broken: list[str]) -> str:
    return (
        f"{len(broken)} of its tensors are not finite, for one {broken[0]}: its training diverged. Train it again with "
        "a lower learning rate"
    )
