"""A stage of a pipeline: its inputs, its output, its budget.

stage = Stage("tokenizer", folder, train, inputs=[Path("runs/mine/data")], output=folder / "last.ckpt")
stage.key()                     # has it changed, the stage starts anew
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from game_wm.deadline import NEVER, Deadline


@dataclass(frozen=True)
class Budget:
    """How much a stage is given: minutes of training or steps, or by when it ends. `shared`: of a pipeline's minutes,
    as many as `minutes` say beside those of the other stages, or as measurement finds."""

    minutes: float | None = None
    steps: int | None = None
    shared: bool = False
    deadline: Deadline = NEVER

    def words(self, had: float) -> str:
        """For the line that announces it; `had`: minutes of training so far."""
        before = f", {had:.1f} of them behind it" if had else ""
        return f"{self.minutes:.1f} minutes{before}" if self.minutes else f"{self.steps} steps"


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Args:
        folder: where its files lie.
        run: does it, or goes on with it; returns the exit status.
        inputs: recordings, latents and checkpoints that it reads.
        output: the file that it has written when it is done; None: `run` itself finds out what is left to do.
        settings: all else that the result depends on.
        budget: its minutes or steps.
    """

    name: str
    folder: Path
    run: Callable[[Budget], int]
    inputs: Sequence[Path] = ()
    output: Path | None = None
    settings: Any = None
    budget: Budget = Budget()

    def key(self) -> str:
        """Hash of all that the result depends on except the budget: contents and settings, not paths."""
        parts = [self.settings, *(content(path) for path in self.inputs)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def had(self) -> float:
        """Minutes of training so far."""
        return self._trained()[0]

    def rate(self) -> float:
        """Steps of training a minute so far; 0 before the first."""
        minutes, steps = self._trained()
        return steps / minutes if minutes else 0.0

    def _trained(self) -> tuple[float, int]:
        from train.checkpoints import trained_here

        return trained_here(self.output) if self.output is not None and self.trains else (0.0, 0)

    @property
    def trains(self) -> bool:
        """Whether its budget is minutes of training."""
        return bool(self.budget.minutes or self.budget.shared)


def content(path: Path) -> str:
    """Hash of a recording, of latents, of a checkpoint's weights, or of a file."""
    from train.checkpoints import weights_hash
    from train.data.latents import LatentStore
    from train.data.recordings import open_recordings

    if path.suffix == ".ckpt":
        return weights_hash(path)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if (path / "dataset.json").exists():
        return open_recordings([str(path)])[0].key
    return LatentStore(path).key
