"""The EfficientNet-Lite0 feature distance of frames, and one feature vector per frame for the Fréchet distance.

    FeatureDistance().distance(truth, dream)    # uint8 (B, H, W, 3) twice -> (B,)

The network is `game_wm.model.features.Features`, on frames enlarged to 128 pixels a side: at 64 its coarsest map would
be 2x2, of which half is padding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.evaluation.metrics import unit
from game_wm.model.features import Features, feature_differences, feature_distance

MIN_SIDE = 128
CHUNK = 32  # pictures at once; bounds the memory of the finest maps


class FeatureDistance:
    """Feature distances and vectors of uint8 frames, in chunks, without gradient."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = Features(MIN_SIDE).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def maps(self, frames_BHWC: Tensor) -> list[Tensor]:
        """Five feature maps of at most a chunk of frames."""
        images = unit(frames_BHWC.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.network(images)

    def distance(self, a_BHWC: Tensor, b_BHWC: Tensor) -> Tensor:
        """Feature distance of each pair of frames (B,), on the CPU."""
        return self.distances(a_BHWC, b_BHWC)[0]

    def distances(self, truth_BHWC: Tensor, *others_BHWC: Tensor) -> list[Tensor]:
        """Feature distance of each of several sets to the same truth; the truth goes through the network once."""
        rows = []
        for pieces in zip(*(x.split(CHUNK) for x in (truth_BHWC, *others_BHWC)), strict=True):
            truth = self.maps(pieces[0])
            rows.append([feature_distance(truth, self.maps(piece)).cpu() for piece in pieces[1:]])
        return [torch.cat(column) for column in zip(*rows, strict=True)]

    def local(self, a_BHWC: Tensor, b_BHWC: Tensor) -> Tensor:
        """Where the feature distance of each pair of frames arises: (B, H, W), whose mean is the distance of the pair.

        At each scale the difference at a position is that of the pixels which it covers.
        """
        size, rows = tuple(a_BHWC.shape[1:3]), []
        for a, b in zip(a_BHWC.split(CHUNK), b_BHWC.split(CHUNK), strict=True):
            scales = [feature_differences(x, y)[:, None] for x, y in zip(self.maps(a), self.maps(b), strict=True)]
            finest = [F.interpolate(x, [2 * side for side in scales[0].shape[-2:]], mode="nearest") for x in scales]
            rows.append(F.interpolate(torch.stack(finest).mean(0), size, mode="area")[:, 0].cpu())
        return torch.cat(rows)

    def vectors(self, frames_BHWC: Tensor) -> np.ndarray:
        """Mean over positions of all five maps: float64 (B, 512)."""
        rows = [torch.cat([m.mean((2, 3)) for m in self.maps(x)], 1).cpu() for x in frames_BHWC.split(CHUNK)]
        return torch.cat(rows).numpy().astype(np.float64)
