"""Cost: what a frame of play takes, measured by `play.py --headless --json` in a process of its own.

card["cost"] = measure(Path("checkpoints/maze.safetensors"), frames=1000)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data_collect.errors import UserError
from game_wm.deadline import NEVER, Deadline

WAITING = 10.0  # seconds between two words on how long it has taken so far


def measure(
    checkpoint: str | Path, frames: int, talk: bool = False, deadline: Deadline = NEVER, **flags: Any
) -> dict[str, Any]:
    """The `cost` object from a fresh process, which alone can tell first_frame_s; `UserError` with what it said,
    `OutOfTime` at the deadline.

    `flags` are further ones of `play` (steps, device, precision, threads; None: not given). `talk`: say on standard
    error every ten seconds that it is still measuring.
    """
    command = [sys.executable, "-m", "game_wm", "play", str(checkpoint), "--headless", "--json"]
    given = {"frames": frames, "seed": 0, **flags}
    command += [word for flag, value in given.items() if value is not None for word in (f"--{flag}", str(value))]
    began, pipe = time.monotonic(), subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, errors="replace") as process:
        while True:
            try:
                out, told = process.communicate(timeout=min(WAITING, deadline.left))
                break
            except subprocess.TimeoutExpired:
                if not deadline.left:
                    process.kill()
                deadline.check()
                if talk:
                    print(f"cost: {time.monotonic() - began:.0f} s so far", file=sys.stderr)
            except BaseException:  # Ctrl-C ends it too
                process.kill()
                raise
    if code := process.returncode:
        said = told.strip().splitlines() or ["nothing"]
        raise UserError(f"measuring {checkpoint} failed (exit {code}): {said[-1].removeprefix('error: ')}")
    return json.loads(out)
