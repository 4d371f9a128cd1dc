"""Play by ONNX Runtime: the exported networks in place of the model's own.

model = run(model, folder)      # in place; `folder` holds what `python -m game_wm export` wrote
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.acceleration.compilation import read_by_denoiser
from game_wm.acceleration.export import RING
from game_wm.memory.protocol import Frame
from game_wm.model.dynamics import DynamicsState
from game_wm.state import WorldState
from game_wm.world import WorldModel


def run(model: WorldModel, folder: Path) -> WorldModel:
    """The same model, whose denoiser, context step and decoder are run by ONNX Runtime from the exported files, changed
    in place; for as many players as they were exported for.

    Raises UserError where ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("running ONNX files needs the package onnxruntime: pip install -e '.[export]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # PyTorch computes between its calls, and two pools that wait by spinning keep each other from the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    names = ("decoder", "denoiser", "context")
    sessions = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options) for name in names}

    def run_file(name: str, given: dict[str, Any]) -> list[Tensor]:
        taken = {x.name for x in sessions[name].get_inputs()}
        arrays = {k: v.contiguous().numpy() for k, v in given.items() if k in taken}
        return [torch.from_numpy(x) for x in sessions[name].run(None, arrays)]

    def call(state: DynamicsState, *arguments: Tensor | None) -> Tensor:
        names = ("dynamics.latents", "dynamics.actions", *RING, "action", "noisy", "level", "stride", "drawn")
        given = zip(names, (*read_by_denoiser(state), *arguments))
        return run_file("denoiser", {name: value for name, value in given if value is not None})[0]

    def decode(latents_BCHW: Tensor, before_BCHW: Tensor) -> Tensor:
        return run_file("decoder", {"latents": latents_BCHW, "before": before_BCHW})[0]

    def commit(state: WorldState, step: Any, frame: Frame) -> tuple[Tensor, Tensor]:
        whole = state.to_dict()
        kept = {name: value for name, value in whole.items() if name.startswith("dynamics.")}
        reward, termination, *after = run_file("context", {**kept, "clean": frame.latent, "action": frame.action})
        state.dynamics = WorldState.from_dict(whole | dict(zip(kept, after, strict=True))).dynamics
        model.memory.commit(state.memory, step, frame)
        return reward, termination

    model.parts = replace(model.parts, denoise=partial(model.denoise, call=call), decode=decode, commit=commit)
    return model
