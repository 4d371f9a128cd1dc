"""What a pipeline is asked for: its configuration file and flags, and the words in which it speaks of them.

    plan = parse(["--config", "configs/own/quick.yaml", "--data", "a", "b", "--dynamics.model.lr", "3e-4"])
    in_own_words("dynamics", "lower --model.lr")            # "lower --dynamics.model.lr"

Every flag of a stage is one of the pipeline's behind the stage's name: `--dynamics.model.lr 3e-4`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser

from data_collect.commandline import explained, unknown
from data_collect.errors import UserError
from train.commands.stages import OWN, STAGES


@dataclass
class Record:
    """What to record, as `python -m data_collect record` takes it."""

    game: str = ""
    player: str = "random"
    frames: int = 40_000
    episode_frames: int = 1_000
    workers: int = 2
    seed: int = 0


@dataclass
class Stage:
    """A training stage: its configuration file, its budget, and further flags."""

    config: str = ""
    minutes: float | None = None
    steps: int | None = None
    flags: list[str] = field(default_factory=list)


@dataclass
class Pipeline:
    """The whole path.

    Args:
        name: of the run and of the checkpoint, `RUNS/NAME/NAME.safetensors`.
        data: recordings to train on instead of one that is made.
        minutes: of all of it, recording, encoding and export included; the stages' own minutes say in which proportion
            they share them, and the tokenizer gets more where it needs more.
        init: a playable checkpoint (.safetensors) to tune on the recording, tokenizer and dynamics.
        geometry: of episodic memory; without a configuration the model has none.
        distill: without a configuration (`--distill.config ""`) the dynamics plays as it is.
        contexts: beginnings of dreams in the checkpoint.
        prompt: real frames of each.
        device: cpu, cuda, cuda:1 or mps; auto: cuda where there is one.
    """

    name: str
    record: Record
    tokenizer: Stage
    dynamics: Stage
    distill: Stage = field(default_factory=Stage)
    geometry: Stage = field(default_factory=Stage)
    runs: str = "runs"
    data: list[str] = field(default_factory=list)
    minutes: float | None = None
    init: str | None = None
    contexts: int = 8
    prompt: int = 32
    wandb: str = "offline"
    device: str = "auto"

    @property
    def stages(self) -> list[str]:
        """Names of the stages that are asked for, in order."""
        memory = ["geometry"] if self.geometry.config else []
        student = ["distill"] if self.distill.config else []
        return ["tokenizer", *memory, "dynamics", *student]

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return getattr(self, name)


# Of a stage's flags: those that the pipeline gives it, and those that a run of its own has beside its classes'.
GIVEN = {"config", "name", "runs", "resume", "init", "wandb", "device", "data.data", "data.latents", "model.tokenizer",
         "model.geometry"}  # fmt: skip
OF_A_STAGE = {flag.name.removeprefix("--") for flag in OWN} - GIVEN | {"seed_everything"}
STAGE_FLAG = re.compile(rf"--((?:{'|'.join(sorted(OF_A_STAGE))}|model|data|trainer)(?![\w-])(?:\.\w+)*)")
RECORD_FLAG = re.compile(rf"--({'|'.join(each.name.replace('_', '-') for each in fields(Record))})(?![\w-])")


def in_own_words(stage: str, sentence: str, given: Sequence[str] = ()) -> str:
    """What a stage or the recorder says, with flags of the pipeline for its own and for those that it was `given`."""
    if stage == "record":  # its --minutes is the pipeline's own
        named = RECORD_FLAG.sub(lambda found: f"--record.{found[1].replace('-', '_')}", sentence)
        return named.replace("another --out", "another --name").replace(" for --out", " for --runs")
    for flag in {flag for flag in given if flag.startswith("--") and not STAGE_FLAG.fullmatch(flag)}:
        sentence = re.sub(rf"{re.escape(flag)}(?![\w.-])", f"--{stage}.{flag.removeprefix('--')}", sentence)
    return STAGE_FLAG.sub(lambda found: found[0] if found[1] in GIVEN else f"--{stage}.{found[1]}", sentence)


def read_yaml(path: str) -> dict[str, Any]:
    """A configuration file as it stands; `UserError` when it is none."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no configuration file: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration file: it has no entries")
    return content


def parse(arguments: Sequence[str]) -> Pipeline:
    """The plan that a configuration file and flags describe; `UserError` when they do not."""
    parser = ArgumentParser(prog="python -m train pipeline", description=Pipeline.__doc__, exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="configuration file (YAML)")
    parser.add_class_arguments(Pipeline)
    own: list[str] = []
    of_stages: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for flag, values in grouped(arguments):
        stage, _, rest = flag.removeprefix("--").partition(".")
        if flag == "--data" and not (len(values) == 1 and values[0].startswith("[")):
            own += ["--data", json.dumps(values)]
        elif stage in STAGES and rest and rest.rstrip("+") not in {each.name for each in fields(Stage)}:
            if rest in GIVEN or len(values) != 1:
                why = "the pipeline gives it that itself" if rest in GIVEN else "it takes one value"
                raise UserError(f"{flag}: {why} (see `python -m train pipeline --help`)")
            if "." not in rest and rest not in OF_A_STAGE:
                known = [f"--{stage}.{name}" for name in [*(each.name for each in fields(Stage)), *OF_A_STAGE]]
                raise UserError(f"{unknown([flag], known)} (see `python -m train pipeline --help`)")
            of_stages[stage] += [f"--{rest}", *values]
        else:
            own += [flag, *values] if flag else values
    try:
        options = parser.instantiate_classes(parser.parse_args(own))
    except ArgumentError as error:
        raise UserError(f"{explained(error, parser)} (see `python -m train pipeline --help`)") from None
    plan = Pipeline(**{key: value for key, value in vars(options).items() if key != "config"})
    for stage, flags in of_stages.items():
        plan.stage(stage).flags = [*plan.stage(stage).flags, *flags]
    return plan


def grouped(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with what stands behind it (also behind "="); what comes before any flag has the flag ""."""
    flag, values = "", list[str]()
    for word in arguments:
        if not word.startswith("--"):
            values.append(word)
            continue
        if flag or values:
            yield flag, values
        flag, found, value = word.partition("=")
        values = [value] if found else []
    if flag or values:
        yield flag, values


def again(arguments: Sequence[str], flag: str, value: str) -> str:
    """The command line of a pipeline with another value of a flag, ready to be typed."""
    kept = [word for name, values in grouped(arguments) if name != flag for word in ([name] if name else []) + values]
    return shlex.join(["python", "-m", "train", "pipeline", *kept, flag, value])
