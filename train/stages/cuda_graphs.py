"""Training with one CUDA graph a step: Python takes longer to launch a small network's kernels than they run, and a
graph launches all of them at once.

    python -m train dynamics --config configs/doom/dynamics.yaml --graphs true --data.batch_size 64

The step is captured once: forward, backward, clipping, AdamW and the average of the weights. Each kind of step (on own
rollouts or not) is a graph. All windows stay in the device's memory. The checkpoint is that of any other run, but
cannot be resumed; there is no validation on the way.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from data_collect.errors import UserError
from data_collect.files import whole
from game_wm.training import unsound
from train.data.modules import LatentDataModule, StreamDataModule
from train.data.windows import random_integers
from train.report.console import say
from train.report.figures import Figures
from train.stages.callbacks import EMA, Budget, Clip, Schedule, StepSeed, batch_size_of, callback_of, trained_on
from train.stages.module import StageModule

REPORT_SECONDS = 5.0  # between two lines of figures
DIVERGED = (
    "training diverged: a loss or its gradient is not finite, and nothing was saved. Train with a lower --model.lr, or "
    "without --graphs to see at which step"
)
WARM_UP = 3  # steps without a graph, in which kernels are chosen and the optimiser's state is made


def fit(
    module: StageModule, data: StreamDataModule, trainer: pl.Trainer,
    path: Path, metadata: dict[str, Any], figures: Figures,
) -> int:  # fmt: skip
    """Train until the budget is spent, and write the checkpoint; returns the steps taken. `UserError` without CUDA."""
    device = trainer.strategy.root_device
    if device.type != "cuda":
        raise UserError("graphs are for CUDA devices: leave --graphs out")
    if trainer.world_size > 1:
        raise UserError(f"graphs are for one process, not {trainer.world_size}: leave --graphs or the others out")
    if why := module.uncapturable():
        raise UserError(f"{why}: leave --graphs out")
    callbacks: list[Any] = [callback_of(trainer, kind) for kind in (Budget, Schedule, StepSeed, EMA, Clip)]
    budget, schedule, seeds, average, clip = callbacks
    module.to(device)
    if isinstance(data, LatentDataModule):
        data.dataset.hold(device)
    module.prepare(data)
    module.train()
    average._average_model = AveragedModel(module, device=device)
    module.trainer = trainer
    graphs = Graphs(module, clip.norm, average._average_model.module, trainer.precision == "bf16-mixed")
    budget.started = reported = time.monotonic()
    steps, since = 0, 0
    while (progress := max(budget.progress(trainer), steps / budget.steps if budget.steps else 0.0)) < 1:
        torch.manual_seed(int(random_integers(seeds.seed, np.array([steps]), 3)[0] >> np.uint64(1)))
        batch, kind = data.batch(steps * data.batch_size, data.batch_size), module.draw_kind()
        graphs.step(batch, kind, schedule.factor(steps, progress), average.rate(steps))
        steps += 1
        if (now := time.monotonic()) - reported > REPORT_SECONDS:
            rate = batch_size_of(batch)[1] * (steps - since) / (now - reported)
            graphs.report(figures, kind, steps, progress, rate)
            reported, since = now, steps
    data.cursor = steps * data.batch_size
    torch.cuda.synchronize()
    metadata = trained_on(metadata, data.cursor * getattr(data, "length", 1), budget.seconds, steps)
    graphs.save(path, metadata, average._average_model.module, steps)
    return steps


class Graphs:
    """A module's training steps, one graph for each `kind`; all share weights and memory."""

    def __init__(self, module: Any, clip: float, average: Any, half: bool) -> None:
        self.module, self.clip, self.half = module, clip, half
        self.optimizer = module.configure_optimizers()
        if not isinstance(self.optimizer, torch.optim.AdamW):
            raise UserError("graphs are for AdamW: set --model.optimizer to adamw, or leave --graphs out")
        device = module.device
        for group in self.optimizer.param_groups:
            group["initial_lr"], group["capturable"] = group["lr"], True
            group["lr"] = torch.tensor(group["lr"], device=device)
        self.weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight)
        trained = {name: x for name, x in module.state_dict().items() if not name.startswith("teacher.")}
        trained = {name: x for name, x in trained.items() if x.is_floating_point()}
        self.current = list(trained.values())
        self.averaged = [average.state_dict()[name] for name in trained]
        self.rate = torch.zeros((), device=device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)  # whether all has been finite so far
        self.batch: Any = None
        self.captured: dict[bool | None, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}  # and its figures
        self.pool = torch.cuda.graph_pool_handle()
        self.figures: dict[str, Tensor] = {}
        module.log = lambda name, value, **_: self.figures.__setitem__(name, value.detach())
        module.log_dict = lambda values, **_: self.figures.update({k: v.detach() for k, v in values.items()})

    def report(self, figures: Figures, kind: bool | None, step: int, progress: float, rate: float) -> None:
        """Log and print the figures of a step; `rate` in frames a second. `UserError` after one that was not finite."""
        values = {name: float(value) for name, value in self.captured[kind][1].items()}
        figures.log_metrics({**values, "frames_per_second": rate}, step)
        if not bool(self.sound):
            raise UserError(DIVERGED)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        say(f"{progress:4.0%}  step {step}  {rate:,.0f} frames/s  {shown}")

    def save(self, path: Path, metadata: dict[str, Any], averaged: Any, step: int) -> None:
        """Write the averaged weights as a checkpoint. `UserError` where they are not finite: the file stays."""
        weights = {name: value.cpu() for name, value in averaged.state_dict().items()}
        state: dict[str, Any] = {"state_dict": weights, "game_wm": metadata, "global_step": step}
        self.module.on_save_checkpoint(state)
        if not bool(self.sound) or unsound(weights):
            raise UserError(DIVERGED)
        with whole(path) as file:
            torch.save(state, file)

    def step(self, batch: Tensor | dict[str, Tensor], kind: bool | None, factor: float, decay: float) -> None:
        """One step on this batch, at this factor of the learning rate and decay of the average."""
        self._load(batch)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["initial_lr"] * factor)
        self.rate.fill_(1 - decay)
        if kind not in self.captured:
            self._capture(kind)
        self.captured[kind][0].replay()

    def _load(self, batch: Tensor | dict[str, Tensor]) -> None:
        device = self.module.device
        if self.batch is None and isinstance(batch, Tensor):
            self.batch = batch.to(device, copy=True)
        elif self.batch is None:
            self.batch = {name: x.to(device, copy=True) for name, x in batch.items()}  # type: ignore[union-attr]
        elif isinstance(batch, Tensor):
            self.batch.copy_(batch, non_blocking=True)
        else:
            for name, value in batch.items():
                self.batch[name].copy_(value, non_blocking=True)

    def _capture(self, kind: bool | None) -> None:
        self.module.decided = kind
        self.figures = {}  # another kind's graph keeps its own
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self._run()
        self.captured[kind] = graph, self.figures

    def _run(self) -> None:
        torch._foreach_zero_([weight.grad for weight in self.weights])
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            loss = self.module.training_step(self.batch, 0)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.clip, foreach=True)
        self.sound.logical_and_(norm.isfinite() & loss.detach().isfinite())
        self.optimizer.step()
        with torch.no_grad():
            change = torch._foreach_sub(self.current, self.averaged)
            torch._foreach_mul_(change, self.rate)
            torch._foreach_add_(self.averaged, change)
