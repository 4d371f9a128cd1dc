"""The ladder as a table: what each size costs, and how fast it is predicted to play and to train.

    python -m game_wm sizes --frames 64x64 --machines H200 --bench runs/bench

Predictions are of a roofline (`roofline.py`): of named GPUs by their data sheets, of this machine by its rates, which
are measured first. What `python -m game_wm bench gpu` has measured stands below them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data_collect.errors import UserError, nearest
from game_wm.device import usable
from train import locate
from train.commands import tools
from train.lab.sizes.ladder import FRAMES, TRAINED, Costs, count, read_rung
from train.lab.sizes.roofline import GIB, MACHINES, REACHED, Machine, measured
from train.report.console import say
from train.report.machine import use_all_cores

SIZES = ("15m", "50m", "300m", "1b")
COLUMNS = ("play", *TRAINED)
HERE = "here"
Row = dict[str, Any]


def row_of(size: str, frame: str, costs: Costs, machines: Sequence[Machine]) -> Row:
    """A rung at one size of frames, as `--json` prints it."""
    predicted = {
        each.name: {"play": 1 / costs.frame.seconds(each)}
        | {stage: step.frames_per_second(each) for stage, step in costs.training.items()}
        for each in machines
    }
    memory = {stage: step.memory / GIB for stage, step in costs.training.items()}
    return {
        "size": size, "frame": frame, "parameters": costs.parameters, "gflop_a_frame": costs.frame.flops / 1e9,
        "state_mib": costs.state / 2**20, "training_gib": memory, "predicted": predicted,
    }  # fmt: skip


def figures_of(bench: Path) -> list[Row]:
    """The lines of the ladder that a bench wrote into this folder; `UserError` where it wrote none."""
    path = bench / "bench.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python -m game_wm bench gpu --out {bench}` writes it")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["part"] == "ladder" and "frames_per_second" in line]


def cells(figures: dict[str, float]) -> str:
    return "".join(f"{figures[name]:>11,.0f}" if name in figures else f"{'–':>11}" for name in COLUMNS)


def print_row(row: Row, found: list[Row]) -> None:
    gib = " / ".join(f"{row['training_gib'][stage]:.1f}" for stage in TRAINED)
    say(
        f"{row['size']:5} {row['frame']:8} {row['parameters'] / 1e6:,.1f} M parameters, "
        f"{row['gflop_a_frame']:,.2f} GFLOP a frame, state {row['state_mib']:,.1f} MiB, training {gib} GiB"
    )
    for machine, figures in row["predicted"].items():
        say(f"  {'predicted, ' + machine:38}{cells(figures)}")
    for machine in dict.fromkeys(line["machine"] for line in found):
        figures = {line["what"]: line["frames_per_second"] for line in found if line["machine"] == machine}
        say(f"  {'measured, ' + machine:38}{cells(figures)}")


def chosen(given: Sequence[str] | None, known: Sequence[str], flag: str) -> list[str]:
    """What a flag names, all that there is where it is left out; `UserError` for what there is not."""
    if wrong := next((each for each in given or () if each not in known), None):
        raise UserError(f"{flag}: {wrong!r} is none of {', '.join(known)}{nearest(wrong, known)}")
    return list(given or known)


def main(arguments: list[str]) -> int:
    """Print the ladder, each row as it is counted; exit status 0."""
    options = tools.sizes().parse_args(arguments)
    frames = {f"{width}x{height}": (width, height) for width, height in FRAMES}
    names = chosen(options.machines, [*MACHINES, HERE], "--machines")
    sizes, shown = chosen(options.sizes, SIZES, "--sizes"), chosen(options.frames, [*frames], "--frames")
    bench = figures_of(options.bench) if options.bench else []
    use_all_cores()
    machines = [measured(torch.device(usable("auto"))) if name == HERE else MACHINES[name] for name in names]
    if not options.json:
        reached = ", ".join(f"{share:.0%} of {kind}" for kind, share in REACHED.items())
        say(f"16 bits. Of the rates in a GPU's data sheet {reached} operations are assumed to reach. No long memory.")
        say(f"{'frames/s':40}" + "".join(f"{name:>11}" for name in COLUMNS))
    rows = []
    for frame in shown:
        for size in sizes:
            costs = count(read_rung(Path(locate(f"configs/sizes/{size}.yaml"))), frames[frame])
            rows.append(row_of(size, frame, costs, machines))
            if not options.json:
                print_row(rows[-1], [x for x in bench if (x["size"], x["frame"]) == (size, frame)])
    if options.json:
        print(json.dumps(rows, indent=1))
    return 0
