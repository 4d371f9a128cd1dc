"""Weights of one game's dynamics for another's, whose actions or whose size differ.

    weights, said = transferred(weights, was, dynamics, same_actions=False)     # for `dynamics.load_state_dict`

Convolutions take any size. What reads the encoded action is the new network's own, as it was made; the positions of the
grid's cells are resized; all else is taken over.

Legend: N tokens, E width of the conditioning vector, C channels, h, w innermost grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.model.config import DynamicsConfig
from game_wm.model.dynamics import Dynamics

ACTION, CONDITION = "context.action.weight", "denoiser.condition.0.weight"
CONTEXT, DENOISER = "context.positions", "denoiser.positions"


def transferred(
    weights: dict[str, Tensor], was: DynamicsConfig, network: Dynamics, same_actions: bool
) -> tuple[dict[str, Tensor], str]:
    """Weights of a network `was` for `network`, and what of them was not taken as it is, "" where all was."""
    weights, wanted, now, said = dict(weights), network.state_dict(), network.config, []
    if not same_actions:
        rest = now.history * now.actions - wanted[CONDITION].shape[1]  # the last columns read the noise's levels
        weights[ACTION] = wanted[ACTION]
        weights[CONDITION] = torch.cat((wanted[CONDITION][:, :rest], weights[CONDITION][:, rest:]), 1)
        said.append("what reads the action is new, since the actions are others")
    if (was.height, was.width) != (now.height, now.width):
        inner, here = (each.grid(len(each.widths) - 1) for each in (was, now))
        cells = weights[CONTEXT][: -was.registers or None]
        weights[CONTEXT] = torch.cat((resized(cells, inner, here), weights[CONTEXT][len(cells) :]))
        if was.trunk == "transformer":
            weights[DENOISER] = resized(weights[DENOISER], (was.height, was.width), (now.height, now.width))
        else:
            flat = weights[DENOISER][0].flatten(1).T
            weights[DENOISER] = resized(flat, inner, here).T.unflatten(1, here)[None]
        said.append(f"positions are resized from {inner[1]}x{inner[0]} to {here[1]}x{here[0]} cells")
    return weights, "; ".join(said)


def resized(positions_NC: Tensor, was: tuple[int, int], now: tuple[int, int]) -> Tensor:
    """Positions of a grid's cells, row by row, for another grid (bilinear)."""
    grid = positions_NC.T.unflatten(1, was)[None]
    return F.interpolate(grid, size=now, mode="bilinear", align_corners=False)[0].flatten(1).T
