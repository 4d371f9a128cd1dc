"""How long encoding takes here, and drawing memory's views: what is kept back for them, and how many frames fit.

encoding = Encoding(plan, clock, settings["tokenizer"], "cpu")
frames = encoding.share() * frames                          # before anything is recorded
encoding.keep_back(encoding.seconds)                        # once it is
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from train.data.recordings import open_recordings
from train.pipeline.clock import Clock
from train.pipeline.plan import Pipeline

VIEWS = 6  # times as long as encoding takes drawing memory's views


@dataclass
class Encoding:
    """`settings`: the tokenizer's configuration."""

    plan: Pipeline
    clock: Clock
    settings: Any
    device: str

    @cached_property
    def seconds(self) -> float:
        """How long a tokenizer of this size takes for a frame; 0 where no minutes are given."""
        from game_wm.model.config import build
        from game_wm.model.tokenizer import Tokenizer, TokenizerConfig
        from train.data.encode import Encoder

        if not self.plan.minutes:
            return 0.0
        sizes = build(TokenizerConfig, self.settings.model.tokenizer.as_dict())
        return min(Encoder(Tokenizer(sizes), self.device).seconds for _ in range(3))

    def share(self) -> float:
        """Of the frames to record, whose encoding and whose views the minutes can hold."""
        minutes = min(self.clock.most["latents"], self.clock.most.get("views", math.inf) / VIEWS)
        frames = sum(each.frames for each in self.plan.to_record().values() if "contexts" not in each.use)
        return 60 * minutes / (self.seconds * frames)

    def keep_back(self, seconds: float) -> None:
        """Keep minutes back for what was recorded, at so many seconds a frame."""
        for stage, uses in (("latents", ["latents"]), ("level", ["latents", "level"])):
            if self.plan.minutes and (folders := self.plan.used_for(*uses)):
                minutes = seconds / 60 * sum(recording.frames for recording in open_recordings(folders))
                self.clock.keep_back(stage, minutes)
                if stage == "latents":
                    self.clock.keep_back("views", VIEWS * minutes)
