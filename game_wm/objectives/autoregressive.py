"""Auto-regression over the tokens of a frame in raster order: each is sampled given those before it (van den Oord et
al., 2016; IRIS, Micheli et al., 2023).

One call of the network a token, over keys and values that are kept for the frame. The likelihood of a frame is exact.

Legend: B sequences, K target frames of each, N tokens of a frame, V codes, C channels, h, w latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.model.config import Trunk
from game_wm.objectives.tokens import TokenPredict, sample_tokens, uniform


@dataclass(frozen=True)
class Autoregressive:
    """`temperature`: of the sampling of a token, 1 as trained, 0 the likeliest."""

    temperature: float = 1.0

    kind: ClassVar[str] = "autoregressive"
    trunks: ClassVar[tuple[Trunk, ...]] = ("transformer",)
    adjustable: ClassVar[bool] = False

    def calls(self, tokens: int) -> int:
        return tokens

    @staticmethod
    def _logits(predict: TokenPredict, ids_BKN: Tensor) -> Tensor:
        """Logits (B, K, N, V) of every token, given those before it."""
        shifted = F.pad(ids_BKN, (1, 0), value=predict.codebook.size)[..., :-1]
        return predict(shifted, slice(0, ids_BKN.shape[1]), causal=True)

    def loss(self, predict: TokenPredict, clean_BKCHW: Tensor) -> tuple[Tensor, None]:
        """Cross-entropy of every target (B, K), in nats a token."""
        ids = predict.codebook.ids(clean_BKCHW)
        logits = self._logits(predict, ids)
        errors = F.cross_entropy(logits.flatten(0, 2).float(), ids.flatten(), reduction="none")
        return errors.view(ids.shape).mean(-1), None

    def sample(self, predict: TokenPredict, noise_BKCHW: Tensor, steps: int) -> Tensor:
        """Latents (B, K, C, h, w), token by token. Raises ValueError when `steps` is not the number of tokens."""
        chance = uniform(noise_BKCHW, 0)
        if steps != chance.shape[-1]:
            raise ValueError(f"{self.kind} takes one call a token, {chance.shape[-1]} a frame, not {steps}")
        cache, everything = predict.cache(), slice(0, chance.shape[1])
        ids = [torch.full_like(chance[..., 0], predict.codebook.size, dtype=torch.long)]
        for n in range(steps):
            logits = predict(ids[-1][..., None], everything, causal=True, cache=cache)[..., 0, :]
            ids.append(sample_tokens(logits, chance[..., n], self.temperature))
        return predict.codebook.codes(torch.stack(ids[1:], -1), *noise_BKCHW.shape[-2:])
