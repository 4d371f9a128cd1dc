"""What the discrete objectives share: the function that a transformer trunk gives them, and a draw from its logits.

Legend: B sequences, K target frames of each, N tokens of a frame in raster order, n some of them, V codes, C channels,
h, w latent grid.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from game_wm.model.fsq import Codebook

GOLDEN = 0.6180339887498949


class TokenPredict(Protocol):
    """Codes of the target frames -> logits of what they are. Number V stands for a code that is not known."""

    @property
    def codebook(self) -> Codebook: ...

    def cache(self) -> Any:
        """An empty cache of keys and values for one frame of every target, to be filled from its first token on."""
        ...

    def __call__(self, ids_BKn: Tensor, part: slice, causal: bool = False, cache: Any = None) -> Tensor:
        """Logits (B, K, n, V) of the tokens at these places, the frame's first n or those behind the cached ones.

        A token sees all that is given, or, if `causal`, what stands at its own place and before.
        """
        ...


def uniform(noise_BKCHW: Tensor, stream: int) -> Tensor:
    """Numbers (B, K, N) in [0, 1], even and a function of standard normal noise: those of every channel in turn, then
    the same turned on by the golden ratio."""
    turn, channel = divmod(stream, noise_BKCHW.shape[2])
    return (torch.special.ndtr(noise_BKCHW[:, :, channel].flatten(2)) + turn * GOLDEN) % 1


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Codes (...) from logits (..., V) by inverting their cumulative distribution; the likeliest at temperature 0."""
    if temperature == 0:
        return logits.argmax(-1)
    total = (logits.float() / temperature).softmax(-1).cumsum(-1)
    return (total < uniform[..., None] * total[..., -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
