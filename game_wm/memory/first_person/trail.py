"""Where the player has been lately, and what his path says of the next step.

Ground the player has already covered counts as free, even out of view (stepping back). And who goes to and fro must
come back to exactly the same poses, or errors add up.

Legend: B players, T poses of the trail.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from game_wm.memory.first_person.pose import move, relative, wrap

NOWHERE = 1e6  # coordinate of a pose that is not there
FREE_WITHIN = 0.35  # of a step's length: nothing is in the way of a step that ends so near to a pose of the trail
SAME_PLACE, SAME_HEADING = 0.02, 0.03  # of a step's length, and radians: two poses that are less apart are one
SHORTEST = 0.01  # of a place's side: a step of no length counts as so long


def predict_step(
    trail_BT: Tensor, pose_B3: Tensor, step_B3: Tensor, unhindered_B3: Tensor, side: float
) -> tuple[Tensor, Tensor]:
    """The next step (B, 3) from this pose, and whether it is sure (B, 1).

    `step` is the prediction from pictures, `unhindered` what the action does where nothing is in the way; `trail`
    (B, T, 3 or more) begins with poses. Sure are a step from a pose of the trail to the one just before or after it,
    which gets there exactly, and an action that only turns.
    """
    to, turn = move(pose_B3, unhindered_B3), unhindered_B3[:, 2:].abs()
    length = unhindered_B3[:, :2].norm(dim=-1, keepdim=True)
    still, reach = length == 0, length.clamp_min(SHORTEST * side)
    same_heading = torch.where(turn > 0, FREE_WITHIN * turn, SAME_HEADING).clamp_max(SAME_HEADING)
    apart, unlike = _from_trail(trail_BT, to)
    away, askew = _from_trail(trail_BT, pose_B3)
    here = (away < SAME_PLACE * reach) & (askew < same_heading)
    beside = (here.roll(1, 1) | here.roll(-1, 1)) & (apart < FREE_WITHIN * reach) & (unlike < same_heading)
    free = apart.amin(1, keepdim=True) < FREE_WITHIN * reach
    apart, nearest = apart.masked_fill(~beside, math.inf).min(1, keepdim=True)
    again = (apart < math.inf) & ((length > 0) | (turn > 0))
    there = trail_BT[..., :3].gather(1, nearest[..., None].expand(-1, -1, 3))[:, 0]
    there = torch.cat((there[:, :2], torch.where(turn > 0, there, to)[:, 2:]), 1)
    step = torch.where(free | still, unhindered_B3, step_B3)
    return torch.where(again, relative(pose_B3, there), step), again | still


def _from_trail(trail_BT: Tensor, pose_B3: Tensor) -> tuple[Tensor, Tensor]:
    """How far (B, T) and by what angle the poses of the trail are from this one."""
    apart = (trail_BT[..., :2] - pose_B3[:, None, :2]).norm(dim=-1)
    return apart, wrap(trail_BT[..., 2] - pose_B3[:, None, 2]).abs()
