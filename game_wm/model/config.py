"""Sizes of the dynamics network, shared by its two streams."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

COVER = 4  # channels of a view that tell how much of each quarter of a cell is drawn

Trunk = Literal["unet", "transformer"]


@dataclass(frozen=True)
class DynamicsConfig:
    """Sizes of the network.

    `attention`: over time, in the context stream: "window" (the last `window` frames, the first `sink` among them; with
    a window as long as an episode it is full causal attention), "sparse" (of the window's blocks of `block` frames the
    two last and the `top` that fit best), "linear" (the gated delta rule instead); `kv_heads`: heads of keys and values
    that the queries' `heads` share; `glance`: frames back that the denoiser's bottleneck looks, `window` if None.
    `hidden`: channels inside the denoiser's residual blocks, a level each, `widths` if None (`pruning.py`).
    `history`: last latents the denoiser sees whole, `compressed`: levels of those before them (`memory/compressed.py`);
    `window`: frames of working memory; `recurrent`: whether it has recurrent memory; `recall`: whether it reads the
    view that episodic memory draws for a frame; `warp`: whether it reads the last frames as they look from where the
    action leads, `aligned`: whether it draws the frame as it looks from there, so that in a dream the step that was
    foreseen is the step that was taken. `trunk`: what draws the next frame, given by the objective; a transformer is as
    wide as the last of `widths` and has the last of `blocks`, behind as many convolutional ones as the first of them
    says. `levels`: of the tokenizer's channels, none where they are continuous.
    """

    channels: int = 8
    height: int = 8
    width: int = 8
    actions: int = 4
    history: int = 4
    compressed: int = 0
    window: int = 32
    widths: tuple[int, ...] = (192, 256)
    blocks: tuple[int, ...] = (2, 3)
    hidden: tuple[int, ...] | None = None
    condition: int = 256
    context_width: int = 192
    context_blocks: int = 2
    heads: int = 4
    registers: int = 2
    attention: Literal["window", "sparse", "linear"] = "window"
    sink: int = 0
    block: int = 16
    top: int = 4
    kv_heads: int | None = None
    glance: int | None = None
    recurrent: bool = False
    recall: bool = False
    warp: bool = False
    aligned: bool = False
    trunk: Trunk = "unet"
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or len(self.widths) < 2:
            raise ValueError("widths and blocks must have the same number of levels, two at least")
        if self.trunk == "transformer" and len(self.levels) != self.channels:
            tokenizer = "configs/lab/tokenizer-codes.yaml"
            raise ValueError(f"a transformer trunk needs codes, of a tokenizer with levels ({tokenizer})")
        if self.trunk == "transformer" and (self.recall or self.warp):
            raise ValueError("a transformer trunk is shown no views: set recall and warp to false")
        if self.aligned and not self.warp:
            raise ValueError("aligned frames are drawn from what is warped: set warp to true, or aligned to false")
        if len(self.inside) != len(self.widths):
            raise ValueError("hidden must have as many levels as widths")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"{self.kv_heads} heads of keys and values cannot be shared by {self.heads}")
        if not 0 <= self.sink < self.window:
            raise ValueError(f"a sink of {self.sink} frames does not fit a window of {self.window}")
        if self.attention == "sparse" and (self.sink or self.window % self.block or self.window < 3 * self.block):
            raise ValueError(f"sparse attention wants no sink and a window of three blocks of {self.block} or more")

    def grid(self, halvings: int) -> tuple[int, int]:
        """Height and width of the latent grid after so many halvings."""
        height, width = self.height, self.width
        for _ in range(halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    @property
    def inside(self) -> tuple[int, ...]:
        """Channels inside the residual blocks of each level."""
        return self.hidden or self.widths

    @property
    def span(self) -> int:
        """Latents that are kept for the denoiser."""
        return self.history * 2**self.compressed

    @property
    def has_recurrent(self) -> bool:
        """Whether the context stream keeps recurrent memory, as linear attention does too."""
        return self.recurrent or self.attention == "linear"

    @property
    def views(self) -> int:
        """How many views are drawn for a frame."""
        return self.recall + self.warp

    @property
    def tokens(self) -> int:
        """Tokens of a frame in the context stream: the grid of the innermost level, and the registers."""
        height, width = self.grid(len(self.widths) - 1)
        return height * width + self.registers


def build(kind: Any, entries: dict[str, Any]) -> Any:
    """A configuration dataclass from its entries; ValueError for unknown ones."""
    if unknown := set(entries) - {f.name for f in fields(kind)}:
        raise ValueError(f"unknown {kind.__name__} entries: {', '.join(sorted(unknown))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()})
