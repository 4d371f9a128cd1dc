"""The gallery in the window: tiles to choose from by arrows, mouse, finger or gamepad, groups below each other.

    chooser = Chooser(checkpoints([folder]) + dreams(FOLDER), current)
    asked = chooser.hear(event)                     # "play", "leave", or None
    chooser.draw(board, "Esc leaves", now); chooser.tile

The chosen tile moves. What is loaded shows a bar in its tile, what cannot be played a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pygame

from game_wm.play.gallery import Tile
from game_wm.play.window import paint
from game_wm.play.window.paint import AMBER, GROUND, INK, LEAST_TYPE, MUTED, put, text

EMPTY = "There is no dream here yet. `make demo` trains one in 20 minutes; your own runs appear here too."
MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
KEYS = {"return": "play", "enter": "play", "space": "play", "escape": "leave"}
BUTTONS = {0: "play", 6: "leave"}  # of a gamepad: the first, and back
STICK = 0.6  # of a stick's way is a step
LARGEST = 40  # pixels of text, in a large window
WORDS = 5.6  # height of a name and a line of two rows, in letters: a tile has them below its picture, then figures


class Chooser:
    """Tiles, one of which is chosen. `current` is the file that is being played."""

    def __init__(self, tiles: Sequence[Tile], current: Path | None) -> None:
        self.tiles = list(tiles)
        self.current = None if current is None else current.resolve()
        paths = [tile.path.resolve() for tile in self.tiles]
        self.chosen = paths.index(self.current) if self.current in paths else 0
        self.loading: tuple[str, float] | None = None  # what is done for the chosen one, and how much is done by then
        self.boxes: dict[int, pygame.Rect] = {}  # where the tiles are that are shown, by their numbers
        self._rows: list[list[int]] = []
        self._top = 0  # the first row that is shown
        self._pushed = [0, 0]  # where a stick is held
        self._stills: dict[tuple[int, tuple[int, int], str], pygame.Surface] = {}  # tiles that do not move, drawn
        self._moves: tuple[int, float] = (-1, 0.0)  # the tile that moves, and since when

    @property
    def tile(self) -> Tile | None:
        return self.tiles[self.chosen] if self.tiles else None

    def hear(self, event: pygame.event.Event) -> str | None:
        """What an event asks for: "play" or "leave"; it may choose another tile."""
        if event.type == pygame.KEYDOWN:
            key = pygame.key.name(event.key)
            self.move(*MOVES.get(key, (0, 0)))
            return KEYS.get(key)
        if event.type == pygame.JOYBUTTONDOWN:
            return BUTTONS.get(event.button)
        if event.type == pygame.JOYHATMOTION:
            self.move(event.value[0], -event.value[1])
        elif event.type == pygame.JOYAXISMOTION and event.axis < 2:
            before, way = self._pushed[event.axis], (event.value > STICK) - (event.value < -STICK)
            self._pushed[event.axis] = way
            if way != before:
                self.move(*((way, 0) if event.axis == 0 else (0, way)))
        elif event.type == pygame.MOUSEWHEEL:
            self.move(0, -event.y)
        elif event.type == pygame.MOUSEMOTION:
            self._at(event.pos)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1 and self._at(event.pos):
            return "play"
        return None

    def move(self, across: int, down: int) -> None:
        """Choose a tile before or behind the chosen one, or in a row above or below."""
        if 0 <= self.chosen + across < len(self.tiles):
            self.chosen += across
        here = next((i for i, row in enumerate(self._rows) if self.chosen in row), 0)
        if down and 0 <= here + down < len(self._rows):
            there = self._rows[here + down]
            self.chosen = there[min(self._rows[here].index(self.chosen), len(there) - 1)]

    def _at(self, point: tuple[int, int]) -> bool:
        """Choose the tile under a point of the window; whether there is one."""
        hit = next((number for number, box in self.boxes.items() if box.collidepoint(point)), None)
        self.chosen = self.chosen if hit is None else hit
        return hit is not None

    def draw(self, board: paint.Board, how: str, now: float) -> None:
        """The tiles below the words of `how` one chooses; `now` in seconds moves the chosen one."""
        target = board.target
        width, height = target.get_size()
        s = max(LEAST_TYPE, min(LARGEST, round(min(width, height) / 50)))
        margin = round(s * 1.6)
        target.fill(GROUND)
        self.boxes = {}
        board.put(text("What to play", round(s * 1.8), INK, True), (margin, margin))
        board.put(paint.shortened(how, s, width - 2 * margin, MUTED), (margin, margin + s * 2.5))
        if self.tiles:
            self._lay(board, s, pygame.Rect(0, 0, width, height).inflate(-2 * margin, -2 * margin), now)
        else:
            lines = paint.wrapped(EMPTY, round(s * 1.2), width - 2 * margin, 6)
            board.put(paint.stacked(lines, s // 2), (margin, height / 2), "midleft")

    def _lay(self, board: paint.Board, s: int, room: pygame.Rect, now: float) -> None:
        """As many whole rows as there is room for, the chosen tile among them."""
        gap, heading = round(s * 1.2), round(s * 2.2)
        room = pygame.Rect(room.x, room.y + round(s * 4.6), room.width, room.height - round(s * 4.6))
        groups = [[i for i, _ in group] for _, group in groupby(enumerate(self.tiles), lambda at: at[1].group)]
        columns = max(1, min((room.width + gap) // (round(s * 18) + gap), max(2, *map(len, groups))))
        side = (room.width + gap) // columns - gap
        words = round(s * WORDS) + max(_figures(tile, s, side - 2 * round(s * 0.8)).get_height() for tile in self.tiles)
        heads = {group[0]: self.tiles[group[0]].group for group in groups}
        self._rows = [group[i : i + columns] for group in groups for i in range(0, len(group), columns)]
        fitting = max(1, round((room.height - heading) / (words + side * 0.7 + gap)))
        tall = (room.height - heading * min(len(groups), fitting) + gap) // fitting - gap
        tall = min(tall, words + side)
        if tall < words + 2 * s:  # a window too small for a tile
            return
        heights = [tall + gap + heading * (row[0] in heads) for row in self._rows]
        here = next(i for i, row in enumerate(self._rows) if self.chosen in row)
        self._top = min(self._top, here)
        while sum(heights[self._top : here + 1]) > room.height + gap:
            self._top += 1
        y = room.top
        for row, high in zip(self._rows[self._top :], heights[self._top :]):
            if y + high > room.bottom + gap:
                break
            if row[0] in heads:
                board.put(text(heads[row[0]], round(s * 1.2), INK, True), (room.x, y))
            for place, number in enumerate(row):
                box = pygame.Rect(room.x + place * (side + gap), y + high - tall - gap, side, tall)
                self.boxes[number] = box
                sheet = self._stills.get((number, box.size, self.tiles[number].problem))
                if sheet is None or number == self.chosen:
                    sheet = self._tile(number, box.size, tall - words, s, now)
                if number != self.chosen:
                    self._stills[number, box.size, self.tiles[number].problem] = sheet
                board.put(sheet, box.topleft)
                if number == self.chosen:
                    pygame.draw.rect(board.target, AMBER, box.inflate(4, 4), max(2, s // 7), border_radius=s // 2 + 2)
            y += high
        if len(self.boxes) < len(self.tiles):
            which = f"{min(self.boxes) + 1} to {max(self.boxes) + 1} of {len(self.tiles)}"
            board.put(text(which, s, MUTED), (room.right, room.top - s * 4), "topright")

    def _tile(self, number: int, size: tuple[int, int], pictured: int, s: int, now: float) -> pygame.Surface:
        tile, (width, height) = self.tiles[number], size
        sheet = paint.panel(width, height, s // 2, 255)
        pad = round(s * 0.8)
        room = width - 2 * pad
        if len(tile.frames):
            picture = paint.framed(tile.frames[self._frame(number, now)], (width, pictured), s // 2)
            sheet.blit(picture, (0, 0))
        if tile.problem:
            lines = paint.wrapped(tile.problem, s, room, max(1, pictured // round(s * 1.4)))
            put(sheet, paint.stacked(lines, round(s * 0.2)), (pad, pad))
        y = put(sheet, paint.shortened(tile.name, round(s * 1.25), room, INK, True), (pad, pictured + s * 0.4)).bottom
        if number == self.chosen and self.loading is not None:
            stage, done = self.loading
            bar = pygame.Rect(pad, y + s, room, max(2, s // 4))
            pygame.draw.rect(sheet, (48, 50, 56), bar, border_radius=bar.height)
            pygame.draw.rect(sheet, AMBER, (*bar.topleft, round(bar.width * min(1.0, done)), bar.height))
            put(sheet, paint.shortened(stage, s, room, MUTED), (pad, bar.bottom + s * 0.6))
        else:
            lines = paint.wrapped(tile.line, s, room, 2)
            y = put(sheet, paint.stacked(lines, 0), (pad, y)).bottom
            put(sheet, _figures(tile, s, room), (pad, y + s * 0.4))
        if tile.path.resolve() == self.current and not tile.problem:
            playing = text("playing", s, GROUND, True)
            pill = pygame.Surface((playing.get_width() + s, playing.get_height() + s // 3), pygame.SRCALPHA)
            pygame.draw.rect(pill, AMBER, pill.get_rect(), border_radius=round(s * 0.5))
            put(pill, playing, pill.get_rect().center, "center")
            put(sheet, pill, (s // 2, s // 2))
        return sheet

    def _frame(self, number: int, now: float) -> int:
        """Which of its frames a tile shows: the chosen one all of them in turn, the others the last."""
        if number != self.chosen:
            return -1
        if self._moves[0] != number:
            self._moves = number, now
        tile = self.tiles[number]
        return int((now - self._moves[1]) * tile.fps) % len(tile.frames)


def _figures(tile: Tile, s: int, room: int) -> pygame.Surface:
    """Figures side by side, in at most three rows: what has no room there is left out."""
    rows: list[list[pygame.Surface]] = [[]]
    gap = round(s * 0.9)
    for value, what in tile.figures:
        figure = paint.beside([text(value, s, INK, True), *([text(what, s, MUTED)] if what else [])], round(s * 0.3))
        if rows[-1] and sum(x.get_width() + gap for x in rows[-1]) + figure.get_width() > room:
            rows.append([])
        if figure.get_width() <= room:
            rows[-1].append(figure)
    rows = [row for row in rows if row][:3] or [[text(" ", s)]]
    return paint.stacked([paint.beside(row, gap) for row in rows], round(s * 0.2))
