"""Cost: what a frame of play takes, measured by `play.py --headless --json` in a process of its own, and what of it is
for long memory.

card["cost"] = measure(Path("checkpoints/maze.safetensors"), frames=1000) | in_turn(checkpoint, frames=1000)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_collect.errors import UserError
from game_wm.acceleration import prepare
from game_wm.checkpoint import Checkpoint, load
from game_wm.deadline import NEVER, Deadline
from game_wm.world import WorldModel

WAITING = 10.0  # seconds between two words on how long it has taken so far
TURN, TURNS = 50, 20  # frames that each of two models plays in turn, and how often at most


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


def in_turn(
    checkpoint: Checkpoint,
    frames: int,
    deadline: Deadline = NEVER,
    steps: int | None = None,
    device: str = "cpu",
    precision: str = "auto",
) -> dict[str, float]:
    """`p50_ms_without_memory`, the median frame of the same network without long memory, and `times_without_memory`,
    how many times as long a frame takes with it: the two play by turns in one process. Empty where there is none."""
    if checkpoint.path is None or checkpoint.model.config.memory is None:
        return {}
    loaded = load(checkpoint.path, device)
    models = [prepare(model, precision, device) for model in (loaded.model, without_memory(loaded.model))]
    pictures, actions, poses = loaded.prompt(0)
    states = [model.begin(pictures, actions, 0, poses) for model in models]
    medians: list[list[float]] = [[], []]
    for _ in range(1 + min(TURNS, max(1, frames // TURN))):
        deadline.check()
        for model, state, found in zip(models, states, medians, strict=True):
            seconds = []
            for t in range(TURN):
                began = time.perf_counter()
                model.step(state, actions[t % len(actions)][None], steps)[0].frames.cpu()
                seconds.append(time.perf_counter() - began)
            found.append(float(np.median(seconds)) * 1e3)
    with_memory, without = np.array(medians)[:, 1:]  # the first turn warms up
    times = float(np.median(with_memory / without))
    return {"p50_ms_without_memory": round(float(np.median(without)), 3), "times_without_memory": round(times, 3)}


def without_memory(model: WorldModel) -> WorldModel:
    """A network of the same sizes without long memory and its views. Its first layer is not trained: it is there to be
    timed."""
    config, own = model.config, model.state_dict()
    dynamics = replace(config.dynamics, recall=False, warp=False, aligned=False)
    plain = WorldModel(replace(config, dynamics=dynamics, memory=None))
    fitting = {name: own[name] for name, value in plain.state_dict().items() if own[name].shape == value.shape}
    plain.load_state_dict(fitting, strict=False)
    return plain.to(next(model.parameters()).device).eval().requires_grad_(False)
