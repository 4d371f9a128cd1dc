"""The atlas inside a checkpoint file: pictures as AVIF, disparities as logarithmic levels, deflated.

`atlas.frames` and `atlas.sizes` (N,) are the pictures, `atlas.depths` the disparities, `atlas.poses` (N, 3) and
`atlas.stops` (M, 4) what `Atlas` holds under these names.

Legend: N pictures, M stops, H, W pixels, h, w disparity.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from game_wm.memory.first_person.atlas import NAMES, Atlas
from game_wm.memory.first_person.geometry import FARTHEST, NEAREST
from game_wm.pictures import decode, encode

DISPARITY_LEVELS = 255  # the step from one level to the next is 3 %
LOG_RANGE = math.log(1 + NEAREST / FARTHEST)


def pack_atlas(atlas: Atlas) -> dict[str, Tensor]:
    """The tensors that a file holds for an atlas."""
    frames, sizes_N = encode(atlas.pictures.cpu().permute(0, 2, 3, 1))
    level_Nhw = (atlas.disparity.cpu().float() / FARTHEST).clamp_min(1).log() * (DISPARITY_LEVELS / LOG_RANGE)
    levels = level_Nhw.round().clamp_max(DISPARITY_LEVELS).to(torch.uint8).contiguous().numpy().tobytes()
    return {
        "atlas.frames": frames,
        "atlas.sizes": sizes_N,
        "atlas.depths": torch.from_numpy(np.frombuffer(zlib.compress(levels, 9), np.uint8).copy()),
        "atlas.poses": atlas.poses.cpu().float().contiguous(),
        "atlas.stops": atlas.stops.cpu().float().contiguous(),
    }


def unpack_atlas(tensors: dict[str, Tensor], frame: tuple[int, int], disparity: tuple[int, int]) -> dict[str, Tensor]:
    """The inverse, under the names that `Atlas` gives its tensors, for a `frame` of (H, W) and a `disparity` of (h, w).

    Raises ValueError or OSError where the tensors are no atlas of these sizes.
    """
    sizes_N, poses, stops = (tensors[f"atlas.{name}"] for name in ("sizes", "poses", "stops"))
    pictures = decode(tensors["atlas.frames"], sizes_N).permute(0, 3, 1, 2).contiguous()
    shape = len(sizes_N), *disparity
    try:
        levels = zlib.decompressobj().decompress(tensors["atlas.depths"].numpy().tobytes(), math.prod(shape) + 1)
    except zlib.error as error:
        raise ValueError(f"its atlas has no depth: {error}") from None
    if len(levels) != math.prod(shape) or tuple(pictures.shape[1:]) != (3, *frame):
        raise ValueError("its atlas is of another size than its frames")
    level_Nhw = torch.from_numpy(np.frombuffer(levels, np.uint8).copy()).view(shape).float()
    found = FARTHEST * (level_Nhw * (LOG_RANGE / DISPARITY_LEVELS)).exp()
    return dict(zip(NAMES, (pictures, found.half(), poses, stops), strict=True))
