"""Minutes of a pipeline, shared out among its stages; those of earlier runs of its command count.

clock = Clock(30, Path("runs/mine/pipeline.json"))
clock.share("dynamics", {"dynamics": 10, "distill": 2})         # ten twelfths of what is left
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
    """`total` minutes, or no end with None, of which `reserve` are kept for the card. `path` holds the minutes that
    earlier runs have spent, and what each of their `recordings` is of: frames, game, agent, seed and frames of an
    episode (older files have the number of frames alone)."""

    def __init__(self, total: float | None, path: Path, reserve: float = 0.0) -> None:
        self.total, self.path, self.reserve = total, path, RESERVE + reserve
        self.began = time.monotonic()
        try:
            kept = json.loads(path.read_text())
            recorded = kept["recorded"]  # a number, where there was one recording alone
            self.recordings: dict[str, Any] = dict(recorded) if isinstance(recorded, dict) else {"data": int(recorded)}
            self.before = float(kept["minutes"])
        except (OSError, ValueError, KeyError, TypeError):
            self.before, self.recordings = 0.0, {}  # its first run

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

    def share(self, stage: str, weights: dict[str, float], trained: float = 0.0) -> float:
        """Minutes of training for a stage, with those it has `trained`: its share, by `weights`, of the minutes that
        are left."""
        return max(trained + LEAST, (self.left + trained) * weights[stage] / sum(weights.values()))

    def keep(self) -> None:
        """Write down what is spent."""
        if self.path.parent.exists():
            write_atomic(self.path, json.dumps({"minutes": round(self.spent, 2), "recorded": self.recordings}))
