"""What the host asks of a device: operations, and how often it waits for an answer.

    with Launches() as asked:
        model.step(state, action)
    asked.operations, asked.waits

Counted where PyTorch dispatches, so that a device that is not there can be counted too (`FakeTensorMode`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train.lab.sizes.roofline import is_view

WAITING = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "masked_select", "unique"}
ALLOCATING = {"empty", "new_empty", "empty_like", "empty_strided", "detach", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """`operations` that compute or copy, and `waits`: names of those that the host has to wait for. On the processor a
    copy to the host is none."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.waits = 0, list[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._overloadpacket.__name__
        if name not in ALLOCATING and not is_view(function):
            self.operations += 1
        if name in WAITING or (name == "index" and _has_mask(args[1])):
            self.waits.append(name)
        out = function(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_") and _comes_to_the_host(name, args, kwargs or {}, out):
            self.waits.append(name)
        return out


def _has_mask(indices: Any) -> bool:
    return any(isinstance(x, Tensor) and str(x.dtype) in ("torch.bool", "torch.uint8") for x in indices)


def _comes_to_the_host(name: str, args: Any, kwargs: dict[str, Any], out: Any) -> bool:
    source = tree_leaves(args)[1 if name == "copy_" else 0]
    waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
    return isinstance(source, Tensor) and source.device.type != "cpu" and out.device.type == "cpu" and waits
