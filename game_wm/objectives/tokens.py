"""What the discrete objectives share: the function that a transformer trunk gives them, and sampling from its logits.

Legend: B sequences, K target frames of each, N tokens of a frame in raster order, n those of a call, V codes,
C channels, h, w latent grid.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from game_wm.model.fsq import Codebook

GOLDEN_RATIO = 0.6180339887498949


class TokenPredict(Protocol):
    """Codes of the target frames, as far as they are known, -> logits. Number V stands for an unknown code."""

    @property
    def codebook(self) -> Codebook: ...

    def cache(self) -> Any:
        """An empty cache of keys and values for one frame of every target, to be filled from its first token on."""

    def __call__(self, ids_BKn: Tensor, part: slice, causal: bool = False, cache: Any = None) -> Tensor:
        """Logits (B, K, n, V) of the tokens at these places, the frame's first n or those behind the cached ones.

        A token attends to all given tokens or, if `causal`, to those at its own place and before.
        """


def uniform(noise_BKCHW: Tensor, stream: int) -> Tensor:
    """Uniform numbers (B, K, N) in [0, 1] as a function of standard normal noise: stream i is channel i; further
    streams are the same shifted by the golden ratio, modulo 1."""
    turn, channel = divmod(stream, noise_BKCHW.shape[2])
    return (torch.special.ndtr(noise_BKCHW[:, :, channel].flatten(2)) + turn * GOLDEN_RATIO) % 1


def sample_tokens(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Codes (...) from logits (..., V) by inverting their cumulative distribution; the likeliest at temperature 0."""
    if temperature == 0:
        return logits.argmax(-1)
    total = (logits.float() / temperature).softmax(-1).cumsum(-1)
    return (total < uniform[..., None] * total[..., -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
