"""Quality levels: how much precision is traded for frames a second. All of it is one table, `QUALITY_LEVELS`.

    prepare(model, QUALITY_LEVELS["fast"])      # in place, for one quality only
    quality = Quality(model, "auto", fps=20)    # for play that changes it
    quality.model, quality.calls                # what plays the next frame
    quality.record_frame_time(seconds)          # "auto" lowers the level where frames are late, and says so

A state goes on under any level: they differ in how a frame is computed, not in what is remembered. No level takes more
denoiser calls than the checkpoint's, eight bits or a pruned network: see docs/decisions/faster-frames.md.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

from game_wm import acceleration
from game_wm.acceleration.controller import Controller
from game_wm.world import WorldModel


@dataclass(frozen=True)
class Level:
    """`precision`: see `precision.choose`; `compiled`: whether the model is compiled in the background of play."""

    precision: str
    compiled: bool


QUALITY_LEVELS = {
    "fast": Level(precision="auto", compiled=True),
    "balanced": Level(precision="auto", compiled=False),
    "best": Level(precision="32", compiled=False),
}
USUAL = "balanced"
AUTO = "auto"


def prepare(model: WorldModel, level: Level) -> WorldModel:
    """The same model at this level, changed in place."""
    device = next(model.parameters()).device.type
    return acceleration.prepare(model, level.precision, device, level.compiled)


class Quality:
    """A model at every level; a level's is made from a copy when it is first asked for.

    `wanted`: a level, or "auto": the usual one as long as it holds `fps` frames a second (0: no rate to hold), a
    cheaper one otherwise. `steps`, `precision`, `compiled` apply to every level, if they are given. With `only` the
    first level stays, and the model itself is changed instead of a copy.
    """

    def __init__(
        self,
        model: WorldModel,
        wanted: str = AUTO,
        fps: float = 0.0,
        *,
        steps: int | None = None,
        precision: str | None = None,
        compiled: bool = False,
        only: bool = False,
    ) -> None:
        self._plain, self._fps, self._only = model, fps, only
        self._usual = steps or model.steps
        self._levels = {
            name: replace(level, precision=precision or level.precision, compiled=level.compiled or compiled)
            for name, level in QUALITY_LEVELS.items()
        }
        self._models: dict[tuple[str, bool], WorldModel] = {}
        self.rungs = [("fast", self._usual), (USUAL, self._usual)]
        while steps is None and model.config.objective.adjustable and self.rungs[0][1] > 1:
            self.rungs.insert(0, ("fast", self.rungs[0][1] // 2))
        self.set(wanted)

    def set(self, wanted: str) -> None:
        self.wanted = wanted
        self._control = Controller(len(self.rungs), 1 / self._fps, len(self.rungs) - 1) if self._fps else None
        self._take(USUAL if wanted == AUTO else wanted, self._usual)

    def next(self) -> None:
        """Play at the next level, "auto" after the last one."""
        names = [*QUALITY_LEVELS, AUTO]
        self.set(names[(names.index(self.wanted) + 1) % len(names)])

    def record_frame_time(self, seconds: float) -> str | None:
        """Judge another frame; a sentence where the quality changes for it.

        Frames do not count while the compiler runs beside play: it slows them down.
        """
        if self.wanted != AUTO or self._control is None or self.compiling:
            return None
        before, rung = self._control.at, self._control.record_frame_time(seconds)
        if rung is None:
            return None
        self._take(*self.rungs[rung])
        how = "lowered" if rung < before else "raised"
        return (
            f"quality {how} to {self.name} ({self.calls} call{'s' if self.calls > 1 else ''}): {self._fps:g} frames/s"
        )

    @property
    def compiling(self) -> bool:
        thread = self.model.compiling
        return thread is not None and thread.is_alive()

    @property
    def label(self) -> str:
        how = ", compiling" if self.compiling else ", compiled" if self.model.compiled else ""
        return ("auto: " if self.wanted == AUTO else "") + self.name + how

    def _take(self, name: str, calls: int) -> None:
        self.name, self.calls, level = name, calls, self._levels[name]
        kind = level.precision, level.compiled
        if kind not in self._models:
            self._models[kind] = prepare(self._plain if self._only else deepcopy(self._plain), level)
        self.model = self._models[kind]
