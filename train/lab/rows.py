"""The rows of a comparison: small files of which each says what is tried, and the protocol that is the same for all.

    lab, rows = read_rows(["configs/lab/base.yaml", "configs/lab/masked.yaml"])      # protocol.yaml lies beside them

A row's file is a configuration of the stage that it trains, whole or no more than what it changes, with one entry more:

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from data_collect.errors import UserError
from train.lab.trial import Protocol
from train.stages.configuration import read_yaml

PROTOCOL = "protocol.yaml"
FAMILIES = ("modelling", "architecture", "inference", "tokenizer", "combined")
OF_THE_PROTOCOL = ("name", "minutes", "data.latents", "data.data", "model.tokenizer", "model.geometry")


@dataclass(frozen=True)
class Play:
    """How a row plays. The last five give the same frames as without them, and are not judged again.

    `precision`: bits, "auto" as `play.py`; `cache`: bound of step caching; `merge`: share of a frame's tokens that are
    merged; `compiled`, `pipelined`, `onnx`: by compiled code, with a thread for the decoder, by ONNX Runtime;
    `players`: dreams in one batch; `packed`: whether weights are laid out once, as `play.py` does.
    """

    precision: Literal["auto", "8", "16", "32"] = "auto"
    cache: float | None = None
    merge: float = 0.0
    compiled: bool = False
    pipelined: bool = False
    onnx: bool = False
    players: int = 1
    packed: bool = True

    @property
    def alike(self) -> bool:
        """Whether its frames are those of the checkpoint, as `play.py` has them."""
        return (self.precision, self.cache, self.merge) == ("auto", None, 0.0)


@dataclass
class Row:
    """What a row's file says, see above; `start` is its entry `from`, `overrides` the flags of its stage."""

    family: Literal["modelling", "architecture", "inference", "tokenizer", "combined"]
    method: str
    why: str
    stage: Literal["tokenizer", "dynamics", "distill"] | None = None
    start: str | None = None
    checkpoint: str | None = None
    tokens: str | None = None
    calls: int | None = None
    prune: float = 0.0
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    play: Play = Play()
    name: str = ""
    file: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """Rows that must be there before."""
        return [name for name in (self.start, self.tokens) if name]


@dataclass
class Lab(Protocol):
    """A protocol of trials, and what else is the same for all rows.

    Args:
        distill, tokenize: configuration files of the other stages.
        default, defaults: the row that others are compared with, and those of families that have another one.
        timed: frames of every row that are timed, at most (and no more than `seconds` of them).
    """

    distill: str = "configs/maze/distill.yaml"
    tokenize: str = "configs/maze/tokenizer.yaml"
    default: str = "base"
    defaults: dict[str, str] = field(default_factory=dict)
    timed: int = 100
    seconds: float = 15.0

    def default_of(self, family: str) -> str | None:
        """The name of the row that those of a family are compared with: a tokenizer with no model that plays."""
        return self.defaults.get(family, None if family == "tokenizer" else self.default)

    def config_of(self, stage: str | None) -> str:
        """The configuration file that a stage's rows change."""
        return {"distill": self.distill, "tokenizer": self.tokenize}.get(stage or "", self.config)


def read_rows(files: Sequence[str], protocol: str | None = None) -> tuple[Lab, list[Row]]:
    """The protocol, in `protocol` or beside the first file, and the rows, each behind those that it needs.

    Raises UserError that names the file and what is wrong in it.
    """
    paths = [Path(file) for file in files]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise UserError(f"{missing}: no such file; rows are those of configs/lab/*.yaml, or files like them")
    known = protocol or next((str(p) for p in paths if p.name == PROTOCOL), str(paths[0].with_name(PROTOCOL)))
    lab = read(Lab, read_yaml(known), known)
    rows = [read_row(path) for path in paths if path.name != PROTOCOL]
    names = [row.name for row in rows]
    if unknown := sorted(set(lab.defaults) - set(FAMILIES)):
        raise UserError(f"{known}: defaults: {unknown[0]} is no family; there are {', '.join(FAMILIES)}")
    for name in (lab.default, *lab.defaults.values()):
        if name not in names:
            raise UserError(f"{known}: the default {name} is not among the files: {advice(paths)}")
    for row in rows:
        if names.count(row.name) > 1:
            raise UserError(f"{row.file}: another row is called {row.name} too: give one of the files another name")
        for need in row.needs:
            if need not in names:
                raise UserError(f"{row.file}: it needs {need}, which is not among the files: {advice(paths)}")
        check(row, {row.name: row for row in rows})
    return lab, in_order(rows)


def advice(paths: Sequence[Path]) -> str:
    """What to do where a row is missing."""
    return f"name all of {paths[0].parent}/*.yaml, and choose with --only"


def read(kind: Any, entries: Any, file: str) -> Any:
    """A dataclass from a file's entries; `UserError` for unknown ones and wrong types."""
    reader = ArgumentParser(exit_on_error=False)
    reader.add_class_arguments(kind)
    try:
        return kind(**vars(reader.instantiate_classes(reader.parse_object(entries))))
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None


def read_row(path: Path) -> Row:
    """One row's file, by itself."""
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
    if row.stage is None and not start and not row.checkpoint:
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


def wanted(lab: Lab, rows: Sequence[Row], only: Sequence[str] | None) -> set[str]:
    """Names of the rows to be run: all, or those of `only` with what they need and are compared with.

    Raises UserError for a name that is none.
    """
    table = {row.name: row for row in rows}
    for name in only or ():
        if name not in table:
            raise UserError(f"no row is called {name}: there are {', '.join(table)}")
    if not only:
        return set(table)
    found, more = set[str](), [*only]
    while more:
        row = table[more.pop()]
        if row.name not in found:
            found.add(row.name)
            default = lab.default_of(row.family)
            more += [*row.needs, *([default] if default else [])]
    return found
