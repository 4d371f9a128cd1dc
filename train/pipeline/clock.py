"""Minutes of a pipeline, shared out among its stages: what is over is told by the clock, over all runs of its command.

clock = Clock(30, Path("runs/mine/pipeline.json"))
clock.share("dynamics", {"dynamics": 10, "distill": 2})         # of what is left, ten parts of twelve
clock.keep()                                                    # so that an interrupted run goes on counting
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from data_collect.shards.writer import write_atomic

RESERVE = 1.0  # minutes that export and the look at the result take
RECORDING = 0.25  # of all minutes, at most: of a slow game there are fewer frames then
LEAST = 0.1  # minutes of a stage, however little is left


class Clock:
    """`total` minutes, or no end with None, of which `reserve` are kept for the card. `path` holds what earlier runs
    have spent, and what each recording was `recorded` from: frames, game, agent, seed and frames of an episode (older
    files have the number of frames alone)."""

    def __init__(self, total: float | None, path: Path, reserve: float = 0.0) -> None:
        self.total, self.path, self.reserve = total, path, RESERVE + reserve
        self.began = time.monotonic()
        try:
            kept = json.loads(path.read_text())
            recorded = kept["recorded"]  # a number, where there was one recording alone
            self.recorded: dict[str, Any] = dict(recorded) if isinstance(recorded, dict) else {"data": int(recorded)}
            self.before = float(kept["minutes"])
        except (OSError, ValueError, KeyError, TypeError):
            self.before, self.recorded = 0.0, {}  # its first run

    @property
    def spent(self) -> float:
        """Minutes since the first run began, pauses between runs apart."""
        return self.before + (time.monotonic() - self.began) / 60

    @property
    def left(self) -> float:
        """Minutes that the stages still have."""
        assert self.total is not None
        return max(0.0, self.total - self.spent - self.reserve)

    def recording(self) -> float:
        """Minutes that a recording may still take."""
        assert self.total is not None
        return max(0.0, RECORDING * self.total - self.spent)

    def share(self, stage: str, parts: dict[str, float], trained: float = 0.0) -> float:
        """Minutes of training for a stage, those that it has `trained` among them: its part of what is left for the
        stages of which `parts` has the proportions."""
        return max(trained + LEAST, (self.left + trained) * parts[stage] / sum(parts.values()))

    def restart(self) -> None:
        """What earlier runs have spent was on other work."""
        self.before = 0.0

    def keep(self) -> None:
        """Write down what is spent."""
        if self.path.parent.exists():
            write_atomic(self.path, json.dumps({"minutes": round(self.spent, 2), "recorded": self.recorded}))
