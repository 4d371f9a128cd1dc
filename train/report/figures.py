"""The figures of a run, in `metrics.jsonl`: one JSON object for each step that is logged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from data_collect.files import whole


class RunLogger(Logger):
    """A logger of the run in this folder, whose configuration is written elsewhere."""

    version = "0"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @property
    def name(self) -> str:
        return self.folder.name

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class Figures(RunLogger):
    """`metrics.jsonl`: one JSON object a logging step, `{"step": 120, "loss": 0.31, ...}`, written by the first of the
    processes that train together. A resumed run drops the lines after its checkpoint: every step is there once."""

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        super().__init__(folder)
        self.path = folder / "metrics.jsonl"
        self._drop(from_step)

    @rank_zero_only
    def _drop(self, from_step: int) -> None:
        lines = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        kept = [line for line in lines if (step := step_of(line)) is not None and step < from_step]
        with whole(self.path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        figures = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")


def step_of(line: str) -> int | None:
    """The step of a line of `metrics.jsonl`; None where a crash damaged the line."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def read_figures(folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of one figure of a run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[name]) for line in lines if name in line]


def last_figures(folder: Path, prefix: str) -> dict[str, float]:
    """The latest values of the figures whose names begin so, under the rest of their names; none without the file."""
    found, path = dict[str, float](), folder / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else []:
        found |= {name: value for name, value in json.loads(line).items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}
