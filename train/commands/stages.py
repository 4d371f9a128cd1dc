"""The flags of the training stages and of the pipeline, and the pages that `--help` shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from data_collect.commandline import Parser

# What each stage does, in order.
ABOUT = {
    "tokenizer": "a recording's frames become a few numbers each, and frames again",
    "geometry": "depth and motion, for the memory of first-person games",
    "dynamics": "the next frame, from those before and the action",
    "distill": "as good frames by fewer calls, on the model's own rollouts",
}
STAGES = tuple(ABOUT)


@dataclass(frozen=True)
class Flag:
    """A flag of a stage that is not an argument of its classes; without a type it takes no value."""

    name: str
    type: Any
    default: Any
    about: str
    stages: Sequence[str] = STAGES
    value: str = "N"


OWN = (
    Flag("--name", str, "run", "the run's folder is RUNS/NAME/STAGE", value="NAME"),
    Flag("--runs", str, "runs", "where runs lie", value="DIR"),
    Flag("--minutes", float | None, None, "train for so long (wall time, added up over resumes)"),
    Flag("--steps", int | None, None, "train for so many steps"),
    Flag("--resume", None, False, "continue the run of this name, exactly, if there is one"),
    Flag("--init", str | None, None, "start from the weights of this .ckpt or .safetensors", value="FILE"),
    Flag("--teacher", str | None, None, "the teacher's weights, if not those of --init", ("distill",)),
    Flag("--row", dict | None, None, "what `python -m game_wm compare` is told; not of training"),
    Flag(
        "--device",
        str,
        "auto",
        "cpu, cuda, cuda:1, mps; auto: as --trainer.accelerator and --trainer.devices say",
        value="DEVICE",
    ),
    Flag("--ema", float, 0.999, "decay of the averaged weights"),
    Flag("--clip", float, 1.0, "largest norm of a gradient"),
    Flag("--warmup", int, 100, "steps over which the learning rate rises"),
    Flag("--decay", float, 0.4, "last part of the budget over which it falls"),
    Flag("--save_minutes", float, 5.0, "minutes between checkpoints"),
    Flag("--sample_minutes", float, 10.0, "minutes between sample pictures"),
    Flag("--graphs", bool, False, "a whole step as one CUDA graph: see train/stages/cuda_graphs.py"),
    Flag("--wandb", str, "offline", "offline, online or off", value="MODE"),
)
# The page of a stage: those of OWN that matter most, and with them arguments of its classes.
PAGE = {
    "what, from what, to where": {
        "--config FILE": "configuration file (YAML); several lie on top of each other, and flags win",
        "--data.data LIST": "recordings, as '[\"runs/maze/data\"]'",
        "--data.latents DIR": "folder that `python -m train encode` wrote",
        "--name": "",
        "--runs": "",
        "--init": "",
        "--resume": "",
    },
    "how long": {"--minutes": "", "--steps": "", "--save_minutes": ""},
    "how": {
        "--data.batch_size N": "frames of a batch, or windows",
        "--model.lr RATE": "highest learning rate",
        "--device": "",
        "--trainer.precision BITS": "bf16-mixed, 32 or 16-mixed",
        "--seed_everything N": "what all chance in training is a function of",
        "--wandb": "",
    },
}
DATA = {"tokenizer": "--data.latents"}  # the flag for data that a stage has not; the others have no --data.data


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
    example = f"python -m train bench {name} --config configs/maze/{name}.yaml --steps 40"
    prog, examples = (f"bench {name}", [example]) if bench else (name, EXAMPLES[name])
    parser = Parser(f"python -m train {prog}", f"Train the {name}: {ABOUT[name]}.", examples)
    own = {flag.name: flag for flag in OWN}
    for title, flags in PAGE.items():
        group = parser.group(title)
        for heading, words in flags.items():
            flag, _, value = heading.partition(" ")
            if flag == DATA.get(name, "--data.data"):
                continue
            if flag not in own:
                group.add_argument(flag, metavar=value, help=words)
            elif own[flag].type is None:
                group.add_argument(flag, action="store_true", help=own[flag].about)
            else:
                given = "" if own[flag].default is None else f" (default: {own[flag].default})"
                group.add_argument(flag, metavar=own[flag].value, help=own[flag].about + given)
    parser.group("all the others").add_argument(
        "--help-all", action="store_true", help="all that may stand in a configuration file is a flag: list them"
    )
    if bench:
        parser.description = (
            f"How fast the {name} trains: nothing is written; all flags of `python -m train {name}` hold."
        )
        if name != "tokenizer":
            parser.group("bench").add_argument(
                "--synthetic", action="store_true", help="made-up data: needs no recording"
            )
    return parser


tokenizer, geometry, dynamics, distill = (partial(stage, name) for name in STAGES)
bench_tokenizer, bench_dynamics, bench_distill = (
    partial(stage, name, bench=True) for name in ("tokenizer", "dynamics", "distill")
)


def pipeline() -> Parser:
    """The page of `pipeline`: the flags that matter."""
    parser = Parser(
        "python -m train pipeline",
        "From nothing to a model that plays, under RUNS/NAME/. Run it again and it continues: what is complete is\n"
        "skipped, a stage with a longer budget trains on, one whose configuration or input has changed starts anew.\n"
        "Every flag of a stage is one here, behind the stage's name: --dynamics.model.lr 3e-4.",
        [
            "python -m train pipeline --config configs/maze/quick.yaml",
            "python -m train pipeline --config configs/own/quick.yaml --name mine --record.game gym:my_game:MyGame-v0 "
            "--minutes 30",
            "python -m train pipeline --config configs/own/quick.yaml --name mine --data data/bot data/by-hand",
        ],
    )
    for title, flags in {
        "what": {
            "--config FILE": "configuration file (YAML), as configs/own/quick.yaml; flags win",
            "--name NAME": "of the run and of the checkpoint, RUNS/NAME/NAME.safetensors",
            "--runs DIR": "where runs lie (default: runs)",
            "--init FILE": "a playable checkpoint (.safetensors) to tune on the recording",
        },
        "what to learn from": {
            "--data DIR ...": "recordings that there are, several together; or one is made:",
            "--record.game ID": "maze, doom, scroll, gym:ID",
            "--record.player PLAYER": "explorer, wanderer, random, human or policy:MODULE:FUNCTION",
            "--record.frames N": "frames that the recording shall hold (default: 40000)",
            "--record.workers N": "processes that record (default: 2)",
        },
        "how long": {
            "--minutes NUMBER": "of all of it, recording and export too; the stages share them by their own minutes",
            **{f"--{stage}.minutes NUMBER": f"of training, stage {stage}" for stage in STAGES},
        },
        "how": {
            "--STAGE.config FILE": 'of a stage, as --dynamics.config FILE; --distill.config "" leaves that stage out',
            "--device DEVICE": "cpu, cuda, cuda:1, mps (default: cuda where there is one)",
            "--wandb MODE": "offline, online or off (default: offline)",
        },
        "all the others": {"--help-all": "list every flag"},
    }.items():
        group = parser.group(title)
        for flag, words in flags.items():
            name, _, value = flag.partition(" ")
            if value:
                group.add_argument(name, metavar=value, help=words)
            else:
                group.add_argument(name, action="store_true", help=words)
    return parser
