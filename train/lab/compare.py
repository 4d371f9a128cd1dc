"""One method beside the other: every row trained for the same minutes, judged on the same episodes, timed in one pass.

    python -m game_wm compare configs/lab/*.yaml                        # all of it: hours
    python -m game_wm compare configs/lab/*.yaml --minutes 10 --only masked shortcut
    python -m game_wm compare configs/lab/*.yaml --measure              # what is finished, timed and written once more

`train/lab/rows.py` says what a row is, docs/how-to/compare.md what is written where. Interrupted, the same command
continues where it was. When all rows are trained and judged, each is timed in turn with the default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from data_collect.errors import UserError
from data_collect.files import save_picture
from data_collect.shards.writer import write_atomic
from game_wm.evaluation.report.card import tidy
from train.commands import tools
from train.lab.experiment import Experiment
from train.lab.played import Timed
from train.lab.plot import plot
from train.lab.protocol import Protocol
from train.lab.rows import choose, read_rows
from train.lab.runs import Run
from train.lab.table import add_ratios, entry, kept_remarks, markdown
from train.lab.timing import BUSY_CORES, cores_in_use, in_turn
from train.report.console import say
from train.report.machine import describe, use_all_cores


def measured(experiment: Experiment) -> list[dict[str, Any]]:
    """Every finished row timed in turn with the default; the entries of all rows, finished or not."""
    protocol, busy = experiment.protocol, cores_in_use()
    if busy > BUSY_CORES:
        say(f"other programs keep {busy:.1f} cores busy: times are of a busy machine, --measure repeats them")
    machine = {"machine": describe(torch.device("cpu")), "cores_in_use_by_others": round(busy, 2)}
    entries = {row.name: entry(protocol, row, None, {}, machine) for row in experiment.rows}
    for run, timing in timings(experiment):
        entries[run.name] = entry(protocol, run.row, run.outcome, timing, machine)
    for name, reason in experiment.failed.items():
        entries[name]["note"] = reason
    for row in experiment.rows:
        add_ratios(entries[row.name], entries.get(protocol.default_of(row.family) or ""))
    return [tidy(entries[row.name]) for row in experiment.rows]


def timings(experiment: Experiment) -> Iterator[tuple[Run, dict[str, Any]]]:
    """What `entry` takes of the time of every finished row.

    Those with threads of their own come last, each by itself behind its default: once there are more threads than
    cores, PyTorch's no longer wait for each other by spinning, and every row would take twice as long.
    """
    protocol, runs, defaults = experiment.protocol, experiment.finished, dict[str, Timed]()
    for run in sorted(runs.values(), key=lambda run: (run.row.play.pipelined, run.row.play.onnx)):
        default, alone = protocol.default_of(run.row.family) or "", tuple[float, ...]()
        if default in runs and default not in defaults:
            defaults[default] = runs[default].timed()
        if default in defaults and (run.row.play.pipelined or run.row.play.onnx):
            alone = milliseconds(protocol, defaults[default])
        try:
            timed = run.timed()
        except UserError as error:
            say(f"{run.name}: not timed: {error}")
            yield run, {"note": f"not timed: {error}"}
            continue
        others = () if alone else (defaults.get(default, timed),)
        took, usual = (*milliseconds(protocol, timed, *others), *alone)
        say(f"{run.name}: {took:.2f} ms, beside {usual:.2f} of the default")
        timing = {"ms": took, "calls": timed.calls, "parameters": timed.parameters, "megabytes": timed.megabytes}
        yield run, timing | ({"ratio": took / usual} if default in defaults else {})


def milliseconds(protocol: Protocol, *models: Timed) -> tuple[float, ...]:
    return in_turn(*(each.tick for each in models), frames=protocol.timed, seconds=protocol.seconds)


def main(arguments: Sequence[str]) -> int:
    """`python -m game_wm compare`; exit status 1 when a row that was asked for is not there."""
    options = tools.compare().parse_args(arguments)
    protocol, rows = read_rows(options.rows, options.protocol)
    protocol.train_for(options.minutes)
    chosen = choose(protocol, rows, options.only)
    use_all_cores()
    read_table(Path(f"{options.out}.json"))  # a file that is no table is reported before the work
    experiment, again = Experiment(protocol, rows), set(options.only or chosen) if options.again else set()
    for _ in experiment.carry_out(set() if options.measure else chosen, again):
        pass
    if not experiment.finished:
        raise UserError("no row is finished, and so there is nothing to compare: run it without --measure")
    entries = measured(experiment)
    out = options.out if options.replace else beside(options.out, entries)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(Path(f"{out}.json"), json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    picture = plot(entries, protocol)
    if picture is not None:
        save_picture(f"{out}.png", picture)
    page = Path(f"{out}.md")
    write_atomic(page, markdown(protocol, entries, out.name if picture else None) + kept_remarks(page))
    say(f"wrote {out}.json, .md" + (" and .png" if picture else ""))
    if out != options.out:
        say(f"{options.out}.json has more rows, minutes or episodes and stays; --replace puts this table in its place")
    return int(bool(experiment.failed))


def beside(out: Path, entries: Sequence[dict[str, Any]]) -> Path:
    """`out`, or another name where a table is there that has rows which this one has not, or a larger sample."""
    found, there = _sample(entries), _sample(read_table(Path(f"{out}.json")))
    if there[0] <= found[0] and there[1] <= found[1] and there[2] <= found[2]:
        return out
    rows, minutes, _ = found
    return out.with_name(f"{out.name}-{len(rows)}-rows-{minutes:g}-minutes")


def read_table(path: Path) -> list[dict[str, Any]]:
    """The entries of a table that was written before, [] when there is none. `UserError` when the file is none."""
    try:
        entries = json.loads(path.read_text())
        return [dict(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        raise UserError(f"{path} is no table of a comparison: move it away, or name another one with --out") from None


def _sample(entries: Sequence[dict[str, Any]]) -> tuple[set[str], float, int]:
    """Names of the rows measured, the minutes that each was trained for, the episodes that it was judged on."""
    measured = [entry for entry in entries if "sample" in entry]
    minutes, episodes = (max((e["sample"][k] for e in measured), default=0) for k in ("minutes_a_row", "episodes"))
    return {entry["name"] for entry in measured}, minutes, episodes
