"""Sizes of the dynamics network, shared by its two streams."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DynamicsConfig:
    """Sizes of the network.

    `history`: last latents the denoiser sees whole; `window`: frames of working memory; `recurrent`: whether it has
    recurrent memory; `recall`: whether it reads the view that episodic memory draws for a frame; `warp`: whether it
    reads the last frames as they look from where the action leads.
    """

    channels: int = 8
    height: int = 8
    width: int = 8
    actions: int = 4
    history: int = 4
    window: int = 32
    widths: tuple[int, ...] = (192, 256)
    blocks: tuple[int, ...] = (2, 3)
    condition: int = 256
    context_width: int = 192
    context_blocks: int = 2
    heads: int = 4
    registers: int = 2
    recurrent: bool = False
    recall: bool = False
    warp: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or len(self.widths) < 2:
            raise ValueError("widths and blocks must have the same number of levels, two at least")

    def grid(self, halvings: int) -> tuple[int, int]:
        """Height and width of the latent grid after so many halvings."""
        height, width = self.height, self.width
        for _ in range(halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    @property
    def views(self) -> int:
        """How many views are drawn for a frame."""
        return self.recall + self.warp

    @property
    def tokens(self) -> int:
        """Tokens of a frame in the context stream: the grid of the innermost level, and the registers."""
        height, width = self.grid(len(self.widths) - 1)
        return height * width + self.registers
