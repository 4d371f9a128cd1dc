"""What to measure, on how much of it, and what a suite has found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data_collect.errors import UserError
from game_wm.deadline import NEVER, Deadline
from game_wm.library import reference

if TYPE_CHECKING:
    from PIL import Image

HELD_OUT_EPISODES = 64
CACHE = Path("runs/evaluation")
SUITES = ("fidelity", "sprites", "control", "stability", "revisit", "dream", "cost")
FIRST_HELD_OUT_SEED = 90_000  # recorded training seeds never reach this far
WHOLE = 8  # episodes from which on the networks that measure are trained on all that the protocol gives them
LEAST_FRAMES = 24  # of a stability run: three windows of eight


class Found(NamedTuple):
    """Figures of a suite by the card's keys, and pictures by what follows NAME: "" the contact sheet of fidelity,
    "-revisit" and "-returns" those of revisit, "-ways" of dream. `whole`: no more of this suite is to come. `episodes`:
    seeds that it is of, where that is told."""

    suite: str
    results: dict[str, Any]
    pictures: dict[str, Image.Image]
    whole: bool = True
    episodes: int | None = None


@dataclass(frozen=True)
class Options:
    """What to measure and on how much of it. Fewer episodes are a smaller sample of the same protocol."""

    suites: tuple[str, ...] = SUITES
    episodes: int = HELD_OUT_EPISODES
    frames: int | None = None  # of the stability and cost runs; None: 10,000, fewer for less than 16 episodes
    steps: int | None = None  # denoiser calls a frame; None: the checkpoint's own
    cache: Path | None = CACHE  # where the inverse-dynamics network is kept
    inverse_plays: int | None = None  # None: the protocol's
    inverse_updates: int | None = None
    prompts: tuple[int, ...] | None = None  # frames of revisit's prompts; None: the protocol's
    window: Path | None = None  # revisit compares with this file; None: NAME-window.safetensors, if it is there
    first: int | None = None  # the first held-out seed; None: FIRST_HELD_OUT_SEED, which the committed cards are of
    precision: str = "auto"  # of the window-only model and of the cost run; the model itself comes as it is
    device: str = "cpu"  # the same
    deadline: Deadline = NEVER  # what does not end before is left out, episodes or suites

    def __post_init__(self) -> None:
        unknown = [suite for suite in self.suites if suite not in SUITES]
        if unknown or not self.suites:
            raise UserError(f"unknown suite {', '.join(unknown) or '(none)'}: --suite takes {', '.join(SUITES)}")
        for name in ("episodes", "frames", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if "stability" in self.suites and self.long < LEAST_FRAMES:
            raise UserError(f"--frames must be at least {LEAST_FRAMES} for the suite stability, got {self.frames}")
        if self.first is not None and not 0 <= self.first < 2**31 - 1000:
            raise UserError(f"--first-seed must lie between 0 and 2147482647, got {self.first}")
        if self.prompts is not None and min(self.prompts, default=0) < 1:
            raise UserError("--prompts takes numbers of frames, such as 256,1024")

    def seeds(self, count: int) -> range:
        """So many held-out seeds. Training's are drawn at random of 2^31."""
        first = FIRST_HELD_OUT_SEED if self.first is None else self.first
        return range(first, first + count)

    @property
    def runs(self) -> int:
        """Runs of each kind in the dream suite."""
        return min(32, self.episodes)

    @property
    def dreams(self) -> int:
        """Dreams of the stability suite."""
        return min(16, self.episodes)

    @property
    def long(self) -> int:
        """Frames of a long run."""
        return self.frames or max(1000, 10_000 * self.dreams // 16)

    def share(self, whole: int) -> int:
        """So much of a network's training: all of it from `WHOLE` episodes on, in proportion below."""
        return max(1, whole * min(self.episodes, WHOLE) // WHOLE)

    def window_of(self, checkpoint: Path | None) -> Path | None:
        """The file of the model without long memory that revisit compares with, if there is one.

        `UserError` when the one named is missing.
        """
        if self.window is not None and not self.window.is_file():
            raise UserError(f"--window {self.window}: no such file")
        if self.window is not None or checkpoint is None:
            return self.window
        return reference(checkpoint, f"{checkpoint.stem}-window.safetensors")
