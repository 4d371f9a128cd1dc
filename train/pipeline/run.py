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

from data_collect.errors import UserError
from data_collect.shards.index import INDEX
from data_collect.shards.writer import write_atomic
from game_wm.device import usable
from game_wm.evaluation.options import SUITES
from train.camera.evidence import refuse_others
from train.data.recordings import open_recordings
from train.pipeline.clock import LEAST, Clock
from train.pipeline.encoding import Encoding
from train.pipeline.flags import in_own_words, longer_command
from train.pipeline.memory import choose, with_memory
from train.pipeline.outlook import Judged, judged
from train.pipeline.plan import KINDS, Pipeline, Record, Training
from train.pipeline.recording import record_apart
from train.pipeline.shares import Shares, goes_on
from train.pipeline.stage import Budget, Stage
from train.pipeline.stages import check_training, checkpoint_of, config_of, geometries, stages_of, values_of
from train.report.console import say
from train.stages.configuration import check_name

EPISODES = 2  # of a recording, however few minutes there are: one is held out


class Runner:
    """Runs the stages of a `Pipeline` that are not complete. `arguments`: the command line that gave the plan."""

    def __init__(self, plan: Pipeline, arguments: list[str] | None = None) -> None:
        self.plan, self.arguments, self.folder = plan, arguments or [], plan.folder
        self.data = plan.data or plan.used_for("tokenizer", "latents", "level")
        self.clock = Clock(plan.minutes, self.folder / "pipeline.json")
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
            done = set[str]()
            while stage := next((each for each in self.stages if each.name not in done), None):
                done.add(stage.name)
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
            raise UserError("which game? --record.game maze, gym:ID or pygame:FILE.py, or a recording: --data FOLDER")
        check_name(plan.name)
        self.device = usable(plan.device)
        if plan.minutes is not None and not plan.minutes > 0:
            raise UserError("--minutes must be more than 0")
        for name in plan.trained:
            check_training(self.plan, name)
        if plan.init and not Path(plan.init).is_file():
            raise UserError(f"{plan.init}: no such checkpoint; name another (.safetensors) with --init, or --init none")
        if wrong := set(plan.evaluate.suites) - set(SUITES):
            raise UserError(f"--evaluate.suites: there is no suite {wrong.pop()!r}; there are {', '.join(SUITES)}")
        self.settings = {name: self.read(name) for name in plan.trained}
        self.stages = stages_of(plan, self.device)
        self.clock.divide([stage.name for stage in self.stages])
        self.encoding = Encoding(plan, self.clock, self.settings["tokenizer"], self.device)
        self.shares = Shares(plan, self.clock, self.settings, self.work, self.judge, self.rehearse, self.leave_out)

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
        told = f"{frames} frames of {wanted.game} into {folder}"
        if self.plan.minutes and "contexts" not in wanted.use:
            most = max(round(frames * self.encoding.share()), EPISODES * wanted.episode_frames)
            if most < frames:
                told, frames = f"{most} of {told}, since more would take too long to encode", most
        say(f"record: {told}")
        values = {name: getattr(wanted, name) for name in ("game", "player", "workers", "seed", "episode_frames")}
        values |= {"out": str(folder), "frames": frames}
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
        self.choose_memory()
        self.encoding.keep_back(self.encoding.seconds)

    def choose_memory(self) -> None:
        """Take the memory that fits the camera, if that is open. `UserError`: a first-person one is wanted in vain."""
        if self.plan.memory == "auto" and not geometries(self.plan):
            found = choose(self.data, self.notes.get("memory", {}))
            say(found["told"])
            self.note("memory", found)
            self.change(with_memory(self.plan, found["memory"]))
            self.clock.divide([stage.name for stage in self.stages])
        elif "geometry" in self.settings and not self.settings["geometry"].model.any_camera:
            with self.own_words("geometry"):
                refuse_others(open_recordings(self.data))

    # --- stages -------------------------------------------------------------------------------------------------------

    def advance(self, stage: Stage) -> int:
        """Do what is left to do of a stage; exit status."""
        if stage.output is None:
            return stage.run(Budget(deadline=self.clock.deadline(stage.name)))
        key, shared = stage.key(), stage.budget.shared
        found = self.notes.get(stage.name, {})
        budget = [stage.budget.minutes, stage.budget.steps, *([self.plan.minutes] if shared else [])]
        state, begun = {"key": key, "budget": budget, "complete": True}, found.get("key") == key
        there = begun and stage.output.exists()
        room = self.room(stage) if shared and there and found["complete"] else None
        if there and (found == state or (room is not None and (room <= LEAST or self.good_enough(stage)))):
            say(f"{stage.name}: complete, skipped")
            self.clock.kept.pop(stage.name, None)
            return 0
        if shared and stage.name == "distill" and not there:
            minutes, rate = self.shares.minutes(stage, [stage]), self.stage("dynamics").rate()
            if not self.shares.worthwhile(stage, minutes, rate):
                self.leave_out()
                return 0
        if stage.folder.exists() and not begun and stage.folder != self.folder:
            self.put_aside(stage)
        stage.folder.mkdir(parents=True, exist_ok=True)
        self.note(stage.name, {**state, "complete": False})
        self.clock.keep()
        if shared:
            status = self.shares.train(stage, self.later(stage), room)
        elif stage.name in self.clock.most:
            status = self.work(stage, replace(stage.budget, deadline=self.clock.deadline(stage.name)))
        else:
            status = self.work(stage, stage.budget)
        if status == 0:
            self.note(stage.name, state)
        return status

    def note(self, name: str, state: dict[str, Any]) -> None:
        """Write down how far a stage is."""
        self.notes[name] = state
        self.folder.mkdir(parents=True, exist_ok=True)
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
        self.worked, began, had = True, time.monotonic(), stage.had()
        if stage.name in KINDS:
            say(f"{stage.name}: {budget.words(had)}")
        with self.own_words(stage.name):
            status = stage.run(budget)
        if stage.name == "export":
            self.clock.exported((time.monotonic() - began) / 60)
            del self.clock.kept["export"]
        if stage.trains:
            self.clock.start = max(0.0, (time.monotonic() - began) / 60 - (stage.had() - had))
            if stage.output is not None and stage.output.exists():  # written when its training ended
                self.clock.after = min(self.clock.start, (time.time() - stage.output.stat().st_mtime) / 60)
        return status

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(each for each in self.stages if each.name == name)

    def later(self, stage: Stage) -> list[Stage]:
        """The stages behind this one."""
        return self.stages[self.stages.index(stage) + 1 :]

    def room(self, stage: Stage) -> float:
        """Minutes that a complete stage can go on: those left, less what the later ones, which start anew, have had."""
        return self.clock.left - sum(each.had() for each in self.later(stage))

    def good_enough(self, stage: Stage) -> bool:
        """Whether the tokenizer is so good that more minutes are better spent on later stages."""
        return stage.name == "tokenizer" and not goes_on(self.judge())

    def judge(self) -> Judged:
        """How good the tokenizer is; how long it will take to encode is kept back."""
        from train.checkpoints import load_tokenizer
        from train.data.encode import Encoder

        tokenizer = load_tokenizer(checkpoint_of(self.plan, "tokenizer"), self.device)
        self.encoding.keep_back(Encoder(tokenizer, self.device).seconds)
        return judged(tokenizer, self.data, self.settings["tokenizer"].data.held_out)

    def rehearse(self) -> None:
        """Export what there is: how long that takes is kept back, and what it is worth is told."""
        began = time.monotonic()
        self.stage("export").run(Budget())
        self.clock.exported((time.monotonic() - began) / 60)
        figures = json.loads((self.folder / "diagnosis.json").read_text())["psnr"]
        say(f"so far: next frame {figures['next_frame']:.2f} dB, repeating {figures['repeat']:.2f} dB")

    def leave_out(self) -> None:
        """Go on without distillation; the dynamics plays by itself."""
        if (old := self.stage("distill")).folder.exists():
            self.put_aside(old)
        self.change(replace(self.plan, distill=Training()))

    def change(self, plan: Pipeline) -> None:
        """Go on with another plan."""
        self.plan = self.shares.plan = self.encoding.plan = plan
        for name in set(plan.trained) - set(self.settings):
            check_training(self.plan, name)
            self.settings[name] = self.read(name)
        self.stages = stages_of(plan, self.device)

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
        longer = longer_command(self.plan, self.arguments, figures.limit)
        say(f"train the {figures.limit} longer: {longer}")
        report |= {"gain": round(figures.gain, 2), "limit": figures.limit, "longer": longer}
        write_atomic(place, json.dumps(report, indent=1))
