"""Sixteen-bit arithmetic: convolutions and linear layers in bfloat16, where the processor has it.

    model = half(model)             # in place; poses and what is shown stay in 32 bits

Weights are converted once. If every call converted them, a batch of one would not be faster.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from data_collect import system
from game_wm.acceleration.quantisation import quantise
from game_wm.device import usable
from game_wm.world import WorldModel


@cache
def supported(device: str = "cpu") -> bool:
    """Whether bfloat16 is arithmetic of the machine's own: a GPU's, AMX or AVX-512 of a processor's."""
    if (device := usable(device)) != "cpu":
        return torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    _, flags = system.processor()
    # PyTorch's own level is lower where ATEN_CPU_CAPABILITY says so.
    wide = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")
    return wide and ("amx_bf16" in flags or "avx512_bf16" in flags)


def choose(model: WorldModel, precision: str, device: str = "cpu") -> WorldModel:
    """The model at a precision: "16", "32", "auto" (16 bits where they are `supported`), or "8" (eight bits, the layers
    that cannot take them as for "auto"). Raises UserError for "8" on a GPU."""
    if precision == "16" or (precision in ("8", "auto") and supported(device)):
        model = half(model)
    return quantise(model) if precision == "8" else model


def half(model: WorldModel) -> WorldModel:
    """The same model in bfloat16, changed in place: dreams differ from those in 32 bits by rounding."""
    parts: list[nn.Module] = [model.tokenizer, model.dynamics, *model.memory.networks()]
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
    model.low_precision = True
    return model
