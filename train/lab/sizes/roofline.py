"""What a computation costs, counted without computing it, and how long a machine takes for it.

    with Cost() as cost:
        network(torch.empty(1, 16, 8, 8, device="meta"))
    cost.seconds(MACHINES["H200"])

A roofline (Williams et al., 2009), operation by operation: each takes as long as its arithmetic or its memory traffic,
whichever is longer, and at least as long as a kernel. Attention is counted as one fused operation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from data_collect import system
from game_wm.device import in_words, wait

Kind = Literal["matrix", "convolution", "elementwise"]
FREE = {"empty", "new_empty", "empty_like", "empty_strided", "_unsafe_view", "detach", "scalar_tensor"}
CONVOLUTIONS = {"convolution", "convolution_backward"}
# Shares of the published peaks that kernels of this kind reach at best. Assumed, until `bench gpu` has run.
REACHED: dict[Kind, float] = {"matrix": 0.6, "convolution": 0.4, "elementwise": 0.7}
KERNEL = 3e-6  # seconds that the shortest kernel of a graph takes, with the gap to the next
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """`matrix`, `convolution`: FLOP/s in 16 bits; `elementwise`: bytes/s through simple operations, `stream`: through
    memory; `kernel`: the least seconds of an operation; `memory`: bytes."""

    name: str
    matrix: float
    convolution: float
    elementwise: float
    stream: float
    kernel: float
    memory: float


def card(name: str, peak: float, bandwidth: float, memory: int) -> Machine:
    """A GPU by its data sheet: dense TFLOP/s in 16 bits, TB/s, GiB."""
    matrix, convolution = (1e12 * peak * REACHED[kind] for kind in ("matrix", "convolution"))  # type: ignore[index]
    rate = 1e12 * bandwidth * REACHED["elementwise"]
    return Machine(name, matrix, convolution, rate, rate, KERNEL, memory * GIB)


MACHINES = {
    each.name: each
    for each in (
        card("T4", 65, 0.32, 16), card("RTX 4090", 165, 1.01, 24), card("A100", 312, 2.04, 80),
        card("H100", 989, 3.35, 80), card("H200", 989, 4.8, 141),
    )
}  # fmt: skip


class Operation(NamedTuple):
    kind: Kind
    flops: float
    bytes: float


class Cost(TorchDispatchMode):
    """The operations that run inside. They may be on the meta device, which computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._attention = FusedAttention(self)

    def __enter__(self) -> Cost:
        self._attention.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *why: Any) -> None:
        super().__exit__(*why)
        self._attention.__exit__(*why)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if packet.__name__ in FREE or is_view(function):
            return out
        count = flop_registry.get(packet)
        flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
        kind: Kind = "convolution" if packet.__name__ in CONVOLUTIONS else "matrix" if flops else "elementwise"
        self.operations.append(Operation(kind, flops, _bytes(args) + _bytes(out)))
        return out

    @property
    def flops(self) -> float:
        return sum(each.flops for each in self.operations)

    def seconds(self, machine: Machine) -> float:
        rates = {"matrix": machine.matrix, "convolution": machine.convolution, "elementwise": machine.matrix}
        took = (max(x.flops / rates[x.kind], x.bytes / machine.elementwise, machine.kernel) for x in self.operations)
        return sum(took)


def is_view(function: Any) -> bool:
    return any(x.alias_info is not None and not x.alias_info.is_write for x in function._schema.returns)


def _bytes(values: Any) -> int:
    """As in 16 bits."""
    return sum(2 * x.numel() for x in tree_leaves(values) if isinstance(x, Tensor))


class FusedAttention(TorchFunctionMode):
    """Counts attention as a GPU does it: the scores are never in memory."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self.cost = cost

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        return _Attention.apply(self.cost, *args[:3])


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, cost: Cost, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        context.save_for_backward(q, k, v)
        context.cost, context.flops = cost, 4 * q.numel() * k.shape[-2]
        cost.operations.append(Operation("matrix", context.flops, _bytes((q, q, k, v))))
        return q.new_empty(*q.shape[:-1], v.shape[-1])

    @staticmethod
    def backward(context: Any, *_: Tensor) -> Any:
        q, k, v = context.saved_tensors
        context.cost.operations.append(Operation("matrix", 2.5 * context.flops, 2 * _bytes((q, q, k, v))))
        return None, torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def saved_bytes(forward: Callable[[], Any], apart: set[int]) -> int:
    """Bytes in 16 bits that a forward pass keeps for its backward one; storages that are `apart` do not count."""
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if (place := x.untyped_storage()._cdata) not in apart:
            kept[place] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        forward()
        return sum(2 * x.numel() for x in kept.values())


def measured(device: torch.device) -> Machine:
    """This machine, by some seconds of a linear layer, a convolution and simple passes over memory, in 16 bits."""
    half = torch.bfloat16
    x, weight = (torch.randn(4096, n, device=device, dtype=half) for n in (384, 384))
    seconds = _seconds(lambda: F.linear(x, weight), device)
    matrix = 2 * 4096 * 384 * 4096 / seconds
    layer = torch.nn.Conv2d(160, 160, 3, padding=1, device=device, dtype=half).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    picture = torch.randn(128, 160, 8, 8, device=device, dtype=half).contiguous(memory_format=torch.channels_last)
    picture.requires_grad_()
    flops = 3 * 2 * 128 * 64 * 160 * 160 * 9
    convolution = flops / _seconds(lambda: layer(picture).sum().backward(), device)
    wide, long = (torch.randn(n, device=device, dtype=half) for n in (1 << 20, 1 << 25))
    elementwise = 2 * wide.nbytes / _seconds(lambda: F.silu(wide), device)
    stream = 3 * long.nbytes / _seconds(lambda: long.add_(long), device)
    one = torch.ones(8, device=device)
    kernel = _seconds(lambda: one.add_(1), device)
    name = in_words(device) or f"this machine, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    free = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else system.available_bytes() or 0
    return Machine(name, matrix, convolution, elementwise, stream, kernel, free)


def _seconds(make: Callable[[], Any], device: torch.device, budget: float = 0.5) -> float:
    """Of one call: the mean over so many seconds, so that what else runs slows this down as it slows a training."""
    make()
    wait(device)
    calls, began = 0, time.perf_counter()
    while calls < 8 or time.perf_counter() - began < budget:
        for _ in range(8):
            make()
        wait(device)
        calls += 8
    return (time.perf_counter() - began) / calls
