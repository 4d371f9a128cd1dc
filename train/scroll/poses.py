"""Whether the game's own poses tell where the screen is: they are fitted to steps that were read off the pictures.

Legend: T frames of an episode, N steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LAG = 8  # frames, between the places that are compared
ROUNDS = 4  # of the fit, each without what the one before does not explain
WITHIN = 1.0  # pixels, of what is explained: a place has fractions, a picture has none
NEAT, CLOSE = 0.25, 0.01  # pixels for a unit: axes so close (to the largest) to a multiple of it are that multiple
ENOUGH = 0.9  # of the times that pose or picture moves, that must be explained
LEAST = 32  # such times, that tell


def fit_axes(poses_T3: Sequence[Tensor], steps_T2: Sequence[Tensor]) -> tuple[tuple[float, ...], float]:
    """By how many pixels the screen goes down for each unit of x and of y, and by how many to the right; and the share
    of the screen's ways of `LAG` frames that this explains. `steps`: as read off the pictures, T - 1 in each episode.
    No axes where the share is below `ENOUGH`."""
    moves = torch.cat([poses[LAG:, :2].double() - poses[:-LAG, :2] for poses in poses_T3])
    steps = torch.cat([each.double().unfold(0, LAG, 1).sum(2) for each in steps_T2 if len(each) >= LAG])
    told = (moves != 0).any(1) | (steps != 0).any(1)
    moves, steps = moves[told], steps[told]
    if len(moves) < LEAST:
        return (), 0.0
    explained = torch.ones(len(moves), dtype=torch.bool)
    for _ in range(ROUNDS):
        axes = torch.linalg.pinv(moves[explained]) @ steps[explained]
        neat = (axes / NEAT).round() * NEAT
        axes = torch.where((axes - neat).abs() <= CLOSE * axes.abs().max(), neat, axes)
        explained = ((moves @ axes - steps).abs() <= WITHIN).all(1)
        if not explained.any():
            break
    share = float(explained.double().mean())
    return (tuple(axes.T.flatten().tolist()) if share >= ENOUGH and axes.any() else ()), share
