"""How good a model's next frame is, beside repeating the last one, and which stage is worth more training.

    figures = measure(model, held_out)              # dB of the tokenizer alone, the next frame, repeating
    for line in summary(figures): print(line)       # the last lines of a pipeline

The error of a frame has two parts: what the tokenizer loses, and what prediction adds. More training pays most for the
larger one. No frame is better than the tokenizer alone: where that is worse than repeating, nothing else helps.

Legend: S prompts, P frames of one, H, W pixels, A encoded action.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from game_wm.evaluation.metrics import pooled_psnr, squared_error
from game_wm.evaluation.rollout import round_trip
from game_wm.pictures import moving
from game_wm.world import WorldModel

if TYPE_CHECKING:
    from train.assemble import SeedContexts

FRAMES_BEFORE = 32  # real frames before the one that is judged, or as many as an episode has
PROMPTS_AT_ONCE = 16


@dataclass
class Diagnosis:
    """PSNR in dB over all pixels, and over those where something moves, of `tokenizer`, `next_frame`, `repeat` and,
    where there is one, the `teacher`'s next frame; `frames`: how many were judged."""

    frames: int
    psnr: dict[str, float]
    psnr_moving: dict[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """dB by which the next frame is better than the last one again."""
        return self.psnr["next_frame"] - self.psnr["repeat"]

    @property
    def limit(self) -> str:
        """The stage whose part of the next frame's error is the largest."""
        error = {name: 10 ** (-value / 10) for name, value in self.psnr.items()}
        predicted = min(error["next_frame"], error.get("teacher", error["next_frame"]))
        parts = {
            "tokenizer": error["tokenizer"],
            "dynamics": predicted - error["tokenizer"],
            "distill": error["next_frame"] - predicted,
        }
        if self.psnr["tokenizer"] <= self.psnr["repeat"]:
            return "tokenizer"
        return max(parts, key=lambda name: parts[name])

    def to_json(self) -> dict[str, Any]:
        """For `diagnosis.json`, to a hundredth of a dB."""
        rounded = {name: {key: round(value, 2) for key, value in getattr(self, name).items()}
                   for name in ("psnr", "psnr_moving")}  # fmt: skip
        return asdict(self) | rounded

    def of(self, model: str) -> dict[str, Any]:
        """For the metadata of the checkpoint whose next frame that is: `next_frame` or `teacher`."""
        own = {"tokenizer": "tokenizer", "next_frame": model, "repeat": "repeat"}
        whole = self.to_json()
        parts = {name: {key: whole[name][own[key]] for key in own} for name in ("psnr", "psnr_moving") if whole[name]}
        return {"frames": self.frames} | parts


@torch.no_grad()
def next_frames(model: WorldModel, held_out: SeedContexts) -> Tensor:
    """The last frame of each prompt (S, H, W, 3) as the model draws it after those before."""
    frames, actions, poses, _ = held_out
    prompt, made = frames.shape[1] - 1, []
    for first in range(0, len(frames), PROMPTS_AT_ONCE):
        part = slice(first, first + PROMPTS_AT_ONCE)
        placed = None if poses is None else poses[part, :prompt]
        state = model.start(frames[part, :prompt], actions[part, : prompt - 1], torch.arange(len(frames[part])), placed)
        made.append(model.step(state, actions[part, prompt - 1])[0].frames)
    return torch.cat(made)


def measure(model: WorldModel, held_out: SeedContexts, teacher: WorldModel | None = None) -> Diagnosis:
    """The figures of a model, and of the teacher that it was distilled from."""
    frames = held_out.frames
    truth, rendered = frames[:, -1], {"tokenizer": round_trip(model, frames)}
    rendered |= {"next_frame": next_frames(model, held_out), "repeat": frames[:, -2]}
    if teacher is not None:
        rendered["teacher"] = next_frames(teacher, held_out)
    figures = Diagnosis(len(frames), {name: dB(truth, each) for name, each in rendered.items()})
    if held_out.medians is not None and (mask := moving(truth, held_out.medians)).any():
        figures.psnr_moving = {name: dB(truth, each, mask) for name, each in rendered.items()}
    return figures


def dB(truth_BHWC: Tensor, shown_BHWC: Tensor, mask_BHW: Tensor | None = None) -> float:
    """PSNR over all pixels of all pictures, or over those of the mask."""
    return pooled_psnr(squared_error(truth_BHWC, shown_BHWC, mask_BHW))


LABELS = {
    "tokenizer": "tokenizer alone",
    "next_frame": "next frame, held-out episodes",
    "teacher": "next frame of the teacher",
    "repeat": "repeat the last frame",
}
REASONS = {
    "tokenizer": "no frame can be better than the tokenizer alone, and most of the error is the tokenizer's",
    "dynamics": "the tokenizer would allow more: most of the error is the dynamics'",
    "distill": "the teacher's frames are better: most of the error came with distillation",
}


def summary(figures: Diagnosis) -> list[str]:
    """The figures, a line each, and what they mean; a warning where repeating the last frame would be better."""
    lines = [f"{LABELS[name] + ':':32}{figures.psnr[name]:6.2f} dB{_moving(figures, name)}" for name in LABELS
             if name in figures.psnr]  # fmt: skip
    reason = REASONS[figures.limit]
    if figures.gain <= 0:
        return [*lines, f"warning: WORSE than repeating the last frame, by {-figures.gain:.2f} dB: {reason}"]
    return [*lines, f"better than repeating the last frame, by {figures.gain:.2f} dB; {reason}"]


def _moving(figures: Diagnosis, name: str) -> str:
    return f", {figures.psnr_moving[name]:.2f} dB where something moves" if name in figures.psnr_moving else ""
