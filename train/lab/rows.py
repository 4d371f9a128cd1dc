"""A row of a comparison: one small file that says what is tried, and how it is trained and played.

    protocol, rows = read_rows(["configs/lab/base.yaml", "configs/lab/masked.yaml"])    # protocol.yaml lies beside

A row's file is a configuration of the stage that it trains, whole or only what it changes, and the entry `row`:

    row:
      family: inference             # or modelling, architecture, tokenizer, combined: the part of the table
      method: step caching, 8 calls
      why: blocks whose input has hardly changed are not run again
      stage: dynamics               # what is trained: dynamics, distill, tokenizer; left out, nothing is
      from: flow-8                  # the row whose checkpoint it begins with
      checkpoint: checkpoints/maze.safetensors  # in place of stage and from: a file that was trained elsewhere
      tokens: tokenizer-codes       # the row whose tokenizer and latents it takes, the protocol's if none
      calls: 8                      # of the network a frame, the objective's own if none
      prune: 0.25                   # share of the hidden channels that go from the checkpoint that it begins with
      judged: {dynamics: {window: 128}}         # entries of the checkpoint's configuration that it plays with
      play: {precision: "8", cache: 0.1, merge: 0.25, compiled: true, pipelined: true, players: 4, onnx: true}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from data_collect.errors import UserError
from train.lab.protocol import Family, Play, Protocol, Row, read
from train.stages.configuration import read_yaml

PROTOCOL_FILE = "protocol.yaml"
FAMILIES: tuple[str, ...] = get_args(Family)
OF_THE_PROTOCOL = ("name", "minutes", "data.latents", "data.data", "model.tokenizer", "model.geometry")


def rows_of_trial(protocol: Protocol, file: str) -> list[Row]:
    """The candidates of a trial: they train the dynamics, from nothing, and are judged in 32 bits.

    `UserError` where two have one name.
    """
    names = [each.name for each in protocol.candidates]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{file}: more than one candidate is called {twice}: give one of them another name")
    plain = Play("32", packed=False)
    return [replace(each, stage="dynamics", play=plain, file=file) for each in protocol.candidates]


def read_rows(files: Sequence[str], protocol_file: str | None = None) -> tuple[Protocol, list[Row]]:
    """The protocol, of `protocol_file` or beside the first file, and the rows, each behind those that it needs.

    Raises UserError that names the file and what is wrong in it.
    """
    paths = [Path(file) for file in files]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise UserError(f"{missing}: no such file; rows are those of configs/lab/*.yaml, or files like them")
    beside = next((str(p) for p in paths if p.name == PROTOCOL_FILE), str(paths[0].with_name(PROTOCOL_FILE)))
    source = protocol_file or beside
    protocol: Protocol = read(Protocol, read_yaml(source), source)
    rows = [read_row(path) for path in paths if path.name != PROTOCOL_FILE]
    names = [row.name for row in rows]
    if unknown := sorted(set(protocol.defaults) - set(FAMILIES)):
        raise UserError(f"{source}: defaults: {unknown[0]} is no family; there are {', '.join(FAMILIES)}")
    for name in (protocol.default, *protocol.defaults.values()):
        if name not in names:
            raise UserError(f"{source}: the default {name} is not among the files: {advice(paths)}")
    for row in rows:
        if names.count(row.name) > 1:
            raise UserError(f"{row.file}: another row is called {row.name} too: give one of the files another name")
        for need in row.needs:
            if need not in names:
                raise UserError(f"{row.file}: it needs {need}, which is not among the files: {advice(paths)}")
        check(row, {row.name: row for row in rows})
    return protocol, in_order(rows)


def advice(paths: Sequence[Path]) -> str:
    return f"name all of {paths[0].parent}/*.yaml, and choose with --only"


def read_row(path: Path) -> Row:
    content = read_yaml(str(path))
    if not isinstance(content, dict) or not isinstance(content.get("row"), dict):
        raise UserError(f"{path}: it is no row of a comparison, for it has no entry `row` (see train/lab/rows.py)")
    entries = {("start" if key == "from" else key): value for key, value in content.pop("row").items()}
    row: Row = read(Row, entries, str(path))
    flags = {k: v for k, v in flat(content).items() if k not in OF_THE_PROTOCOL}
    row.name, row.file, row.overrides = path.stem, str(path), flags
    return row


def flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration as flags: {"model": {"lr": 1}} -> {"model.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in entries.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def check(row: Row, rows: dict[str, Row]) -> None:
    """`UserError` where a row's entries contradict each other."""
    start, tokens = rows.get(row.start or ""), rows.get(row.tokens or "")
    ways = (row.play.compiled, row.play.pipelined, row.play.onnx, row.play.cache is not None, bool(row.play.merge))
    wrong = None
    if row.family is None or not row.method:
        wrong = f"it needs a family ({', '.join(FAMILIES)}) and a method"
    elif row.stage is None and not start and not row.checkpoint:
        wrong = "it trains nothing and begins with nothing: give it a stage, a row to start `from` or a checkpoint"
    elif row.checkpoint and (row.stage or start or tokens):
        wrong = "it plays a checkpoint as it is: leave `stage`, `from` and `tokens` out"
    elif row.checkpoint and not Path(row.checkpoint).is_file():
        wrong = f"{row.checkpoint}: no such file; name a checkpoint that is there"
    elif row.stage is None and row.overrides:
        wrong = f"it trains nothing, and so has no use for {next(iter(row.overrides))}: what it plays with is `judged`"
    elif row.stage is not None and row.prune:
        wrong = "what is pruned is a row of its own: prune there, and start `from` it here"
    elif row.stage == "distill" and not start:
        wrong = "distillation needs a teacher: name a row to start `from`"
    elif (row.family == "tokenizer") != (row.stage == "tokenizer"):
        wrong = "the family tokenizer is of those rows whose stage is tokenizer"
    elif start and start.stage == "tokenizer":
        wrong = f"it starts from {start.name}, which is a tokenizer: name that one as `tokens`"
    elif tokens and tokens.stage != "tokenizer":
        wrong = f"the tokens of {tokens.name} are no tokenizer's: name a row whose stage is tokenizer"
    elif start and tokens:
        wrong = f"it has the tokens of {start.name}, which it starts from: leave `tokens` out"
    elif row.play.players < 1 or (row.calls is not None and row.calls < 1):
        wrong = "players and calls are at least 1"
    elif sum(ways) > 1:
        wrong = "of compiled, pipelined, onnx, cache and merge it can have one"
    elif row.play.onnx and row.play.precision != "auto":
        wrong = "ONNX Runtime plays in 32 bits: leave the precision out"
    if wrong:
        raise UserError(f"{row.file}: {wrong}")


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Each behind those that it needs, else as given. `UserError` where rows need each other."""
    left, done = list(rows), list[Row]()
    while left:
        there = {row.name for row in done}
        if not (ready := next((row for row in left if set(row.needs) <= there), None)):
            raise UserError(f"{left[0].file}: it needs rows that need it: {', '.join(row.name for row in left)}")
        done.append(ready)
        left.remove(ready)
    return done


def choose(protocol: Protocol, rows: Sequence[Row], only: Sequence[str] | None) -> set[str]:
    """Names of the rows to be run: all, or those of `only` with what they need and are compared with.

    Raises UserError for a name that is none.
    """
    table = {row.name: row for row in rows}
    for name in only or ():
        if name not in table:
            raise UserError(f"no row is called {name}: there are {', '.join(table)}")
    chosen, more = set[str](), [*(only or table)]
    while more:
        row = table[more.pop()]
        if row.name not in chosen:
            chosen.add(row.name)
            default = protocol.default_of(row.family)
            more += [*row.needs, *([default] if default else [])]
    return chosen
