"""The flags of the commands that are no stages: what comes between stages, makes a part, or measures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from data_collect.commandline import Parser

ENCODE = (
    "python -m train encode --data runs/maze/data --tokenizer runs/maze/tokenizer/last.ckpt --out runs/maze/latents"
)


def encode() -> Parser:
    """Flags of `encode`."""
    parser = Parser("python -m train encode", "Recordings to latents, once.", [ENCODE])
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders that `record` wrote")
    parser.add_argument("--tokenizer", required=True, metavar="CKPT", help="checkpoint with the tokenizer")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the latents")
    parser.add_argument("--mixed", action="store_true", help="of different games, for a base; all of one size")
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
    about = "Motion with inertia, on all steps at once."
    return _part("motion", about, "checkpoint of `python -m train geometry`", steps=6000)


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
