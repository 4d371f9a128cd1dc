"""The flags of the training stages and of the pipeline, and the pages that `--help` shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from data_collect.commandline import Parser
from train.commands.page import Flag, flag, page

# What each stage does, in order.
ABOUT = {
    "tokenizer": "a recording's frames become a few numbers each, and frames again",
    "geometry": "depth and motion, for the memory of first-person games",
    "dynamics": "the next frame, from those before and the action",
    "distill": "as good frames by fewer calls, on the model's own rollouts",
}
STAGES = tuple(ABOUT)


class RunFlag(NamedTuple):
    """A flag of a stage that is not an argument of its classes; without a type it takes no value."""

    name: str
    type: Any
    default: Any
    about: str
    stages: Sequence[str] = STAGES
    value: str = "N"

    def row(self) -> Flag:
        """As a stage's page shows it."""
        default = f" (default: {self.default})" if self.default else ""
        return Flag(self.name if self.type is None else f"{self.name} {self.value}", self.about + default, {})


RUN_FLAGS = (
    RunFlag("--name", str, "run", "the run's folder is RUNS/NAME/STAGE", value="NAME"),
    RunFlag("--runs", str, "runs", "where runs lie", value="DIR"),
    RunFlag("--minutes", float | None, None, "train for so long (wall time, added up over resumes)"),
    RunFlag("--steps", int | None, None, "train for so many steps"),
    RunFlag("--resume", None, False, "continue the run of this name, exactly, if there is one"),
    RunFlag("--init", str | None, None, "start from the weights of this .ckpt or .safetensors", value="FILE"),
    RunFlag("--teacher", str | None, None, "the teacher's weights, if not those of --init", ("distill",)),
    RunFlag("--row", dict | None, None, "what `python -m game_wm compare` is told; not of training"),
    RunFlag("--device", str, "auto", "cpu, or one GPU: cuda, cuda:1, mps; auto: as the trainer is configured",
            value="DEVICE"),
    RunFlag("--ema", float, 0.999, "decay of the averaged weights"),
    RunFlag("--clip", float, 1.0, "largest norm of a gradient"),
    RunFlag("--warmup", int, 100, "steps over which the learning rate rises"),
    RunFlag("--decay", float, 0.4, "last part of the budget over which it falls"),
    RunFlag("--save_minutes", float, 5.0, "minutes between checkpoints"),
    RunFlag("--sample_minutes", float, 10.0, "minutes between sample pictures"),
    RunFlag("--graphs", bool, False, "a whole step as one CUDA graph: see train/stages/cuda_graphs.py"),
    RunFlag("--wandb", str, "offline", "offline, online or off", value="MODE"),
)  # fmt: skip
# The page of a stage: those of RUN_FLAGS that matter most, by name, and with them arguments of its classes.
PAGE: dict[str, list[str | Flag]] = {
    "what, from what, to where": [
        flag("--config FILE", "configuration file (YAML); several lie on top of each other, and flags win"),
        flag("--data.data LIST", "recordings, as '[\"runs/maze/data\"]'"),
        flag("--data.latents DIR", "folder that `python -m train encode` wrote, or a folder of such folders"),
        "--name", "--runs", "--init", "--resume",
    ],
    "how long": ["--minutes", "--steps", "--save_minutes"],
    "how": [
        flag("--data.batch_size N", "frames of a batch, or windows"),
        flag("--model.lr RATE", "highest learning rate"),
        "--device",
        flag("--trainer.precision BITS", "bf16-mixed, 32 or 16-mixed"),
        flag("--seed_everything N", "what all chance in training is a function of"),
        "--wandb",
    ],
}  # fmt: skip
EXAMPLES = {
    "tokenizer": [
        "python -m train tokenizer --config configs/maze/tokenizer.yaml --minutes 20",
        "python -m train tokenizer --config configs/own/tokenizer.yaml --data.data '[\"data/mine\"]' --name mine",
    ],
    "geometry": [
        "python -m train geometry --config configs/maze/geometry.yaml",
        "python -m train geometry --config configs/own/geometry.yaml --data.latents runs/mine/latents --name mine",
    ],
    "dynamics": [
        "python -m train dynamics --config configs/maze/dynamics.yaml --minutes 60",
        "python -m train dynamics --config configs/maze/dynamics.yaml --minutes 120 --resume",
    ],
    "distill": ["python -m train distill --config configs/maze/distill.yaml --init runs/maze/dynamics/last.ckpt"],
}


def stage(name: str, bench: bool = False) -> Parser:
    """The page of a training stage, or of its bench: the fifteen flags that matter, of several hundred."""
    own = {each.name: each.row() for each in RUN_FLAGS}
    other = "--data.latents DIR" if name == "tokenizer" else "--data.data LIST"  # data of the other stages
    rows: list[Flag | str] = []
    for title, flags in PAGE.items():
        found = [own[each] if isinstance(each, str) else each for each in flags]
        rows += [title, *(each for each in found if each.shown != other)]
    rows += ["all the others", flag("--help-all", "all that may stand in a configuration file is a flag: list them")]
    if not bench:
        return page(name, f"Train the {name}: {ABOUT[name]}.", EXAMPLES[name], *rows)
    if name != "tokenizer":
        rows += ["bench", flag("--synthetic", "made-up data: needs no recording")]
    about = f"How fast the {name} trains: nothing is written; all flags of `python -m train {name}` hold."
    example = f"python -m train bench {name} --config configs/maze/{name}.yaml --steps 40"
    return page(f"bench {name}", about, [example], *rows)


tokenizer, geometry, dynamics, distill = (partial(stage, name) for name in STAGES)
bench_tokenizer, _, bench_dynamics, bench_distill = (partial(stage, name, bench=True) for name in STAGES)
pipeline = partial(
    page,
    "pipeline",
    "From nothing to a model that plays, under RUNS/NAME/. Run it again and it continues: what is complete is\n"
    "skipped, a stage with a longer budget trains on, one whose configuration or input has changed starts anew.\n"
    "Every flag of a stage is one here, behind the stage's name: --dynamics.model.lr 3e-4.",
    [
        "python -m train pipeline --config configs/maze/quick.yaml",
        "python -m train pipeline --config configs/own/quick.yaml --name mine --record.game gym:my_game:MyGame-v0 "
        "--minutes 30",
        "python -m train pipeline --config configs/own/quick.yaml --name mine --data data/bot data/by-hand",
    ],
    "what",
    flag("--config FILE", "configuration file (YAML), as configs/own/quick.yaml; flags win"),
    flag("--name NAME", "of the run and of the checkpoint, RUNS/NAME/NAME.safetensors"),
    flag("--runs DIR", "where runs lie (default: runs)"),
    flag("--init FILE", "a playable checkpoint (.safetensors) to tune on the recording"),
    "what to learn from",
    flag("--data DIR ...", "recordings that there are, several together; or one is made:"),
    flag("--record.game ID", "maze, isles, doom, scroll, gym:ID, pygame:FILE.py"),
    flag("--record.player PLAYER", "explorer, wanderer, random, human or policy:MODULE:FUNCTION"),
    flag("--record.frames N", "frames that the recording shall hold (default: 40000)"),
    flag("--record.workers N", "processes that record (default: 2)"),
    flag("--memory KIND", "scroll, first_person, none, or auto: what fits the recording's camera"),
    "how long",
    flag("--minutes NUMBER", "of all of it, recording and export too; the stages share them"),
    *(flag(f"--{stage}.minutes NUMBER", f"of training, stage {stage}") for stage in STAGES),
    "how",
    flag("--STAGE.config FILE", 'of a stage, as --dynamics.config FILE; --distill.config "" leaves that stage out'),
    flag("--device DEVICE", "cpu, cuda, cuda:1, mps (default: cuda where there is one)"),
    flag("--wandb MODE", "offline, online or off (default: offline)"),
    "all the others",
    flag("--help-all", "list every flag"),
)
