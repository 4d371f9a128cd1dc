"""What happens around a training step: its seed, learning rate, averaged weights, time budget and checkpoint.

    callbacks = [StepSeed(0), Budget(minutes=40), Schedule(), Clip(), EMA(), Saver(folder)]  # this order

The checkpoint's `state_dict` is the averaged (EMA) copy, which is played; the weights in training are its
`current_model_state`, from which a run resumes. The noise of a step is a function of (seed, step), so that a run that
is killed and resumed has the losses of an uninterrupted one (if its length is given in steps, not in minutes).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.deadline import NEVER, Deadline
from game_wm.model.names import present_names
from game_wm.training import diverged, unsound
from train.data.windows import random_integers
from train.stages.processes import agreed

Kind = TypeVar("Kind", bound=Callback)
LEAST = 6.0  # seconds of a training that has a deadline
UNTOUCHED = "what was saved before stays as it is"


class StepSeed(Callback):
    """Seeds PyTorch anew at every step with a function of (seed, step, process)."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int) -> None:
        number = np.array([trainer.fit_loop.epoch_loop.total_batch_idx * trainer.world_size + trainer.global_rank])
        torch.manual_seed(int(random_integers(self.seed, number, 3)[0] >> np.uint64(1)))


class Budget(Callback):
    """How long training lasts: `minutes` of wall time, added up over resumes, or `steps`, whichever ends first. With a
    `deadline`, the minutes are those until then, however long it took to begin.

    Processes that train together agree on the time once a step, since the learning rate is a function of it: by clocks
    of their own their weights would drift apart.
    """

    def __init__(self, minutes: float | None = None, steps: int | None = None, deadline: Deadline = NEVER) -> None:
        self.minutes, self.steps, self.deadline = minutes, steps, deadline
        self.before, self.started = 0.0, 0.0
        self.common: float | None = None  # seconds of training that several processes have agreed on

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return self.before + (time.monotonic() - self.started if self.started else 0.0)

    def progress(self, trainer: Trainer) -> float:
        """Fraction of the budget that is spent, 0 to 1."""
        by_steps = trainer.global_step / self.steps if self.steps else 0.0
        seconds = self.seconds if self.common is None else self.common
        return min(1.0, max(by_steps, seconds / (60 * self.minutes) if self.minutes else 0.0))

    def agree(self, trainer: Trainer) -> None:
        if trainer.world_size > 1:
            self.common = agreed(trainer, self.seconds)[0]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; a run that has already spent its time stops at once."""
        self.started = time.monotonic()
        if not self.deadline.never:
            self.minutes = agreed(trainer, self.before + max(LEAST, self.deadline.left))[0] / 60
        self.agree(trainer)
        trainer.should_stop = self.progress(trainer) >= 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.agree(trainer)
        if self.progress(trainer) >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict["seconds"]


class Schedule(Callback):
    """Learning rate: up over `warmup` steps, level, down to `final` of it over the last `decay` of the budget. A
    scheduler of the module's own replaces it. A resumed run has the rates of its configuration."""

    def __init__(self, warmup: int = 100, decay: float = 0.4, final: float = 0.02) -> None:
        self.warmup, self.decay, self.final = warmup, decay, final

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def factor(self, step: int, progress: float) -> float:
        down = min(1.0, (1 - progress) / self.decay) if self.decay > 0 else 1.0
        return min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * down)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int) -> None:
        if trainer.lr_scheduler_configs:
            return
        factor = self.factor(trainer.global_step, budget_of(trainer).progress(trainer))
        for optimizer, rates in zip(trainer.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor


class Clip(Callback):
    """Clips the gradient's norm and logs it. Not Lightning's own clipping, which refuses fused optimisers.

    A loss or a gradient that is not finite ends the run with a `UserError` before it reaches the weights. On a GPU the
    check would stall the device, so it is made at the next line of figures.
    """

    def __init__(self, norm: float = 1.0) -> None:
        self.norm = norm
        self.loss: Tensor | None = None
        self.sound: Tensor | None = None  # whether all has been finite so far

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self.loss = loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.norm, foreach=True)
        logs = trainer.global_step % log_interval(trainer) == 0
        if logs:
            pl_module.log("gradient_norm", norm)
        assert self.loss is not None
        sound = self.loss.isfinite()
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a scaler leaves such steps out itself
            sound = sound & norm.isfinite()
        self.sound = sound if self.sound is None else self.sound & sound
        if (logs or norm.device.type == "cpu") and any(agreed(trainer, not bool(self.sound))):
            lower = float(getattr(pl_module, "lr", 0.0)) / 4
            raise UserError(
                f"training diverged: at step {trainer.global_step} the loss is {float(self.loss):g}, the norm of its "
                f"gradient {float(norm):g}. Train with a lower rate, such as --model.lr {lower:g}; {UNTOUCHED}"
            )


class EMA(WeightAveraging):
    """Exponential moving average of the weights: decay min(`decay`, (1 + n) / (10 + n)) after n updates."""

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts the copy on the device where the module will train: Lightning copies the module before moving it."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def rate(self, count: int) -> float:
        """Decay of the next update, after `count` of them."""
        return min(self.decay, (1 + count) / (10 + count))

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        decay = self.rate(int(count))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:
            torch._foreach_copy_(averaged, current)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = present_names(checkpoint["state_dict"])
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unlike the parent, keep the weights in training: a finished run can be continued exactly."""

    @property
    def average(self) -> nn.Module | None:
        """The module with the averaged weights, while it trains."""
        return self._average_model and self._average_model.module

    @contextlib.contextmanager
    def averaged(self, pl_module: LightningModule) -> Iterator[None]:
        if self._average_model is None:
            yield
            return
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)


def log_interval(trainer: Trainer) -> int:
    """Steps between two lines of figures."""
    return max(1, int(trainer.log_every_n_steps))  # type: ignore[attr-defined]


def batch_size_of(batch: Any) -> tuple[int, int]:
    """(samples, frames) of a batch of either data module."""
    if isinstance(batch, Tensor):
        return len(batch), len(batch)
    windows, length = batch["latents"].shape[:2]
    return windows, windows * length


class Stopped(Exception):
    """A signal has come for work that may be broken off."""


class Saver(Callback):
    """Writes `last.ckpt` every `minutes`, at the end, and on SIGTERM or Ctrl-C (a second Ctrl-C stops at once).

    Always after a finished step, under a temporary name, synced and renamed. `metadata` (game, action schema, stage,
    configuration) goes along under the key `game_wm`.
    """

    def __init__(self, folder: Path, metadata: dict[str, Any] | None = None, minutes: float = 5.0) -> None:
        self.path, self.metadata, self.minutes = folder / "last.ckpt", metadata or {}, minutes
        self.signal: int | None = None
        self.saved, self.aside = 0.0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handles the signals itself until the end: Lightning would stop in the middle of a step."""
        self.saved = time.monotonic()
        with contextlib.suppress(ValueError):  # not in the main thread: there are no signals to take
            self.handlers = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self.aside:
            self.aside = False
            raise Stopped

    @contextlib.contextmanager
    def breaking_off(self) -> Iterator[None]:
        """A signal breaks off what is done in the block, which no training depends on."""
        self.aside = self.signal is None
        with contextlib.suppress(Stopped):
            try:
                yield
            finally:
                self.aside = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Saves when it is time; a signal to any of the processes also ends training."""
        number, due = agreed(trainer, self.signal or 0, time.monotonic() - self.saved > 60 * self.minutes)
        if number:
            self.signal, trainer.should_stop = int(number), True
        if due or trainer.should_stop or (0 < trainer.max_steps <= trainer.global_step):
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint; the file under its name is whole at any moment."""
        temporary = self.path.with_suffix(".tmp")
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
        except OSError as error:  # a full disk, which half a file would keep full
            temporary.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if trainer.is_global_zero:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        self.saved = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        """Adds the metadata with what was trained so far. `UserError` where weights are not finite: the file stays."""
        averaged, current = checkpoint["state_dict"], checkpoint.get("current_model_state", {})
        if broken := unsound(averaged) or unsound(current):
            raise UserError(f"step {trainer.global_step} is not saved: {diverged(broken)}; {UNTOUCHED}")
        frames = getattr(trainer.datamodule, "cursor", 0) * getattr(trainer.datamodule, "length", 1)  # type: ignore[attr-defined]
        checkpoint["game_wm"] = trained_on(self.metadata, frames, budget_of(trainer).seconds, trainer.global_step)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restores the signal handlers, unless Lightning has."""
        for number, handler in getattr(self, "handlers", {}).items():
            if signal.getsignal(number) == self._stop:
                signal.signal(number, handler)


def trained_on(metadata: dict[str, Any], frames: int, seconds: float, steps: int) -> dict[str, Any]:
    """Run metadata with what has been trained, in this run and in those that it began with."""
    before, trained = metadata.get("before", {}), {"frames": frames, "hours": seconds / 3600, "steps": steps}
    return {**metadata, "trained": {name: value + before.get(name, 0) for name, value in trained.items()}}


def callback_of(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The run's callback of a kind, if it has one."""
    return next((each for each in trainer.callbacks if isinstance(each, kind)), None)  # type: ignore[attr-defined]


def average_of(trainer: Trainer) -> nn.Module | None:
    """The module in training with averaged weights; None where none are kept."""
    found = callback_of(trainer, EMA)
    return found.average if found else None


def budget_of(trainer: Trainer) -> Budget:
    """The run's budget; modules ask it how far training has come: `budget_of(self.trainer).progress(self.trainer)`."""
    return callback_of(trainer, Budget) or Budget()
