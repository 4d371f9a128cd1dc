"""One row of an experiment, carried out: trained in a process of its own, exported, judged, ready to be timed.

    run = TokenizerRun(protocol, row)       # rows that play: `train/lab/player_run.py`
    run.outcome = run.finished(question) or run.judge(truth, features, question)

What is finished is kept, so that an interrupted experiment continues: `RUNS/trial-NAME` holds what is trained, and
`trial.json` there the key of what training depends on. `RUNS/trials/NAME.json` holds the figures, and the key of what
they depend on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from data_collect.errors import UserError
from data_collect.shards.writer import write_atomic
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.report.card import tidy
from game_wm.evaluation.rollout import in_threes
from game_wm.evaluation.truth.plays import Truth
from train.checkpoints import load_tokenizer
from train.data.encode import encode
from train.data.latents import LatentStore
from train.data.recordings import recordings_of
from train.lab.bench.reconstruction import reconstruction
from train.lab.played import Timed, timed_tokenizer
from train.lab.protocol import Protocol, Row
from train.report.figures import read_figures
from train.stages.configuration import as_flags, read_yaml

TRAINING_FAILED = "its training failed"
ROUND_TRIP_STRIDE = 4  # of the real frames, every so many are sent through a tokenizer that is judged


class Run:
    """A row under a protocol. `UserError` when what it names is missing or does not belong together.

    `start`: the run that it starts from; `minutes`: of training, those of `start` included; `outcome`: its figures.
    """

    suffix: ClassVar[str]
    data_flags: Callable[[], dict[str, Any]]  # flags that say what the stage is trained on
    export: Callable[[Truth], None]  # makes the file of the row out of the training checkpoint, which goes
    evaluate: Callable[[Truth, FeatureDistance], dict[str, Any]]  # figures of the file and of its training
    timed: Callable[[], Timed]  # one frame, to be timed

    def __init__(self, protocol: Protocol, row: Row, start: Run | None = None) -> None:
        self.protocol, self.row, self.start, self.name = protocol, row, start, row.name
        self.folder = Path(protocol.runs, f"trial-{row.name}")
        self.path = self.folder / f"{row.name}{self.suffix}"
        self.result = Path(protocol.runs, "trials", f"{row.name}.json")
        self.geometry = row.geometry or protocol.geometry
        self.store = LatentStore(row.latents or protocol.latents)
        self.minutes: float = (protocol.minutes if row.stage else 0) + (start.minutes if start else 0)
        self.outcome: dict[str, Any] = {}
        self.key = digest(json.dumps([*self.inputs(), row.overrides, self.store.index]).encode())

    def result_key(self, question: str) -> list[Any]:
        """What the figures depend on: training, what is asked of all rows, and how this one plays."""
        return [self.key, question, [], None]

    def inputs(self) -> list[Any]:
        """What training depends on beside the row's flags and the latents."""
        config, protocol = read_yaml(self.protocol.config_of(self.row.stage)), self.protocol
        found = [{k: config[k] for k in config if k not in ("name", "minutes")}, protocol.flags, protocol.minutes]
        return [*found, self.geometry, self.row.memory] if self.geometry else found

    def train(self) -> None:
        """Train, or continue, where the file of the row is not there. `UserError` where training fails."""
        if self.prepare_folder():
            return
        assert self.row.stage is not None
        values = self.data_flags()
        values |= {"minutes": self.protocol.minutes, "runs": self.protocol.runs, "name": self.folder.name}
        values |= {"wandb": "off", **self.protocol.flags, **self.row.overrides, "resume": True}
        values |= {"init": str(self.start.path)} if self.start else {}
        flags = as_flags(self.protocol.config_of(self.row.stage), values)
        if run_process([sys.executable, "-m", "train", self.row.stage, *flags]):
            raise UserError(TRAINING_FAILED)

    def prepare_folder(self) -> bool:
        """Whether the file of the row is there; else there is a folder for what leads to it."""
        note = self.folder / "trial.json"
        if self.folder.exists() and not note.exists():
            raise UserError(f"{self.folder} is no trial's: move it away, or rename the candidate")
        if note.exists() and json.loads(note.read_text()) != self.key:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(note, json.dumps(self.key))
        return self.path.exists()

    def forget(self) -> None:
        """Make training begin anew, where it has a folder of its own."""
        if (self.folder / "trial.json").exists():
            shutil.rmtree(self.folder)

    def logged(self, *names: str) -> dict[str, float | None]:
        """Medians of what training logged, None of what it did not. The loss is that of the last fifth."""
        if not self.row.stage:
            return dict.fromkeys(names)
        values = {name: [value for _, value in read_figures(self.folder / self.row.stage, name)] for name in names}
        if "flow" in values:
            values["flow"] = values["flow"][-max(1, len(values["flow"]) // 5) :]
        return {name: statistics.median(found) if found else None for name, found in values.items()}

    def judge(self, truth: Truth, features: FeatureDistance, question: str) -> dict[str, Any]:
        """Train and evaluate it, and keep the figures. `UserError` where it cannot be trained."""
        self.train()
        if not self.path.exists():
            self.export(truth)
        return self.keep(question, self.evaluate(truth, features))

    def keep(self, question: str, figures: dict[str, Any]) -> dict[str, Any]:
        """The figures under their key, which are on the disk from now on."""
        found = {"key": self.result_key(question)} | figures
        write_atomic(self.result, json.dumps(tidy(found), indent=1, ensure_ascii=False))
        return found

    def finished(self, question: str) -> dict[str, Any] | None:
        """The figures that are kept, if they still hold."""
        found = json.loads(self.result.read_text()) if self.result.exists() else {}
        return found if found.get("key") == json.loads(json.dumps(self.result_key(question))) else None


class TokenizerRun(Run):
    """A row that trains a tokenizer, on the recording that the protocol's latents are of."""

    suffix = ".ckpt"

    @property
    def latents(self) -> Path:
        """Where the recording lies as this tokenizer gives it, once `encode` has been called."""
        return self.folder / "latents"

    def encode(self) -> None:
        encode(self.recordings(), load_tokenizer(self.path), self.latents)

    def recordings(self) -> list[str]:
        """Folders of what the protocol's latents are of."""
        return [str(recording.dataset.folder) for recording in recordings_of(self.store)]

    def data_flags(self) -> dict[str, Any]:
        return {"data.data": self.recordings()}

    def export(self, truth: Truth) -> None:
        (self.folder / "tokenizer" / "last.ckpt").rename(self.path)

    def evaluate(self, truth: Truth, features: FeatureDistance) -> dict[str, Any]:
        rows = in_threes(truth.frames, ROUND_TRIP_STRIDE)
        medians = truth.medians.repeat_interleave(len(rows) // len(truth.frames), 0)
        found = reconstruction(load_tokenizer(self.path), rows, medians, features)
        return {"minutes": self.minutes, **self.logged("frames_per_second"), **found}

    def timed(self) -> Timed:
        return timed_tokenizer(load_tokenizer(self.path))


def run_process(command: list[str]) -> int:
    """Exit status of a process of its own, which is asked to save and end when this one is."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = subprocess.Popen(command)
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        signal.signal(signal.SIGTERM, before)


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
