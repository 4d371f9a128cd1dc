"""Playing without a window: what a frame costs, and videos of played action files.

    python play.py --headless --frames 10000 --json
    cost = measure("checkpoints/maze.safetensors", frames=1000)      # the same in a process of its own

The `cost` object (megabytes are 10^6 bytes, times include choosing the action, the model and decoding to uint8;
starting another episode counts for the frame that waits for it; writing a video does not count):
fps_median = 1000 / p50_ms, p50_ms and p95_ms over all counted frames, `*_first` and `*_last` over the first and last
200, first_frame_s from the start of the process to the first dreamt frame, state_mb the `WorldState` of one player.
WARM_UP frames of another episode go before and are not counted, nor are those until compiled code is in place, if it is
asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_collect.errors import UserError
from data_collect.system import resident_bytes
from game_wm.play.timing import process_age

if TYPE_CHECKING:
    from game_wm.dream.actions import ActionLog
    from game_wm.dream.saved import SavedDream
    from game_wm.play.files.video import VideoWriter
    from game_wm.play.session import Session

WARM_UP = 64  # frames, but no more than are counted
WAITING = 10.0  # seconds
EDGE = 200  # frames at either end that show whether a frame's cost grows


def play(
    session: Session,
    frames: int,
    replay: ActionLog | None = None,
    video: VideoWriter | None = None,
    report: Callable[[int], None] = lambda done: None,
    again: bool = False,
) -> dict[str, Any]:
    """Play `frames` frames unpaced, by the session's player or as recorded in `replay`; returns the `cost` object.

    With `again`, the saved dream that the session begins with is dreamt once more.

    first_frame_s is the age of this process, so it means something only in the first session of one.
    """
    if replay is not None and frames > len(replay):
        raise UserError(f"--frames {frames} is more than the {len(replay)} actions of the file")
    session.tick()
    first_frame = process_age()
    while (compiling := session.scene.model.compiling) and compiling.is_alive():
        session.tick()
    for _ in range(min(WARM_UP, frames) - 1):
        session.tick()
    session.reset()  # so that what is played does not depend on the warm-up
    if again and session.beginning is not None:
        session.replay(session.beginning)

    seconds, resident, left_out = list[float](), list[int](), 0
    actions = replay.actions if replay is not None else None
    episodes, elsewhere = replay.episodes if replay is not None else {}, False
    for i in range(frames):
        started = time.perf_counter()
        if i in episodes and episodes[i][0] >= 0:
            session.scene.begin(*episodes[i])
        elsewhere = episodes[i][0] < 0 if i in episodes else elsewhere
        if elsewhere:
            left_out += 1
            continue
        if actions is None:
            session.tick()
        else:
            if session.scene.ended:
                session.scene.begin(session.dream.context + 1)
            session.step(session.schema.action(actions[i]))
        seconds.append(time.perf_counter() - started)
        for words in (session.adapt_quality(seconds[-1]), session.scene.news()):
            if words:
                print(f"frame {i + 1}: {words}", file=sys.stderr)
        resident.append(resident_bytes())
        if video is not None:
            video.write(session.scene.film)
        report(i + 1)
    if left_out:
        words = f"{left_out} actions are of dreams that began in the real game: save such a dream, and --replay it"
        if not seconds:
            raise UserError(words)
        print(f"left out: {words}", file=sys.stderr)
    return summary(np.array(seconds), np.array(resident)) | {
        "first_frame_s": round(first_frame, 2),
        "state_mb": round(session.dream.state.nbytes / 1e6, 3),
        "frames": len(seconds),
        "device": device_name(session.scene.model) + (f", {session.quality.name}" if session.quality else ""),
    }


def compared(again: SavedDream, dream: SavedDream) -> str:
    """A sentence on a dream that was dreamt again: whether every bit of its state and its picture is the same."""
    import torch

    from game_wm.evaluation.metrics import psnr

    was, now = dream.state.to_dict(), again.state.to_dict()
    same = np.array_equal(dream.picture, again.picture) and all(torch.equal(now[name], was[name]) for name in was)
    if same:
        return "dreamt again: the same, bit for bit"
    pictures = (torch.from_numpy(x)[None] for x in (dream.picture, again.picture))
    words = f"dreamt again: not the same, the last pictures are {psnr(*pictures).item():.1f} dB alike"
    if again.about.executable != dream.about.executable:
        words += f" (saved on {dream.about.executable}; now {again.about.executable})"
    return words


def summary(seconds: np.ndarray, resident: np.ndarray) -> dict[str, float]:
    """Frame times (T,) in seconds and resident bytes (T,) -> the figures of the `cost` object."""
    milliseconds = {"p50_ms": seconds, "p50_ms_first": seconds[:EDGE], "p50_ms_last": seconds[-EDGE:]}
    figures = {key: float(np.median(values)) * 1e3 for key, values in milliseconds.items()}
    figures["p95_ms"] = float(np.quantile(seconds, 0.95)) * 1e3
    figures["fps_median"] = 1e3 / figures["p50_ms"]
    figures["rss_mb_first"], figures["rss_mb_last"] = (
        float(np.median(part)) / 1e6 for part in (resident[:EDGE], resident[-EDGE:])
    )
    order = ("fps_median", "p50_ms", "p95_ms", "p50_ms_first", "p50_ms_last", "rss_mb_first", "rss_mb_last")
    return {key: round(figures[key], 1 if "rss" in key or "fps" in key else 3) for key in order}


def device_name(model: Any) -> str:
    """ "cpu, 2 threads" or "cuda, NVIDIA H100"."""
    import torch

    from game_wm.device import in_words

    device = next(model.parameters()).device
    if named := in_words(device):
        return f"{device.type}, {named}"
    threads = torch.get_num_threads()
    how = {"bfloat16": model.low_precision, "int8": model.quantised, "compiled": model.compiled}
    name = f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return ", ".join([name, *(word for word, so in how.items() if so)])


def measure(
    checkpoint: str | Path,
    frames: int = 10_000,
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
