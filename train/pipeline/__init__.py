"""From nothing to a model that plays: record, tokenizer, encode, geometry (for a model with episodic memory), dynamics,
distill, export, and what the result is worth.

    python -m train pipeline --config configs/maze/quick.yaml [--name N] [--minutes 30] [--data FOLDER FOLDER]

Everything lies under RUNS/NAME/. Run it again and it continues: what is complete is skipped, a stage with a longer
budget trains on, a stage whose configuration or whose input has changed starts anew (its old folder is kept beside it).
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_collect.errors import UserError
from data_collect.shards.writer import write_atomic
from game_wm.device import usable
from train import locate
from train.pipeline.clock import LEAST, Clock
from train.pipeline.plan import Pipeline, again, in_own_words, parse, read_yaml
from train.pipeline.recording import record
from train.report.console import say
from train.stages.configuration import check_name

MARGIN = 4.0  # dB by which the tokenizer alone should be better than repeating, before dynamics is trained
MOST = 0.55  # of the minutes that are left when it begins, which the tokenizer may take for that
ROUND = 0.5  # of its first part, by which it trains on


class Runner:
    """Runs the stages of a `Pipeline` that are not complete. `arguments`: what the plan was read from."""

    def __init__(self, plan: Pipeline, arguments: list[str] | None = None) -> None:
        self.plan, self.arguments, self.folder = plan, arguments or [], Path(plan.runs, plan.name)
        self.stages = plan.stages
        self.data = plan.data or [str(self.folder / "data")]
        self.clock = Clock(plan.minutes, self.folder / "pipeline.json")
        self.trained = False  # whether any stage was, in this run

    def run(self) -> int:
        """Exit status; 0 with the checkpoint written and the next frame measured."""
        self.check()
        try:
            if not self.plan.data and (status := self.record()):
                return status
            self.look()
            for stage in self.stages:
                if status := self.train(stage):
                    return status
                if stage == "tokenizer":
                    self.encode()
                if stage == "geometry":
                    self.draw_views()
            return self.export()
        finally:
            self.clock.keep()

    # --- before anything is trained -----------------------------------------------------------------------------------

    def check(self) -> None:
        """`UserError` for what can be told to go wrong before anything is recorded."""
        plan = self.plan
        if not plan.record.game and not plan.data:
            raise UserError("which game? give --record.game ID, for one of `maze` or gym:ID, or --data FOLDER")
        check_name(plan.name)
        self.device = usable(plan.device)
        if plan.minutes is not None and not plan.minutes > 0:
            raise UserError("--minutes must be more than 0")
        for stage in self.stages:
            if not (config := self.config(stage)).is_file():
                raise UserError(f"{config}: no such configuration for {stage}; name one with --{stage}.config")
            self.budget(stage)
            read_yaml(str(config))
        if plan.init and not Path(plan.init).is_file():
            raise UserError(f"{plan.init}: no such checkpoint; name a playable one (.safetensors) with --init")
        self.settings = {stage: self.read(stage) for stage in self.stages}

    def read(self, stage: str) -> Any:
        """A stage's configuration as it will read it; the paths in it need not be there yet."""
        from train.stages.configuration import read_stage

        arguments = self.arguments_of(stage)
        if stage == "distill":  # begins with dynamics that is not trained yet
            at = arguments.index("--init")
            arguments = arguments[:at] + arguments[at + 2 :]
        with self.own_words(stage):
            return read_stage(stage, arguments)

    @contextmanager
    def own_words(self, stage: str) -> Iterator[None]:
        """What a stage or the recorder says goes to somebody who knows the flags of the pipeline."""
        try:
            yield
        except UserError as error:
            flags = [] if stage == "record" else self.plan.stage(stage).flags
            raise UserError(in_own_words(stage, str(error), flags)) from error

    def record(self) -> int:
        """Gameplay into RUNS/NAME/data; exit status."""
        wanted, out = self.plan.record, self.folder / "data"
        flags = [word for name, value in asdict(wanted).items() for word in (f"--{name.replace('_', '-')}", str(value))]
        if self.plan.minutes and self.clock.recorded == wanted.frames:
            return 0  # what more time would add would make all that was trained on it begin anew
        say(f"record: {wanted.frames} frames of {wanted.game} into {out}")
        if self.plan.minutes and wanted.player != "human":
            flags += ["--minutes", f"{self.clock.recording():.2f}"]
        with self.own_words("record"):
            status = record([*flags, "--out", str(out)])
        if wanted.player == "human":
            self.clock.began = time.monotonic()  # a person's time is no training's
        self.clock.recorded = 0 if status else wanted.frames
        self.clock.keep()
        return status

    def look(self) -> None:
        """Say what is odd about the recordings; `UserError` where nothing can be learnt from them."""
        from train.pipeline.outlook import outlook

        for line in outlook(self.data, self.settings, made=not self.plan.data):
            say(line)

    # --- stages -------------------------------------------------------------------------------------------------------

    def config(self, stage: str) -> Path:
        """A stage's configuration file."""
        return Path(locate(self.plan.stage(stage).config))

    def arguments_of(self, stage: str) -> list[str]:
        """Flags of a stage without its budget."""
        plan, folder = self.plan, self.folder
        flags = ["--config", str(self.config(stage)), "--name", plan.name, "--runs", plan.runs, "--wandb", plan.wandb]
        if plan.init and stage in ("tokenizer", "dynamics"):
            flags += ["--init", plan.init]
        if stage == "tokenizer":
            return [*flags, "--data.data", json.dumps(self.data), *plan.tokenizer.flags]
        flags += ["--data.latents", str(folder / "latents")]
        flags += ["--model.tokenizer", str(folder / "tokenizer" / "last.ckpt")]
        if "geometry" in self.stages and stage != "geometry":
            flags += ["--model.geometry", str(folder / "geometry" / "last.ckpt")]
        if "geometry" in self.stages and stage == "dynamics":
            flags += ["--model.dynamics.recall", "true", "--model.dynamics.warp", "true"]
        if stage == "distill":
            flags += ["--init", str(folder / "dynamics" / "last.ckpt")]
        return [*flags, *plan.stage(stage).flags]

    def key(self, stage: str) -> str:
        """Hash of all that a stage's weights depend on, its own budget apart: what it is told, and by their content the
        recordings and the weights that it takes. Where all that lies does not count."""
        from train.checkpoints import weights_hash
        from train.data.frames import open_recordings

        content = {k: v for k, v in read_yaml(str(self.config(stage))).items() if k not in ("minutes", "steps")}
        parts: list[Any] = [self.plan.stage(stage).flags, content]
        parts += [recording.key for recording in open_recordings(self.data)]
        if self.plan.init and stage in ("tokenizer", "dynamics"):
            parts.append(hashlib.sha256(Path(self.plan.init).read_bytes()).hexdigest())
        for before in self.stages[: self.stages.index(stage)]:
            parts.append(weights_hash(self.folder / before / "last.ckpt"))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def budget(self, stage: str) -> list[Any]:
        """What a stage is given: its minutes and steps and, where minutes are shared out, those of all."""
        wanted = self.plan.stage(stage)
        if not wanted.minutes and not wanted.steps:
            raise UserError(f"how long? give --{stage}.minutes or --{stage}.steps")
        if min(wanted.minutes or 1, wanted.steps or 1) <= 0:
            raise UserError(f"--{stage}.minutes and --{stage}.steps must be more than 0")
        return [wanted.minutes, wanted.steps, *([self.plan.minutes] if self.plan.minutes and wanted.minutes else [])]

    def train(self, stage: str) -> int:
        """Train a stage, continue it, or skip it."""
        folder, key, budget = self.folder / stage, self.key(stage), self.budget(stage)
        state = {"key": key, "budget": budget, "complete": True}
        path, last = folder / "stage.json", folder / "last.ckpt"
        found = json.loads(path.read_text()) if path.is_file() else None
        begun = (found or {}).get("key") == key
        same = begun and last.exists()
        shared = bool(self.plan.minutes and self.plan.stage(stage).minutes)
        room = self.room(stage) if shared and same and (found or {}).get("complete") else None
        if same and (found == state or (room is not None and (room <= LEAST or self.good_enough(stage)))):
            say(f"{stage}: complete, skipped")
            return 0
        if folder.exists() and not begun:
            old = next(p for i in range(1, 1000) if not (p := self.folder / f"{stage}-old-{i}").exists())
            folder.rename(old)
            say(f"{stage}: its configuration or its input has changed; the old run is kept as {old}")
            if not self.trained:  # what changed is what was asked for
                self.clock.restart()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({**state, "complete": False}))
        self.clock.keep()
        wanted = self.plan.stage(stage).minutes
        status = self.share_out(stage, room) if shared else self.train_for(stage, wanted)
        if status == 0:
            write_atomic(path, json.dumps(state))
        return status

    def train_for(self, stage: str, minutes: float | None) -> int:
        """Train a stage until it has had so many minutes, or the steps that it is given."""
        from train.stages.cli import run_stage

        steps, had = self.plan.stage(stage).steps, self.had(stage)
        before = f", {had:.1f} of them behind it" if had else ""
        say(f"{stage}: {f'{minutes:.1f} minutes{before}' if minutes else f'{steps} steps'}")
        budget = ["--minutes", json.dumps(minutes), "--steps", json.dumps(steps)]
        self.trained = True
        with self.own_words(stage):
            return run_stage(stage, [*self.arguments_of(stage), *budget, "--resume", "--device", self.plan.device])

    def share_out(self, stage: str, room: float | None) -> int:
        """Train a stage for its part of the minutes that are left, but no more than `room`; the tokenizer longer, while
        it is no better than repeating the last frame by `MARGIN`, as nothing else is worth training then."""
        later = self.stages[self.stages.index(stage) :]
        parts = {name: minutes for name in later if (minutes := self.plan.stage(name).minutes)}
        had = self.had(stage)
        minutes = self.clock.share(stage, parts, had)
        most, more = max(minutes, MOST * (self.clock.left + had)), ROUND * minutes
        if room is not None:
            minutes, most = min(minutes, had + room), min(most, had + room)
        while True:
            if status := self.train_for(stage, minutes):
                return status
            if stage != "tokenizer" or minutes >= most or self.good_enough(stage):
                return 0
            minutes = min(most, minutes + more)

    def had(self, stage: str) -> float:
        """Minutes that a stage has been trained."""
        from train.checkpoints import trained_minutes

        return trained_minutes(self.folder / stage / "last.ckpt")

    def room(self, stage: str) -> float:
        """Minutes by which a complete stage can be trained on: those behind it, which begin anew then, get as many
        as they have had."""
        return self.clock.left - sum(self.had(name) for name in self.stages[self.stages.index(stage) + 1 :])

    def good_enough(self, stage: str) -> bool:
        """Whether the tokenizer is so good that more minutes are better spent on what follows it."""
        from train.checkpoints import load_tokenizer
        from train.pipeline.outlook import tokenizer_and_repeat

        if stage != "tokenizer":
            return False
        tokenizer = load_tokenizer(self.folder / "tokenizer" / "last.ckpt", self.device)
        alone, repeat = tokenizer_and_repeat(tokenizer, self.data, self.settings["tokenizer"].data.held_out)
        say(f"tokenizer: {alone:.2f} dB on held-out frames, where repeating the last frame has {repeat:.2f} dB")
        return alone >= repeat + MARGIN

    def encode(self) -> None:
        """Latents of all frames into RUNS/NAME/latents; `encode` knows itself whether they are there."""
        from train.checkpoints import load_tokenizer
        from train.data.encode import encode
        from train.report.machine import use_all_cores

        use_all_cores()
        tokenizer = load_tokenizer(self.folder / "tokenizer" / "last.ckpt", self.device)
        encode(self.data, tokenizer, self.folder / "latents", self.device)

    def draw_views(self) -> None:
        """What the denoiser is shown of every frame, beside the latents."""
        from train.checkpoints import load_memory, load_tokenizer
        from train.first_person.draw_views import draw_views

        memory = load_memory(self.folder / "geometry" / "last.ckpt", self.device)
        tokenizer = load_tokenizer(self.folder / "tokenizer" / "last.ckpt", self.device)
        draw_views(self.folder / "latents", memory, tokenizer)

    # --- the result ---------------------------------------------------------------------------------------------------

    def export(self) -> int:
        """The playable checkpoint; the last lines say what it is worth, and what would make it better."""
        from train.diagnosis import summary
        from train.export import export

        path, figures = export(self.folder, self.plan.name, self.folder, self.plan.contexts, self.plan.prompt)
        say(f"{path}, {path.stat().st_size / 2**20:.1f} MiB, after {self.clock.spent:.1f} minutes")
        say(f"play it: python -m game_wm play {shlex.quote(str(path))}")
        assert figures is not None  # its own recording is there
        for line in summary(figures):
            say(line)
        longer = self.longer(figures.limit)
        say(f"train the {figures.limit} longer: {longer}")
        report = figures.to_json() | {"gain": round(figures.gain, 2), "limit": figures.limit, "longer": longer}
        write_atomic(self.folder / "diagnosis.json", json.dumps(report, indent=1))
        return 0

    def longer(self, stage: str) -> str:
        """The command that gives a stage twice the time."""
        wanted = self.plan.stage(stage)
        if self.plan.minutes and wanted.minutes:
            return again(self.arguments, "--minutes", f"{2 * self.plan.minutes:g}")
        if wanted.minutes:
            return again(self.arguments, f"--{stage}.minutes", f"{2 * wanted.minutes:g}")
        return again(self.arguments, f"--{stage}.steps", f"{2 * (wanted.steps or 1)}")


def main(arguments: list[str]) -> int:
    """`python -m train pipeline`."""
    return Runner(parse(arguments), arguments).run()
