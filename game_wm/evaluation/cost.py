"""Cost: what a frame of play takes, measured by `play.py --headless --json` in a process of its own.

card["cost"] = cost(Path("checkpoints/maze.safetensors"))
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from game_wm.play.headless import measure

FRAMES = 10_000


def cost(
    checkpoint: Path, frames: int = FRAMES, steps: int | None = None, device: str = "cpu", precision: str = "auto"
) -> dict[str, Any]:
    """The card's `cost` object; `UserError` with the process's own last line when it fails."""
    return measure(checkpoint, frames, steps=steps, device=device, precision=precision, waiting=_still_here)


def _still_here(seconds: float) -> None:
    print(f"cost: {seconds:.0f} s so far", file=sys.stderr)
