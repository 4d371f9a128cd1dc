"""What is known of a level before play: pictures with the poses they were taken from, and lines nobody could cross.

There is none where levels differ. Where the level is always the same (Doom's), a dream that begins with a recorded pose
remembers what the recordings showed of it, as if the player had been there before; a dream that begins without a pose
is placed where the atlas shows nothing. `python -m train atlas` makes it. Episodic memory searches it together with
what the player has seen.

Legend: N pictures, H, W pixels, h, w disparity, M stops, T frames.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ASTRAY = 1000.0  # sides of a place: how far from all pictures a dream without a pose begins
NAMES = ("pictures", "disparity", "poses", "stops")


class Atlas(nn.Module):
    """`pictures` uint8 (N, 3, H, W), their `disparity` (N, h, w) in 16 bits and `poses` (N, 3); `stops` (M, 4): where
    blocked steps ended, and their blocked motion. All in the level's own axes and units."""

    pictures: Tensor
    disparity: Tensor
    poses: Tensor
    stops: Tensor

    def __init__(self, pictures: Tensor, disparity: Tensor, poses: Tensor, stops: Tensor) -> None:
        super().__init__()
        for name, value in zip(NAMES, (pictures, disparity.half(), poses, stops), strict=True):
            self.register_buffer(name, value)

    @classmethod
    def empty(cls) -> Atlas:
        """One without pictures, to load another's tensors into."""
        shapes = (0, 3, 1, 1), (0, 1, 1), (0, 3), (0, 4)
        return cls(torch.zeros(shapes[0], dtype=torch.uint8), *(torch.zeros(shape) for shape in shapes[1:]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """It takes the sizes of what is loaded; ValueError where the parts do not fit each other."""
        found = [state_dict[prefix + name] for name in NAMES if prefix + name in state_dict]
        if len(found) == len(NAMES):
            pictures, disparity, poses, stops = found
            fit = len(pictures) == len(disparity) == len(poses) and poses.shape[1:] == (3,) and stops.shape[1:] == (4,)
            if not (fit and pictures.ndim == 4 and pictures.dtype == torch.uint8 and disparity.ndim == 3):
                raise ValueError("the parts of its atlas do not fit each other")
            for name, value in zip(NAMES, found, strict=True):
                own = getattr(self, name)
                setattr(self, name, own.new_empty(value.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def aside(self, side: float) -> Tensor:
        """A pose (3,) from which it shows nothing."""
        away = torch.zeros_like(self.poses[0])
        away[0] = self.poses[:, 0].max() + ASTRAY * side
        return away

    def without(self, poses_T3: Tensor) -> Atlas:
        """The same without the pictures taken at these very poses, and the stops there."""
        seen = ~(self.poses[:, None] == poses_T3).all(-1).any(1)
        felt = ~(self.stops[:, None, :2] == poses_T3[:, :2]).all(-1).any(1)
        return Atlas(self.pictures[seen], self.disparity[seen], self.poses[seen], self.stops[felt])
