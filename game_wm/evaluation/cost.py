"""Cost: what a frame of play takes, measured by `play.py --headless --json` in a process of its own.

card["cost"] = measure(Path("checkpoints/maze.safetensors"), frames=1000)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_collect.errors import UserError

FRAMES = 10_000
WAITING = 10.0  # seconds between two words on how long it has taken so far


def cost(
    checkpoint: Path, frames: int = FRAMES, steps: int | None = None, device: str = "cpu", precision: str = "auto"
) -> dict[str, Any]:
    """The card's `cost` object; says on standard error that it is still measuring."""
    return measure(checkpoint, frames, steps=steps, device=device, precision=precision, waiting=_still_here)


def _still_here(seconds: float) -> None:
    print(f"cost: {seconds:.0f} s so far", file=sys.stderr)


def measure(
    checkpoint: str | Path,
    frames: int = FRAMES,
    *,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    waiting: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """The `cost` object from a fresh process, which alone can tell first_frame_s; `UserError` with what it said.

    `waiting` is told every ten seconds how many have gone.
    """
    command = [sys.executable, "-m", "game_wm", "play", str(checkpoint), "--headless", "--json"]
    command += ["--frames", str(frames), "--seed", str(seed), "--device", device, "--precision", precision]
    command += [] if steps is None else ["--steps", str(steps)]
    command += [] if threads is None else ["--threads", str(threads)]
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        while True:
            try:
                out, told = process.communicate(timeout=WAITING)
                break
            except subprocess.TimeoutExpired:
                waiting(time.monotonic() - began)
            except BaseException:  # Ctrl-C ends it too
                process.kill()
                raise
    if process.returncode:
        said = told.strip().splitlines() or ["nothing"]
        code = process.returncode
        raise UserError(f"measuring {checkpoint} failed (exit {code}): {said[-1].removeprefix('error: ')}")
    return json.loads(out)
