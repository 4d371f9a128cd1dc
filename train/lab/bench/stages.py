"""How fast a stage trains, beside the machine's own bf16 matrix rate, and how much faster its data comes.

    python -m train bench dynamics --config configs/maze/dynamics.yaml [--steps 30]
    python -m train bench dynamics --config configs/maze/dynamics.yaml --synthetic       # no recording needed

Trains for `--steps` steps as training does (the same callbacks, loader and optimiser; nothing is written), then asks
the loader alone for batches. Nothing else should run meanwhile. The last lines are the figures.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from data_collect.errors import UserError
from train.data.encode import write_synthetic
from train.report.callbacks import Banner, Throughput
from train.report.console import say
from train.report.machine import use_all_cores
from train.stages.callbacks import batch_size_of, log_interval
from train.stages.configuration import StageCLI

LOADER_SECONDS = 3.0
SYNTHETIC_SHAPE, SYNTHETIC_ACTIONS = (8, 8, 8), 4  # those of the maze


class Collect(Callback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "matrix_fraction" in found and trainer.global_step % log_interval(trainer) == 0:
            self.rows.append(found)


def bench(stage: str, arguments: list[str]) -> int:
    """Print the figures; exit status 0. `UserError` as in training."""
    use_all_cores()
    with tempfile.TemporaryDirectory() as folder:
        if "--synthetic" in arguments:
            if stage == "tokenizer":
                raise UserError("the tokenizer has no --synthetic: name a recording with --data.data")
            arguments = [flag for flag in arguments if flag != "--synthetic"]
            write_synthetic(Path(folder), SYNTHETIC_SHAPE, SYNTHETIC_ACTIONS, episodes=32, frames=1024)
            arguments += ["--data.latents", folder, "--data.game", "null", "--model.tokenizer", "null"]
        given = any(flag == "--steps" or flag.startswith("--steps=") for flag in arguments)
        steps = [] if given else ["--steps", "40"]
        flags = ["--minutes", "null", *steps, "--wandb", "off", "--trainer.log_every_n_steps", "5"]
        cli = StageCLI(stage, [*arguments, *flags, "--trainer.limit_val_batches", "0"])
        if stage == "distill":
            cli.model.freeze_teacher()  # type: ignore[operator]
        collect = Collect()
        # Throughput logs before Collect reads, being earlier in the list.
        trainer = cli.make_trainer([*cli.core_callbacks(), collect, Banner()])
        trainer.fit(cli.model, datamodule=cli.datamodule)
        loader = loader_rate(cli.datamodule)
    if not collect.rows:
        raise UserError(f"--steps {cli.config.steps} are too few to time anything: give at least 10")
    last = collect.rows[len(collect.rows) // 2 :]
    figures = {name: sorted(row[name] for row in last)[len(last) // 2] for name in last[0]}
    counted = next(callback for callback in trainer.callbacks if isinstance(callback, Throughput))  # type: ignore[attr-defined]
    say(
        f"training:          {figures['frames_per_second']:.0f} frames/s, {figures['samples_per_second']:.1f} samples/s"
    )
    say(f"arithmetic a step: {(counted.flops or 0) / 1e9:.1f} GFLOP, forward and backward")
    say(f"reached:           {figures['gflops']:.0f} GFLOP/s of {figures['machine_gflops']:.0f} (4096x384x1536, bf16)")
    say(f"matrix fraction:   {figures['matrix_fraction']:.1%}")
    say(f"loader alone:      {loader:.0f} frames/s, {loader / figures['frames_per_second']:.1f} x training")
    return 0


tokenizer, dynamics, distill = (partial(bench, stage) for stage in ("tokenizer", "dynamics", "distill"))


def loader_rate(data: Any) -> float:
    """Frames/s of the loader with nothing else going on."""
    batches = iter(data.train_dataloader())
    next(batches)
    frames, began = 0, time.perf_counter()
    while time.perf_counter() - began < LOADER_SECONDS:
        frames += batch_size_of(next(batches))[1]
    return frames / (time.perf_counter() - began)
