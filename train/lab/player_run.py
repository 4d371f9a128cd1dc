"""A row that plays: trained by itself, or a finished checkpoint that is pruned or played otherwise.

run = PlayerRun(protocol, row)
run.outcome = run.finished(question) or run.judge(truth, features, question)
run.timed().tick()                                      # one frame, as it is played
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data_collect.errors import UserError
from data_collect.files import save_picture
from game_wm.acceleration import pruning
from game_wm.checkpoint import Checkpoint, load, save
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.fidelity import Fidelity
from game_wm.evaluation.options import FIRST_HELD_OUT_SEED
from game_wm.evaluation.places.revisit import revisit
from game_wm.evaluation.report.sheet import draw
from game_wm.evaluation.rollout import roll
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import Truth
from game_wm.world import WorldModel
from train.assemble import assemble
from train.checkpoints import load_dynamics, load_memory, load_tokenizer, read_checkpoint
from train.data.encode import tokenizer_hash
from train.lab.played import Timed, accelerated, reconfigured, timed_player
from train.lab.protocol import Protocol, Row
from train.lab.runs import Run, TokenizerRun, file_digest
from train.report.machine import count_flops

SEED_CONTEXTS = 8  # of a file, at most
TRIED = ("name", "why", "overrides", "latents", "tokenizer", "geometry", "memory")  # what a result says of its row


class PlayerRun(Run):
    """A row that plays: trained by itself, or a finished checkpoint that is pruned or played otherwise.

    `tokens`: the run whose tokenizer and latents it takes; `visits`: of the revisit suite, those that have been played.
    """

    suffix = ".safetensors"
    start: PlayerRun | None

    def __init__(
        self,
        protocol: Protocol,
        row: Row,
        start: PlayerRun | None = None,
        tokens: TokenizerRun | None = None,
        visits: dict[int, Any] | None = None,
    ) -> None:
        if tokens:
            row = replace(row, latents=str(tokens.latents), tokenizer=str(tokens.path))
        elif start:
            row = replace(row, latents=start.row.latents, tokenizer=start.row.tokenizer)
        super().__init__(protocol, row, start)
        self.visits = {} if visits is None else visits
        self.tokenizer = row.tokenizer or protocol.tokenizer
        self.steps, self.judged = row.calls or protocol.steps, row.judged
        if row.checkpoint:
            self.path = Path(row.checkpoint)
        elif start and not row.stage:
            self.steps = row.calls or start.steps
            self.judged = {k: start.judged.get(k, {}) | row.judged.get(k, {}) for k in start.judged | row.judged}
            self.path = self.path if row.prune else start.path

    def inputs(self) -> list[Any]:
        row, found = self.row, super().inputs()
        if row.family is None:
            return found
        begins = self.start.path if self.start else Path(row.checkpoint or "")
        found = [*found, row.stage] if row.stage else []
        return [*found, row.prune, file_digest(begins) if begins.is_file() else None]

    def result_key(self, question: str) -> list[Any]:
        row, protocol = self.row, self.protocol
        if row.family is None:
            return [self.key, question, self.steps or 1]
        play = [row.play.precision, row.play.cache, row.play.merge, protocol.revisit, list(protocol.prompts)]
        settings = [self.steps, self.judged, *play, *([True] if self.same_frames else [])]
        return [self.key, question, settings, self.start.outcome["key"] if self.start else None]

    @property
    def same_frames(self) -> bool:
        """Whether its frames are those of the row that it starts from, made in another way."""
        row, start = self.row, self.start
        if start is None or row.stage or row.prune or row.judged or row.calls:
            return False
        return row.play.same_frames and start.row.play.same_frames

    def data_flags(self) -> dict[str, Any]:
        latents = self.store.folders if len(self.store.folders) > 1 else self.store.folders[0]
        if self.store.index["tokenizer"] != tokenizer_hash(load_tokenizer(self.tokenizer)):
            raise UserError(f"{latents} was not encoded with {self.tokenizer}: name the tokenizer that it was")
        geometry = {"model.geometry": self.geometry} if self.geometry else {}
        return {"data.latents": latents, "model.tokenizer": self.tokenizer, **geometry}

    def train(self) -> None:
        if self.row.stage:
            super().train()
        elif self.row.prune and not self.prepare_folder():
            assert self.start is not None
            save(self.path, replace(pruning.pruned(self.start.open(), self.row.prune), name=self.name))

    def export(self, truth: Truth) -> None:
        """The playable file, whose seed contexts are the protocol's own prompts; the training checkpoint goes."""
        last = self.folder / (self.row.stage or "") / "last.ckpt"
        tokenizer, (network, objective) = load_tokenizer(self.tokenizer), load_dynamics(last)
        memory = load_memory(self.geometry if network.config.views else None)
        state, prompt = read_checkpoint(last), truth.prompt
        steps = self.protocol.steps or state["game_wm"]["settings"]["model"].get("student_steps")
        model = assemble(tokenizer, network, objective, memory, steps, self.row.memory if memory.config else None)
        trained = {**state["game_wm"]["trained"], "steps": state["global_step"]}
        seeds = truth.frames[:SEED_CONTEXTS, :prompt], truth.actions[:SEED_CONTEXTS, : prompt - 1]
        save(self.path, Checkpoint(model, self.store.schema, self.store.game, *seeds, trained, self.name, self.path))
        last.unlink()

    def judge(self, truth: Truth, features: FeatureDistance, question: str) -> dict[str, Any]:
        if not self.same_frames:
            return super().judge(truth, features, question)
        assert self.start is not None
        before = {k: v for k, v in self.start.outcome.items() if k not in ("frames_per_second", "key")}
        return self.keep(question, before | {"quality_of": before.get("quality_of", self.start.name)})

    def open(self) -> Checkpoint:
        checkpoint = load(self.path)
        if self.judged:
            checkpoint.model = reconfigured(checkpoint.model, self.judged, self.row.file)
        if self.steps:
            checkpoint.check_steps(self.steps)
        return checkpoint

    def evaluate(self, truth: Truth, features: FeatureDistance) -> dict[str, Any]:
        checkpoint, score = self.open(), Fidelity(features, self.protocol.horizons)
        model = checkpoint.model
        state = model.start(checkpoint.contexts_frames[:1], checkpoint.contexts_actions[:1], torch.tensor([0]))
        with torch.no_grad(), count_flops() as counter:
            model.step(state, truth.actions[:1, truth.prompt - 1], self.steps)
        parameters = sum(p.numel() for p in model.dynamics.parameters())
        model = accelerated(model, self.row.play)
        rollout = roll(model, truth, self.steps)
        score.add(model, truth, rollout)
        save_picture(self.result.with_suffix(".png"), draw(truth, rollout))
        return {
            "candidate": {name: getattr(self.row, name) for name in TRIED},
            "minutes": self.minutes,
            "parameters": parameters,
            "gflop_per_frame": counter.get_total_flops() / 1e9,
            "steps": checkpoint.trained.get("steps"),
            **self.logged("samples_per_second", "frames_per_second", "machine_gflops", "flow"),
            "fidelity": score.result(),
            "revisit": self.revisit(model, features),
        }

    def revisit(self, model: WorldModel, features: FeatureDistance) -> dict[str, Any]:
        """The figures of the revisit suite, {} where the protocol does not ask for it."""
        if not self.protocol.revisit:
            return {}
        seeds = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + self.protocol.revisit)
        with RealGame(self.store.game) as game:
            return revisit(model, game, features, seeds, self.protocol.prompts, steps=self.steps, kept=self.visits)[0]

    def timed(self) -> Timed:
        """Raises UserError where this machine cannot play it so."""
        onnx_files = Path(self.protocol.runs, "trials", "onnx", file_digest(self.path))
        return timed_player(self.open(), self.row.play, self.steps, onnx_files)
