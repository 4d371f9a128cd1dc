"""Masked parallel decoding of the tokens of a frame (MaskGIT, Chang et al., 2022): all are sampled at once, the most
likely are kept, and the others are sampled again given those.

In training a random share of a frame's tokens is hidden, mostly a large one, and predicted from the others.

Legend: B sequences, K target frames of each, N tokens of a frame, V codes, C channels, h, w latent grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.model.config import Trunk
from game_wm.objectives.tokens import TokenPredict, sample_tokens, uniform


@dataclass(frozen=True)
class Masked:
    """`steps`: passes over a frame; `temperature`: of the sampling of a token, 1 as trained, 0 the likeliest;
    `choice`: how random the choice of kept tokens is; it falls to 0 at the last pass."""

    steps: int = 8
    temperature: float = 1.0
    choice: float = 1.0

    kind: ClassVar[str] = "masked"
    trunks: ClassVar[tuple[Trunk, ...]] = ("transformer",)
    adjustable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def calls(self, tokens: int) -> int:
        return min(self.steps, tokens)

    def loss(self, predict: TokenPredict, clean_BKCHW: Tensor) -> tuple[Tensor, None]:
        """Cross-entropy of the hidden tokens of every target (B, K), in nats each."""
        ids = predict.codebook.ids(clean_BKCHW)
        share = (torch.rand(ids.shape[:2], device=ids.device) * math.pi / 2).cos()
        count = (share * ids.shape[-1]).ceil().clamp_min(1)[..., None]
        hidden = torch.rand(ids.shape, device=ids.device).argsort(-1).argsort(-1) < count
        logits = predict(torch.where(hidden, predict.codebook.size, ids), slice(0, ids.shape[1]))
        errors = F.cross_entropy(logits.flatten(0, 2).float(), ids.flatten(), reduction="none").view(ids.shape)
        return (errors * hidden).sum(-1) / count[..., 0], None

    @staticmethod
    def known(tokens: int, passes: int) -> list[int]:
        """How many tokens are known after each pass: few at first, by a cosine, and one more at least each time."""
        counts = [0]
        for i in range(1, passes + 1):
            counts.append(max(counts[-1] + 1, tokens - math.floor(tokens * math.cos(math.pi / 2 * i / passes) + 1e-6)))
        return counts[1:]

    def sample(self, predict: TokenPredict, noise_BKCHW: Tensor, steps: int) -> Tensor:
        """Latents (B, K, C, h, w) in `steps` passes, or in as many as there are tokens if those are fewer."""
        ids = torch.full_like(noise_BKCHW[:, :, 0].flatten(2), predict.codebook.size, dtype=torch.long)
        passes = min(steps, ids.shape[-1])
        for i, count in enumerate(self.known(ids.shape[-1], passes)):
            logits = predict(ids, slice(0, ids.shape[1])).float()
            hidden = ids == predict.codebook.size
            sampled = sample_tokens(logits, uniform(noise_BKCHW, 2 * i), self.temperature)
            sure = logits.log_softmax(-1).gather(-1, sampled[..., None])[..., 0]
            chance = uniform(noise_BKCHW, 2 * i + 1).clamp(1e-6, 1 - 1e-6)
            sure = sure - self.choice * (1 - (i + 1) / passes) * (-chance.log()).log()  # Gumbel noise
            kept = sure.masked_fill(~hidden, torch.inf).topk(count, -1).indices
            ids = ids.scatter(-1, kept, torch.where(hidden, sampled, ids).gather(-1, kept))
        return predict.codebook.codes(ids, *noise_BKCHW.shape[-2:])
