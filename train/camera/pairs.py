"""Neighbouring pictures of a recording, to look for its camera: of some episodes to learn from, and of others to judge.

    learnt, judged = stretches(open_recordings(["runs/mine/data"]))
    pairs = pairs_of(judged, 96)

Pictures much larger than 64 pixels are averaged down to about that.

Legend: N pairs, T frames of a stretch, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.dataset import evenly
from data_collect.errors import UserError
from game_wm.memory.scroll.registration import COMPARED
from train.data.frames import PooledFrames
from train.data.recordings import Recording

EPISODES, LONGEST = 4, 100  # of each part, at most: episodes, and frames of each to learn from


class Pairs(NamedTuple):
    """Pictures uint8 (N, H, W, 3) and those a frame later."""

    before: Tensor
    now: Tensor


def stretches(recordings: list[Recording]) -> tuple[list[Tensor], list[Tensor]]:
    """Frames uint8 (T, H, W, 3) of some of the first half of the episodes, and of some of the others; of a single
    episode, of its halves. `UserError` where there are too few."""
    source = PooledFrames(recordings, 0, 0.0, 1)
    spans = [span for span in source.spans if span.frames > 3]
    if len(spans) == 1:
        half = spans[0].frames // 2
        spans = [spans[0]._replace(frames=half), spans[0]._replace(start=half, frames=spans[0].frames - half)]
    if len(spans) < 2 or spans[0].frames < 3:
        folders = ", ".join(str(recording.dataset.folder) for recording in recordings)
        raise UserError(f"{folders}: too few frames to tell a camera from: record more")
    first, others = spans[: len(spans) // 2], spans[len(spans) // 2 :]
    ends = [span._replace(start=span.start + max(0, span.frames - LONGEST), frames=min(span.frames, LONGEST))
            for span in evenly(first, EPISODES)]  # fmt: skip
    learnt, judged = ([averaged(source.read(source.rows([span]))) for span in part]
                      for part in (ends, evenly(others, EPISODES)))  # fmt: skip
    return learnt, judged


def averaged(frames_THWC: np.ndarray) -> Tensor:
    """Uint8 (T, H, W, 3), `COMPARED` pixels large or up to twice that."""
    frames = torch.from_numpy(frames_THWC)
    times = max(1, max(frames.shape[1:3]) // COMPARED)
    return F.avg_pool2d(frames.movedim(3, 1).float(), times).round().byte().movedim(1, 3).contiguous()


def pairs_of(stretches: Sequence[Tensor], count: int) -> Pairs:
    """So many of their pairs or fewer, evenly spread, without an episode's first frame."""
    parts = []
    for frames in stretches:
        at = torch.tensor(evenly(range(1, len(frames) - 1), max(1, count // len(stretches))))
        parts.append((frames[at], frames[at + 1]))
    return Pairs(*(torch.cat(part) for part in zip(*parts)))
