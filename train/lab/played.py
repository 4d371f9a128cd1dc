"""A checkpoint as a row plays it: under another configuration, accelerated, or compiled, and ready to be timed.

model = accelerated(checkpoint.model, row.play)             # as it is judged
frame = timed_player(checkpoint, row.play, steps, folder)   # frame.tick() makes one frame
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_collect.errors import UserError
from game_wm.acceleration import compilation, export, pack, precision
from game_wm.checkpoint import Checkpoint, first_line
from game_wm.model.tokenizer import Tokenizer
from game_wm.objectives import make_objective, objective_entries
from game_wm.world import WorldModel
from train.lab.acceleration import caching, merging, onnx, pipelining
from train.lab.bench.reconstruction import decoder_tick
from train.lab.protocol import Play
from train.lab.timing import Tick


@dataclass
class Timed:
    """`tick` makes one frame by so many network calls; the megabytes are those of the weights as they are played."""

    tick: Tick
    calls: int
    parameters: int
    megabytes: float


def accelerated(model: WorldModel, play: Play) -> WorldModel:
    """The model as it is judged, changed in place."""
    precision.choose(model, play.precision)
    if play.packed:
        pack(model)
    if play.merge:
        merging.merge(model, play.merge)
    return model if play.cache is None else caching.cache(model, play.cache)


def timed_player(checkpoint: Checkpoint, play: Play, steps: int | None, onnx_files: Path) -> Timed:
    """A model that plays its own seed contexts. Raises `UserError` where this machine cannot play it so."""
    model, parameters = checkpoint.model, checkpoint.parameters
    if play.onnx:
        if not (onnx_files / "context.onnx").exists():  # the last that is written
            export.export(model, onnx_files, play.players)
        size = sum(file.stat().st_size for file in onnx_files.iterdir()) / 1e6
        onnx.run(model, onnx_files)
    else:
        model = compiled(model, play) if play.compiled else accelerated(model, play)
        size = megabytes(model)
        if play.pipelined:
            pipelining.pipeline(model)
    players = torch.arange(play.players)
    which = players % len(checkpoint.contexts_frames)
    recorded = checkpoint.contexts_actions[which]
    state, actions = model.start(checkpoint.contexts_frames[which], recorded, players), cycle(recorded.unbind(1))
    return Timed(lambda: model.step(state, next(actions), steps), steps or model.steps, parameters, size)


def timed_tokenizer(tokenizer: Tokenizer) -> Timed:
    parameters, size = sum(p.numel() for p in tokenizer.parameters()), megabytes(tokenizer)
    return Timed(decoder_tick(tokenizer), 1, parameters, size)


def compiled(model: WorldModel, play: Play) -> WorldModel:
    """The model with compiled code in place; `UserError` with the reason where there is none."""
    messages: list[str] = []
    precision.choose(model, play.precision)
    compilation.compile(model, play.players, messages.append)
    pack(model)
    if model.compiling is not None:
        model.compiling.join()
    if not model.compiled:
        raise UserError(messages[-1])
    return model


def reconfigured(model: WorldModel, changes: dict[str, dict[str, Any]], file: str) -> WorldModel:
    """The same weights under another configuration; `UserError` that names the row's file where that is none."""
    config = model.config
    entries = {part: {k: tuple(v) if isinstance(v, list) else v for k, v in changes[part].items()} for part in changes}
    parts: dict[str, Any] = {}
    try:
        for part, new in entries.items():
            if part == "objective":
                parts[part] = make_objective(objective_entries(config.objective) | new)
            elif part in ("dynamics", "memory"):
                parts[part] = replace(getattr(config, part), **new)
            else:
                raise ValueError(f"{part} is no part of a checkpoint's configuration: dynamics, objective, memory are")
        other = WorldModel(replace(config, **parts))
        other.load_state_dict(model.state_dict())
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file}: the checkpoint cannot be judged so: {first_line(error)}") from None
    other.steps = model.steps
    return other.eval().requires_grad_(False)


def megabytes(network: nn.Module) -> float:
    """Of its weights as they are."""
    tensors: Sequence[torch.Tensor] = [*network.parameters(), *network.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6
