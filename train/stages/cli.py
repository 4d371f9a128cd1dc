"""Runs one training stage: its configuration, the callbacks around it, and what it leaves behind.

    run_stage("tokenizer", ["--config", "configs/maze/tokenizer.yaml", "--minutes", "5"])
    run_stage("tokenizer", config="configs/maze/tokenizer.yaml", values={"minutes": 5, "data.batch_size": 32})

Everything lands in `RUNS/NAME/STAGE/`: `config.yaml`, `last.ckpt`, `metrics.jsonl`, `samples/`, `wandb/`.
"""

from __future__ import annotations

import copy
import json
import secrets
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.callbacks import Callback

from data_collect.errors import UserError
from data_collect.files import whole
from data_collect.lock import folder_lock
from game_wm.deadline import NEVER, Deadline
from train.checkpoints import NETWORKS, check_network, initialise, read_checkpoint, trained_before
from train.data.encode import tokenizer_hash
from train.data.modules import LatentDataModule
from train.report.callbacks import Banner, Bar, Samples
from train.report.console import say, warn
from train.report.figures import Figures
from train.report.machine import describe, use_all_cores
from train.report.origin import origin
from train.report.wandb_run import wandb_run
from train.stages import cuda_graphs as graphs
from train.stages.callbacks import Saver
from train.stages.configuration import STAGES, StageCLI, as_flags
from train.stages.distill import DistillModule


def run_stage(
    stage: str, flags: Sequence[str] = (), config: str | Path | None = None, values: Mapping[str, Any] | None = None,
    deadline: Deadline = NEVER,
) -> int:  # fmt: skip
    """Train one stage, given by a configuration file, `values` on top of it, and `flags` on top of both; with a
    `deadline`, until then. Returns the exit status: 0, or 130 and 143 when a signal ended it. Raises `UserError`."""
    use_all_cores()
    cli = StageCLI(stage, [*as_flags(config, values or {}), *flags])
    if not cli.config.minutes and not cli.config.steps:
        raise UserError("how long? add --minutes or --steps")
    cli.folder.mkdir(parents=True, exist_ok=True)
    trainer = cli.make_trainer(cli.core_callbacks(deadline))
    if not trainer.is_global_zero:  # of several processes on one run, the first holds it and writes
        return fit(cli, stage, trainer)
    with folder_lock(cli.folder):
        return fit(cli, stage, trainer)


def fit(cli: StageCLI, stage: str, trainer: pl.Trainer) -> int:
    """`run_stage`, once the arguments are read and the folder is ours."""
    config, folder, data = cli.config, cli.folder, cli.datamodule
    last, first = folder / "last.ckpt", trainer.is_global_zero
    if last.exists() and config.graphs:
        raise UserError(f"{last} exists, and what is trained by graphs cannot be resumed: choose another --name")
    if last.exists() and not config.resume:
        raise UserError(f"{last} exists: add --resume to continue that run, or choose another --name")
    if cli.shortened and first:
        say(cli.shortened)
    settings = json.loads(cli.parser.dump(config, format="json", skip_link_targets=True))
    metadata = {"stage": stage, "game": data.game, "schema": data.schema.to_json(), "settings": settings}
    from_step = begin(cli, stage, metadata, first)
    metadata["made"].append(made_by(trainer, from_step))
    if first:
        warn_of_other_tokenizer(cli)
        with whole(folder / "config.yaml") as file:
            file.write(yaml.safe_dump(settings, sort_keys=False).encode())
    if config.graphs:
        steps = graphs.fit(cli.model, data, trainer, last, metadata, Figures(folder))
        say(f"{stage}: {steps} steps, {last}")
        return 0
    about = settings | {"made": metadata["made"]}
    runs = wandb_run(folder, f"game_wm-{config.name}", config.wandb, about, metadata["wandb"]) if first else []
    saver = Saver(folder, metadata, config.save_minutes)
    reports: list[Callback] = [Banner(), Bar(stage)]
    if hasattr(cli.model, "sample"):
        reports.append(Samples(folder, config.sample_minutes, data.schema.fps))
    trainer.callbacks += [*reports, saver]  # type: ignore[attr-defined]
    trainer.loggers = [Figures(folder, from_step), *runs]
    if trainer.strategy.root_device.type == "cpu":
        use_all_cores(trainer.num_devices)
    if trainer.world_size > 1:  # Lightning ends the other processes where it is interrupted, until `Saver` stops all
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        trainer.fit(cli.model, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    finally:
        for run in runs:
            run.end()
    if saver.signal is None:
        told = f"{stage}: {trainer.global_step} steps, {last}"
    else:
        again = "the same command" + ("" if config.resume else " with --resume")
        told = f"stopped at step {trainer.global_step}; {again} continues"
    if first:
        say(told)
    return 0 if saver.signal is None else 128 + saver.signal


def begin(cli: StageCLI, stage: str, metadata: dict[str, Any], first: bool) -> int:
    """Give the model the weights that it begins with, unless a checkpoint to resume from has them, and the metadata
    what was before; the step that the run goes on from. `first`: of the processes, which says so."""
    config, last, from_step = cli.config, cli.folder / "last.ckpt", 0
    metadata |= {"made": [], "wandb": secrets.token_hex(4)}
    if last.exists():
        found = read_checkpoint(last, metadata)
        check_network(cli.model, NETWORKS[stage], last, found, metadata)
        from_step, metadata["before"] = int(found["global_step"]), found["game_wm"].get("before", {})
        metadata |= {name: found["game_wm"][name] for name in ("made", "wandb") if name in found["game_wm"]}
    elif config.init:
        other = initialise(cli.model, stage, Path(config.init), metadata)
        if other and first:
            say(f"{stage} begins with {config.init}: {other}")
        metadata["before"] = trained_before(Path(config.init), stage)
    elif stage == "distill":
        raise UserError("distillation needs a teacher: name a dynamics checkpoint with --init")
    if isinstance(cli.model, DistillModule):
        # Before fitting: the averaged copy and the checkpoint to resume from must have the teacher too.
        started = copy.deepcopy(cli.model.dynamics.state_dict())
        if config.teacher and not last.exists():
            initialise(cli.model, stage, Path(config.teacher), metadata)
        cli.model.freeze_teacher()
        cli.model.dynamics.load_state_dict(started)
    return from_step


def made_by(trainer: pl.Trainer, from_step: int) -> dict[str, Any]:
    """What trains a run from this step on; the seeds are in its settings."""
    machine = describe(trainer.strategy.root_device)
    return {"from_step": from_step, **origin(), "machine": machine, "processes": trainer.world_size}


def warn_of_other_tokenizer(cli: StageCLI) -> None:
    """Warn where another tokenizer than the latents' own decodes a run's pictures."""
    frozen = getattr(cli.model, "frozen", [])
    if not frozen or not isinstance(cli.datamodule, LatentDataModule):
        return
    if cli.datamodule.store.index["tokenizer"] != tokenizer_hash(frozen[0]):
        other = f"{cli.datamodule.latents} was not encoded with {cli.config.model.tokenizer}"
        warn(
            f"{other}: unless that is the same one in fewer bits, name the tokenizer that it was with --model.tokenizer"
        )


tokenizer, geometry, dynamics, distill = (partial(run_stage, stage) for stage in STAGES)
