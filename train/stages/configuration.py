"""A training stage's configuration, out of files, values and flags: LightningCLI underneath.

settings = read_stage("tokenizer", config="configs/maze/tokenizer.yaml", values={"data.batch_size": 32})
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentError, Namespace, get_loader, set_loader
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from data_collect.commandline import explained
from data_collect.errors import UserError, shortened
from game_wm.deadline import NEVER, Deadline
from game_wm.device import usable
from game_wm.model.names import present_entries, present_entry
from train.checkpoints import size_flags
from train.commands.stages import RUN_FLAGS
from train.data.latents import LatentStore
from train.data.modules import FrameDataModule, LatentDataModule, StreamDataModule
from train.data.spans import fitting_length
from train.first_person.geometry import GeometryModule
from train.report.callbacks import Throughput
from train.stages.callbacks import EMA, Budget, Clip, Schedule, StepSeed
from train.stages.distill import DistillModule
from train.stages.dynamics import DynamicsModule
from train.stages.processes import check_world, launched
from train.stages.tokenizer import TokenizerModule

STAGES: dict[str, tuple[type[pl.LightningModule], type[StreamDataModule]]] = {
    "tokenizer": (TokenizerModule, FrameDataModule),
    "geometry": (GeometryModule, LatentDataModule),
    "dynamics": (DynamicsModule, LatentDataModule),
    "distill": (DistillModule, LatentDataModule),
}
# Arguments of the module that come from the data, as (attribute of the data module, argument of the module).
LINKS = {
    "tokenizer": [("height", "tokenizer.height"), ("width", "tokenizer.width")],
    "geometry": [("latent_shape", "latent_shape"), ("actions", "actions")],
    "dynamics": [("latent_shape", "latent_shape"), ("levels", "levels"), ("actions", "actions")],
    "distill": [("latent_shape", "latent_shape"), ("levels", "levels"), ("actions", "actions")],
}
# Out of these bounds a flag would train badly without a message.
LEAST = {"model.lr": 0, "model.weight_decay": 0, "model.targets": 1, "model.moving": 0, "model.steps": 1,
         "model.rollout": 0, "model.context_noise": 0, "warmup": 0, "decay": 0, "ema": 0}  # fmt: skip
MOST = {"decay": 1, "ema": 1}
TRAINER = {
    "accelerator": "auto", "devices": 1, "precision": "bf16-mixed", "max_epochs": -1, "log_every_n_steps": 10,
    "val_check_interval": 500, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "logger": False,
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip

# Files and flags may have the entries of older configurations.
_load = get_loader("yaml")
set_loader("yaml", lambda text: present_entries(_load(text)), (yaml.YAMLError,))

LONGEST = 100  # bytes of a run's name: a system has room for 255, of which files take some, Weights & Biases for 128


class StageCLI(LightningCLI):
    """Parses a stage's configuration and builds module, data and trainer; see `python -m train STAGE --help`."""

    def __init__(self, stage: str, arguments: list[str]) -> None:
        module, data = STAGES[stage]
        self.stage, self.shortened = stage, ""
        self.arguments = [present_flag(argument) for argument in arguments]
        quiet()
        super().__init__(
            module, data, save_config_callback=None, trainer_defaults=TRAINER, seed_everything_default=0, run=False,
            parser_kwargs={"exit_on_error": False, "prog": f"python -m train {stage}"},
            auto_configure_optimizers=False, load_from_checkpoint_support=False,
        )  # fmt: skip

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for flag in RUN_FLAGS:
            if self.stage in flag.stages and flag.type is None:
                parser.add_argument(flag.name, action="store_true", help=flag.about)
            elif self.stage in flag.stages:
                parser.add_argument(flag.name, type=flag.type, default=flag.default, help=flag.about)
        for source, target in LINKS[self.stage]:
            parser.link_arguments(f"data.{source}", f"model.{target}", apply_on="instantiate")
        if self.stage == "tokenizer":
            rows: Callable[[bool, float], int] = lambda temporal, moving: 3 if temporal else 2 if moving else 1  # noqa: E731
            parser.link_arguments(("model.tokenizer.temporal", "model.moving"), "data.row", compute_fn=rows)
        if self.stage != "geometry":
            parser.link_arguments("model.moving", "data.still", compute_fn=bool)
        if self.stage in ("dynamics", "distill"):
            shown = ("model.dynamics.recall", "model.dynamics.warp")
            parser.link_arguments(shown, "data.views", compute_fn=lambda recall, warp: recall or warp)
            parser.link_arguments("model.dynamics.aligned", "data.aligned")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses `self.arguments` instead of the command line. With `--init` the network has the sizes of that
        checkpoint, whatever the file says; flags still win."""
        try:
            self.config = parser.parse_args(self.arguments)
            self.config.init = None if self.config.init == "none" else self.config.init
            if self.config.init:
                files = [flag for i, flag in enumerate(self.arguments) if is_config(self.arguments, i)]
                flags = [flag for i, flag in enumerate(self.arguments) if not is_config(self.arguments, i)]
                sizes = map(present_flag, size_flags(Path(self.config.init), self.stage))
                self.config = parser.parse_args([*files, *sizes, *flags])
        except (ArgumentError, UnicodeDecodeError) as error:
            raise UserError(f"{explained(error, parser)} (see `python -m train {self.stage} --help`)") from None
        check_name(self.config.name)
        usable(self.config.device)
        if not 0 <= int(self.config.seed_everything) < 2**32:
            raise UserError(f"--seed_everything must be a whole number from 0 up, got {self.config.seed_everything}")
        for name, least in LEAST.items():
            value, most = self.config.get(name), MOST.get(name, math.inf)
            if value is not None and not least <= value <= most:
                bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
                raise UserError(f"--{name} must be {bounds}, got {value}")
        for name in ("minutes", "steps"):
            value = getattr(self.config, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name} must be more than 0, got {value}")
        if STAGES[self.stage][1] is LatentDataModule:
            self.shortened = shorten(self.config, self.stage)

    def instantiate_classes(self) -> None:
        """As the parent; `UserError` for values that do not fit each other."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise UserError(f"{error} (see `python -m train {self.stage} --help`)") from error
        if isinstance(self.model, DynamicsModule) and isinstance(self.datamodule, LatentDataModule):
            self.model.check_length(self.datamodule.length)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer is made by `run_stage`, when the callbacks are known."""
        return None  # type: ignore[return-value]

    def make_trainer(self, callbacks: list[Callback]) -> pl.Trainer:
        """A trainer with the configured arguments, the budget's steps and these callbacks. `UserError` where it does
        not know of all processes that were started together."""
        arguments = dict(self._get(self.config_init, "trainer"))
        own = arguments.pop("callbacks") or []
        steps = self.config.steps or -1
        if self.config.device != "auto":
            kind, _, number = usable(self.config.device).partition(":")
            arguments["accelerator"] = kind
            if kind != "cpu":  # which any number of processes share
                arguments["devices"] = [int(number)] if number else 1
        try:
            arguments |= launched(arguments)
            trainer = pl.Trainer(**{**arguments, "max_steps": steps, "callbacks": [*own, *callbacks]})
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise UserError(f"--trainer: {error}") from error
        check_world(trainer)
        return trainer

    @property
    def folder(self) -> Path:
        return Path(self.config.runs, self.config.name, self.stage)

    def core_callbacks(self, deadline: Deadline = NEVER) -> list[Callback]:
        """The callbacks that decide how training goes, in the order in which they must run."""
        config: Namespace = self.config
        seed, budget = StepSeed(int(config.seed_everything)), Budget(config.minutes, config.steps, deadline)
        return [seed, budget, Schedule(config.warmup, config.decay), Clip(config.clip), EMA(config.ema), Throughput()]


class Reading(StageCLI):
    """The same, without opening data or building networks."""

    def instantiate_classes(self) -> None:
        """Nothing."""


def read_stage(
    stage: str, flags: Sequence[str] = (), config: str | Path | None = None, values: Mapping[str, Any] | None = None
) -> Namespace:
    """A stage's configuration, given as to `run_stage`; its paths may be missing. `UserError` for a wrong name or
    value."""
    return Reading(stage, [*as_flags(config, values or {}), *flags]).config


def as_flags(config: str | Path | None, values: Mapping[str, Any]) -> list[str]:
    """A configuration file and values by their names in it (`{"model.lr": 1e-3, "resume": True}`) as command line."""
    flags = ["--config", str(config)] if config is not None else []
    switches = {flag.name for flag in RUN_FLAGS if flag.type is None}
    for name, value in values.items():
        if f"--{name}" in switches:
            flags += [f"--{name}"] * bool(value)
        else:
            flags += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return flags


def shorten(config: Namespace, stage: str) -> str:
    """Shorten windows to the length of most episodes, with all that depends on it; returns a message, if any. Where
    latents are missing it does nothing: the data module says so."""
    try:
        spans = LatentStore(config.data.latents).split(config.data.held_out, validation=False)
    except UserError:
        return ""
    frames, wanted = [span.frames for span in spans], config.data.length
    length = fitting_length(frames, wanted)
    left_out = 1 - sum(n for n in frames if n >= length) / max(1, sum(frames))
    rest = f", {left_out:.0%} of the frames lie in episodes that are shorter" if left_out > 0.05 else ""
    if length >= wanted:
        return f"{stage}: windows of {length} frames{rest}" if rest else ""
    config.data.length = length
    with_it = [f"{stage}: windows of {length} frames instead of {wanted}, since episodes are short{rest}"]
    if config.model.get("rollout"):
        config.model.rollout = min(config.model.rollout, max(1, length // 2))
        with_it.append(f"own rollouts of {config.model.rollout}")
    network = config.model.get("dynamics")
    if network is not None:
        if not config.init:  # the history of a checkpoint's network is in its weights
            network.history = min(network.history, max(1, length - 1))
        if network.attention == "window" and network.sink < length:
            network.window = min(network.window, length)
            with_it.append(f"a memory of the last {network.window}")
    return "; ".join(with_it)


def check_name(name: str) -> None:
    """`UserError` for what cannot be the name of a run: a folder's, and that of a project of Weights & Biases."""
    if not name.isprintable() or not name.strip(". ") or set(name) & set('/\\#?%:*"<>|'):
        raise UserError(
            f'--name {shortened(name)!r} must be a word without any of / \\ # ? % : * " < > |, which no folder may have'
        )
    if len(name.encode()) > LONGEST:
        raise UserError(f"--name {shortened(name)!r} is too long: its files' names have room for {LONGEST} letters")


def present_flag(argument: str) -> str:
    """A command line's argument, its flag under the name of today."""
    flag, sign, value = argument.partition("=")
    return present_entry(flag) + sign + value if argument.startswith("--") else argument


def is_config(arguments: list[str], i: int) -> bool:
    """Whether argument i is `--config` or its value."""
    return arguments[i].startswith("--config") or (i > 0 and arguments[i - 1] == "--config")


def quiet() -> None:
    """Silence what Lightning says on every start and what does not hold for streams."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    nothing = "Total length of `.*` across ranks is zero"  # where too little is held out to validate on
    for text in ("does not have many workers", "isinstance.treespec", "`LeafSpec`", "in eval mode", nothing):
        warnings.filterwarnings("ignore", f".*{text}.*")


def read_yaml(path: str) -> dict[str, Any]:
    """A configuration file as it stands; `UserError` when it is none."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no configuration file: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration file: it has no entries")
    return present_entries(content)
