"""One method beside the other: every row trained for the same minutes, judged on the same episodes, timed in one pass.

    python -m game_wm compare configs/lab/*.yaml                        # all of it: hours
    python -m game_wm compare configs/lab/*.yaml --minutes 10 --only masked shortcut
    python -m game_wm compare configs/lab/*.yaml --measure              # what is finished, timed and written once more

What a row is stands in `train/lab/rows.py`. Training, export and judgement are those of `train/lab/trial.py`;
interrupted, the same command continues where it was, and what is finished is skipped (`--again`: run the rows named
by `--only`, or all, anew). When all are done, every row is timed in turn with the default, while nothing is trained.
Written are OUT.json (a list of rows), OUT.md (tables; what stands under its heading "What was learnt" stays) and
OUT.png (quality against milliseconds); RUNS/trial-NAME/NAME.safetensors plays. A table that has fewer rows, minutes
or episodes than OUT has goes to OUT-N-rows-M-minutes instead; with `--minutes` other than the protocol's, RUNS is
`RUNS/M-minutes`.
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
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.report.card import tidy
from train.commands import tools
from train.lab.compare_table import entry, markdown, ratios, remarks
from train.lab.pareto import plot
from train.lab.row_trial import Player, Ready, Tokens
from train.lab.rows import Lab, Row, read_rows, wanted
from train.lab.speed import BUSY, cores_in_use, in_turn
from train.lab.trial import digest, real_play
from train.report.console import say
from train.report.machine import describe, use_all_cores


class Comparison:
    """The rows of a protocol. `trials`: those that are finished; `failed`: why others are not."""

    def __init__(self, lab: Lab, rows: list[Row]) -> None:
        self.lab, self.rows = lab, rows
        self.trials: dict[str, Player | Tokens] = {}
        self.failed: dict[str, str] = {}

    def run(self, chosen: set[str], again: set[str]) -> None:
        """Train and judge what is chosen and not finished; find what else is."""
        truth, kept, features = real_play(self.lab), dict[int, Any](), FeatureDistance()
        shown = repr(tuple(self.lab.horizons)).encode()
        asked = digest(truth.frames.numpy().tobytes(), truth.actions.numpy().tobytes(), shown)
        for row in self.rows:
            wanted = row.name in chosen
            if not wanted and not Path(self.lab.runs, "trials", f"{row.name}.json").exists():
                continue
            try:
                if lacking := [need for need in row.needs if need not in self.trials]:
                    raise UserError(f"it needs {lacking[0]}, which is not there")
                trial = self.open(row, kept, wanted)
                before = trial.start.outcome["key"] if isinstance(trial, Player) and trial.start else None
                key = json.loads(json.dumps([trial.key, asked, trial.settings, before]))
                found = None if row.name in again else trial.found(key)
                if found is None and wanted:
                    say(f"{row.name}: {row.method}")
                    found = trial.judge(truth, features, key, row.name in again)
                    if found is None:
                        raise UserError("its training failed")
            except UserError as error:  # the others are not held up
                if wanted:
                    self.failed[row.name] = str(error)
                    say(f"{row.name}: left out: {error}")
                continue
            if found is not None:
                trial.outcome = found
                self.trials[row.name] = trial

    def open(self, row: Row, kept: dict[int, Any], chosen: bool) -> Player | Tokens:
        """The row as a trial, with the recording encoded for it where it is to be run."""
        if row.stage == "tokenizer":
            return Tokens(self.lab, row)
        start, tokens = (self.trials.get(name or "") for name in (row.start, row.tokens))
        assert not isinstance(start, Tokens) and not isinstance(tokens, Player)
        if tokens and chosen:
            tokens.encode()
        return Player(self.lab, row, start, tokens, kept)

    def measure(self) -> list[dict[str, Any]]:
        """Every finished row timed in turn with the default; the entries of all rows, finished or not."""
        busy = cores_in_use()
        if busy > BUSY:
            say(f"other programs keep {busy:.1f} cores busy: times are of a busy machine, --measure repeats them")
        machine = {"machine": describe(torch.device("cpu")), "cores_in_use_by_others": round(busy, 2)}
        entries = {row.name: entry(self.lab, row, None, {}, machine) for row in self.rows}
        for row, trial, timing in self.timed():
            entries[row.name] = entry(self.lab, row, trial.outcome, timing, machine)
        for name, reason in self.failed.items():
            entries[name]["note"] = reason
        for row in self.rows:
            ratios(entries[row.name], entries.get(self.lab.default_of(row.family) or ""))
        return [tidy(entries[row.name]) for row in self.rows]

    def take(self, *ready: Ready) -> tuple[float, ...]:
        """Milliseconds a frame of each."""
        return in_turn(*(each.tick for each in ready), frames=self.lab.timed, seconds=self.lab.seconds)

    def timed(self) -> Iterator[tuple[Row, Player | Tokens, dict[str, Any]]]:
        """What `entry` is told of the time of every finished row.

        Those with threads of their own come last, each by itself behind its default: once there are more threads than
        cores, PyTorch's no longer wait for each other by spinning, and every row would take twice as long.
        """
        defaults: dict[str, Ready] = {}
        finished = [row for row in self.rows if row.name in self.trials]
        for row in sorted(finished, key=lambda row: (row.play.pipelined, row.play.onnx)):
            trial, default, alone = self.trials[row.name], self.lab.default_of(row.family), tuple[float, ...]()
            if default in self.trials and default not in defaults:
                defaults[default] = self.trials[default].ready()
            if default in defaults and (row.play.pipelined or row.play.onnx):
                alone = self.take(defaults[default])
            try:
                ready = trial.ready()
            except UserError as error:
                say(f"{row.name}: not timed: {error}")
                yield row, trial, {"note": f"not timed: {error}"}
                continue
            took, usual = (*self.take(ready), *alone) if alone else self.take(ready, defaults.get(default or "", ready))
            say(f"{row.name}: {took:.2f} ms, beside {usual:.2f} of the default")
            timing = {"ms": took, "calls": ready.calls, "parameters": ready.parameters, "megabytes": ready.megabytes}
            yield row, trial, timing | ({"ratio": took / usual} if default in defaults else {})


def main(arguments: Sequence[str]) -> int:
    """`python -m game_wm compare`; exit status 1 when a row that was asked for is not there."""
    options = tools.compare().parse_args(arguments)
    lab, rows = read_rows(options.rows, options.protocol)
    lab.train_for(options.minutes)
    chosen = wanted(lab, rows, options.only)
    use_all_cores()
    read_table(Path(f"{options.out}.json"))  # what is no table is told of before the work
    comparison = Comparison(lab, rows)
    comparison.run(set() if options.measure else chosen, set(options.only or chosen) if options.again else set())
    if not comparison.trials:
        raise UserError("no row is finished, and so there is nothing to compare: run it without --measure")
    entries = comparison.measure()
    out = options.out if options.replace else beside(options.out, entries)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(Path(f"{out}.json"), json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    drawn = plot(entries, lab)
    if drawn is not None:
        save_picture(f"{out}.png", drawn)
    page = Path(f"{out}.md")
    write_atomic(page, markdown(lab, entries, out.name if drawn else None) + remarks(page))
    say(f"wrote {out}.json, .md" + (" and .png" if drawn else ""))
    if out != options.out:
        say(f"{options.out}.json has more rows, minutes or episodes and stays; --replace puts this table in its place")
    return int(bool(comparison.failed))


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
