"""The pipeline's flags: reading them, and naming them in messages.

    plan = parse(["--config", "configs/own/quick.yaml", "--data", "a", "b", "--dynamics.model.lr", "3e-4"])
    in_own_words("dynamics", "lower --model.lr")            # "lower --dynamics.model.lr"

Every flag of a stage is one of the pipeline's behind the stage's name: `--dynamics.model.lr 3e-4`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser

from data_collect.commandline import explained, unknown
from data_collect.errors import UserError
from train import locate
from train.commands.stages import RUN_FLAGS
from train.pipeline.memory import with_memory
from train.pipeline.plan import KINDS, Pipeline, Record, Training

# Flags of a stage that the pipeline sets itself.
SET_HERE = {"config", "name", "runs", "resume", "init", "wandb", "device", "data.data", "data.latents",
            "model.tokenizer", "model.geometry"}  # fmt: skip
# The others that are no arguments of its classes.
RUN_NAMES = {flag.name.removeprefix("--") for flag in RUN_FLAGS} - SET_HERE | {"seed_everything"}
STAGE_FLAG = re.compile(rf"--((?:{'|'.join(sorted(RUN_NAMES))}|model|data|trainer)(?![\w-])(?:\.\w+)*)")
RECORD_FLAG = re.compile(rf"--({'|'.join(each.name.replace('_', '-') for each in fields(Record))})(?![\w-])")
HELP = "(see `python -m train pipeline --help`)"


def in_own_words(stage: str, sentence: str, given: Iterable[str] = ()) -> str:
    """A sentence of a stage or of the recorder, with the pipeline's flags in place of its own. `given`: names of the
    values that the stage was given, which are flags of the pipeline too."""
    if stage == "record":  # its --minutes is the pipeline's own
        named = RECORD_FLAG.sub(lambda found: f"--record.{found[1].replace('-', '_')}", sentence)
        return named.replace("another --out", "another --name").replace(" for --out", " for --runs")
    for name in {name for name in given if not STAGE_FLAG.fullmatch(f"--{name}")}:
        sentence = re.sub(rf"--{re.escape(name)}(?![\w.-])", f"--{stage}.{name}", sentence)
    return STAGE_FLAG.sub(lambda found: found[0] if found[1] in SET_HERE else f"--{stage}.{found[1]}", sentence)


def parse(arguments: Sequence[str]) -> Pipeline:
    """The plan that a configuration file and flags describe; `UserError` when they do not."""
    parser = ArgumentParser(prog="python -m train pipeline", description=Pipeline.__doc__, exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="configuration file (YAML)")
    parser.add_class_arguments(Pipeline)
    own, values = split(arguments)
    try:
        options = parser.instantiate_classes(parser.parse_args(own))
    except ArgumentError as error:
        raise UserError(f"{explained(error, parser)} {HELP}") from None
    plan = Pipeline(**{key: value for key, value in vars(options).items() if key != "config"})
    plan.init = None if plan.init in (None, "none") else locate(plan.init)
    if plan.scroll and plan.geometry.config:
        raise UserError("a model has one memory: leave out --scroll or --geometry.config")
    if not (plan.scroll or plan.geometry.config or plan.memory == "auto"):
        plan = with_memory(plan, plan.memory)
    for name in KINDS:
        training = plan.training(name)
        words = grouped(training.flags)
        training.values = training.values | {flag[2:]: " ".join(rest) for flag, rest in words} | values[name]
        training.flags = []
    return plan


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The pipeline's own flags, and by stage the values that the others give: {"dynamics": {"model.lr": "3e-4"}}."""
    own: list[str] = []
    values: dict[str, dict[str, Any]] = {name: {} for name in KINDS}
    for flag, words in grouped(arguments):
        stage, _, rest = flag.removeprefix("--").partition(".")
        if flag == "--data" and not (len(words) == 1 and words[0].startswith("[")):
            own += ["--data", json.dumps(words)]
        elif stage in KINDS and rest and rest.rstrip("+").split(".")[0] not in {each.name for each in fields(Training)}:
            if rest in SET_HERE or len(words) != 1:
                why = "the pipeline gives it that itself" if rest in SET_HERE else "it takes one value"
                raise UserError(f"{flag}: {why} {HELP}")
            if "." not in rest and rest not in RUN_NAMES:
                known = [f"--{stage}.{name}" for name in [*(each.name for each in fields(Training)), *RUN_NAMES]]
                raise UserError(f"{unknown([flag], known)} {HELP}")
            values[stage][rest] = words[0]
        else:
            own += [flag, *words] if flag else words
    return own, values


def grouped(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words behind it (or behind "="); words before any flag have the flag ""."""
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


def longer_command(plan: Pipeline, arguments: Sequence[str], stage: str) -> str:
    """The command line that gives a stage twice the time."""
    wanted = plan.training(stage)
    if plan.minutes and (wanted.minutes or not wanted.steps):
        return again(arguments, "--minutes", f"{2 * plan.minutes:g}")
    if wanted.minutes:
        return again(arguments, f"--{stage}.minutes", f"{2 * wanted.minutes:g}")
    return again(arguments, f"--{stage}.steps", f"{2 * (wanted.steps or 1)}")
