"""Playing without a window: what a frame costs, and videos of played action files.

    python play.py --headless --frames 10000 --json
    cost = play(session, frames=10000)

The `cost` object (megabytes are 10^6 bytes, times include choosing the action, the model and decoding to uint8;
starting another episode counts for the frame that waits for it; writing a video does not count):
fps_median = 1000 / p50_ms, p50_ms and p95_ms over all counted frames, `*_first` and `*_last` over the first and last
200, first_frame_s from the start of the process to the first dreamt frame, state_mb the `WorldState` of one player at
the end, state_mb_first before the first frame.
WARM_UP_FRAMES of another episode go before and are not counted, nor are those until compiled code is in place, if it is
asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from data_collect.errors import UserError
from data_collect.system import resident_bytes
from game_wm.play.timing import process_age

if TYPE_CHECKING:
    from data_collect.recording.mp4 import VideoWriter
    from game_wm.dream.actions import ActionLog
    from game_wm.dream.saved import SavedDream
    from game_wm.play.session import Session

WARM_UP_FRAMES = 64  # frames, but no more than are counted
EDGE = 200  # frames at either end that show whether a frame's cost grows
Line = tuple[np.ndarray, tuple[int, int] | None]


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
    first_frame = warm_up(session, min(WARM_UP_FRAMES, frames))
    if again and session.beginning is not None:
        session.replay(session.beginning)
    state_mb_first = session.dream.state.nbytes / 1e6
    lines = None if replay is None else script(replay)
    seconds, resident = list[float](), list[int]()
    for i in range(frames):
        started = time.perf_counter()
        if lines is None:
            session.tick()
        elif (line := lines[i]) is not None:
            _play_line(session, line)
        else:
            continue
        seconds.append(time.perf_counter() - started)
        for words in (session.adapt_quality(seconds[-1]), session.scene.news()):
            if words:
                print(f"frame {i + 1}: {words}", file=sys.stderr)
        resident.append(resident_bytes())
        if video is not None:
            video.write(session.scene.film)
        report(i + 1)
    if left_out := frames - len(seconds):
        words = f"{left_out} actions are of dreams that began in the real game: save such a dream, and --replay it"
        if not seconds:
            raise UserError(words)
        print(f"left out: {words}", file=sys.stderr)
    return summary(np.array(seconds), np.array(resident)) | {
        "first_frame_s": round(first_frame, 2),
        "state_mb_first": round(state_mb_first, 3),
        "state_mb": round(session.dream.state.nbytes / 1e6, 3),
        "frames": len(seconds),
        "device": device_name(session.scene.model) + (f", {session.quality.name}" if session.quality else ""),
    }


def warm_up(session: Session, frames: int) -> float:
    """Play so many frames, and until compiled code is in place; the age of the process at the first of them. The
    session is as before, so that what is played does not depend on it."""
    session.tick()
    first_frame = process_age()
    while (compiling := session.scene.model.compiling) and compiling.is_alive():
        session.tick()
    for _ in range(frames - 1):
        session.tick()
    session.reset()
    return first_frame


def script(log: ActionLog) -> list[Line | None]:
    """An action file frame by frame: the raw action, and the context and seed of a dream that begins with it; None for
    the actions of dreams that began in none of the checkpoint's contexts, which cannot be played again."""
    lines, elsewhere, episodes = list[Line | None](), False, log.episodes
    for number, raw in enumerate(log.actions):
        begin = episodes.get(number)
        elsewhere = elsewhere if begin is None else begin[0] < 0
        lines.append(None if elsewhere else (raw, begin))
    return lines


def _play_line(session: Session, line: Line) -> None:
    raw, begin = line
    if begin is not None:
        session.scene.begin(*begin)
    if session.scene.ended:
        session.scene.begin(session.dream.context + 1)
    session.step(session.schema.action(raw))


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
    p50, first, last = (float(np.median(part)) * 1e3 for part in (seconds, seconds[:EDGE], seconds[-EDGE:]))
    rss_first, rss_last = (float(np.median(part)) / 1e6 for part in (resident[:EDGE], resident[-EDGE:]))
    p95 = float(np.quantile(seconds, 0.95)) * 1e3
    times = {"p50_ms": p50, "p95_ms": p95, "p50_ms_first": first, "p50_ms_last": last}
    figures = {"fps_median": 1e3 / p50, **times, "rss_mb_first": rss_first, "rss_mb_last": rss_last}
    return {key: round(value, 3 if key in times else 1) for key, value in figures.items()}


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
