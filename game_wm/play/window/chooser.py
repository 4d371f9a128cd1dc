"""The page to choose from: a picture, a name and lines for each checkpoint of some folders and each saved dream.

chooser = Chooser([*checkpoints([folder]), *dreams(folder)], current)
chooser.key("right"); chooser.draw(board); chooser.entry.path
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pygame
from safetensors import safe_open

from data_collect.errors import UserError
from game_wm.checkpoint import FORMAT
from game_wm.dream import saved
from game_wm.library import playable
from game_wm.pictures import unpack_contexts
from game_wm.play import keymap
from game_wm.play.window import paint
from game_wm.play.window.paint import AMBER, GROUND, INK, MUTED, put, text

NEWEST = 24  # dreams that are shown


@dataclass(frozen=True)
class Entry:
    """A file that can be played: its name, two lines about it, and a picture uint8 (H, W, 3)."""

    path: Path
    name: str
    lines: tuple[str, str]
    picture: np.ndarray


def checkpoints(folders: Sequence[Path], current: Path | None = None) -> list[Entry]:
    """The checkpoints of some folders that people play, and the `current` one whatever it is for, with what their cards
    say; files that are none are left out."""
    files = [path for folder in folders for path in playable(folder)]
    here = current.resolve() if current is not None else None
    if here is not None and here not in [path.resolve() for path in files]:
        files.insert(0, here)
    found = []
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") == FORMAT:
                    names = [name for name in ("contexts.frames", "contexts.sizes") if name in file.keys()]  # noqa: SIM118
                    picture = unpack_contexts({name: file.get_tensor(name) for name in names}, (0, -1)).numpy()
                    found.append(Entry(path, path.stem, _lines(path, metadata), picture))
        except Exception:  # a damaged file is no offer; naming it on the command line says why
            continue
    return found


def dreams(folder: Path) -> list[Entry]:
    """The dreams saved in a folder, the newest first."""
    files = [(path.stat().st_mtime, path) for path in folder.glob(f"*{saved.SUFFIX}") if path.is_file()]
    found = []
    for when, path in sorted(files, reverse=True)[:NEWEST]:
        try:
            about, picture = saved.peek(path)
        except UserError:
            continue
        how = "left" if path.stem.endswith(saved.LEFT) else "saved"
        lines = f"a dream of {about.checkpoint}, {how}", path.stem
        found.append(Entry(path, f"{datetime.fromtimestamp(when):%d %b %H:%M}", lines, picture))
    return found


def _lines(path: Path, metadata: dict[str, str]) -> tuple[str, str]:
    """The game and the size, and from the card beside the file how well and how fast it plays."""
    game = metadata.get("game", "")
    try:
        card = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return game, "no card"
    try:
        size = f" · {card['parameters'] / 1e6:.1f} M parameters" if "parameters" in card else ""
        first, speed = card.get("fidelity", {}).get("psnr", {}).get("1"), card.get("cost", {}).get("fps_median")
        words = [f"PSNR {first:.1f} dB"] if first else []
        words += [f"{speed:.0f} fps"] if speed else []
    except (TypeError, AttributeError, ValueError):
        return game, "no card that can be read"
    return game + size, " · ".join(words)


class Chooser:
    """Tiles, one of which is chosen. `current` is the file that is being played."""

    def __init__(self, entries: list[Entry], current: Path | None) -> None:
        self.entries = entries
        paths = [entry.path.resolve() for entry in entries]
        here = paths.index(current.resolve()) if current is not None and current.resolve() in paths else None
        self.chosen, self.current = here or 0, None if here is None else entries[here].path
        self._columns = 1
        self.tiles: list[pygame.Rect] = []

    @property
    def entry(self) -> Entry:
        return self.entries[self.chosen]

    def key(self, key: str) -> None:
        move = {"left": -1, "right": 1, "up": -self._columns, "down": self._columns}.get(key, 0)
        if 0 <= self.chosen + move < len(self.entries):
            self.chosen += move

    def at(self, point: tuple[int, int]) -> bool:
        """Choose the tile under a point of the window; whether there is one."""
        hit = pygame.Rect(point, (1, 1)).collidelist(self.tiles)
        if hit >= 0 and self._numbers[hit] < len(self.entries):
            self.chosen = self._numbers[hit]
        return hit >= 0

    def draw(self, board: paint.Board) -> None:
        target = board.target
        s = paint.type_size(target)
        width, height = target.get_size()
        target.fill(GROUND)
        margin, gap, line = round(s * 1.6), round(s * 1.4), round(s * 1.5)
        top = margin + round(s * 4.6)
        self._columns = max(1, min(len(self.entries), (width - 2 * margin + gap) // (round(s * 14) + gap)))
        side = (width - 2 * margin + gap) // self._columns - gap
        side = max(2 * s, min(side, round(s * 22)))
        words = round(line * 3.6)
        pictured = min(round(side * 0.75), max(2 * s, height - top - s - words))
        tall = pictured + words
        rows = (height - top - s + gap) // (tall + gap)  # none in a window too small for a tile
        first = max(0, self.chosen // self._columns - rows + 1) * self._columns
        self.tiles, self._numbers = [], list(range(first, min(len(self.entries), first + rows * self._columns)))
        for place, number in enumerate(self._numbers):
            x, y = margin + place % self._columns * (side + gap), top + place // self._columns * (tall + gap)
            self.tiles.append(pygame.Rect(x, y, side, tall))
            self._tile(target, self.entries[number], self.tiles[-1], pictured, s, number == self.chosen)
        board.taken += self.tiles
        board.put(text("What to play", round(s * 1.8), INK, True), (margin, margin))
        if 0 < len(self._numbers) < len(self.entries):
            which = f"{first + 1} to {self._numbers[-1] + 1} of {len(self.entries)}"
            board.put(text(which, s, MUTED), (width - margin, margin + s * 0.6), "topright")
        how = f"arrows and Enter, or a click · {keymap.shown('escape').capitalize()} goes back"
        board.put(text(how, s, MUTED), (margin, margin + s * 2.6))

    def _tile(
        self, target: pygame.Surface, entry: Entry, box: pygame.Rect, pictured: int, s: int, chosen: bool
    ) -> None:
        sheet = paint.panel(box.width, box.height, round(s * 0.6))
        room = box.width - round(s * 1.6)
        sheet.blit(paint.tile(entry.picture, (box.width - s, pictured - s)), (s // 2, s // 2))
        name = paint.shortened(entry.name, round(s * 1.2), room, INK, True)
        y = put(sheet, name, (s * 0.8, pictured + s * 0.2)).bottom + s * 0.1
        for words in entry.lines:
            y = put(sheet, paint.shortened(words, s, room, MUTED), (s * 0.8, y)).bottom
        if entry.path == self.current:
            playing = text("playing", s, GROUND, True)
            pill = pygame.Surface((playing.get_width() + s, playing.get_height() + s // 3), pygame.SRCALPHA)
            pygame.draw.rect(pill, AMBER, pill.get_rect(), border_radius=round(s * 0.5))
            put(pill, playing, pill.get_rect().center, "center")
            put(sheet, pill, (s, s))
        put(target, sheet, box.topleft)
        if chosen:
            pygame.draw.rect(target, INK, box.inflate(4, 4), 2, border_radius=round(s * 0.7))
