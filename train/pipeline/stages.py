"""The list of a pipeline's stages, from recordings to the card, each with its inputs and its output.

    for stage in stages_of(plan, "cpu"): ...           # see train/pipeline/stage.py

Everything lies under RUNS/NAME/, a folder a stage: `data`, `tokenizer`, `latents`, `geometry`, `dynamics`, `distill`, …
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

from data_collect.errors import UserError
from data_collect.shards.writer import write_atomic
from train import locate
from train.pipeline.plan import GEOMETRY_PARTS, KINDS, Pipeline, Training
from train.pipeline.recording import exit_status, passing_on_sigterm
from train.pipeline.stage import Budget, Stage
from train.report.console import say
from train.stages.configuration import as_flags, read_yaml

HELD_OUT = 0.04  # share of the episodes that the parts of a geometry are judged on


def stages_of(plan: Pipeline, device: str) -> list[Stage]:
    """All stages after the recordings, in order."""
    trained = [trained_stage(plan, name) for name in plan.trained]
    found = [trained.pop(0), encoding(plan, device, "latents", ["latents"])]
    if geometries(plan):
        while trained and KINDS[trained[0].name] == "geometry":
            found.append(trained.pop(0))
        if plan.level:
            found.append(encoding(plan, device, "level", ["latents", "level"]))
        found += [geometry_part(plan, name) for name in GEOMETRY_PARTS if getattr(plan, name)]
        found += [scrolling(plan)] if plan.scroll else []
        found.append(Stage("views", plan.folder / "latents", partial(views, plan, device)))
    card = [evaluating(plan, device)] if plan.evaluate.suites else []
    return [*found, *trained, exporting(plan), *card]


# --- training -------------------------------------------------------------------------------------------------------


def checkpoint_of(plan: Pipeline, name: str) -> Path:
    """The checkpoint that a stage writes: one that trains, a part of the geometry, scroll, or the export."""
    if name == "export":
        return plan.folder / f"{plan.name}.safetensors"
    if name in (*GEOMETRY_PARTS, "scroll") or name == KINDS[name]:
        return plan.folder / name / "last.ckpt"
    return plan.folder / name / KINDS[name] / "last.ckpt"


def geometries(plan: Pipeline) -> list[str]:
    """The stages that make the memory, each going on from the checkpoint of the one before."""
    if plan.scroll:
        return ["scroll"]
    trained = [name for name in plan.trained if KINDS[name] == "geometry"]
    return [*trained, *(name for name in GEOMETRY_PARTS if trained and getattr(plan, name))]


def values_of(plan: Pipeline, name: str) -> dict[str, Any]:
    """The values of a stage that trains, on top of its configuration file; its budget apart."""
    kind, folder = KINDS[name], plan.folder
    given: dict[str, Any] = {"name": plan.name, "runs": plan.runs, "wandb": plan.wandb, "device": plan.device}
    if name != kind:
        given |= {"name": name, "runs": str(folder)}
    if plan.init and begins_with_init(plan.init, name):
        given |= {"init": plan.init} | plan.training(name).from_base
    if kind == "tokenizer":
        return given | {"data.data": plan.used_for("tokenizer")} | plan.training(name).values
    given |= {"data.latents": str(folder / "latents"), "model.tokenizer": str(checkpoint_of(plan, "tokenizer"))}
    made = geometries(plan)
    if name == "geometry_motion":
        given["init"] = str(checkpoint_of(plan, "geometry"))
    elif made and kind != "geometry":
        given["model.geometry"] = str(checkpoint_of(plan, made[-1]))
        if kind == "dynamics":
            given |= {"model.dynamics.recall": not plan.scroll, "model.dynamics.warp": True}
    if kind == "distill":
        given["init"] = str(checkpoint_of(plan, "dynamics"))
    return given | plan.training(name).values


@cache
def begins_with_init(path: str, name: str) -> bool:
    """Whether a stage starts from the playable checkpoint that is tuned: the geometry only where that has one."""
    if name != "geometry":
        return name in ("tokenizer", "dynamics")
    from game_wm.checkpoint import load

    return load(Path(path), contexts=False).model.config.memory is not None


def config_of(training: Training) -> Path:
    return Path(locate(training.config))


def check_training(plan: Pipeline, name: str) -> None:
    """`UserError` where a stage that trains is known to fail."""
    wanted = plan.training(name)
    if not (config := config_of(wanted)).is_file():
        raise UserError(f"{config}: no such configuration for {name}; name one with --{name}.config")
    if not wanted.minutes and not wanted.steps and not plan.minutes:
        raise UserError(f"how long? give --minutes, or --{name}.minutes or --{name}.steps")
    if min(1 if wanted.minutes is None else wanted.minutes, 1 if wanted.steps is None else wanted.steps) <= 0:
        raise UserError(f"--{name}.minutes and --{name}.steps must be more than 0")
    read_yaml(str(config))


def trained_stage(plan: Pipeline, name: str) -> Stage:
    """A stage that trains a network."""
    training, kind = plan.training(name), KINDS[name]
    content = read_yaml(str(config_of(training)))
    settings = [{key: value for key, value in content.items() if key not in ("minutes", "steps")}, training.values]
    inputs = [Path(folder) for folder in plan.used_for("tokenizer")] if kind == "tokenizer" else []
    if kind != "tokenizer":
        inputs = [plan.folder / "latents", *(checkpoint_of(plan, each) for each in before(plan, name))]
    if plan.init and begins_with_init(plan.init, name):
        inputs.append(Path(plan.init))
        settings += [training.from_base] * bool(training.from_base)
    shared = bool(plan.minutes and (training.minutes or not training.steps))
    budget = Budget(training.minutes, training.steps, shared)
    run = partial(train, plan, name)
    return Stage(name, plan.folder / name, run, inputs, checkpoint_of(plan, name), settings, budget)


def before(plan: Pipeline, name: str) -> list[str]:
    """The stages whose weights this one reads."""
    made = geometries(plan)
    if name in made:
        return made[: made.index(name)][-1:]
    return [*made[-1:], *(["dynamics"] if KINDS[name] == "distill" else [])]


def train(plan: Pipeline, name: str, budget: Budget) -> int:
    """Train a stage until it has had its budget; exit status."""
    from train.stages.cli import run_stage

    values = values_of(plan, name) | {"minutes": budget.minutes, "steps": budget.steps, "resume": True}
    config = config_of(plan.training(name))
    configured = read_yaml(str(config)).get("trainer", {}).get("devices", 1)
    if str(values.get("trainer.devices", configured)) == "1":
        return run_stage(KINDS[name], config=config, values=values, deadline=budget.deadline)
    return apart(["-m", "train", KINDS[name], *as_flags(config, values)])


def apart(command: list[str]) -> int:
    """Run a command of this Python in a process of its own; exit status. Where several processes train together,
    Lightning starts the others by the command line of the first: SLURM, which has started one, is to leave it to it."""
    child = subprocess.Popen([sys.executable, *command], env={**os.environ, "SLURM_JOB_NAME": "interactive"})
    with passing_on_sigterm(child):
        try:
            return exit_status(child.wait())
        except KeyboardInterrupt:
            return exit_status(child.wait())


# --- between the trained stages ---------------------------------------------------------------------------------------


def encoding(plan: Pipeline, device: str, name: str, uses: list[str]) -> Stage:
    """Latents of the recordings with one of these uses; `encode` itself finds out what is left to do."""

    def run(budget: Budget) -> int:
        from train.checkpoints import load_tokenizer
        from train.data.encode import encode
        from train.report.machine import use_all_cores

        use_all_cores()
        tokenizer = load_tokenizer(checkpoint_of(plan, "tokenizer"), device)
        encode(plan.used_for(*uses), tokenizer, plan.folder / name, device, deadline=budget.deadline)
        return 0

    return Stage(name, plan.folder / name, run)


def geometry_part(plan: Pipeline, name: str) -> Stage:
    """A part of the geometry, made by the command of its name."""
    made = geometries(plan)
    latents = plan.folder / ("level" if name in ("atlas", "obstacles") and plan.level else "latents")
    geometry, out = checkpoint_of(plan, made[made.index(name) - 1]), checkpoint_of(plan, name)

    def run(budget: Budget) -> int:
        from train.first_person.part import make_part

        say(f"{name}: {number} {'pictures' if name == 'atlas' else 'steps'}")
        make_part(name, latents, geometry, out, HELD_OUT, number, budget.deadline)
        return 0

    number = plan.scaled(getattr(plan, name))
    return Stage(name, plan.folder / name, run, [latents, geometry], out, budget=Budget(steps=number))


def scrolling(plan: Pipeline) -> Stage:
    """The memory of a world that scrolls, made by the command of its name."""
    latents, tokenizer = plan.folder / "latents", checkpoint_of(plan, "tokenizer")
    number, out = plan.scaled(plan.scroll), checkpoint_of(plan, "scroll")

    def run(budget: Budget) -> int:
        from train.scroll.memory import make

        make(latents, tokenizer, out, HELD_OUT, number, budget.deadline)
        return 0

    return Stage("scroll", plan.folder / "scroll", run, [latents], out, budget=Budget(steps=number))


def views(plan: Pipeline, device: str, budget: Budget) -> int:
    """Memory's views of every frame, beside the latents; `draw_views` itself finds out what is left to do."""
    from train.checkpoints import load_memory, load_tokenizer
    from train.first_person.draw_views import draw_views
    from train.report.machine import use_all_cores
    from train.stages.configuration import read_stage

    use_all_cores()
    dynamics = read_stage("dynamics", config=config_of(plan.dynamics), values=values_of(plan, "dynamics"))
    memory = load_memory(checkpoint_of(plan, geometries(plan)[-1]), device)
    tokenizer = load_tokenizer(checkpoint_of(plan, "tokenizer"), device)
    aligned = dynamics.model.dynamics.aligned
    draw_views(plan.folder / "latents", memory, tokenizer, aligned, budget.deadline)
    return 0


# --- the result -------------------------------------------------------------------------------------------------------


def exporting(plan: Pipeline) -> Stage:
    """The playable checkpoint, and beside it how good its next frame is."""
    contexts = [Path(folder) for folder in plan.used_for("contexts")]
    geometry = [checkpoint_of(plan, name) for name in geometries(plan)[-1:]]
    weights = [*geometry, *(checkpoint_of(plan, name) for name in plan.trained if KINDS[name] != "geometry")]

    def run(budget: Budget) -> int:
        from train.export import Source, export

        source = Source(plan.folder, geometry_at=next(iter(geometry), None))
        _, figures = export(source, plan.name, plan.folder, plan.contexts, plan.prompt, contexts)
        assert figures is not None  # the recordings are there
        write_atomic(plan.folder / "diagnosis.json", json.dumps(figures.to_json(), indent=1))
        return 0

    inputs, told = [plan.folder / "latents", *weights, *contexts], [plan.contexts, plan.prompt, plan.name]
    return Stage("export", plan.folder, run, inputs, checkpoint_of(plan, "export"), told)


def evaluating(plan: Pipeline, device: str) -> Stage:
    """The card of the checkpoint."""
    path = checkpoint_of(plan, "export")
    suites, episodes = tuple(plan.evaluate.suites), plan.scaled(plan.evaluate.episodes)

    def run(budget: Budget) -> int:
        from game_wm.evaluation.evaluate import evaluate
        from game_wm.evaluation.options import Options

        options = Options(suites, episodes, device=device, deadline=budget.deadline)
        return evaluate(path, options, replace=True)

    return Stage("evaluate", plan.folder, run, [path], path.with_suffix(".json"), [*suites, episodes])
