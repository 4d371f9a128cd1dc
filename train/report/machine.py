"""What this machine can do: its bf16 matrix rate, and how much arithmetic one training step takes.

    rate = MatrixRate(device).sample(5).median          # FLOP/s of a 4096 x 384 x 1536 bf16 linear layer

A training run divides the arithmetic that its model does per second (forward and backward counted once, recomputation
and optimiser not) by this rate, timed in the same run: that fraction tells a slow model from a slow machine.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from data_collect import system
from game_wm.device import in_words, wait

ROWS, INPUTS, OUTPUTS = 4096, 384, 1536
FLOPS = 2 * ROWS * INPUTS * OUTPUTS
# The fused attention kernel for CPUs is not in PyTorch's own table. Its other arguments do not count.
FUSED = "_scaled_dot_product_flash_attention_for_cpu"
CPU_ATTENTION: dict[Any, Any] = {
    getattr(torch.ops.aten, FUSED): lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    getattr(torch.ops.aten, f"{FUSED}_backward"): lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v),
}


def use_all_cores(processes: int = 1) -> int:
    """Let PyTorch use all cores of this process, or its share of them (OMP_NUM_THREADS wins); returns their number."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, system.cores() // processes))
    torch.set_num_threads(threads)
    return threads


class MatrixRate:
    """Times one bf16 linear layer again and again during a run; `median` is the machine's rate in FLOP/s."""

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> None:
        self.device = torch.device(device)
        generator = torch.Generator().manual_seed(0)  # never the global one: training draws its noise there
        self.x = torch.randn(ROWS, INPUTS, generator=generator).to(self.device, dtype)
        self.weight = torch.randn(OUTPUTS, INPUTS, generator=generator).to(self.device, dtype)
        self.rates: list[float] = []
        self._once()  # the first call pays for allocation and packing

    @torch.inference_mode()
    def _once(self) -> float:
        # A GPU is asked many times before it is waited for; otherwise the launch would be what is timed.
        repeats = 1 if self.device.type == "cpu" else 50
        wait(self.device)
        start = time.perf_counter()
        for _ in range(repeats):
            F.linear(self.x, self.weight)
        wait(self.device)
        return FLOPS * repeats / (time.perf_counter() - start)

    def sample(self, times: int = 1) -> MatrixRate:
        """Time it `times` more times (about 10 ms each on two cores)."""
        self.rates += [self._once() for _ in range(times)]
        return self

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def count_flops() -> FlopCounterMode:
    """Counts matrix, convolution and attention arithmetic in a `with` block: `counter.get_total_flops()`."""
    return FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)


def describe(device: torch.device) -> str:
    """The device in words: "2 cores (AMD EPYC), avx512_bf16" or the GPU's name."""
    if named := in_words(device):
        return named
    name, flags = system.processor()
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags]
    return f"{torch.get_num_threads()} cores ({name}{', ' + fast[0] if fast else ''})"


def attention_backend(device: torch.device) -> str:
    """Which attention kernel PyTorch will choose there."""
    if device.type == "cuda":
        backends = torch.backends.cuda
        if backends.flash_sdp_enabled():
            return "flash"
        return "memory-efficient" if backends.mem_efficient_sdp_enabled() else "math"
    return "matrix products in training, fused kernel without gradients"


def parameter_bytes(module: torch.nn.Module, ema: bool) -> tuple[int, int]:
    """(trainable parameters, bytes that weights, gradients, two optimiser moments and the EMA copy will take)."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    everything: list[Tensor] = [*module.parameters(), *module.buffers()]
    held = sum(t.numel() * t.element_size() for t in everything)
    return trainable, held * (2 if ema else 1) + 12 * trainable
