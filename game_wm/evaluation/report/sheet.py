"""The contact sheet of a card: real frames above, dreamt frames below, one pair of rows per seed.

picture = draw(truth, dream)
picture.save("checkpoints/maze.png")
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from game_wm.evaluation.rollout import DreamRollout
from game_wm.evaluation.truth.plays import Truth

FRAMES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)  # 0 is the last frame of the prompt
ROWS = 6
CELL = 128  # pixels of a cell's longer side, at least
GAP, LABEL, NAME, TOP = 4, 64, 80, 22
PAPER, INK = (250, 250, 250), (40, 40, 40)


def draw(truth: Truth, dream: DreamRollout) -> Image.Image:
    """The sheet of the first episodes of a batch."""
    count = dream.frames.shape[1]
    columns = [f for f in FRAMES if f <= count]
    rows = min(ROWS, len(truth.seeds))
    height, width = truth.frames.shape[2:4]
    scale = max(1, round(CELL / max(height, width)))
    h, w = height * scale, width * scale
    across, down = LABEL + len(columns) * (w + GAP), TOP + rows * (2 * h + 3 * GAP)
    picture = Image.new("RGB", (across, down), PAPER)
    pen = ImageDraw.Draw(picture)
    for j, frame in enumerate(columns):
        pen.text((LABEL + j * (w + GAP), 5), "prompt" if frame == 0 else f"frame {frame}", INK)
    for i in range(rows):
        y = TOP + i * (2 * h + 3 * GAP)
        pen.text((6, y + h // 2), f"{truth.seeds[i]}\n  truth", INK)
        pen.text((6, y + h + GAP + h // 2), "  dream", INK)
        for j, frame in enumerate(columns):
            if frame > truth.length[i]:
                continue
            x = LABEL + j * (w + GAP)
            picture.paste(enlarged(truth.at(frame)[i].numpy(), scale), (x, y))
            if frame:
                picture.paste(enlarged(dream.at(frame)[i].numpy(), scale), (x, y + h + GAP))
    return picture


def beside(sheets: dict[str, Image.Image], episodes: int, shown: int = 2) -> Image.Image:
    """What several models dreamt of the same episodes, one row each below the truth, out of their sheets by name, which
    are of so many episodes; of the first `shown` of them."""
    first = next(iter(sheets.values()))
    pair = (first.height - TOP) // min(ROWS, episodes)
    row, rows = (pair - GAP) // 2, min(shown, ROWS, episodes)  # a row with the gap below it
    block = (len(sheets) + 1) * row + 2 * GAP
    picture = Image.new("RGB", (first.width - LABEL + NAME, TOP + rows * block), PAPER)
    pen = ImageDraw.Draw(picture)
    picture.paste(first.crop((LABEL, 0, first.width, TOP)), (NAME, 0))
    for i in range(rows):
        for j, (name, sheet) in enumerate([("truth", first), *sheets.items()]):
            top, y = TOP + i * pair + (row if j else 0), TOP + i * block + j * row
            picture.paste(sheet.crop((LABEL, top, sheet.width, top + row)), (NAME, y))
            pen.text((6, y + row // 2), name, INK)
    return picture


def enlarged(frame_HWC: np.ndarray, scale: int) -> Image.Image:
    """A frame whose pixels are so many times as large."""
    image = Image.fromarray(frame_HWC)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
