"""The optimiser of every stage: AdamW, or Muon (Jordan et al., 2024) for whatever is a matrix or a convolution.

The learning rate's schedule is a callback (`train.stages.callbacks.Schedule`), since runs are measured in minutes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Kind = Literal["adamw", "muon"]


def configure(module: nn.Module, kind: Kind, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimiser over a module's weights; vectors (biases, norms) are not decayed."""
    weights = [p for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in weights if p.ndim >= 2], [p for p in weights if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if kind == "muon":
        from timm.optim import Muon

        groups[1]["use_fallback"] = True
        return Muon(groups, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
