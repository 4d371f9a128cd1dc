"""The run of a pipeline: its stages one after another, each skipped when it is there and fresh.

status = Runner(parse(arguments), arguments).run()
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_collect.dataset import INDEX
from data_collect.errors import UserError
from data_collect.shards.writer import write_atomic
from game_wm.device import usable
from game_wm.evaluation.options import SUITES
from train.pipeline.clock import LEAST, Clock
from train.pipeline.flags import again, in_own_words
from train.pipeline.plan import KINDS, Pipeline, Record
from train.pipeline.recording import record_apart
from train.pipeline.stage import Budget, Stage
from train.pipeline.stages import checkpoint_of, config_of, stages_of, values_of
from train.report.console import say
from train.stages.configuration import check_name, read_yaml

MARGIN = 4.0  # dB by which the tokenizer alone should be better than repeating, before dynamics is trained
MOST = 0.55  # of the minutes that are left when the tokenizer begins: it takes no more to reach `MARGIN`
ROUND = 0.5  # of its first share of the minutes: by so much it is trained further each time
ROUNDS = 4  # no more often than that: a round takes time to begin and to judge, too
EVALUATION = 0.25  # of the minutes, which are kept for the card, where there is to be one
EPISODES = 2  # of a recording, however few minutes there are: one is held out


class Runner:
    """Runs the stages of a `Pipeline` that are not complete. `arguments`: the command line that gave the plan."""

    def __init__(self, plan: Pipeline, arguments: list[str] | None = None) -> None:
        self.plan, self.arguments, self.folder = plan, arguments or [], plan.folder
        self.data = plan.data or plan.used_for("tokenizer", "latents", "level")
        reserve = EVALUATION * plan.minutes if plan.minutes and plan.evaluate.suites else 0.0
        self.clock = Clock(plan.minutes, self.folder / "pipeline.json", reserve)
        self.notes_at = self.folder / "stages.json"
        self.notes: dict[str, Any] = json.loads(self.notes_at.read_text()) if self.notes_at.is_file() else {}
        self.worked = False  # whether this run has done any stage's work

    def run(self) -> int:
        """Exit status; 0 with the checkpoint written and the next frame measured."""
        self.check()
        try:
            for folder, wanted in self.plan.to_record().items():
                if status := self.make_recording(folder, wanted):
                    return status
            self.look()
            for stage in self.stages:
                if status := self.advance(stage):
                    return status
            self.tell()
            return 0
        finally:
            self.clock.keep()

    # --- before anything is trained -----------------------------------------------------------------------------------

    def check(self) -> None:
        """`UserError` for whatever is known to fail before anything is recorded."""
        plan = self.plan
        if not plan.data and not all(wanted.game for wanted in plan.to_record().values()):
            raise UserError("which game? give --record.game maze, doom or gym:ID, or recordings with --data FOLDER")
        check_name(plan.name)
        self.device = usable(plan.device)
        if plan.minutes is not None and not plan.minutes > 0:
            raise UserError("--minutes must be more than 0")
        for name in plan.trained:
            wanted = plan.training(name)
            if not (config := config_of(wanted)).is_file():
                raise UserError(f"{config}: no such configuration for {name}; name one with --{name}.config")
            if not wanted.minutes and not wanted.steps:
                raise UserError(f"how long? give --{name}.minutes or --{name}.steps")
            if min(wanted.minutes or 1, wanted.steps or 1) <= 0:
                raise UserError(f"--{name}.minutes and --{name}.steps must be more than 0")
            read_yaml(str(config))
        if plan.init and not Path(plan.init).is_file():
            raise UserError(f"{plan.init}: no such checkpoint; name a playable one (.safetensors) with --init")
        if wrong := set(plan.evaluate.suites) - set(SUITES):
            raise UserError(f"--evaluate.suites: there is no suite {wrong.pop()!r}; there are {', '.join(SUITES)}")
        self.settings = {name: self.read(name) for name in plan.trained}
        self.stages = stages_of(plan, self.device)

    def read(self, name: str) -> Any:
        """A stage's configuration; the paths in it need not exist yet."""
        from train.stages.configuration import read_stage

        values = values_of(self.plan, name)
        if Path(values.get("init", "")).is_relative_to(self.folder):  # what is not trained yet
            del values["init"]
        with self.own_words(name):
            return read_stage(KINDS[name], config=config_of(self.plan.training(name)), values=values)

    @contextmanager
    def own_words(self, name: str) -> Iterator[None]:
        """A stage's or the recorder's `UserError` names the pipeline's flags in place of its own."""
        try:
            yield
        except UserError as error:
            given = self.plan.training(name).values if name in KINDS else ()
            raise UserError(in_own_words(name, str(error), given)) from error

    def make_recording(self, folder: Path, wanted: Record) -> int:
        """Record gameplay into a folder, fewer frames where minutes are few; exit status."""
        frames = wanted.frames
        if "contexts" not in wanted.use:
            frames = self.plan.scaled(frames, EPISODES * wanted.episode_frames)
        name = str(folder.relative_to(self.folder))
        made = [frames, wanted.game, wanted.player, wanted.seed, wanted.episode_frames]
        if self.plan.minutes and self.clock.recordings.get(name) in (made, frames) and (folder / INDEX).is_file():
            return 0  # with more frames, all that was trained on these would start anew
        say(f"record: {frames} frames of {wanted.game} into {folder}")
        values = {"out": str(folder), "game": wanted.game, "player": wanted.player, "frames": frames}
        values |= {"workers": wanted.workers, "seed": wanted.seed, "episode_frames": wanted.episode_frames}
        if self.plan.minutes and wanted.player != "human":
            values["minutes"] = round(self.clock.recording(), 2)
        began = time.monotonic()
        with self.own_words("record"):
            status = record_apart(values)
        if wanted.player == "human":
            self.clock.began += time.monotonic() - began  # a person's time is no training's
        self.clock.recordings[name] = 0 if status else made
        self.clock.keep()
        return status

    def look(self) -> None:
        """Warn of oddities in the recordings; `UserError` where nothing can be learnt from them."""
        from train.pipeline.outlook import outlook

        for line in outlook(self.data, self.settings, made=not self.plan.data):
            say(line)

    # --- stages -------------------------------------------------------------------------------------------------------

    def advance(self, stage: Stage) -> int:
        """Do what is left to do of a stage; exit status."""
        if stage.output is None:
            return stage.run(stage.budget)
        key, shared = stage.key(), bool(self.plan.minutes and stage.budget.minutes)
        found = self.notes.get(stage.name, {})
        budget = [stage.budget.minutes, stage.budget.steps, *([self.plan.minutes] if shared else [])]
        state = {"key": key, "budget": budget, "complete": True}
        begun = found.get("key") == key
        there = begun and stage.output.exists()
        room = self.room(stage) if shared and there and found["complete"] else None
        if there and (found == state or (room is not None and (room <= LEAST or self.good_enough(stage)))):
            say(f"{stage.name}: complete, skipped")
            return 0
        if stage.folder.exists() and not begun and stage.folder != self.folder:
            self.put_aside(stage)
        stage.folder.mkdir(parents=True, exist_ok=True)
        self.note(stage, {**state, "complete": False})
        self.clock.keep()
        status = self.share_out(stage, room) if shared else self.work(stage, stage.budget)
        if status == 0:
            self.note(stage, state)
        return status

    def note(self, stage: Stage, state: dict[str, Any]) -> None:
        """Write down how far a stage is."""
        self.notes[stage.name] = state
        write_atomic(self.notes_at, json.dumps(self.notes, indent=1))

    def put_aside(self, stage: Stage) -> None:
        """Keep what was made by other settings or of other inputs under another name."""
        old = next(p for i in range(1, 1000) if not (p := self.folder / f"{stage.name}-old-{i}").exists())
        stage.folder.rename(old)
        say(f"{stage.name}: its configuration or its input has changed; the old run is kept as {old}")
        if not self.worked:  # the settings have changed since the last run, so its minutes do not count
            self.clock.before = 0.0

    def work(self, stage: Stage, budget: Budget) -> int:
        """Run a stage until it has had its budget."""
        self.worked = True
        if stage.name in KINDS:
            say(f"{stage.name}: {budget.words(stage.had())}")
        with self.own_words(stage.name):
            return stage.run(budget)

    def share_out(self, stage: Stage, room: float | None) -> int:
        """Train a stage for its share of the minutes that are left, but for no more than `room`. The tokenizer trains
        longer while it is not better than repeating the last frame by `MARGIN`: later stages would be in vain."""
        later = self.stages[self.stages.index(stage) :]
        weights = {each.name: each.budget.minutes for each in later if each.budget.minutes}
        had = stage.had()
        minutes = self.clock.share(stage.name, weights, had)
        most, least = max(minutes, MOST * (self.clock.left + had)), (1 - MOST) * self.clock.left
        if room is not None:
            minutes, most = min(minutes, had + room), min(most, had + room)
        more = max(ROUND * minutes, (most - minutes) / ROUNDS)
        while True:
            if status := self.work(stage, replace(stage.budget, minutes=minutes)):
                return status
            over = minutes >= most or self.clock.left < least
            if stage.name != "tokenizer" or over or self.good_enough(stage):
                return 0
            minutes = min(most, minutes + more)

    def room(self, stage: Stage) -> float:
        """Minutes by which a complete stage can be trained further: those left, less what the later stages have had,
        since these then start anew and need as much again."""
        return self.clock.left - sum(each.had() for each in self.stages[self.stages.index(stage) + 1 :])

    def good_enough(self, stage: Stage) -> bool:
        """Whether the tokenizer is so good that more minutes are better spent on later stages."""
        from train.checkpoints import load_tokenizer
        from train.pipeline.outlook import tokenizer_and_repeat

        if stage.name != "tokenizer":
            return False
        tokenizer = load_tokenizer(checkpoint_of(self.plan, "tokenizer"), self.device)
        alone, repeat = tokenizer_and_repeat(tokenizer, self.data, self.settings["tokenizer"].data.held_out)
        say(f"tokenizer: {alone:.2f} dB on held-out frames, where repeating the last frame has {repeat:.2f} dB")
        return alone >= repeat + MARGIN

    # --- the result ---------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Print how good the model is, and what would make it better."""
        from train.diagnosis import Diagnosis, summary

        path, place = checkpoint_of(self.plan, "export"), self.folder / "diagnosis.json"
        report = json.loads(place.read_text())
        figures = Diagnosis(**{name: report[name] for name in ("frames", "psnr", "psnr_moving")})
        say(f"{path}, {path.stat().st_size / 2**20:.1f} MiB, after {self.clock.spent:.1f} minutes")
        say(f"play it: python -m game_wm play {shlex.quote(str(path))}")
        for line in summary(figures):
            say(line)
        longer = self.longer(figures.limit)
        say(f"train the {figures.limit} longer: {longer}")
        report |= {"gain": round(figures.gain, 2), "limit": figures.limit, "longer": longer}
        write_atomic(place, json.dumps(report, indent=1))

    def longer(self, stage: str) -> str:
        """The command that gives a stage twice the time."""
        wanted = self.plan.training(stage)
        if self.plan.minutes and wanted.minutes:
            return again(self.arguments, "--minutes", f"{2 * self.plan.minutes:g}")
        if wanted.minutes:
            return again(self.arguments, f"--{stage}.minutes", f"{2 * wanted.minutes:g}")
        return again(self.arguments, f"--{stage}.steps", f"{2 * (wanted.steps or 1)}")
