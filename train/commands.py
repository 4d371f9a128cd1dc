"""The commands of `python -m train` and their flags. Nothing here imports PyTorch: every `--help` is there at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_collect.commandline import Command, Parser, Program

STAGES = ("tokenizer", "geometry", "dynamics", "distill")
WHOLE, PART, GEOMETRY, MEASURE = "from nothing to a model", "stage by stage", "for memory, after geometry", "measure"


def command(name: str, group: str, about: str, main: str, all_flags: bool = False) -> Command:
    """A command whose parser is the function here that is called as it is."""
    return Command(name, group, about, main, f"train.commands:{name.replace(' ', '_')}", all_flags)


ENCODE = (
    "python -m train encode --data runs/maze/data --tokenizer runs/maze/tokenizer/last.ckpt --out runs/maze/latents"
)

PROGRAM = Program(
    "python -m train",
    "Training: a recording becomes a tokenizer, a dynamics model and a distilled checkpoint.",
    [
        command("pipeline", WHOLE, "all of it: record, train, distil, export; run it again to continue",
                "train.pipeline:main", all_flags=True),
        command("tokenizer", PART, "a recording's frames become a few numbers each, and frames again",
                "train.stages.cli:tokenizer", all_flags=True),
        command("encode", PART, "recordings to latents, once", "train.data.encode:main"),
        command("geometry", PART, "depth and motion, for the memory of first-person games",
                "train.stages.cli:geometry", all_flags=True),
        command("views", PART, "what memory would show of every frame, once", "train.first_person.draw_views:main"),
        command("dynamics", PART, "the next frame, from those before and the action",
                "train.stages.cli:dynamics", all_flags=True),
        command("distill", PART, "as good frames by fewer calls, on the model's own rollouts",
                "train.stages.cli:distill", all_flags=True),
        command("export", PART, "a finished run as one playable file", "train.export:main"),
        command("depth", GEOMETRY, "depth, of a game that knows it", "train.first_person.depth:main"),
        command("motion", GEOMETRY, "motion with inertia, on all steps at once", "train.first_person.motion:main"),
        command("atlas", GEOMETRY, "what is known of a level before play", "train.first_person.atlas:main"),
        command("obstacles", GEOMETRY, "what is in the way of players", "train.first_person.obstacles:main"),
        command("odometry", MEASURE, "how far reckoned places drift from recorded ones",
                "train.first_person.odometry:main"),
        command("trial", MEASURE, "candidates side by side, after equal minutes", "train.lab.trial:main"),
        command("bench tokenizer", MEASURE, "how fast the tokenizer trains, against the machine's own rate",
                "train.lab.bench:tokenizer", all_flags=True),
        command("bench dynamics", MEASURE, "the same of the dynamics; --synthetic needs no recording",
                "train.lab.bench:dynamics", all_flags=True),
        command("bench distill", MEASURE, "the same of distillation", "train.lab.bench:distill", all_flags=True),
        command("bench attention", MEASURE, "what a frame costs in play by its context",
                "train.lab.bench:bench_attention"),
        command("bench reconstruction", MEASURE, "tokenizers side by side", "train.lab.reconstruction:main"),
    ],
    [
        "python -m train pipeline --config configs/maze/quick.yaml",
        "python -m train tokenizer --config configs/maze/tokenizer.yaml --minutes 20",
        ENCODE,
        "python -m train dynamics --config configs/maze/dynamics.yaml --minutes 60 --resume",
    ],
)  # fmt: skip


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


def stage(name: str, prog: str, examples: Sequence[str]) -> Parser:
    """The page of a training stage: the fifteen flags that matter, of several hundred."""
    about = next(each.about for each in PROGRAM.commands if each.name == name)
    parser = Parser(prog, f"Train the {name}: {about}.", examples)
    own = {flag.name: flag for flag in OWN}
    for title, flags in PAGE.items():
        group = parser.group(title)
        for shown, words in flags.items():
            flag, _, value = shown.partition(" ")
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
    return parser


def tokenizer() -> Parser:
    """The page of `tokenizer`."""
    return stage("tokenizer", "python -m train tokenizer", [
        "python -m train tokenizer --config configs/maze/tokenizer.yaml --minutes 20",
        "python -m train tokenizer --config configs/own/tokenizer.yaml --data.data '[\"data/mine\"]' --name mine",
    ])  # fmt: skip


def geometry() -> Parser:
    """The page of `geometry`."""
    return stage("geometry", "python -m train geometry", [
        "python -m train geometry --config configs/maze/geometry.yaml",
        "python -m train geometry --config configs/own/geometry.yaml --data.latents runs/mine/latents --name mine",
    ])  # fmt: skip


def dynamics() -> Parser:
    """The page of `dynamics`."""
    return stage("dynamics", "python -m train dynamics", [
        "python -m train dynamics --config configs/maze/dynamics.yaml --minutes 60",
        "python -m train dynamics --config configs/maze/dynamics.yaml --minutes 120 --resume",
    ])  # fmt: skip


def distill() -> Parser:
    """The page of `distill`."""
    return stage("distill", "python -m train distill", [
        "python -m train distill --config configs/maze/distill.yaml --init runs/maze/dynamics/last.ckpt",
    ])  # fmt: skip


def bench(name: str) -> Parser:
    """The page of a stage, timed."""
    parser = stage(name, f"python -m train bench {name}", [
        f"python -m train bench {name} --config configs/maze/{name}.yaml --steps 40",
    ])  # fmt: skip
    parser.description = f"How fast the {name} trains: nothing is written; all flags of `python -m train {name}` hold."
    if name != "tokenizer":
        parser.group("bench").add_argument("--synthetic", action="store_true", help="made-up data: needs no recording")
    return parser


def bench_tokenizer() -> Parser:
    """The page of `bench tokenizer`."""
    return bench("tokenizer")


def bench_dynamics() -> Parser:
    """The page of `bench dynamics`."""
    return bench("dynamics")


def bench_distill() -> Parser:
    """The page of `bench distill`."""
    return bench("distill")


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
            "--record.game ID": "maze, doom, gym:ID",
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


def encode() -> Parser:
    """Flags of `encode`."""
    parser = Parser("python -m train encode", "Recordings to latents, once.", [ENCODE])
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders that `record` wrote")
    parser.add_argument("--tokenizer", required=True, metavar="CKPT", help="checkpoint with the tokenizer")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the latents")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps or auto (default: cpu)")
    return parser


def views() -> Parser:
    """Flags of `views`."""
    parser = Parser("python -m train views", "What memory would show of every frame, once, beside the latents.", [
        "python -m train views --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt"
        " --tokenizer runs/maze/tokenizer/last.ckpt",
    ])  # fmt: skip
    parser.add_argument("--latents", required=True, metavar="DIR", help="folder that `python -m train encode` wrote")
    parser.add_argument("--geometry", required=True, metavar="CKPT", help="checkpoint of `python -m train geometry`")
    parser.add_argument("--tokenizer", required=True, metavar="CKPT", help="checkpoint with the tokenizer")
    parser.add_argument("--aligned", action="store_true",
                        help="from where steps led, not from where they were foreseen to")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps or auto (default: cpu)")
    return parser


def export() -> Parser:
    """Flags of `export`."""
    parser = Parser("python -m train export", "A finished run as one playable file.", [
        "python -m train export --run runs/maze --name maze --out checkpoints",
        "python -m train export --run runs/mine --beginnings data/fights   # dreams begin where these recordings end",
    ])  # fmt: skip
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of the run, RUNS/NAME")
    parser.add_argument("--name", help="of the checkpoint (default: of the run)")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), metavar="DIR",
                        help="folder (default: checkpoints)")  # fmt: skip
    starts = parser.group("where its dreams begin")
    starts.add_argument("--contexts", type=int, default=8, metavar="N", help="beginnings in the file (default: 8)")
    starts.add_argument("--prompt", type=int, default=32, metavar="N", help="real frames of each (default: 32)")
    starts.add_argument("--beginnings", type=Path, nargs="+", metavar="DIR",
                        help="recordings at whose episodes' ends dreams begin")  # fmt: skip
    parts = parser.group("what it is made of")
    parts.add_argument("--tokenizer", type=Path, metavar="CKPT",
                       help="its checkpoint (default: RUN/tokenizer/last.ckpt)")  # fmt: skip
    parts.add_argument("--base", type=Path, metavar="FILE",
                       help="playable checkpoint that the run began with, for what the run has not")  # fmt: skip
    parts.add_argument("--share", type=float, default=1.0, metavar="NUMBER",
                       help="of the run's weights, the rest is the base's; above 1: past it (default: 1)")  # fmt: skip
    parts.add_argument("--latents", type=Path, metavar="DIR",
                       help="what the dynamics was trained on (default: RUN/latents)")  # fmt: skip
    return parser


def _part(name: str, about: str, geometry: str, **numbers: int) -> Parser:
    """Flags of a command that makes a part of the geometry; `geometry` says what it begins with."""
    parser = Parser(f"python -m train {name}", about, [
        f"python -m train {name} --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt"
        f" --out runs/doom/geometry/{name}.ckpt",
    ])  # fmt: skip
    parser.add_argument("--latents", required=True, metavar="DIR",
                        help="folder that `python -m train encode` wrote, with poses")  # fmt: skip
    parser.add_argument("--geometry", required=True, type=Path, metavar="CKPT", help=geometry)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="checkpoint to write")
    parser.add_argument("--held-out", type=float, default=0.04, metavar="SHARE",
                        help="of the episodes, the last, kept from training (default: 0.04)")  # fmt: skip
    for number, value in numbers.items():
        parser.add_argument(f"--{number}", type=at_least(1), default=value, metavar="N", help=f"(default: {value})")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of at least so much."""

    def whole(words: str) -> int:
        if (value := int(words)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
        return value

    return whole


def depth() -> Parser:
    """Flags of `depth`."""
    return _part("depth", "Depth, of a game that knows it.", "checkpoint of `python -m train geometry`", steps=3000)


def motion() -> Parser:
    """Flags of `motion`."""
    return _part("motion", "Motion with inertia, on all steps at once.", "checkpoint of `python -m train geometry`")


def atlas() -> Parser:
    """Flags of `atlas`."""
    about = "What is known of a level before play."
    return _part("atlas", about, "checkpoint with depth and motion", pictures=1500)


def obstacles() -> Parser:
    """Flags of `obstacles`."""
    return _part("obstacles", "What is in the way of players.", "checkpoint with depth and motion", steps=8000)


def odometry() -> Parser:
    """Flags of `odometry`."""
    parser = Parser("python -m train odometry", "How far reckoned places drift from recorded ones.", [
        "python -m train odometry --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt",
    ])  # fmt: skip
    parser.add_argument("--latents", required=True, metavar="DIR",
                        help="folder that `python -m train encode` wrote, with poses")  # fmt: skip
    parser.add_argument("--geometry", required=True, metavar="CKPT", help="checkpoint of `python -m train geometry`")
    parser.add_argument(
        "--episodes", type=int, default=8, metavar="N", help="at most so many held-out ones (default: 8)"
    )
    parser.add_argument("--held-out", type=float, default=0.04, metavar="SHARE",
                        help="of the episodes, the last; 1 of a recording that the geometry was not trained on "
                        "(default: 0.04)")  # fmt: skip
    return parser


def trial() -> Parser:
    """Flags of `trial`."""
    parser = Parser("python -m train trial", "Candidates side by side, after equal minutes.", [
        "python -m train trial configs/trials/maze.yaml --only base muon",
    ])  # fmt: skip
    parser.add_argument("protocol", help="configuration file (YAML)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these candidates")
    parser.add_argument("--minutes", type=float, metavar="NUMBER",
                        help="of training for each (default: the protocol's)")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="run them anew, even where they are finished")
    return parser


def bench_attention() -> Parser:
    """Flags of `bench attention`."""
    parser = Parser("python -m train bench attention", "What a frame costs in play by its context.", [
        "python -m train bench attention --plot attention.png",
    ])  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the table for programs")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw it into this PNG")
    return parser


def bench_reconstruction() -> Parser:
    """Flags of `bench reconstruction`."""
    parser = Parser("python -m train bench reconstruction", "Tokenizers side by side.", [
        "python -m train bench reconstruction runs/*/tokenizer/last.ckpt --data runs/maze/data",
    ])  # fmt: skip
    parser.add_argument("tokenizers", nargs="+", help="checkpoints of a tokenizer, or playable ones")
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders that `record` wrote")
    parser.add_argument("--frames", type=int, default=256, metavar="N", help="held-out frames (default: 256)")
    parser.add_argument("--json", action="store_true", help="print the table for programs")
    return parser


def compare() -> Parser:
    """Flags of `python -m game_wm compare`."""
    parser = Parser("python -m game_wm compare", "Methods side by side, each trained for as long.", [
        "python -m game_wm compare configs/lab/*.yaml",
        "python -m game_wm compare configs/lab/*.yaml --only base diffusion --minutes 6 --out runs/lab/table",
    ])  # fmt: skip
    parser.add_argument("rows", nargs="+", help="a file a row (YAML); protocol.yaml lies beside them")
    parser.add_argument("--minutes", type=float, metavar="NUMBER",
                        help="of training for each (default: the protocol's)")  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these rows, and what they need")
    parser.add_argument("--again", action="store_true", help="run them anew, even where they are finished")
    parser.add_argument("--measure", action="store_true", help="train nothing: time what is finished, and write")
    parser.add_argument("--protocol", metavar="FILE", help="another protocol's file")
    parser.add_argument("--out", type=Path, default=Path("docs/efficiency"), help="what the files written are called, "
                        "without .json, .md, .png (default: docs/efficiency)")  # fmt: skip
    parser.add_argument("--replace", action="store_true", help="even where the table that is there has more rows, "
                        "minutes or episodes")  # fmt: skip
    return parser
