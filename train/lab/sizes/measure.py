"""How fast a rung trains here: whole steps on made-up data, as `train` takes them, eagerly or as one CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from game_wm.acceleration.graphs import captured
from game_wm.device import wait
from train.lab.sizes.ladder import Rung, batch_of, module_of, step_of

LEAST = 3  # steps


def training_rate(
    rung: Rung, stage: str, frame: tuple[int, int], device: torch.device, seconds: float, graph: bool = False
) -> float:
    """Frames/s, by the median step of so many seconds."""
    with torch.device(device):
        module: Any = module_of(rung, stage, frame)
        batch, frames = batch_of(module, rung.stages[stage].data)
    for part in batch.values() if isinstance(batch, dict) else []:
        part.normal_() if part.ndim > 2 else part.zero_()
    make = step_with(module.train(), batch, device)
    return frames / median_seconds(captured(make) if graph else make, device, seconds)


def step_with(module: Any, batch: Any, device: torch.device) -> Callable[[], object]:
    """A step of training on this batch: forward, backward, clipping, the optimiser."""
    step, optimizer = step_of(module), module.configure_optimizers()
    weights: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    for group in optimizer.param_groups:
        group["capturable"] = device.type == "cuda"
    gradients = [torch.zeros_like(weight) for weight in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient

    def make() -> None:
        torch._foreach_zero_(gradients)
        with torch.autocast(device.type, torch.bfloat16):
            loss = step(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()

    return make


def median_seconds(make: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Of one call, which the device has finished; as many as fit into so many seconds, three at least."""
    make()
    took, end = list[float](), time.perf_counter() + seconds
    while len(took) < LEAST or time.perf_counter() < end:
        wait(device)
        began = time.perf_counter()
        make()
        wait(device)
        took.append(time.perf_counter() - began)
    return statistics.median(took)
