"""A playable model out of trained parts, and the seed contexts that its dreams begin with.

    model = assemble(tokenizer, network, objective, memory)         # as `train/checkpoints.py` loads them
    seeds = held_out_contexts(store, count=8, frames=32)            # or at the end of recordings: `final_contexts`

Memory brings its atlas and its obstacles. Export and experiments build what they play here and nowhere else.

Legend: S contexts, P frames of one, H, W pixels, A encoded action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_collect.dataset import Dataset, Episode
from data_collect.errors import UserError
from game_wm.memory.protocol import Memory
from game_wm.model.dynamics import Dynamics
from game_wm.model.tokenizer import Tokenizer
from game_wm.objectives import Objective
from game_wm.pictures import RAW_BYTES, pack_contexts
from game_wm.world import WorldConfig, WorldModel
from train.data.frames import FrameSource, PooledFrames
from train.data.latents import LatentStore
from train.data.recordings import recordings_of
from train.data.spans import Span

HELD_OUT = 0.04  # share of the episodes, the last, that no stage is trained on


class SeedContexts(NamedTuple):
    """Real frames uint8 (S, P, H, W, 3), the actions (S, P, A) done on them, their poses (S, P, 3) if recorded, and of
    held-out frames the median pictures of their episodes, uint8 (S, H, W, 3)."""

    frames: Tensor
    actions: Tensor
    poses: Tensor | None
    medians: Tensor | None = None


def assemble(
    tokenizer: Tokenizer, network: Dynamics, objective: Objective, memory: Memory,
    steps: int | None = None, settings: Mapping[str, Any] | None = None,
) -> WorldModel:  # fmt: skip
    """A frozen model. `steps`: network calls a frame, the objective's own where it is None; `settings`: entries of
    memory's configuration to play with in place of its own."""
    size, remembers = network.config, replace(memory.config, **settings) if settings else memory.config
    calls = steps or objective.calls(size.height * size.width)
    model = WorldModel(WorldConfig(tokenizer.config, size, objective, calls, remembers))
    model.tokenizer.load_state_dict(tokenizer.state_dict())
    model.dynamics.load_state_dict(network.state_dict())
    model.memory.load_state_dict(memory.state_dict())
    return model.eval().requires_grad_(False)


def held_out_contexts(store: LatentStore, count: int, frames: int, held_out: float = HELD_OUT) -> SeedContexts:
    """Evenly spread over the held-out episodes; P is `frames`, or as many as the longest of them has. `UserError` when
    the recording has gone."""
    source: FrameSource = PooledFrames(recordings_of(store), 0, held_out, 1)
    held = store.split(held_out, validation=True)
    frames = min(frames, max((span.frames for span in held), default=0))
    if frames < 2:
        raise UserError(f"{store.directory} has no held-out frames to begin a dream with: record more episodes")
    spans = [span for span in held if span.frames >= frames]
    starts = np.concatenate([[0], np.cumsum([span.frames - frames + 1 for span in spans])])
    chosen = np.linspace(0, starts[-1] - 1, min(count, int(starts[-1]))).astype(np.int64)
    pictures, actions, poses, medians = [], [], [], []
    for number in chosen:
        row = int(np.searchsorted(starts, number, side="right")) - 1
        place = Span(spans[row].episode, spans[row].start + int(number - starts[row]), frames)
        recorded = store.as_recorded(place)
        pictures.append(source.read(source.rows([recorded])))
        actions.append(store.read("actions", place))
        poses += [store.read("pose", place)] if store.index["pose"] else []
        medians.append(source.median(recorded.episode))
    return _stacked(pictures, actions, poses)._replace(medians=torch.from_numpy(np.stack(medians)))


def final_contexts(folders: Sequence[Path], store: LatentStore, count: int, frames: int) -> SeedContexts:
    """The ends of the first long enough episodes. `UserError` when a recording has none, or is of another game."""
    found = list[Episode]()
    for folder in folders:
        dataset = Dataset(folder)
        if (dataset.game, dataset.schema) != (store.game, store.schema):
            raise UserError(f"{folder} is a recording of {dataset.game}, not of {store.game}, which was learnt")
        long = [each for each in dataset.episodes() if len(each.frames) >= frames]
        if not long:
            raise UserError(
                f"{folder} has no episode of {frames} frames, which a dream begins with: record longer ones"
            )
        found += long
    found, last = found[:count], slice(-frames, None)
    actions = [np.concatenate((each.encoded, each.encoded[-1:]))[last] for each in found]  # none is done on the last
    poses = [each.pose[last] for each in found if each.pose is not None]
    return _stacked([each.frames[last] for each in found], actions, poses if len(poses) == len(found) else [])


def _stacked(pictures: list[Any], actions: list[Any], poses: list[Any]) -> SeedContexts:
    frames, done = (torch.from_numpy(np.stack(each)) for each in (pictures, actions))
    return SeedContexts(frames, done, torch.from_numpy(np.stack(poses)) if poses else None)


def within_file(seeds: SeedContexts) -> SeedContexts:
    """As many of them as a playable file stores in full, one at least."""
    frames, actions, poses, _ = seeds
    while len(frames) > 1 and pack_contexts(frames)["contexts.frames"].nbytes > RAW_BYTES:
        frames, actions, poses = frames[:-1], actions[:-1], None if poses is None else poses[:-1]
    return SeedContexts(frames, actions, poses)
