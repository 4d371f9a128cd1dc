"""A row of a comparison as a trial: trained, exported and judged by `train/lab/trial.py`, then made ready to be timed.

trial = Player(lab, row, start, tokens, kept={})        # or Tokens(lab, row)
trial.judge(truth, features, key, again=False)
trial.ready().tick()                                    # one frame, as it is played
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_collect.errors import UserError
from data_collect.shards.writer import write_atomic
from game_wm.acceleration import compilation, export, pack, precision, pruning
from game_wm.checkpoint import Checkpoint, first_line, load, save
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.report.card import tidy
from game_wm.evaluation.rollout import in_threes
from game_wm.evaluation.truth.plays import Truth
from game_wm.objectives import make_objective, objective_entries
from game_wm.world import WorldModel
from train.checkpoints import load_tokenizer
from train.data.encode import encode
from train.data.frames import recordings_of
from train.lab.acceleration import caching, merging, onnx, pipelining
from train.lab.reconstruction import reconstruction, seeing
from train.lab.rows import Lab, Play, Row
from train.lab.speed import Tick
from train.lab.trial import Candidate, Trial

STRIDE = 4  # of the real frames, every so many are sent through a tokenizer that is judged


@dataclass
class Ready:
    """What is timed: one frame, of how many network calls; what it is made by takes so much memory."""

    tick: Tick
    calls: int
    parameters: int
    megabytes: float


class Tokens(Trial):
    """A row that trains a tokenizer, on the recording that the protocol's latents are of."""

    stage, suffix = "tokenizer", ".ckpt"

    def __init__(self, lab: Lab, row: Row) -> None:
        super().__init__(replace(lab, config=lab.tokenize), Candidate(row.name, row.why, row.overrides))
        self.row, self.minutes = row, lab.minutes
        self.settings: list[Any] = []  # what judgement depends on beside the file
        self.outcome: dict[str, Any] = {}

    @property
    def latents(self) -> Path:
        """Where the recording lies as this tokenizer gives it, once `encode` has been called."""
        return self.folder / "latents"

    def encode(self) -> None:
        """See `latents`; done once, and continued where it was interrupted."""
        encode(self.recordings(), load_tokenizer(self.path), self.latents)

    def wanted(self) -> dict[str, Any]:
        return {"data.data": self.recordings()}

    def recordings(self) -> list[str]:
        """Folders of what the protocol's latents are of."""
        return [str(recording.dataset.folder) for recording in recordings_of(self.store)]

    def export(self, truth: Truth) -> None:
        (self.folder / self.stage / "last.ckpt").rename(self.path)

    def evaluate(self, truth: Truth, features: FeatureDistance) -> dict[str, Any]:
        """Figures of held-out frames, there and back."""
        found = reconstruction(load_tokenizer(self.path), in_threes(truth.frames, STRIDE), features)
        return {"minutes": self.minutes, **self.logged("frames_per_second"), **found}

    def ready(self) -> Ready:
        tokenizer = load_tokenizer(self.path)
        parameters, size = sum(p.numel() for p in tokenizer.parameters()), megabytes(tokenizer)
        return Ready(seeing(tokenizer), 1, parameters, size)


class Player(Trial):
    """A row that plays: trained by itself, or another row's checkpoint pruned or played otherwise.

    `start`: the row that it starts from; `tokens`: the row whose tokenizer it takes; `kept`: see `Trial`.
    """

    def __init__(self, lab: Lab, row: Row, start: Player | None, tokens: Tokens | None, kept: dict[int, Any]) -> None:
        self.row, self.start = row, start
        candidate = Candidate(row.name, row.why, row.overrides)
        if tokens:
            candidate.latents, candidate.tokenizer = str(tokens.latents), str(tokens.path)
        elif start:
            candidate.latents, candidate.tokenizer = start.candidate.latents, start.candidate.tokenizer
        super().__init__(replace(lab, config=lab.config_of(row.stage)), candidate)
        self.kept, self.stage = kept, row.stage or ""
        self.minutes: float = (lab.minutes if row.stage else 0) + (start.minutes if start else 0)
        self.judged, self.outcome = row.judged, dict[str, Any]()
        if start and row.stage:
            self.init = ["--init", str(start.path)]
        elif row.checkpoint:
            self.path = Path(row.checkpoint)
        elif start:
            self.judged = {k: start.judged.get(k, {}) | row.judged.get(k, {}) for k in start.judged | row.judged}
            self.steps = start.steps
            self.path = self.path if row.prune else start.path
        self.steps = row.calls or self.steps
        judged = [row.play.precision, row.play.cache, row.play.merge, lab.revisit, list(lab.prompts)]
        self.settings: list[Any] = [self.steps, self.judged, *judged]
        if self.alike:
            self.settings.append(True)

    def fixed(self) -> list[Any]:
        fixed = [*super().fixed(), self.row.stage] if self.row.stage else []
        begins = self.start.path if self.start else Path(self.row.checkpoint or "")
        return [*fixed, self.row.prune, file_digest(begins) if begins.is_file() else None]

    @property
    def alike(self) -> bool:
        """Whether its frames are those of the row that it starts from, made in another way."""
        row, start = self.row, self.start
        if start is None or row.stage or row.prune or row.judged or row.calls:
            return False
        return row.play.alike and start.row.play.alike

    def train(self, again: bool) -> bool:
        if self.row.stage:
            return super().train(again)
        if self.row.prune and not self.ready_file(again):
            self.make_smaller()
        return True

    def make_smaller(self) -> None:
        """The file without the channels that add least in its own seed contexts."""
        assert self.start is not None
        loaded = self.start.open()
        latents = torch.stack([loaded.model.encode(each) for each in loaded.contexts_frames])
        found = pruning.importance(loaded.model, latents, loaded.contexts_actions)
        loaded.model, loaded.name, loaded.measured = pruning.prune(loaded.model, self.row.prune, found), self.name, None
        save(self.path, loaded)

    def judge(self, truth: Truth, features: FeatureDistance, key: Any, again: bool) -> dict[str, Any] | None:
        if not self.alike:
            return super().judge(truth, features, key, again)
        assert self.start is not None
        before = {k: v for k, v in self.start.outcome.items() if k != "frames_per_second"}
        result = before | {"key": key, "quality_of": before.get("quality_of", self.start.name)}
        write_atomic(self.result, json.dumps(tidy(result), indent=1, ensure_ascii=False))
        return result

    def open(self) -> Checkpoint:
        checkpoint = load(self.path)
        if self.judged:
            checkpoint.model = changed(checkpoint.model, self.judged, self.row.file)
        if self.steps:
            checkpoint.check_steps(self.steps)
        return checkpoint

    def accelerate(self, model: WorldModel) -> WorldModel:
        play = self.row.play
        precision.choose(model, play.precision)
        if play.packed:
            pack(model)
        if play.merge:
            merging.merge(model, play.merge)
        return model if play.cache is None else caching.cache(model, play.cache)

    def evaluate(self, truth: Truth, features: FeatureDistance) -> dict[str, Any]:
        return super().evaluate(truth, features) | {"minutes": self.minutes}

    def logged(self, *names: str) -> dict[str, float | None]:
        return super().logged(*names) if self.row.stage else dict.fromkeys(names)

    def ready(self) -> Ready:
        """Raises UserError where this machine cannot play it so."""
        checkpoint, play = self.open(), self.row.play
        model, parameters = checkpoint.model, checkpoint.parameters
        if play.onnx:
            folder = Path(self.protocol.runs, "trials", "onnx", file_digest(self.path))
            if not (folder / "context.onnx").exists():  # the last that is written
                export.export(model, folder, play.players)
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            onnx.run(model, folder)
        else:
            model = compiled(model, play) if play.compiled else self.accelerate(model)
            size = megabytes(model)
            if play.pipelined:
                pipelining.pipeline(model)
        which = torch.arange(play.players) % len(checkpoint.contexts_frames)
        actions = checkpoint.contexts_actions[which]
        state = model.start(checkpoint.contexts_frames[which], actions, torch.arange(play.players))
        led = cycle(actions.unbind(1))
        return Ready(lambda: model.step(state, next(led), self.steps), self.steps or model.steps, parameters, size)


def compiled(model: WorldModel, play: Play) -> WorldModel:
    """The model with compiled code in place; `UserError` with the reason where there is none."""
    said: list[str] = []
    precision.choose(model, play.precision)
    compilation.compile(model, play.players, said.append)
    pack(model)
    if model.compiling is not None:
        model.compiling.join()
    if not model.compiled:
        raise UserError(said[-1])
    return model


def changed(model: WorldModel, judged: dict[str, dict[str, Any]], file: str) -> WorldModel:
    """The same weights under another configuration; `UserError` that names the row's file where that is none."""
    config = model.config
    entries = {part: {k: tuple(v) if isinstance(v, list) else v for k, v in judged[part].items()} for part in judged}
    parts: dict[str, Any] = {}
    try:
        for part, new in entries.items():
            if part == "objective":
                parts[part] = make_objective(objective_entries(config.objective) | new)
            elif part in ("dynamics", "memory"):
                parts[part] = replace(getattr(config, part), **new)
            else:
                raise ValueError(f"{part} is no part of a checkpoint's configuration: dynamics, objective, memory are")
        other = WorldModel(replace(config, **parts))
        other.load_state_dict(model.state_dict())
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file}: the checkpoint cannot be judged so: {first_line(error)}") from None
    other.steps = model.steps
    return other.eval().requires_grad_(False)


def megabytes(network: nn.Module) -> float:
    """Of its weights as they are."""
    tensors: Sequence[torch.Tensor] = [*network.parameters(), *network.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6


def file_digest(path: Path) -> str:
    """16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
