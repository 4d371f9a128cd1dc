"""Export: the networks of a checkpoint as ONNX files, for programs without PyTorch.

    python -m game_wm export checkpoints/maze.safetensors --out runs/onnx       # needs: pip install -e '.[export]'

`decoder.onnx`: latents -> frames (a temporal tokenizer's asks for those of the frame before as well); `denoiser.onnx`:
one call; `context.onnx`: reads a finished frame, and gives reward, termination and the next state of the dynamics
(`NAME.next` is `NAME` in the next call). Names are those of `WorldState.to_dict`. The caller does the rest of a frame,
as `WorldModel.step` does it: noise, the walk of several calls, memory and its views.

Legend: B players, C channels, h, w latent grid, A action vector, M channels of the views drawn for a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_collect.errors import UserError
from data_collect.files import whole
from game_wm.acceleration.compilation import Part, contiguous, copied, decode, denoise, read_by_denoiser
from game_wm.state import WorldState
from game_wm.world import WorldModel, unet

RING = [f"dynamics.bottleneck.{part}" for part in ("keys", "values", "sums", "count")]


def read_frame(model: WorldModel, state: dict[str, Tensor], latents_BCHW: Tensor, action_BA: Tensor) -> tuple[Any, ...]:
    """A finished latent and the action before it, read into the state of the dynamics: rewards (B,), terminations (B,),
    and the state's tensors in order."""
    state = {name: value.clone() for name, value in state.items()}  # results, not side effects
    whole = WorldState.from_dict({**state, "seeds": latents_BCHW})  # not looked at
    rewards, terminated = model.dynamics.encode_context(whole.dynamics, latents_BCHW, action_BA)
    after = whole.to_dict()
    return rewards, terminated, *(after[name] for name in state)


def parts(model: WorldModel, players: int) -> list[tuple[str, nn.Module, tuple[Any, ...], list[str], list[str]]]:
    """Of each network its name, function, example arguments, and the names of what goes in and comes out."""
    unet(model)
    if model.config.objective.kind == "cascade":
        raise UserError("the ONNX denoiser is of one grid, and a cascade has two: export a model of another objective")
    frames = torch.randint(256, (players, 6, model.height, model.width, 3), dtype=torch.uint8)
    actions = torch.rand(players, 6, model.config.dynamics.actions)
    state = model.start(frames, actions[:, 1:], torch.arange(players))
    action, latents = actions[:, 0].clone(), torch.randn(players, *model.latent_shape)
    _, drawn = model.render_views(state, action)
    level, stride = torch.full((players,), 0.25), torch.full((players,), 0.5)
    kept = {k: v for k, v in contiguous(copied(state.to_dict())).items() if k.startswith("dynamics.")}
    changed = [f"{name}.next" for name in kept]
    denoised = contiguous(copied((read_by_denoiser(state.dynamics), action, latents, level, stride, drawn)))
    seen = 1 + model.config.tokenizer.temporal
    inputs = ["dynamics.latents", "dynamics.actions", *RING, "action", "noisy", "level", "stride", "drawn"]
    inputs = inputs if drawn is not None else inputs[:-1]
    decoded = (latents, latents.clone())[:seen]
    return [
        ("decoder", Part(model, decode), decoded, ["latents", "before"][:seen], ["frames"]),
        ("denoiser", Part(model, denoise), denoised, inputs, ["clean"]),
        ("context", Part(model, read_frame), (kept, latents, action), [*kept, "clean", "action"],
         ["reward", "termination", *changed]),
    ]  # fmt: skip


def export(model: WorldModel, folder: Path, players: int = 1) -> list[Path]:
    """Write the ONNX files for so many players into the folder, from a model in 32 bits; their paths.

    Raises UserError where the packages that write them are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("writing ONNX files needs the package onnxscript: pip install -e '.[export]'") from None
    paths = []
    for name, part, arguments, given, found in parts(model, players):
        paths.append(folder / f"{name}.onnx")
        # With gradients on, attention is plain matrix products, which ONNX has for any number of axes.
        with torch.enable_grad():
            program = torch.export.export(part, arguments, strict=False)
        made = torch.onnx.export(program, input_names=given, output_names=found, dynamo=True, verbose=False)
        assert made is not None
        with whole(paths[-1]) as file:
            made.save(file.name)
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    from game_wm import checkpoint, commands

    options = commands.export().parse_args(argv)
    for path in export(checkpoint.load(options.checkpoint).model, options.out, options.players):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
