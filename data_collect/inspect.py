"""Shows what a recording holds: a table, JSON, or a contact sheet.

inspect("data/maze", sheet="sheet.png")
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from data_collect.dataset import Dataset
from data_collect.errors import UserError

ROWS, COLUMNS, TILE, LABEL, GAP = 8, 8, 160, 13, 4
FONT = ImageFont.load_default(11)


def inspect(folder: str | Path, sheet: str | Path | None = None, as_json: bool = False) -> None:
    """Print the card of a recording, and write its contact sheet to `sheet`. `UserError` as in `Dataset`."""
    dataset = Dataset(folder)
    if sheet is not None:
        picture = contact_sheet(dataset)
        try:
            picture.save(sheet)
        except (OSError, ValueError) as error:
            raise UserError(f"{sheet} cannot be written ({error}): name a .png file in a folder that exists") from None
    if as_json:
        print(json.dumps(dataset.card, indent=1))
        return
    print_card(dataset)
    if sheet is not None:
        print(f"contact sheet: {sheet}")


def print_card(dataset: Dataset) -> None:
    """The card as a table on standard output."""
    card, schema = dataset.card, dataset.schema
    steps = max(card["steps"], 1)
    pixels = f"{card['width']}x{card['height']}"
    lengths = [sum(ref.steps for ref in refs) for refs in dataset.by_episode.values()] or [0]
    rows = {
        "game": f"{card['game']} ({pixels}, {card['fps']:g} frames/s)",
        "player": f"{card['player']}, recording seed {card['recording_seed']}",
        "frames": f"{card['frames']:,} ({card['hours']:.2f} hours of game time)",
        "episodes": f"{card['episodes']:,}, {min(lengths):,} to {max(lengths):,} steps",
        "ends": f"{card['terminated']:,} by the game, {card['truncated']:,} by length",
        "reward": f"{card['reward']:,.2f} in all, {card['reward'] / max(card['episodes'], 1):,.2f} an episode",
        "shards": f"{card['shards']:,} with {card['chunks']:,} chunks, {card['bytes'] / 1e6:,.1f} MB",
        "frame": f"{card['frame_bytes'] / max(card['frames'], 1):,.0f} bytes a frame, "
        f"{card['raw_bytes'] / max(card['frame_bytes'], 1):.1f} times smaller than raw",
        "actions": f"{schema.kind} of {schema.size}",
    }
    table = Table(title=str(dataset.folder), show_header=False, title_justify="left")
    for name, text in rows.items():
        table.add_row(name, text)
    width = max(map(len, card["actions"]), default=0)
    for name, count in sorted(card["actions"].items(), key=lambda item: -item[1])[:24]:
        share = count / steps
        table.add_row("", f"{name:<{width}} {share:6.1%} {'█' * round(share * 30)}")
    Console(markup=False, emoji=False).print(table)  # game ids and names of actions are no markup


def contact_sheet(dataset: Dataset) -> Image.Image:
    """A row per episode (8 at most, evenly chosen), 8 moments each, with the time in seconds and the action."""
    numbers = list(dataset.by_episode)
    if not numbers:
        raise UserError(f"{dataset.folder} holds no whole episode yet, so there is nothing to show")
    chosen = [
        numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, min(ROWS, len(numbers))).round().astype(int))
    ]
    height, width = dataset.card["height"], dataset.card["width"]
    scale = max(1, round(TILE / width))
    cell = (width * scale + GAP, height * scale + 2 * LABEL + GAP)
    sheet = Image.new("RGB", (cell[0] * COLUMNS + GAP, cell[1] * len(chosen) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, number in enumerate(chosen):
        episode = dataset.episode(number)
        for column, t in enumerate(np.linspace(0, len(episode.frames) - 1, COLUMNS).round().astype(int)):
            x, y = column * cell[0] + GAP, row * cell[1] + GAP
            tile = Image.fromarray(episode.frames[t])
            sheet.paste(tile.resize((width * scale, height * scale), Image.Resampling.NEAREST), (x, y))
            action = dataset.schema.describe(episode.actions[t]) if t < len(episode.actions) else "end"
            place = (x, y + height * scale)
            draw.text(place, f"{number} · {t / dataset.schema.fps:.1f} s", "grey", FONT)
            draw.text((x, place[1] + LABEL - 2), _fit(draw, action, cell[0] - GAP), "black", FONT)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, shortened to so many pixels."""
    short = text
    while draw.textlength(short, FONT) > width:
        text = text[:-1]
        short = text + "…"
    return short
