"""The page to choose from: a picture, a name and lines for each checkpoint of some folders and each saved dream.

chooser = Chooser([*checkpoints([folder]), *dreams(folder)], current)
chooser.key("right"); chooser.draw(surface); chooser.entry.path
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pygame
from safetensors import SafetensorError, safe_open

from data_collect.errors import UserError
from game_wm.checkpoint import FORMAT, unpack_frames
from game_wm.ui import paint, saved
from game_wm.ui.paint import GROUND, INK, MUTED, put, text

NEWEST = 24  # dreams that are shown


@dataclass(frozen=True)
class Entry:
    """A file that can be played: its name, two lines about it, and a picture uint8 (H, W, 3)."""

    path: Path
    name: str
    lines: tuple[str, str]
    picture: np.ndarray


def checkpoints(folders: Sequence[Path]) -> list[Entry]:
    """The checkpoints of some folders, with what their cards say; files that are none are left out."""
    found = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") == FORMAT:
                    names = [name for name in ("contexts.frames", "contexts.sizes") if name in file.keys()]  # noqa: SIM118
                    picture = unpack_frames({name: file.get_tensor(name) for name in names}, (0, -1)).numpy()
                    found.append(Entry(path, path.stem, _lines(path, metadata), picture))
        except (OSError, SafetensorError, KeyError, ValueError, IndexError):
            continue  # whoever names it on the command line hears why
    return found


def dreams(folder: Path) -> list[Entry]:
    """The dreams saved in a folder, the newest first."""
    files = sorted(folder.glob(f"*{saved.SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = []
    for path in files[:NEWEST]:
        try:
            about, picture = saved.look(path)
        except UserError:
            continue
        when = datetime.fromtimestamp(path.stat().st_mtime)
        found.append(Entry(path, f"{when:%d %b %H:%M}", (f"a dream of {about.checkpoint}", path.stem), picture))
    return found


def _lines(path: Path, metadata: dict[str, str]) -> tuple[str, str]:
    """The game and the size, and from the card beside the file how well and how fast it plays."""
    game = metadata.get("game", "")
    try:
        card = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return game, "no card"
    size = f" · {card['parameters'] / 1e6:.1f} M parameters" if "parameters" in card else ""
    first, speed = card.get("fidelity", {}).get("psnr", {}).get("1"), card.get("cost", {}).get("fps_median")
    words = [f"PSNR {first:.1f} dB"] if first else []
    words += [f"{speed:.0f} fps"] if speed else []
    return game + size, " · ".join(words)


class Chooser:
    """Tiles, one of which is chosen. `current` is the file that is being played."""

    def __init__(self, entries: list[Entry], current: Path | None) -> None:
        self.entries = entries
        names = [entry.path.resolve() for entry in entries]
        self.chosen = names.index(current.resolve()) if current is not None and current.resolve() in names else 0
        self._columns = 1
        self._tiles: list[pygame.Rect] = []

    @property
    def entry(self) -> Entry:
        return self.entries[self.chosen]

    def key(self, key: str) -> None:
        """Arrow keys move the choice."""
        move = {"left": -1, "right": 1, "up": -self._columns, "down": self._columns}.get(key, 0)
        if 0 <= self.chosen + move < len(self.entries):
            self.chosen += move

    def at(self, point: tuple[int, int]) -> bool:
        """Choose the tile under a point of the window; whether there is one."""
        hit = pygame.Rect(point, (1, 1)).collidelist(self._tiles)
        if hit >= 0 and self._numbers[hit] < len(self.entries):
            self.chosen = self._numbers[hit]
        return hit >= 0

    def draw(self, target: pygame.Surface) -> None:
        """All of the page."""
        s = paint.type_size(target)
        width, height = target.get_size()
        target.fill(GROUND)
        margin, gap, line = round(s * 2), round(s * 1.4), round(s * 1.5)
        put(target, text("What to play", round(s * 1.8), INK, True), (margin, margin))
        put(target, text("arrows and Enter, or a click · Esc goes back", s, MUTED), (margin, margin + s * 2.4))
        top = margin + round(s * 5)
        self._columns = max(1, min(len(self.entries), (width - 2 * margin + gap) // (round(s * 14) + gap)))
        side = (width - 2 * margin + gap) // self._columns - gap
        side = max(2 * s, min(side, round(s * 22)))
        pictured = round(side * 0.75)
        tall = pictured + round(line * 3.6)
        rows = max(1, (height - top + gap) // (tall + gap))
        first = max(0, self.chosen // self._columns - rows + 1) * self._columns
        self._tiles, self._numbers = [], list(range(first, min(len(self.entries), first + rows * self._columns)))
        for place, number in enumerate(self._numbers):
            x, y = margin + place % self._columns * (side + gap), top + place // self._columns * (tall + gap)
            self._tiles.append(pygame.Rect(x, y, side, tall))
            self._tile(target, self.entries[number], self._tiles[-1], pictured, s, number == self.chosen)

    def _tile(
        self, target: pygame.Surface, entry: Entry, box: pygame.Rect, pictured: int, s: int, chosen: bool
    ) -> None:
        sheet = paint.panel(box.width, box.height, round(s * 0.6))
        room = box.width - round(s * 1.6)
        sheet.blit(paint.tile(entry.picture, (box.width - s, pictured - s)), (s // 2, s // 2))
        put(sheet, paint.shortened(entry.name, round(s * 1.2), room, INK, True), (s * 0.8, pictured + s * 0.2))
        for i, words in enumerate(entry.lines):
            put(sheet, paint.shortened(words, s, room, MUTED), (s * 0.8, pictured + s * (2.0 + 1.4 * i)))
        target.blit(sheet, box)
        if chosen:
            pygame.draw.rect(target, INK, box.inflate(4, 4), 2, border_radius=round(s * 0.7))
