"""The pages of the commands that are no stages: what comes between stages, makes a part, or measures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_collect.commandline import Parser
from train.commands.page import flag, page

ENCODE = (
    "python -m train encode --data runs/maze/data --tokenizer runs/maze/tokenizer/last.ckpt --out runs/maze/latents"
)
DATA = flag("--data DIR", "folders that `record` wrote", nargs="+", required=True)
LATENTS = flag("--latents DIR", "folder that `python -m train encode` wrote", required=True)
POSED_LATENTS = flag("--latents DIR", "folder that `python -m train encode` wrote, with poses", required=True)
TOKENIZER = flag("--tokenizer CKPT", "checkpoint with the tokenizer", required=True)
GEOMETRY = flag("--geometry CKPT", "checkpoint of `python -m train geometry`", required=True)
DEVICE = flag("--device DEVICE", "cpu, cuda, cuda:1, mps or auto", default="cpu")
MINUTES = flag("--minutes NUMBER", "of training for each (default: the protocol's)", type=float)
AGAIN = flag("--again", "run them anew, even where they are finished")
JSON = flag("--json", "print the table for programs")


def share(words: str) -> tuple[int, int]:
    """(3, 8) of "3/8"."""
    number, _, count = words.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be like 3/8, the third of eight parts, not {words!r}")
    return int(number), int(count)


encode = partial(
    page, "encode", "Recordings to latents, once.", [ENCODE],
    DATA, TOKENIZER, flag("--out DIR", "folder for the latents", required=True),
    flag("--mixed", "of different games, for a base; all of one size"),
    flag("--part I/N", "every Nth episode, the Ith first: for N processes, an --out each", type=share), DEVICE,
)  # fmt: skip
views = partial(
    page, "views", "What memory would show of every frame, once, beside the latents.",
    ["python -m train views --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt"
     " --tokenizer runs/maze/tokenizer/last.ckpt"],
    LATENTS, GEOMETRY, TOKENIZER, flag("--aligned", "from where steps led, not from where they were foreseen to"),
    DEVICE,
)  # fmt: skip
camera = partial(
    page, "camera", "Which camera a recording was taken with: static, scrolls, rotates, first person or none of these.",
    ["python -m train camera --data runs/mine/data"], DATA,
)  # fmt: skip
export = partial(
    page, "export", "A finished run as one playable file.",
    ["python -m train export --run runs/maze --name maze --out checkpoints",
     "python -m train export --run runs/mine --beginnings data/fights   # dreams begin where these recordings end"],
    flag("--run DIR", "folder of the run, RUNS/NAME", type=Path, required=True),
    flag("--name NAME", "of the checkpoint (default: of the run)"),
    flag("--out DIR", "folder", type=Path, default=Path("checkpoints")),
    "where its dreams begin",
    flag("--contexts N", "beginnings in the file", type=int, default=8),
    flag("--prompt N", "real frames of each", type=int, default=32),
    flag("--beginnings DIR", "recordings at whose episodes' ends dreams begin", type=Path, nargs="+"),
    "what it is made of",
    flag("--tokenizer CKPT", "its checkpoint (default: RUN/tokenizer/last.ckpt)", type=Path),
    flag("--base FILE", "playable checkpoint that the run began with, for what the run has not", type=Path),
    flag("--share NUMBER", "of the run's weights, the rest is the base's; above 1: past it", type=float, default=1.0),
    flag("--latents DIR", "what the dynamics was trained on (default: RUN/latents)", type=Path),
)  # fmt: skip


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of at least so much."""

    def whole(words: str) -> int:
        if (value := int(words)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
        return value

    return whole


def part(
    name: str, about: str, number: str, default: int, geometry: str = "checkpoint with depth and motion"
) -> Parser:
    """The page of a command that makes a part of the geometry; `geometry` says what it begins with."""
    example = (
        f"python -m train {name} --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt"
        f" --out runs/doom/geometry/{name}.ckpt"
    )
    return page(
        name, about, [example], POSED_LATENTS,
        flag("--geometry CKPT", geometry, type=Path, required=True),
        flag("--out FILE", "checkpoint to write", type=Path, required=True),
        flag("--held-out SHARE", "of the episodes, the last, kept from training", type=float, default=0.04),
        flag(f"--{number} N", "", type=at_least(1), default=default, dest="number"),
    )  # fmt: skip


scroll = partial(
    page, "scroll", "The memory of a world that scrolls or turns: the screen's own parts, and where an action leads.",
    ["python -m train scroll --latents runs/mine/latents --tokenizer runs/mine/tokenizer/last.ckpt"
     " --out runs/mine/scroll/last.ckpt"],
    LATENTS, TOKENIZER, flag("--out FILE", "checkpoint to write", type=Path, required=True),
    flag("--held-out SHARE", "of the episodes, the last, kept from training", type=float, default=0.04),
    flag("--steps N", "", type=at_least(1), default=3000, dest="number"),
)  # fmt: skip
depth = partial(part, "depth", "Depth, of a game that knows it.", "steps", 3000, GEOMETRY.about)
motion = partial(part, "motion", "Motion with inertia, on all steps at once.", "steps", 6000, GEOMETRY.about)
atlas = partial(part, "atlas", "What is known of a level before play.", "pictures", 1500)
obstacles = partial(part, "obstacles", "What is in the way of players.", "steps", 8000)
odometry = partial(
    page, "odometry", "How far reckoned places drift from recorded ones.",
    ["python -m train odometry --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt"],
    POSED_LATENTS, GEOMETRY, flag("--episodes N", "at most so many held-out ones", type=int, default=8),
    flag("--held-out SHARE", "of the episodes, the last; 1 of a recording that the geometry was not trained on",
         type=float, default=0.04),
)  # fmt: skip
trial = partial(
    page, "trial", "Candidates side by side, after equal minutes.",
    ["python -m train trial configs/trials/maze.yaml --only base muon"],
    flag("protocol", "configuration file (YAML)"), flag("--only NAME", "only these candidates", nargs="+"),
    MINUTES, AGAIN,
)  # fmt: skip
bench_attention = partial(
    page, "bench attention", "What a frame costs in play by its context.",
    ["python -m train bench attention --plot attention.png"],
    JSON, flag("--plot FILE.png", "draw it into this PNG", type=Path),
)  # fmt: skip
bench_reconstruction = partial(
    page, "bench reconstruction", "Tokenizers side by side.",
    ["python -m train bench reconstruction runs/*/tokenizer/last.ckpt --data runs/maze/data"],
    flag("tokenizers", "checkpoints of a tokenizer, or playable ones", nargs="+"),
    DATA, flag("--frames N", "held-out frames", type=int, default=256), JSON,
)  # fmt: skip
compare = partial(
    page, "compare", "Methods side by side, each trained for as long.",
    ["python -m game_wm compare configs/lab/*.yaml",
     "python -m game_wm compare configs/lab/*.yaml --only base diffusion --minutes 6 --out runs/lab/table"],
    flag("rows", "a file a row (YAML); protocol.yaml lies beside them", nargs="+"),
    MINUTES, flag("--only NAME", "only these rows, and what they need", nargs="+"), AGAIN,
    flag("--measure", "train nothing: time what is finished, and write"),
    flag("--protocol FILE", "another protocol's file"),
    flag("--out OUT", "what the files written are called, without .json, .md, .png", type=Path,
         default=Path("docs/efficiency")),
    flag("--replace", "even where the table that is there has more rows, minutes or episodes"),
    prog="python -m game_wm",
)  # fmt: skip
sizes = partial(
    page, "sizes", "The ladder of sizes (configs/sizes): what each costs, and how fast it should play and train.",
    ["python -m game_wm sizes", "python -m game_wm sizes --sizes 15m 50m --frames 64x64 --machines H200",
     "python -m game_wm sizes --bench runs/bench"],
    flag("--sizes SIZE", "15m, 50m, 300m, 1b (default: all)", nargs="+"),
    flag("--frames WxH", "64x64, 128x96, 256x144, 640x360 (default: all)", nargs="+"),
    flag("--machines NAME", 'as "RTX 4090", or here: this machine, measured first (default: all)', nargs="+"),
    flag("--bench DIR", "show beside them what `bench gpu` has measured and written there", type=Path), JSON,
    prog="python -m game_wm",
)  # fmt: skip
bench_gpu = partial(
    page, "bench gpu", "All that is worth measuring where a GPU is at hand; on a processor a miniature of it.",
    ["python -m game_wm bench gpu --minutes 10 --out runs/bench"],
    flag("--out DIR", "folder for bench.jsonl and bench.md", type=Path, required=True),
    flag("--minutes NUMBER", "of all parts together", type=float, default=10.0),
    flag("--device DEVICE", "cpu, cuda, cuda:1, mps or auto", default="auto"),
    flag("--only PART", "versions, play, training, ladder, encode, views, memory (default: all)", nargs="+"),
    flag("--checkpoint FILE", "what plays", default="checkpoints/maze.safetensors"),
    flag("--sizes FILE", "configurations like those in configs/sizes (default: those; on a processor 15m)", nargs="+"),
    prog="python -m game_wm",
)  # fmt: skip
