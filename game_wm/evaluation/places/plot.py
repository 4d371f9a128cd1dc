"""Pictures of the suites revisit and dream: quality against age, contact sheets of returns and of ways there and back.
Drawn with Pillow.

plot(card["revisit"]).save("checkpoints/maze-revisit.png")
sheet(returns).save("checkpoints/maze-returns.png")
ways(found).save("checkpoints/maze-ways.png")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from game_wm.evaluation.report.ages import AGES, MOVING, NEVER
from game_wm.evaluation.report.sheet import CELL, GAP, INK, PAPER, ROWS, TOP, enlarged

WIDTH, HEIGHT, LEFT, BOTTOM = 250, 190, 44, 34  # of a panel, and its margins
FAINT = (222, 222, 222)
COLOURS = {"this model": (28, 96, 190), "window only": (206, 92, 40), "tokenizer": (140, 140, 140)}
SHOWN = (1, 4, 8, 16, 24, 32)  # frames of a rollout on the sheet
MARKS = 8  # places of a way on the sheet, beside where it begins


def plot(card: Mapping[str, Any]) -> Image.Image:
    """PSNR (above) and feature distance (below) against age, one column for each prompt length and span."""
    picture = Image.new("RGB", (len(card) * WIDTH, 2 * HEIGHT + TOP + 24), PAPER)
    pen = ImageDraw.Draw(picture)
    for row, (key, title) in enumerate((("psnr", "PSNR, dB"), ("feature_distance", "feature distance"))):
        every = {name: _lines(entry, key) for name, entry in card.items()}
        values = [v for lines in every.values() for line in lines.values() for part in line.values() for v in part]
        if not values:
            continue
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or 1.0
        for column, (name, lines) in enumerate(every.items()):
            box = (column * WIDTH + LEFT, TOP + row * HEIGHT + 16, (column + 1) * WIDTH - 10, TOP + (row + 1) * HEIGHT)
            prompt, span = name.split("/")
            pen.text((box[0], box[1] - 14), f"{title}: prompt {prompt}, frames {span}", INK)
            _panel(pen, box, lines, low - margin, high + margin)
    drawn = [name for name in COLOURS if any(_lines(entry, "psnr").get(name) for entry in card.values())]
    for i, name in enumerate(drawn):
        pen.line([(LEFT + 110 * i, 10), (LEFT + 110 * i + 14, 10)], COLOURS[name], 2)
        pen.text((LEFT + 110 * i + 18, 4), name, COLOURS[name])
    pen.text((LEFT, picture.height - 16), "frames since a surface was last on screen; whiskers: 95 % over mazes", INK)
    return picture


def _lines(entry: Mapping[str, Any], key: str) -> dict[str, dict[str, tuple[float, ...]]]:
    """Line -> age -> the value and, if known, its interval."""
    sources = {"this model": entry, "window only": entry.get("window_only", {})}
    lines = {
        name: {a: (v, *_known(source.get(f"{key}_interval", {}).get(a, ()))) for a, v in source.get(key, {}).items()}
        for name, source in sources.items()
    }
    return lines | ({"tokenizer": {a: (v,) for a, v in entry["ceiling_psnr"].items()}} if key == "psnr" else {})


def _known(interval: Sequence[float]) -> Sequence[float]:
    """The interval, () where a single maze has none."""
    return () if np.isnan(interval).any() else interval


def _panel(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], lines: Mapping[str, Any], low: float, high: float
) -> None:
    left, top, right, bottom = box[0], box[1], box[2], box[3] - BOTTOM
    for i in range(5):
        value = low + (high - low) * i / 4
        y = bottom - (bottom - top) * i / 4
        pen.line([(left, y), (right, y)], FAINT)
        pen.text((left - 36, y - 6), f"{value:.1f}" if high - low > 4 else f"{value:.2f}", INK)
    across = {name: left + (right - left) * (i + 0.5) / len(AGES) for i, name in enumerate(AGES)}
    for i, (name, x) in enumerate(across.items()):
        pen.text((x - 3 * len(name), bottom + 4 + 11 * (i % 2)), name, INK)
    for shift, (name, line) in enumerate(lines.items()):
        points = []
        for age, (value, *interval) in line.items():
            x, *ys = (across[age] + 4 * shift - 4, *(bottom - (bottom - top) * (v - low) / (high - low) for v in
                                                     (value, *interval)))  # fmt: skip
            points.append((x, ys[0]))
            pen.line([(x, y) for y in ys[1:]], COLOURS[name])
            pen.ellipse([x - 3, ys[0] - 3, x + 3, ys[0] + 3], COLOURS[name])
        pen.line(points, COLOURS[name], 2)


def sheet(returns: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Truth, dream and that of the window-only model below each other; over a column the age of what is new in it."""
    names = {"truth": "truth", "dream": "dream", "window": "window only"}
    blocks = []
    for found in returns[:ROWS]:
        shown = [n for n in SHOWN if n <= len(found["truth"])]
        titles = ["prompt's last", *(f"{n}: {_age(found['ages'][n - 1], n)}" for n in shown)]
        rows = {name: [None, *(found[kind][n - 1] for n in shown)] for kind, name in names.items() if kind in found}
        rows["truth"][0] = found["before"]
        blocks.append((found["seed"], titles, rows))
    return _blocks(blocks)


def ways(found: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> Image.Image:
    """Ways there, and below each frame that of the way back at the same place: of each the seed, the frame (H, W, 3)
    before it and the dreamt frames (N, H, W, 3)."""
    blocks = []
    for seed, before, frames in found[:ROWS]:
        # How many frames were made before one is shown.
        made = [round(mark * (len(frames) // 2 - 1) / MARKS) for mark in range(MARKS + 1)]
        titles = [f"{n or 'before'}, {len(frames) - n}" for n in made]
        there = [frames[n - 1] if n else before for n in made]
        blocks.append((seed, titles, {"there": there, "back": [frames[len(frames) - 1 - n] for n in made]}))
    return _blocks(blocks)


def _blocks(blocks: Sequence[tuple[int, list[str], dict[str, list[np.ndarray | None]]]]) -> Image.Image:
    """A block for each seed: a title over each column, and named rows of frames (H, W, 3)."""
    _, titles, rows = blocks[0]
    height, width = next(frame for frames in rows.values() for frame in frames if frame is not None).shape[:2]
    scale = max(1, round(CELL / max(height, width)))
    h, w, label = height * scale + GAP, width * scale + GAP, 84
    block = len(rows) * h + TOP
    picture = Image.new("RGB", (label + len(titles) * w, len(blocks) * block + GAP), PAPER)
    pen = ImageDraw.Draw(picture)
    for i, (seed, titles, rows) in enumerate(blocks):
        y = i * block
        pen.text((6, y + 6), f"{seed}", INK)
        for j, title in enumerate(titles):
            pen.text((label + j * w, y + 6), title, INK)
        for k, (name, frames) in enumerate(rows.items()):
            pen.text((6, y + TOP + k * h + h // 2), name, INK)
            for j, frame in enumerate(frames):
                if frame is not None:
                    picture.paste(enlarged(frame, scale), (label + j * w, y + TOP + k * h))
    return picture


def _age(ages: np.ndarray, n: int) -> str:
    """How old what has come into view by frame n is."""
    fresh = ages[(ages != MOVING) & (ages > n)]
    if not fresh.size:
        return "nothing new"
    return "never seen" if (middle := np.median(fresh)) >= NEVER else f"{middle:.0f} ago"
