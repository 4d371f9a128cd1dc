"""What an experiment tries, and what is the same for everything that it tries.

protocol = read(Protocol, read_yaml("configs/trials/maze.yaml"), "configs/trials/maze.yaml")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from data_collect.errors import UserError


@dataclass(frozen=True)
class Play:
    """How a row plays.

    Args:
        precision: bits, "auto" as `play.py` chooses them.
        cache, merge: bound of step caching; share of a frame's tokens that are merged.
        compiled, pipelined, onnx: by compiled code, with a thread for the decoder, by ONNX Runtime.
        players: rollouts in one batch.
        packed: whether weights are laid out once, as `play.py` does.
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
    def same_frames(self) -> bool:
        """Whether its frames are those that `play.py` shows: then nothing is judged again."""
        return (self.precision, self.cache, self.merge) == ("auto", None, 0.0)


Stage = Literal["tokenizer", "dynamics", "distill"]
Family = Literal["modelling", "architecture", "inference", "tokenizer", "combined"]


@dataclass
class Row:
    """What is tried: a candidate of a trial, or a row of a comparison, whose file `train/lab/rows.py` explains.

    Args:
        overrides: flags of the stage, without their dashes.
        latents, tokenizer, geometry: its own, where they are not the protocol's.
        memory: settings of the memory that it plays with, where they are not the geometry's.
        family, method, start: of a comparison; `start` is the entry `from`.
    """

    why: str
    name: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    latents: str | None = None
    tokenizer: str | None = None
    geometry: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    family: Family | None = None
    method: str = ""
    stage: Stage | None = None
    start: str | None = None
    checkpoint: str | None = None
    tokens: str | None = None
    calls: int | None = None
    prune: float = 0.0
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    play: Play = Play()
    file: str = ""

    @property
    def needs(self) -> list[str]:
        return [name for name in (self.start, self.tokens) if name]


@dataclass
class Protocol:
    """What is the same for all candidates, or rows.

    Args:
        config, distill, tokenize: configuration files of dynamics, distillation and tokenizer.
        flags: further flags of every stage; a candidate's own come after them.
        latents, tokenizer, geometry: what all are trained on, but for candidates with their own.
        candidates: what `python -m train trial` tries.
        minutes: of training, each.
        episodes, horizons, prompt: free rollouts of so many held-out seeds, the frames that are judged in them, real
            frames before them.
        steps: network calls a frame, the objective's own if not given.
        revisit, prompts: mazes of the revisit suite (0 leaves it out) and the lengths of its prompts.
        runs: folder of everything that is written.
        default, defaults: the row that others are compared with, and those of families that have another one.
        timed, seconds: frames of every row that are timed, at most, and for how long at most.
    """

    config: str
    latents: str
    tokenizer: str
    candidates: list[Row] = field(default_factory=list)
    minutes: float = 6.0
    flags: dict[str, Any] = field(default_factory=dict)
    episodes: int = 24
    horizons: tuple[int, ...] = (1, 8, 32)
    prompt: int = 32
    steps: int | None = None
    geometry: str | None = None
    revisit: int = 0
    prompts: tuple[int, ...] = (1024,)
    runs: str = "runs"
    distill: str = "configs/maze/distill.yaml"
    tokenize: str = "configs/maze/tokenizer.yaml"
    default: str = "base"
    defaults: dict[str, str] = field(default_factory=dict)
    timed: int = 100
    seconds: float = 15.0

    def train_for(self, minutes: float | None) -> None:
        """Change the minutes. What is trained for others than the file's goes to RUNS/N-minutes, beside what was
        trained for longer. `UserError` when there are none."""
        if minutes is not None and minutes != self.minutes:
            self.minutes, self.runs = minutes, str(Path(self.runs, f"{minutes:g}-minutes"))
        if not self.minutes > 0:
            raise UserError(f"minutes of training must be more than 0, got {self.minutes:g}")

    def default_of(self, family: str | None) -> str | None:
        """The row that those of a family are compared with; tokenizers not with a model that plays."""
        return self.defaults.get(family or "", None if family in (None, "tokenizer") else self.default)

    def config_of(self, stage: str | None) -> str:
        return {"distill": self.distill, "tokenizer": self.tokenize}.get(stage or "", self.config)


def read(kind: Any, entries: Any, file: str) -> Any:
    """A dataclass from a file's entries; `UserError` for unknown ones and wrong types."""
    reader = ArgumentParser(exit_on_error=False)
    reader.add_class_arguments(kind)
    try:
        return kind(**vars(reader.instantiate_classes(reader.parse_object(entries))))
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
