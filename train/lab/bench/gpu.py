"""Everything worth measuring where a GPU is at hand, in ten minutes; on a processor a miniature of it.

    python -m game_wm bench gpu --minutes 10 --out runs/bench

Writes `bench.jsonl`, a JSON object for each figure, as it is measured, and in the end `bench.md`, the same as tables.
Each part has a share of the time and is broken off when that is over. `python -m game_wm sizes --bench runs/bench`
shows the ladder's figures beside those predicted.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from data_collect.errors import UserError, nearest
from data_collect.files import whole
from game_wm.deadline import Deadline, OutOfTime
from game_wm.device import usable
from train import locate
from train.commands import tools
from train.lab.bench.parts import PARTS, Bench, Row
from train.report.console import say
from train.report.machine import use_all_cores

WIDTHS = [1, 8, 32, 128]  # players at once
LADDER = [f"configs/sizes/{size}.yaml" for size in ("15m", "50m", "300m", "1b")]
FRAMES = [(64, 64), (640, 360)]
GRACE = 1.5  # times its share of the time after which a part is broken off


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """`OutOfTime` inside after so many seconds. Windows has no such clock: parts there end by themselves."""
    if sys.platform == "win32":
        yield
        return

    def over(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(names: list[str], bench: Bench) -> Iterator[Row]:
    """The rows of these parts, each with its share of what is left of the time."""
    left = sum(PARTS[name][1] for name in names)
    for name in names:
        make, share = PARTS[name]
        seconds = bench.deadline.left * share / left
        left -= share
        part = Bench(**{**vars(bench), "deadline": Deadline(seconds)})
        try:
            with limit(max(1.0, GRACE * seconds)):
                for row in make(part):
                    yield {"part": name} | row
        except OutOfTime:
            yield {"part": name, "why": f"broken off after {GRACE * seconds:.0f} s"}
        except Exception as error:  # the other parts shall run
            yield {"part": name, "why": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def tables(rows: Iterable[Row]) -> str:
    """A Markdown table a part."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row["part"], []).append({name: value for name, value in row.items() if name != "part"})
    text = []
    for part, found in parts.items():
        columns = list(dict.fromkeys(name for row in found for name in row))
        lines = [columns, ["---"] * len(columns), *([shown(row.get(name, "")) for name in columns] for row in found)]
        text.append(f"## {part}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(text)


def shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value).replace("|", "/")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: list[str]) -> int:
    """Measure, write and print; exit status 0. `UserError` for a folder that holds a bench."""
    options = tools.bench_gpu().parse_args(arguments)
    names = options.only or list(PARTS)
    if wrong := next((name for name in names if name not in PARTS), None):
        raise UserError(f"--only: {wrong!r} is none of {', '.join(PARTS)}{nearest(wrong, PARTS)}")
    device = torch.device(usable(options.device))
    small = device.type == "cpu"
    sizes = [Path(locate(path)) for path in options.sizes or (LADDER[:1] if small else LADDER)]
    for path in (*sizes, checkpoint := Path(locate(options.checkpoint))):
        if not path.is_file():
            raise UserError(f"{path}: no such file; name others with --sizes and --checkpoint")
    path = options.out / "bench.jsonl"
    if path.exists():
        raise UserError(f"{path} exists: choose another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    use_all_cores()
    rows, widths = list[Row](), WIDTHS[:2] if small else WIDTHS
    frames, deadline = FRAMES[:1] if small else FRAMES, Deadline(60 * options.minutes)
    with path.open("w") as file:
        for row in measure(names, Bench(device, checkpoint, sizes, frames, widths, deadline)):
            line = json.dumps(row)
            file.write(line + "\n")
            file.flush()
            say(line)
            rows.append(row)
    report = f"# {torch.__version__} on {device}, {60 * options.minutes - deadline.left:.0f} s\n\n{tables(rows)}"
    with whole(options.out / "bench.md") as report_file:
        report_file.write(report.encode())
    say(report)
    return 0
