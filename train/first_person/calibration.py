"""The focal length of a game's camera, by grid search over recorded pairs of frames between which the player only
turned.

focal = focal_length(tokenizer, batches, place=0.5, where="runs/maze/latents")
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.first_person.camera import project
from game_wm.memory.first_person.pose import relative, wrap
from game_wm.model.tokenizer import Tokenizer

PAIRS = 96  # to calibrate on
STILL = 0.02  # places: the largest distance between the frames of a pair
TURNED = (0.08, 0.5)  # radians: the least and the largest turn


@torch.no_grad()
def focal_length(tokenizer: Tokenizer, batches: Any, place: float, where: str) -> float:
    """In halves of a picture's width, signed (see `camera.py`): with it, a turn alone turns one frame into another.
    `UserError` when the windows hold too few turns on the spot."""
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        latents, pose = batch["latents"], batch["pose"]
        for later in range(1, latents.shape[1]):
            away = relative(pose[:, 0], pose[:, later])
            turn = wrap(away[:, 2]).abs()
            for i in torch.nonzero(
                (away[:, :2].norm(dim=-1) < STILL * place) & (turn > TURNED[0]) & (turn < TURNED[1])
            )[:, 0]:
                pairs.append((latents[i, 0], latents[i, later], away[i]))
        if len(pairs) >= PAIRS:
            break
    if len(pairs) < PAIRS // 4:
        raise UserError(f"{where}: hardly ever does the player turn on the spot, so the camera cannot be calibrated")
    seen, other, away = (torch.stack(x) for x in zip(*pairs[:PAIRS], strict=True))
    target, source = (tokenizer.decode_images(x).float() for x in (seen, other))
    far = target.new_zeros(len(target), *target.shape[-2:])

    def error(focal: float) -> float:
        place, _, front = project(far, away, focal)
        inside = front & (place.abs() < 1).all(-1)
        apart = (F.grid_sample(source, place, align_corners=False) - target).abs().mean(1)
        return float((apart * inside).sum() / inside.sum().clamp_min(1))

    tried = [float(sign * (0.4 + 0.1 * i)) for sign in (1.0, -1.0) for i in range(30)]
    coarse = min(tried, key=error)
    near = [float(coarse + 0.01 * i) for i in range(-9, 10)]
    return min(near, key=error)
