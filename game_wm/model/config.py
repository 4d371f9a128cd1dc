"""Sizes of the dynamics network, shared by its two streams."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from game_wm.model.names import present_entries

COVER = 4  # mask channels of a view: how much of each quarter of a cell it covers

Trunk = Literal["unet", "transformer"]


@dataclass(frozen=True)
class DynamicsConfig:
    """Sizes of the network.

    Args:
        channels, height, width, levels: of the latents; `levels` of a discrete tokenizer, empty for continuous latents.
        actions: length of an encoded action.
        history: latest latents that the denoiser reads at full size.
        compressed: levels of averaged older latents (`memory/compressed.py`).
        widths, blocks: channels and residual blocks of each level of the denoiser; each level halves the grid. Of a
            transformer trunk: the last of each, after `blocks[0]` convolutional ones.
        hidden: channels inside the residual blocks of each level, `widths` if None (`pruning.py`).
        condition: width of the conditioning vector.
        context_width, context_blocks, heads, registers: of the context stream; registers are tokens without a cell.
        window: frames of working memory.
        attention: over time. "window": the last `window` frames, the first `sink` among them; with a window as long as
            an episode this is full causal attention. "sparse": of the window's blocks of `block` frames the two last
            and the `top` that fit best. "linear": the gated delta rule.
        kv_heads: heads of keys and values that the queries' `heads` share.
        bottleneck_window: frames back that the denoiser's bottleneck reads, `window` if None.
        recurrent: whether there is recurrent memory.
        recall: whether the denoiser reads the view that long memory renders for a frame.
        warp: whether it reads the last frames warped to the predicted pose.
        aligned: whether the frame is rendered at that pose: in play the predicted step *is* the step taken.
        gated: whether the denoiser's correction to the last latent passes a gate, cell by cell: what stands still is
            copied.
        trunk: the network that predicts the next frame, given by the objective.

    Raises ValueError for sizes that do not fit each other.
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
    bottleneck_window: int | None = None
    recurrent: bool = False
    recall: bool = False
    warp: bool = False
    aligned: bool = False
    gated: bool = False
    trunk: Trunk = "unet"
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or len(self.widths) < 2:
            raise ValueError("widths and blocks must have the same number of levels, two at least")
        if self.trunk == "transformer" and len(self.levels) != self.channels:
            tokenizer = "configs/lab/tokenizer-codes.yaml"
            raise ValueError(f"a transformer trunk needs codes, of a tokenizer with levels ({tokenizer})")
        if self.trunk == "transformer" and self.views:
            raise ValueError("a transformer trunk reads no views: set recall and warp to false")
        if self.aligned and not self.warp:
            raise ValueError("aligned frames need the warped last frame: set warp to true, or aligned to false")
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
        return self.recall + self.warp

    @property
    def tokens(self) -> int:
        """Tokens of a frame in the context stream: the grid of the innermost level, and the registers."""
        height, width = self.grid(len(self.widths) - 1)
        return height * width + self.registers


def build(kind: Any, entries: dict[str, Any]) -> Any:
    """A configuration dataclass from its entries, those of older files too; ValueError for unknown ones."""
    entries = present_entries(entries)
    if unknown := set(entries) - {f.name for f in fields(kind)}:
        raise ValueError(f"unknown {kind.__name__} entries: {', '.join(sorted(unknown))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()})
