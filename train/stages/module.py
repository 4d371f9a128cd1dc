"""What all stages share: the optimiser, and what is asked of a module before its first step.

The optimiser is AdamW, or Muon (Jordan et al., 2024) for matrices and convolutions. The learning rate's schedule is a
callback (`train.stages.callbacks.Schedule`), since runs are measured in minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import nn

from game_wm.model.names import present_names

Kind = Literal["adamw", "muon"]


class StageModule(pl.LightningModule):
    """A network in training.

    Args:
        lr, weight_decay: highest learning rate, and the decay of matrices.
        optimizer: `adamw` or `muon`.
    """

    decided: bool | None = None  # the kind of the step that a CUDA graph is captured of, see `draw_kind`

    def __init__(self, lr: float, weight_decay: float, optimizer: Kind) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.optimizer_kind = lr, weight_decay, optimizer

    def on_fit_start(self) -> None:
        self.prepare(self.trainer.datamodule)  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(present_names(state_dict), strict, assign)

    def prepare(self, data: Any) -> None:
        """Find out from the data what must be known before the first step. Raises `UserError`."""

    def uncapturable(self) -> str | None:
        """Why a step cannot be one CUDA graph, if so."""
        return None

    def draw_kind(self) -> bool | None:
        """Draw the kind of the next step, where there are two kinds: each is a CUDA graph of its own."""
        return None


def make_optimizer(module: nn.Module, kind: Kind, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimiser over a module's weights; vectors (biases, norms) are not decayed."""
    weights = [p for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in weights if p.ndim >= 2], [p for p in weights if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if kind == "muon":
        from timm.optim import Muon

        groups[1]["use_fallback"] = True
        return Muon(groups, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
