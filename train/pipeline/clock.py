"""Minutes of a pipeline by the wall clock, those of earlier runs of its command included.

clock = Clock(30, Path("runs/mine/pipeline.json"))
clock.divide(["latents", "views"])                              # what each may take at most, which trains nothing
clock.keep_back("latents", 1.5)                                 # encoding will take that
clock.left                                                      # what trainings may share
clock.deadline("latents")                                       # encoding begins: by then it ends
clock.keep()                                                    # so that an interrupted run goes on counting
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_collect.shards.writer import write_atomic
from game_wm.deadline import NEVER, Deadline
from game_wm.play.timing import process_age

EXPORT, MOST = 0.05, 1.0  # of all minutes, and at most so many: for export and diagnosis, until they were measured
START = 0.1  # minutes that a stage takes to begin and to end, until it was measured
RECORDING = 0.15  # of all minutes, at most: of a slow game there are fewer frames then
LEAST = 0.1  # minutes of a stage, however little is left
# Of all minutes, the most that a stage takes which trains no network of play: together no more than half of them.
SHARES = {"latents": 0.1, "level": 0.1, "motion": 0.04, "depth": 0.04, "atlas": 0.04, "obstacles": 0.06, "scroll": 0.15,
          "views": 0.3, "evaluate": 0.25}  # fmt: skip
TOGETHER = 0.5


class Clock:
    """`total` minutes, or no end with None. `path` holds the minutes that earlier runs have spent, those that their
    export took, and what each of their `recordings` is of: frames, game, agent, seed and frames of an episode (older
    files have the number of frames alone).

    `kept`: minutes that are kept back for what no training may take, by its name; `most`: and how many it takes at
    most. `start`: minutes of a stage that are no training, `after`: those of them behind it. `measured`: whether an
    export was timed, `export` minutes.
    """

    def __init__(self, total: float | None, path: Path) -> None:
        age = _age()  # a machine that is slow to begin is slow in all
        self.total, self.path, self.start, self.after = total, path, max(START, age / 60), START / 2
        self.began = time.monotonic() - age
        self.before, self.recordings, self.measured = 0.0, dict[str, Any](), False
        self.recorded_by: float | None = None  # `spent` when recording has to end
        self.kept = {"export": max(age / 60, min(MOST, EXPORT * (total or 0.0)))}
        self.export, self.most = 0.0, dict[str, float]()
        try:
            found = json.loads(path.read_text())
            recorded = found["recorded"]  # a number, where there was one recording alone
            self.recordings = dict(recorded) if isinstance(recorded, dict) else {"data": int(recorded)}
            self.before = float(found["minutes"])
            if found.get("export"):
                self.exported(float(found["export"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # its first run

    @property
    def spent(self) -> float:
        """Minutes since the first run began, pauses between runs apart."""
        return self.before + (time.monotonic() - self.began) / 60

    @property
    def left(self) -> float:
        """Minutes that the stages still have."""
        assert self.total is not None
        return max(0.0, self.total - self.spent - sum(self.kept.values()))

    def recording(self) -> float:
        """Minutes that a recording may still take; the first of them begins now."""
        assert self.total is not None
        if self.recorded_by is None:
            self.recorded_by = self.spent + RECORDING * max(0.0, self.total - self.spent)
        return max(LEAST, self.recorded_by - self.spent)

    def divide(self, stages: Sequence[str]) -> None:
        """How many minutes each of these stages takes at most that trains nothing; as many are kept back for it."""
        shares = {name: SHARES[name] for name in stages if name in SHARES}
        scale = (self.total or 0.0) * min(1.0, TOGETHER / max(sum(shares.values()), TOGETHER))
        self.most = {name: share * scale for name, share in shares.items()}
        self.kept |= self.most

    def keep_back(self, name: str, minutes: float) -> None:
        """A stage will take so long, or its most; nothing where it has begun already."""
        if name in self.kept:
            self.kept[name] = min(minutes, self.most[name])

    def deadline(self, name: str) -> Deadline:
        """A stage that trains nothing begins now, and ends by then. The last one has all that is left."""
        self.kept.pop(name, None)
        if self.total is None:
            return NEVER
        left = max(0.0, self.total - self.spent - sum(self.kept.values()))
        return Deadline(60 * (left if name == "evaluate" else min(self.most[name], left / 2)))

    def exported(self, minutes: float) -> None:
        """Export and diagnosis have taken so long."""
        self.kept["export"] = self.export = minutes
        self.measured = True

    def keep(self) -> None:
        """Write down what is spent."""
        if self.path.parent.exists():
            found = {"minutes": round(self.spent, 2), "recorded": self.recordings}
            found |= {"export": round(self.export, 3)} if self.measured else {}
            write_atomic(self.path, json.dumps(found))


def _age() -> float:
    """Seconds since this process began, if it is `python -m train`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return process_age() if spec is not None and spec.name == "train.__main__" else 0.0
