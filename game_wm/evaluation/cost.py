"""Cost: what a frame of play takes, measured by `play.py --headless --json` in a process of its own.

card["cost"] = cost(Path("checkpoints/maze.safetensors"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from game_wm.ui.headless import measure

FRAMES = 10_000


def cost(
    checkpoint: Path, frames: int = FRAMES, steps: int | None = None, device: str = "cpu", precision: str = "auto"
) -> dict[str, Any]:
    """The card's `cost` object; `UserError` with the process's own last line when it fails."""
    return measure(checkpoint, frames, steps=steps, device=device, precision=precision)
