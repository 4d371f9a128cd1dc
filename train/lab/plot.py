"""Quality against milliseconds, with the rows that no other one beats in both joined by a line. Drawn with Pillow.

picture = plot(entries, protocol)        # None where nothing has been timed
front = frontier([(12.0, 20.1), (14.0, 19.8)])      # of these, the first alone
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from game_wm.evaluation.report.sheet import INK, PAPER
from train.lab.protocol import Protocol

COLOURS = {"modelling": (28, 96, 190), "architecture": (40, 140, 80), "inference": (206, 92, 40)}
FAINT, LINE = (222, 222, 222), (140, 140, 140)
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 330, 56, 26, 40  # of a panel, and its margins
COLUMN, ROW = 280, 15  # of the list of names

Point = tuple[float, float]


def frontier(points: Sequence[Point]) -> list[int]:
    """Which of the points (cost, quality) no other one beats: none is as cheap and better, or as good and cheaper. In
    the order of their cost."""
    best, found = -math.inf, list[int]()
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            found.append(i)
    return found


def plot(entries: Sequence[dict[str, Any]], protocol: Protocol) -> Image.Image | None:
    """Left, PSNR in the middle of the rollout; right, feature distance at its end, turned so that up is better. Rows of
    several players are not in it, for their milliseconds are of several frames, nor those of the family combined, which
    were trained for longer."""
    horizons = sorted(protocol.horizons)
    middle, last = str(horizons[len(horizons) // 2]), str(horizons[-1])
    rows = [f for f in entries if "ms_per_frame" in f and f["players"] == 1 and last in f.get("feature_distance", {})]
    rows = [f for f in rows if f["family"] in COLOURS]
    if not rows:
        return None
    columns = 2 * WIDTH // COLUMN
    lines = math.ceil(len(rows) / columns)
    picture = Image.new("RGB", (2 * WIDTH, HEIGHT + lines * ROW + 12), PAPER)
    pen = ImageDraw.Draw(picture)
    usual = next((f["ms_per_frame"] for f in rows if f["name"] == protocol.default), None)
    # What counts is the ratio to the default's time in turn: the machine may have been faster then, or slower.
    times = [f["ms_per_frame"] if usual is None or f["name"] == protocol.default else usual * f["ratio"]["ms_per_frame"]
             for f in rows]  # fmt: skip
    _panel(pen, 0, f"PSNR after {middle} frames, dB", times, [f["psnr"][middle] for f in rows], rows)
    distances = [-f["feature_distance"][last] for f in rows]
    _panel(pen, WIDTH, f"feature distance after {last} frames, small ones above", times, distances, rows)
    for i, found in enumerate(rows):
        x, y = 12 + COLUMN * (i // lines), HEIGHT + ROW * (i % lines)
        pen.text((x, y), f"{i + 1:3}  {found['name']}", COLOURS[found["family"]])
    return picture


def _panel(
    pen: ImageDraw.ImageDraw, shift: int, title: str, times: list[float], values: list[float], rows: Sequence[Any]
) -> None:
    box = shift + LEFT, TOP, shift + WIDTH - 16, HEIGHT - BOTTOM
    low, high = min(values), max(values)
    low, high = low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1)
    fast, slow = math.log(min(times)) - 0.1, math.log(max(times)) + 0.1

    def place(time: float, value: float) -> Point:
        across = (math.log(time) - fast) / (slow - fast)
        return box[0] + (box[2] - box[0]) * across, box[3] - (box[3] - box[1]) * (value - low) / (high - low)

    pen.text((box[0], 6), title, INK)
    for i in range(5):
        value = low + (high - low) * i / 4
        y = place(times[0], value)[1]
        pen.line((box[0], y, box[2], y), FAINT)
        pen.text((shift + 8, y - 6), f"{abs(value):.2f}", INK)
    for i in range(5):
        time = math.exp(fast + (slow - fast) * i / 4)
        x = place(time, low)[0]
        pen.line((x, box[1], x, box[3]), FAINT)
        pen.text((x - 10, box[3] + 6), f"{time:.3g}", INK)
    pen.text((box[0], box[3] + 22), "milliseconds a frame; the line joins what nothing beats in both", INK)
    front = [place(times[i], values[i]) for i in frontier(list(zip(times, values)))]
    pen.line(front, LINE, 2)
    for i, (time, value) in enumerate(zip(times, values)):
        x, y = place(time, value)
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), COLOURS[rows[i]["family"]])
        pen.text((x + 5, y - 11), f"{i + 1}", COLOURS[rows[i]["family"]])
