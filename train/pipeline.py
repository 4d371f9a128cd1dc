"""From nothing to a model that plays: record, tokenizer, encode, geometry (for a model with episodic memory), dynamics,
distill, export, and a first look.

    python -m train pipeline --config configs/maze/quick.yaml [--name N] [--dynamics.minutes 60]

Everything lies under RUNS/NAME/. Run it again and it continues: what is complete is skipped, a stage with a longer
budget trains on, a stage whose configuration or whose input has changed starts anew (its old folder is kept beside it).
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser

from data_collect.commandline import explained
from data_collect.errors import UserError
from data_collect.shards import write_atomic
from game_wm.device import usable
from train import locate
from train.report import check_name, say

RESERVE = 1.5  # minutes that encoding, export and the look at the result take of `limit`


@dataclass
class Record:
    """What to record, as `python -m data_collect record` takes it."""

    game: str = ""
    player: str = "random"
    frames: int = 40_000
    episode_frames: int = 1_000
    workers: int = 2
    seed: int = 0


@dataclass
class Stage:
    """A training stage: its configuration file, its budget, and further flags."""

    config: str = ""
    minutes: float | None = None
    steps: int | None = None
    flags: list[str] = field(default_factory=list)


@dataclass
class Pipeline:
    """The whole path.

    Args:
        name: of the run and of the checkpoint, `RUNS/NAME/NAME.safetensors`.
        init: a playable checkpoint (.safetensors) to tune on the recording, tokenizer and dynamics.
        geometry: of episodic memory; without a configuration the model has none.
        distill: without a configuration (`--distill.config ""`) the dynamics plays as it is.
        limit: minutes that all of it may take; the stages' minutes are shortened in proportion where it would not fit.
        contexts: beginnings of dreams in the checkpoint.
        prompt: real frames of each.
        device: cpu, cuda, cuda:1 or mps; auto: cuda where there is one.
    """

    name: str
    record: Record
    tokenizer: Stage
    dynamics: Stage
    distill: Stage = field(default_factory=Stage)
    geometry: Stage = field(default_factory=Stage)
    runs: str = "runs"
    init: str | None = None
    limit: float | None = None
    contexts: int = 8
    prompt: int = 32
    wandb: str = "offline"
    device: str = "auto"


class Runner:
    """Runs the stages of a `Pipeline` that are not complete."""

    def __init__(self, plan: Pipeline) -> None:
        self.plan, self.folder = plan, Path(plan.runs, plan.name)
        self.began = time.monotonic()
        memory = ["geometry"] if plan.geometry.config else []
        student = ["distill"] if plan.distill.config else []
        self.stages = ["tokenizer", *memory, "dynamics", *student]

    def run(self) -> int:
        """Exit status; 0 with the checkpoint written and the next frame measured."""
        if not self.plan.record.game:
            raise UserError("which game? give --record.game ID, for one of `maze` or gym:ID")
        check_name(self.plan.name)
        self.device = usable(self.plan.device)
        for stage in self.stages:
            if not (config := self.config(stage)).is_file():
                raise UserError(f"{config}: no such configuration for {stage}; name one with --{stage}.config")
            self.budget(stage)
            read_yaml(str(config))
        if self.plan.init and not Path(self.plan.init).is_file():
            raise UserError(f"{self.plan.init}: no such checkpoint; name a playable one (.safetensors) with --init")
        if status := self.record():
            return status
        for stage in self.stages:
            if status := self.train(stage):
                return status
            if stage == "tokenizer":
                self.encode()
            if stage == "geometry":
                self.draw_views()
        return self.export()

    def record(self) -> int:
        """Gameplay into RUNS/NAME/data, in a process of its own (which needs no PyTorch)."""
        wanted = {key.replace("_", "-"): value for key, value in asdict(self.plan.record).items()}
        flags = [str(part) for key, value in wanted.items() for part in (f"--{key}", value)]
        out = str(self.folder / "data")
        say(f"record: {self.plan.record.frames} frames of {self.plan.record.game} into {out}")
        recorder = subprocess.Popen([sys.executable, "-m", "data_collect", "record", *flags, "--out", out])
        # Ctrl-C reaches the recorder by itself, SIGTERM has to be passed on.
        before = signal.signal(signal.SIGTERM, lambda *_: recorder.terminate())
        try:
            status = recorder.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
        return status if status >= 0 else 128 - status

    def encode(self) -> None:
        """Latents of all frames into RUNS/NAME/latents; `encode` knows itself whether they are there."""
        from train.encode import encode
        from train.machine import use_all_cores
        from train.tokenizer import load_tokenizer

        use_all_cores()
        tokenizer = load_tokenizer(self.folder / "tokenizer" / "last.ckpt", self.device)
        encode([str(self.folder / "data")], tokenizer, self.folder / "latents", self.device)

    def draw_views(self) -> None:
        """What the denoiser is shown of every frame, beside the latents."""
        from train.geometry import load_geometry
        from train.tokenizer import load_tokenizer
        from train.views import draw_views

        geometry = load_geometry(self.folder / "geometry" / "last.ckpt", self.device)
        tokenizer = load_tokenizer(self.folder / "tokenizer" / "last.ckpt", self.device)
        draw_views(self.folder / "latents", geometry, tokenizer)

    def config(self, stage: str) -> Path:
        """A stage's configuration file."""
        return Path(locate(getattr(self.plan, stage).config))

    def arguments(self, stage: str) -> list[str]:
        """Flags of a stage without its budget."""
        wanted: Stage = getattr(self.plan, stage)
        plan, folder = self.plan, self.folder
        flags = ["--config", str(self.config(stage)), "--name", plan.name, "--runs", plan.runs, "--wandb", plan.wandb]
        if plan.init and stage in ("tokenizer", "dynamics"):
            flags += ["--init", plan.init]
        if stage == "tokenizer":
            return [*flags, "--data.data", json.dumps([str(folder / "data")]), *wanted.flags]
        flags += ["--data.latents", str(folder / "latents")]
        flags += ["--model.tokenizer", str(folder / "tokenizer" / "last.ckpt")]
        if "geometry" in self.stages and stage != "geometry":
            flags += ["--model.geometry", str(folder / "geometry" / "last.ckpt")]
        if "geometry" in self.stages and stage == "dynamics":
            flags += ["--model.dynamics.recall", "true", "--model.dynamics.warp", "true"]
        if stage == "distill":
            flags += ["--init", str(folder / "dynamics" / "last.ckpt")]
        return [*flags, *wanted.flags]

    def key(self, stage: str) -> str:
        """Hash of all that a stage's weights depend on, its own budget apart."""
        content = {k: v for k, v in read_yaml(str(self.config(stage))).items() if k not in ("minutes", "steps")}
        parts: list[Any] = [self.arguments(stage), content]
        ahead = self.stages.index(stage)
        before = self.stages[max(0, ahead - 1) : ahead]
        parts += [[self.key(name), self.budget(name)] for name in before] or [asdict(self.plan.record)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def budget(self, stage: str) -> list[Any]:
        """Minutes and steps of a stage as configured."""
        wanted: Stage = getattr(self.plan, stage)
        if not wanted.minutes and not wanted.steps:
            raise UserError(f"how long? give --{stage}.minutes or --{stage}.steps")
        if min(wanted.minutes or 1, wanted.steps or 1) <= 0:
            raise UserError(f"--{stage}.minutes and --{stage}.steps must be more than 0")
        return [wanted.minutes, wanted.steps]

    def minutes(self, stage: str) -> float | None:
        """Minutes of a stage, shortened where `limit` asks for it."""
        configured = getattr(self.plan, stage).minutes
        if configured is None or self.plan.limit is None:
            return configured
        ahead = sum(getattr(self.plan, name).minutes or 0 for name in self.stages[self.stages.index(stage) :])
        left = self.plan.limit - (time.monotonic() - self.began) / 60 - RESERVE
        return configured * max(0.05, min(1.0, left / ahead))

    def train(self, stage: str) -> int:
        """Train a stage, continue it, or skip it."""
        from train.stage import run_stage

        folder, key, budget = self.folder / stage, self.key(stage), self.budget(stage)
        state = {"key": key, "budget": budget, "complete": True}
        path = folder / "stage.json"
        found = json.loads(path.read_text()) if path.is_file() else None
        if found == state and (folder / "last.ckpt").exists():
            say(f"{stage}: complete, skipped")
            return 0
        if folder.exists() and (found or {}).get("key") != key:
            old = next(p for i in range(1, 1000) if not (p := self.folder / f"{stage}-old-{i}").exists())
            folder.rename(old)
            say(f"{stage}: its configuration or its input has changed; the old run is kept as {old}")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({**state, "complete": False}))
        minutes, steps = self.minutes(stage), budget[1]
        flags = [
            "--minutes",
            json.dumps(minutes),
            "--steps",
            json.dumps(steps),
            "--resume",
            "--device",
            self.plan.device,
        ]
        say(f"{stage}: {f'{minutes:.1f} minutes' if minutes else f'{steps} steps'}")
        status = run_stage(stage, [*self.arguments(stage), *flags])
        if status == 0:
            write_atomic(path, json.dumps(state))
        return status

    def export(self) -> int:
        """The playable checkpoint, and how well it predicts the next frame."""
        from train.checkpoints import check_card
        from train.export import export, tell_next_frame

        path = export(self.folder, self.plan.name, self.folder, self.plan.contexts, self.plan.prompt)
        minutes = (time.monotonic() - self.began) / 60
        say(f"{path}, {path.stat().st_size / 2**20:.1f} MiB, after {minutes:.1f} minutes")
        say(f"play it: python play.py {path}")
        settings = check_card(self.folder / "dynamics" / "last.ckpt")["game_wm"]["settings"]
        tell_next_frame(path, self.folder / "latents", settings["data"]["held_out"])
        return 0


def read_yaml(path: str) -> dict[str, Any]:
    """A configuration file as it stands; `UserError` when it is none."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no configuration file: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration file: it has no entries")
    return content


def parse(arguments: list[str]) -> Pipeline:
    """The plan that a configuration file and flags describe; `UserError` when they do not."""
    parser = ArgumentParser(prog="python -m train pipeline", description=__doc__, exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="configuration file (YAML)")
    parser.add_class_arguments(Pipeline)
    try:
        options = parser.instantiate_classes(parser.parse_args(arguments))
    except ArgumentError as error:
        raise UserError(f"{explained(error, parser)} (see `python -m train pipeline --help`)") from None
    return Pipeline(**{key: value for key, value in vars(options).items() if key != "config"})


def main(arguments: list[str]) -> int:
    """`python -m train pipeline`."""
    return Runner(parse(arguments)).run()
