"""What training on recordings will come to, told before minutes are spent: what is odd about them, how short windows
have to be, and what repeating the last frame is worth.

    for line in outlook(["runs/mine/data"], {"tokenizer": ..., "dynamics": ...}, made=True): print(line)
    print(judged(tokenizer, ["runs/mine/data"], 0.04))

Legend: B frames, H, W pixels.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.shards import check
from game_wm.evaluation.metrics import PSNR_CAP
from game_wm.evaluation.rollout import round_trip
from game_wm.model.tokenizer import Tokenizer
from game_wm.pictures import moving
from train.data.frames import PooledFrames, mixed
from train.data.recordings import Recording, open_recordings
from train.data.spans import fitting_length, split_recordings
from train.diagnosis import dB

JUDGED = 256  # held-out frames
FATAL = ("empty", "constant")
# What else to do, of what is odd; of a recording that the pipeline makes.
REMEDIES = {
    "tiny": "in --record.game 'ID?width=…&height=…'",
    "still": "take every other frame with --record.game 'ID?skip=2', or another --record.player",
    "unused": "another --record.player, or more --record.frames",
}


def outlook(data: Sequence[str], settings: Mapping[str, Any], made: bool) -> Iterator[str]:
    """Lines to print. `settings`: the stages' configurations; `made`: whether the pipeline has recorded the data
    itself. `UserError` where nothing can be learnt, or nothing is left to begin dreams with."""
    recordings = open_recordings(data)
    for recording in recordings:
        yield from _odd(recording, made, alone=len(recordings) == 1)
    lengths, dynamics = [recording.lengths for recording in recordings], settings["dynamics"].data
    held_out = split_recordings(lengths, dynamics.held_out, validation=True)
    if max((span.frames for span in held_out), default=0) < 2:
        remedy = "more --record.frames" if made else "longer ones"
        raise UserError(
            f"{_named(recordings)}: {sum(map(sum, lengths))} frames are too few to hold some out, with which dreams "
            f"begin: record {remedy}"
        )
    yield from _short(recordings, settings, made)
    repeat = repeated(held_out_frames(recordings, dynamics.held_out))
    if repeat >= PSNR_CAP:
        raise UserError(
            f"{_named(recordings)}: the picture never changes from one frame to the next, so nothing can be learnt: "
            + ("try another --record.player" if made else "record one where it does")
        )
    yield f"outlook: repeating the last frame has {repeat:.2f} dB on held-out frames; a model must be better"


def _odd(recording: Recording, made: bool, alone: bool) -> Iterator[str]:
    """What is odd about the pictures and the actions of one recording; the lengths of episodes are another matter."""
    dataset = recording.dataset
    for finding in check.findings(check.measure(dataset)):
        if finding.kind in FATAL:
            raise UserError(
                f"{dataset.folder}: {finding.sentence} Look at it: `python -m data_collect inspect "
                f"{shlex.quote(str(dataset.folder))} --sheet sheet.png`"
            )
        if finding.kind == "short" or (finding.kind == "unused" and not alone):
            continue
        remedy = f" ({REMEDIES[finding.kind]})" if made and finding.kind in REMEDIES else ""
        yield f"outlook: {dataset.folder}: {finding.sentence}{remedy}"


def _short(recordings: Sequence[Recording], settings: Mapping[str, Any], made: bool) -> Iterator[str]:
    """Which stages' windows will be shorter than configured, and how to have longer ones."""
    lengths = [recording.lengths for recording in recordings]
    shortened = []
    for stage, wanted in settings.items():
        if stage != "tokenizer":
            frames = [span.frames for span in split_recordings(lengths, wanted.data.held_out, validation=False)]
            length = fitting_length(frames, wanted.data.length)
            shortened += [f"{stage} {length} instead of {wanted.data.length}"] if length < wanted.data.length else []
    if not shortened:
        return
    remedy = f"; for longer ones, {longer_episodes(recordings)}" if made else ""
    median = int(np.median([n - 1 for each in lengths for n in each]))
    yield f"outlook: episodes have {median} steps (median), so windows are shorter: {', '.join(shortened)}{remedy}"


def longer_episodes(recordings: Sequence[Recording]) -> str:
    """What makes episodes longer, by what ends most of them: the recorder, the game's own limit, or its rules."""
    ends = [(ref, r.dataset.settings["episode_frames"]) for r in recordings for ref in r.dataset.index if ref.last]
    if sum(ref.truncated and ref.start + ref.frames >= limit for ref, limit in ends) > len(ends) / 2:
        return "--record.episode_frames"
    ways = ["--record.game 'ID?skip=1'"] if recordings[0].dataset.game.startswith(("gym:", "pygame:")) else []
    if sum(ref.terminated for ref, _ in ends) > len(ends) / 2:
        ways.append("--record.player with one that lasts longer")
    return " or ".join(ways) or "another limit of the game's own"


def _named(recordings: Sequence[Recording]) -> str:
    return ", ".join(str(recording.dataset.folder) for recording in recordings)


def held_out_frames(recordings: list[Recording], held_out: float) -> Tensor:
    """The median picture of its episode and three held-out frames (B, 4, H, W, 3), evenly spread, without an episode's
    first; of all if none are held out."""
    source = PooledFrames(recordings, 0, held_out, 1)
    source.row, source.still = 3, True
    rows = [source.rows([span._replace(start=span.start + 1, frames=span.frames - 1)])
            for span in source.held_out or source.spans if span.frames > 1]  # fmt: skip
    every = np.concatenate(rows)
    return torch.from_numpy(source.in_rows(every[mixed(len(every), JUDGED)]))


def repeated(rows_BTHWC: Tensor) -> float:
    """dB of repeating the last frame."""
    return dB(rows_BTHWC[:, -1], rows_BTHWC[:, -2])


class Judged(NamedTuple):
    """dB of the tokenizer alone on held-out frames, and of repeating the frame before: over all pixels and, where any
    are, over those where something moves."""

    alone: list[float]
    repeat: list[float]

    def __str__(self) -> str:
        told = [f"{alone:.2f} dB, where repeating the last frame has {repeat:.2f} dB"
                for alone, repeat in zip(self.alone, self.repeat)]  # fmt: skip
        return "; where something moves ".join(told)


def judged(tokenizer: Tokenizer, data: Sequence[str], held_out: float) -> Judged:
    """How good a tokenizer is."""
    rows = held_out_frames(open_recordings(data), held_out)
    truth, made, mask = rows[:, -1], round_trip(tokenizer, rows[:, 1:]), moving(rows[:, -1], rows[:, 0])
    masks = [None, mask] if mask.any() else [None]
    return Judged(*([dB(truth, each, where) for where in masks] for each in (made, rows[:, -2])))
