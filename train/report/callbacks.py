"""Reports of a stage in training: a banner, a progress bar, throughput, sample pictures and videos."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from rich.progress import Progress
from torch.utils.flop_counter import FlopCounterMode

from data_collect.files import save_picture
from data_collect.recording.mp4 import VideoWriter
from train.report.console import progress_bar, say
from train.report.machine import MatrixRate, attention_backend, count_flops, describe, parameter_bytes
from train.report.wandb_run import WandbRun
from train.stages.callbacks import EMA, Budget, Saver, batch_size_of, budget_of, callback_of, log_interval

PICTURE_FRAMES = 8  # frames of a sample that its picture shows; the video shows all


class Banner(Callback):
    """Says at the start what runs where: device, dtype, attention backend, parameters, tokens, memory."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        trainable, held = parameter_bytes(pl_module, callback_of(trainer, EMA) is not None)
        network: Any = getattr(pl_module, "dynamics", None)
        rows = {
            "device": describe(pl_module.device) + (f" x {trainer.world_size}" if trainer.world_size > 1 else ""),
            "dtype": str(trainer.precision),
            "attention": attention_backend(pl_module.device),
            "parameters": f"{trainable / 1e6:.2f} M trained",
            **({} if network is None else {"tokens": f"{network.config.tokens} a frame"}),
            "memory": f"{held / 2**30:.2f} GiB for weights and optimiser, activations apart",
            "data": f"seed {trainer.datamodule.seed}, from item {trainer.datamodule.cursor}",  # type: ignore[attr-defined]
        }
        say("  ".join(f"{name} {value};" for name, value in rows.items()).rstrip(";"))


class Bar(Callback):
    """Progress by the budget, with loss, frames/s and time left; without a terminal, a line every `every` seconds."""

    def __init__(self, name: str, every: float = 30.0) -> None:
        self.name, self.every = name, every
        self.bar: Progress | None = None
        self.loss, self.began, self.reported = 0.0, 0.0, 0.0
        self.frames = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = self.reported = time.monotonic()
        self.frames, self.loss = 0, float("nan")
        if trainer.is_global_zero and not progress_bar().disable:
            self.bar = progress_bar()
            self.task = self.bar.add_task(self.name, total=1.0, figures="")
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Moves it, at most a few times a second."""
        self.frames += batch_size_of(batch)[1] * trainer.world_size
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        now = time.monotonic()
        if not trainer.is_global_zero or now - self.reported < (0.5 if self.bar else self.every):
            return
        self.loss = float(loss) if self.loss != self.loss else 0.9 * self.loss + 0.1 * float(loss)
        budget = budget_of(trainer)
        done, rate = budget.progress(trainer), self.frames / (now - self.began)
        figures = f"step {trainer.global_step}  loss {self.loss:.4f}  {rate:.0f} frames/s  {time_left(budget, done)}"
        self.reported = now
        if self.bar:
            self.bar.update(self.task, completed=done, figures=figures)
        else:
            print(f"{self.name} {done:4.0%}  {figures}", file=sys.stderr, flush=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


def time_left(budget: Budget, done: float) -> str:
    """ "3:20 left", from the time that the work so far has taken."""
    if not 0 < done <= 1:
        return ""
    seconds = int(budget.seconds * (1 / done - 1))
    return f"{seconds // 60}:{seconds % 60:02d} left"


class Throughput(Callback):
    """Logs frames/s and samples/s of training (median step) and the fraction of the machine's bf16 matrix rate.

    The arithmetic of a step, forward and backward once, is counted on the first step of a run; the machine's rate is
    timed at the start and again at every log, in the same process.
    """

    def __init__(self) -> None:
        self.flops: int | None = None
        self.counter: FlopCounterMode | None = None
        self.rate: MatrixRate | None = None
        self.intervals: list[float] = []
        self.previous: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rate = MatrixRate(pl_module.device).sample(5)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int) -> None:
        """Counts the arithmetic of the first step; notes the time between the starts of the others."""
        now = time.perf_counter()
        if self.previous is not None:
            self.intervals.append(now - self.previous)
        self.previous = now
        if self.flops is None:
            self.counter = count_flops().__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.flops = self.counter.get_total_flops()
            self.counter, self.previous = None, None
        if trainer.global_step % log_interval(trainer) or not self.intervals:
            return
        assert self.rate is not None
        self.rate.sample()
        self.previous = None  # the next interval would include this timing and the logging
        seconds = statistics.median(self.intervals)
        self.intervals.clear()
        samples, frames = batch_size_of(batch)
        # Other load slows machine and training alike: both medians are of the same period.
        figures = {
            "frames_per_second": frames * trainer.world_size / seconds,
            "samples_per_second": samples * trainer.world_size / seconds,
            "gflops": (self.flops or 0) / seconds / 1e9,
            "machine_gflops": self.rate.median / 1e9,
            "matrix_fraction": (self.flops or 0) / seconds / self.rate.median,
        }
        pl_module.log_dict(figures)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)

    def state_dict(self) -> dict[str, Any]:
        """The arithmetic of a step, so that a resumed run need not count it again."""
        return {"flops": self.flops}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.flops = state_dict["flops"]


class Samples(Callback):
    """Every `minutes` and at the end: the averaged model's output for a held-out batch, as picture and video. Calls the
    module's `sample(batch) -> uint8 (rows, T, H, W, 3)`; rows come in pairs, truth above, model below."""

    def __init__(self, folder: Path, minutes: float, fps: float) -> None:
        self.folder, self.minutes, self.fps = folder / "samples", minutes, fps
        self.batch: Any = None
        self.shown = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.shown = time.monotonic()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.batch = next(iter(data.val_dataloader()), None)
        if self.batch is None:
            self.batch = data.batch(0, data.batch_size)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if time.monotonic() - self.shown > 60 * self.minutes:
            self.show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module)

    @rank_zero_only
    def show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes `samples/step-00001200.png` and, of moving ones, `.mp4`; nothing once a signal ends the training."""
        average, saver = callback_of(trainer, EMA), callback_of(trainer, Saver)
        assert average is not None and saver is not None
        if saver.signal is not None:
            return
        batch = pl_module.transfer_batch_to_device(self.batch, pl_module.device, 0)
        training = pl_module.training
        with average.averaged(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            pl_module.eval()
            with saver.breaking_off():
                rows = pl_module.sample(batch).cpu().numpy()  # type: ignore[operator]
            pl_module.train(training)
        if saver.signal is not None:
            return
        path = self.folder / f"step-{trainer.global_step:08d}.png"
        picture = contact_sheet(rows)
        save_picture(path, Image.fromarray(picture))
        if rows.shape[1] > 1:
            with VideoWriter(path.with_suffix(".mp4"), self.fps) as video:
                for frame in range(rows.shape[1]):
                    video.write(contact_sheet(rows[:, frame : frame + 1]))
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                film = path.with_suffix(".mp4") if rows.shape[1] > 1 else None
                logger.log_samples(picture, film, trainer.global_step)
        self.shown = time.monotonic()


def contact_sheet(rows: np.ndarray) -> np.ndarray:
    """uint8 (rows, T, H, W, 3), pairs of rows -> one picture: single frames side by side, truth above, model below;
    sequences one below the other, eight frames of each spread evenly, the first and the last among them."""
    if rows.shape[1] == 1:
        return np.concatenate([np.concatenate(list(rows[half::2, 0]), axis=1) for half in (0, 1)], axis=0)
    count = min(rows.shape[1], PICTURE_FRAMES)
    shown = rows[:, np.linspace(0, rows.shape[1] - 1, count).round().astype(int)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in shown], axis=0)
