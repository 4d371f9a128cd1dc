"""Shows what a recording holds: a table, JSON, or a contact sheet.

inspect("data/maze", sheet="sheet.png")
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from data_collect.dataset import Dataset, evenly
from data_collect.errors import UserError
from data_collect.files import save_picture
from data_collect.shards.check import Finding, findings, measure

ROWS, COLUMNS, TILE, LABEL, GAP = 8, 8, 160, 13, 4
FONT = ImageFont.load_default(11)


def inspect(folder: str | Path, sheet: str | Path | None = None, as_json: bool = False) -> None:
    """Print the card of a recording, and write its contact sheet to `sheet`. `UserError` as in `Dataset`."""
    dataset = Dataset(folder)
    if sheet is not None:
        if not Path(sheet).parent.is_dir():
            raise UserError(f"{sheet} cannot be written: name a .png file in a folder that exists")
        save_picture(sheet, contact_sheet(dataset))
    odd = list(findings(measure(dataset)))
    if as_json:
        found = [{"kind": finding.kind, "sentence": finding.sentence, **finding.figures} for finding in odd]
        print(json.dumps(dataset.card | {"findings": found}, indent=1))
        return
    print_card(dataset, odd)
    if sheet is not None:
        print(f"contact sheet: {sheet}")


def print_card(dataset: Dataset, odd: list[Finding]) -> None:
    """The card as a table on standard output, and what is odd about the recording below it."""
    card, schema = dataset.card, dataset.schema
    pixels = f"{card['width']}x{card['height']}"
    episodes = dataset.whole.per_episode("steps").tolist() or [0]
    ratio, average = card["raw_bytes"] / max(card["frame_bytes"], 1), card["frame_bytes"] / max(card["frames"], 1)
    rows = {
        "game": f"{card['game']} ({pixels}, {card['fps']:g} frames/s)",
        "player": f"{card['player']}, recording seed {card['recording_seed']}",
        "frames": f"{card['frames']:,} ({duration(card['frames'] / card['fps'])} of game time)",
        "episodes": f"{card['episodes']:,}, {min(episodes):,} to {max(episodes):,} steps",
        "ends": f"{card['terminated']:,} by the game, {card['truncated']:,} by length",
        **({"faults": f"{len(card['faults']):,} episodes ended because the game failed"} if card["faults"] else {}),
        "reward": f"{number(card['reward'])} in all, {number(card['reward'] / max(card['episodes'], 1))} an episode",
        "shards": f"{card['shards']:,} with {card['chunks']:,} chunks, {size(card['bytes'])}",
        "frame": f"{size(average)} a frame, {number(ratio)} times smaller than raw",
        "actions": f"{schema.kind} of {schema.size}",
    }
    table = Table(title=str(dataset.folder), show_header=False, title_justify="left")
    for name, text in rows.items():
        table.add_row(name, text)
    width = max(map(len, card["actions"]), default=0)
    for name, count in sorted(card["actions"].items(), key=lambda item: -item[1])[:24]:
        share = count / max(card["steps"], 1)
        percent = f"{share:.1%}" if count else "0"
        table.add_row("", f"{name:<{width}} {percent:>6} {'█' * round(share * 30)}")
    console = Console(markup=False, emoji=False)  # game ids and names of actions are no markup
    console.print(table)
    for finding in odd:
        console.print(f"look: {finding.sentence}", highlight=False, soft_wrap=True)


def number(value: float) -> str:
    """A figure with three digits that count, and all of those before the point: "0", "0.004", "-12.5", "1,204"."""
    if not value:
        return "0"  # and not -0
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(count: float) -> str:
    """Bytes, as people say them: "0 bytes", "740 bytes", "12.3 kB", "1,204 MB"."""
    if count < 1000:
        return f"{number(round(count))} bytes"
    return f"{number(count / 1e3)} kB" if count < 1e6 else f"{number(count / 1e6)} MB"


def duration(seconds: float) -> str:
    """Seconds, as people say them: "0 seconds", "12.5 seconds", "3.2 minutes", "1.5 hours"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} seconds"


def contact_sheet(dataset: Dataset) -> Image.Image:
    """A row per episode (8 at most, evenly chosen), 8 moments each, with the time in seconds and the action."""
    numbers = list(dataset.by_episode)
    if not numbers:
        raise UserError(f"{dataset.folder} holds no whole episode yet, so there is nothing to show")
    chosen = evenly(numbers, min(ROWS, len(numbers)))
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
