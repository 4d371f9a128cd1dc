"""How a pipeline's minutes are shared among its stages: by their own numbers, else by measurement.

    shares = Shares(plan, clock, settings, work, judge, rehearse)
    status = shares.train(stage, later, room)               # `later`: the stages behind it

Where every stage has minutes, they are weights. Where some have none, those that have get what they say. The tokenizer
goes on while its error is the larger part and it still gains; dynamics has all that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from game_wm.deadline import Deadline
from train.pipeline.clock import LEAST, Clock
from train.pipeline.outlook import Judged
from train.pipeline.plan import Pipeline
from train.pipeline.stage import Budget, Stage
from train.report.console import say, warn

ROUND, MOST = 0.1, 0.5  # of all minutes: a round of the tokenizer, and of those left when it begins, all its rounds
# dB by which the tokenizer alone should be better than repeating: after a short training, what prediction adds to the
# error of the next frame is a tenth of repeating's (docs/decisions/pipeline-minutes.md).
MARGIN = 10.0
GAIN = 0.5  # dB: a round that brings less is the last
FIRST = 0.05  # of all minutes: the first part of dynamics tells how fast it trains, and what export takes
OPEN = {"geometry": 1, "geometry_motion": 1, "dynamics": 5, "distill": 1}  # weights of stages without minutes
USEFUL = 5  # times its warm-up: a training of fewer steps is none
DISTILLING = 4.0  # steps of dynamics in the time of one of distillation
TEACHER = 1.5  # times as long as without takes an export with the teacher


@dataclass
class Shares:
    """`settings`: the stages' configurations. `work` trains a stage up to a budget and returns its exit status, `judge`
    measures the tokenizer, `rehearse` times an export, `leave_out` takes distillation out of the plan."""

    plan: Pipeline
    clock: Clock
    settings: Mapping[str, Any]
    work: Callable[[Stage, Budget], int]
    judge: Callable[[], Judged]
    rehearse: Callable[[], None]
    leave_out: Callable[[], None]
    promised: bool = False  # whether distillation has its minutes

    def train(self, stage: Stage, later: Sequence[Stage], room: float | None) -> int:
        """Train a stage for its share, but for no more than `room`; exit status."""
        among = [each for each in (stage, *later) if each.budget.shared]
        if stage.name == "tokenizer" and not stage.budget.minutes:
            return self.rounds(stage, room)
        if stage.name == "dynamics" and (status := self.begin(stage)):
            return status
        if stage.name == "dynamics" and among[1:]:
            self.promised = self.worthwhile(among[1], self.minutes(among[1], among), stage.rate())
            if self.promised:
                self.clock.kept["export"] *= TEACHER
            else:
                self.leave_out()
                among = among[:1]
        minutes, had = self.minutes(stage, among), stage.had()
        if room is not None:
            minutes = min(minutes, had + room)
        if had:
            self.warn_of_few(stage, minutes)
        budget = replace(stage.budget, minutes=minutes)
        if not among[1:]:  # the last of all has no later one to make up for what it takes to begin
            seconds = 60 * (minutes - had + self.clock.start - self.clock.after)
            budget = replace(budget, deadline=Deadline(seconds))
        status = self.work(stage, budget)
        if not had:
            self.warn_of_few(stage, minutes)
        return status

    def minutes(self, stage: Stage, among: Sequence[Stage]) -> float:
        """The share of one of the stages that are left, the first of which may have been trained already."""
        had, own = among[0].had(), {each.name: each.budget.minutes or 0.0 for each in among}
        pool = self.clock.left + had - self.clock.start * len(among)
        weights = self.weights(own, pool)
        share = pool * weights[stage.name] / sum(weights.values())
        if self.measured and own[stage.name]:
            share = min(share, own[stage.name])
        return max(share, stage.had() + LEAST)

    @property
    def measured(self) -> bool:
        """Whether some stage of the plan has no minutes of its own."""
        trainings = [self.plan.training(name) for name in self.plan.trained]
        return any(not (each.minutes or each.steps) for each in trainings)

    def weights(self, own: dict[str, float], left: float) -> dict[str, float]:
        """Of stages with their `own` minutes, or with none: these have the rest of the minutes `left`."""
        rest = max(0.0, left - sum(own.values()))
        among = sum(OPEN[name] for name, minutes in own.items() if not minutes) or 1
        return {name: minutes or max(rest * OPEN[name] / among, 1e-3) for name, minutes in own.items()}

    def begin(self, stage: Stage) -> int:
        """Train the first part of dynamics, and time an export of it; exit status."""
        first = FIRST * (self.clock.total or 0.0)
        if self.clock.left < 2 * (first + self.clock.start) + self.clock.kept["export"]:  # there is no time to try
            return 0
        if stage.had() < first and (status := self.work(stage, replace(stage.budget, minutes=first))):
            return status
        if not self.clock.measured:
            self.rehearse()
        return 0

    def rounds(self, stage: Stage, room: float | None) -> int:
        """Train the tokenizer as long as it is worth it; exit status."""
        assert self.clock.total is not None
        minutes, before, least = stage.had(), None, (1 - MOST) * self.clock.left
        most = max(MOST * (self.clock.left + minutes), minutes + LEAST)
        most = min(most, minutes + room) if room is not None else most
        while True:
            minutes = min(most, minutes + ROUND * self.clock.total)
            if status := self.work(stage, replace(stage.budget, minutes=minutes)):
                return status
            now = self.judge()
            say(f"tokenizer: {now}")
            if before is None:
                self.warn_of_few(stage, most)
            if minutes >= most or self.clock.left < least or not goes_on(now, before):
                return 0
            before = now

    def worthwhile(self, distill: Stage, minutes: float, rate: float) -> bool:
        """Whether so many minutes of distillation are more than its warm-up, beside `rate` steps of dynamics a
        minute; says so where they are not."""
        warmup, steps = self.settings["distill"].warmup, rate / DISTILLING * minutes
        if self.promised or steps >= USEFUL * warmup:
            return True
        say(f"distill: left out: {minutes:.1f} minutes are about {steps:.0f} steps, {warmup} of them warm-up, and less "
            f"than {USEFUL * warmup} is no distillation; dynamics has its minutes")  # fmt: skip
        return False

    def warn_of_few(self, stage: Stage, minutes: float) -> None:
        """Warn where a stage's minutes cannot hold it."""
        useful, rate = USEFUL * self.settings[stage.name].warmup, stage.rate()
        if self.clock.total is None or rate * minutes >= useful:
            return
        needed = useful / max(rate, 1e-3)
        total = self.clock.total + (needed - minutes) / MOST
        warn(f"{stage.name}: {minutes:.1f} minutes are about {rate * minutes:.0f} steps, and less than {useful} is no "
             f"training: give --minutes {math.ceil(total)}")  # fmt: skip


def goes_on(now: Judged, before: Judged | None = None) -> bool:
    """Whether the tokenizer is worth further minutes: its error is the larger part of the next frame's, in all pixels
    or where something moves, and the last round has made that smaller."""
    lacking = [i for i, (alone, repeat) in enumerate(zip(now.alone, now.repeat)) if alone < repeat + MARGIN]
    return bool(lacking) and (before is None or max(now.alone[i] - before.alone[i] for i in lacking) >= GAIN)
