"""Pruning: a smaller model without the channels that add least, to be trained on (healed) or played as it is.

    python -m game_wm prune checkpoints/maze.safetensors --share 0.25 --out runs/small/maze.safetensors
    python -m train pipeline --config configs/maze/quick.yaml --name small --init runs/small/maze.safetensors

Channels inside the denoiser's residual blocks are removed, between their two convolutions (structured pruning, Li et
al., 2017). They go in whole groups of the normalisation, so that the rest is normalised as before. A group's importance
is measured: the mean square of what its channels add to the block's output in generated frames.

Legend: S sequences, P frames, C channels, h, w latent grid, A action vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.checkpoint import Checkpoint, load, save
from game_wm.model.convolution import ResidualBlock
from game_wm.model.tokenizer import earlier
from game_wm.world import WorldModel, unet

GROUP = 16  # channels that are normalised together, see `model/convolution.py`
PROMPT = 8  # real frames of a sequence; importance is measured on the generated ones after them


def blocks(model: WorldModel) -> dict[str, tuple[int, ResidualBlock]]:
    """The denoiser's residual blocks by name, and the level that each is on."""
    denoiser, found = unet(model), {}
    for name, block in denoiser.named_modules():
        if isinstance(block, ResidualBlock):
            part, index = name.split(".")[:2]
            count = len(denoiser.down)
            found[name] = {"down": int(index), "up": count - 1 - int(index), "bottleneck": count}[part], block
    return found


@torch.inference_mode()
def importance(model: WorldModel, latents_SPChw: Tensor, actions_SPA: Tensor) -> dict[str, Tensor]:
    """Mean square of what each group of hidden channels adds to its block's output, by block (hidden / 16,).

    `actions[:, t]` leads from frame t to t + 1. Raises UserError where a sequence is too short.
    """
    time = latents_SPChw.shape[1]
    if time <= PROMPT:
        raise UserError(f"sequences of {time} frames are too short to measure on: take {PROMPT + 1} or more")
    found = {name: torch.zeros(block.conv2.in_channels // GROUP) for name, (_, block) in blocks(model).items()}

    def measure(name: str, convolution: nn.Conv2d, arguments: tuple[Tensor]) -> None:
        for i, part in enumerate(arguments[0].split(GROUP, 1)):
            added = F.conv2d(part, convolution.weight[:, i * GROUP : (i + 1) * GROUP].to(part), padding=1)
            found[name][i] += float(added.float().square().mean())

    hooks = [
        block.conv2.register_forward_pre_hook(partial(measure, name)) for name, (_, block) in blocks(model).items()
    ]
    seeds = torch.arange(len(latents_SPChw))
    state = model.start_latents(latents_SPChw[:, :PROMPT], actions_SPA[:, : PROMPT - 1], seeds)
    for t in range(PROMPT - 1, time - 1):
        model.step_latents(state, actions_SPA[:, t])
    for hook in hooks:
        hook.remove()
    return found


def prune(model: WorldModel, share: float, importances: dict[str, Tensor]) -> WorldModel:
    """A new model without the least important `share` of the hidden channels of every block, in whole groups.

    Raises UserError where that is no channel, or all of them.
    """
    dynamics = model.config.dynamics
    hidden = tuple(width - round(width / GROUP * share) * GROUP for width in dynamics.inside)
    if hidden == dynamics.inside or min(hidden) < GROUP:
        raise UserError(f"--share {share:g} of {dynamics.inside} channels, in groups of {GROUP}: nothing goes or stays")
    smaller = WorldModel(replace(model.config, dynamics=replace(dynamics, hidden=hidden)))
    weights = model.state_dict()
    for name, (level, block) in blocks(model).items():
        best = importances[name].topk(hidden[level] // GROUP).indices.sort().values
        kept = (best[:, None] * GROUP + torch.arange(GROUP)).flatten()
        both = torch.cat((kept, kept + block.conv2.in_channels))  # scale and shift
        at = f"dynamics.denoiser.{name}."
        rows = {"conv1.weight": kept, "conv1.bias": kept, "norm2.weight": kept, "norm2.bias": kept}
        rows |= {"film.weight": both, "film.bias": both} if block.film is not None else {}
        weights |= {at + key: weights[at + key][which] for key, which in rows.items()}
        weights[at + "conv2.weight"] = weights[at + "conv2.weight"][:, kept]
    smaller.load_state_dict(weights)
    return smaller.to(next(model.parameters()).device).eval().requires_grad_(False)


def pruned(checkpoint: Checkpoint, share: float) -> Checkpoint:
    """A smaller checkpoint; importance is measured on its seed contexts."""
    model, frames = checkpoint.model, checkpoint.contexts_frames
    latents = torch.stack([model.encode(*each) for each in zip(frames, earlier(frames))])
    found = importance(model, latents, checkpoint.contexts_actions)
    return replace(checkpoint, model=prune(model, share, found), measured=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Prune a checkpoint."""
    from game_wm import commands

    options = commands.prune().parse_args(argv)
    loaded = load(options.checkpoint)
    smaller = pruned(loaded, options.share)
    save(options.out, smaller)
    print(f"{options.out}: {smaller.parameters / 1e6:.2f} M parameters of {loaded.parameters / 1e6:.2f} M")
    return 0
