"""The key map as sheets: what the game's keys do, and the window's. One where there is room, else several to turn over.

sheets = pages(session, (480, 360))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pygame

from game_wm.play import keymap
from game_wm.play.window import paint
from game_wm.play.window.paint import INK, LEAST_TYPE, MUTED, put

if TYPE_CHECKING:
    from game_wm.play.session import Session

GROUPS = ("Play", "Record", "Time", "See")
MOST_KEYS = 12  # of the game that are shown, and three for each thing that it does
Row = tuple[tuple[str, ...], str]  # keys, and what they do


def pages(session: Session, size: tuple[int, int]) -> list[pygame.Surface]:
    """The sheets for a window of this size: a single one in the largest letters that it has room for, else as many as
    they take in the smallest that can be read."""
    made: list[pygame.Surface] = []
    for s in range(paint.letters(size), LEAST_TYPE - 1, -1):
        made = _pages(session, s, (size[0] - 8, size[1] - 8))
        if len(made) == 1:
            break
    return made


def _pages(session: Session, s: int, room: tuple[int, int]) -> list[pygame.Surface]:
    pad, gutter = s, round(s * 1.6)
    foot = round(s * 2.4)
    wide, tall = room[0] - 2 * pad, room[1] - 2 * pad - foot
    sheets: list[list[pygame.Surface]] = [[]]
    for column in _columns(session, s, (wide, tall)):
        if sheets[-1] and sum(x.get_width() + gutter for x in sheets[-1]) + column.get_width() > wide:
            sheets.append([])
        sheets[-1].append(column)
    made, turns = [], keymap.key_of(session.schema, "help", session.commands)
    for number, columns in enumerate(sheets):
        more = f"{number + 1} of {len(sheets)}, {keymap.shown(turns)} turns over · " if sheets[1:] else ""
        about = paint.shortened(more + _about(session), s, wide, MUTED)
        inside = paint.beside(columns, gutter)
        size = max(inside.get_width(), about.get_width()) + 2 * pad, inside.get_height() + foot + 2 * pad
        sheet = paint.panel(*size, round(s * 0.9), 240)
        put(sheet, inside, (pad, pad))
        put(sheet, about, (pad, size[1] - pad), "bottomleft")
        made.append(sheet)
    return made


def _columns(session: Session, s: int, room: tuple[int, int]) -> list[pygame.Surface]:
    """Groups below each other, in columns that are no higher than there is room; a group that is, is cut."""
    gap = s
    columns: list[list[pygame.Surface]] = [[]]
    for name in GROUPS:
        rows = keymap.game_keys(session.schema)[:MOST_KEYS] if name == "Play" else []
        commands = keymap.shown_keys(session.schema, name, session.commands)
        left: list[Row] = [*rows, *(((key,), words) for key, words in commands)]
        while left:
            used = sum(x.get_height() + gap for x in columns[-1])
            if used and _height(len(left), s) > room[1] - used:
                columns.append([])
                used = 0
            fits = max(1, next((n for n in range(len(left), 0, -1) if _height(n, s) <= room[1] - used), 1))
            columns[-1].append(_group(name, left[:fits], s, room[0]))
            left = left[fits:]
    return [paint.stacked(column, gap) for column in columns if column]


def _height(rows: int, s: int) -> int:
    return round(s * 2.0) + round(s * 2.05) * rows


def _group(title: str, rows: list[Row], s: int, room: int) -> pygame.Surface:
    line = round(s * 2.05)
    caps = [paint.beside([paint.cap(keymap.shown(key), s) for key in keys[:3]], round(s * 0.3)) for keys, _ in rows]
    indent = max(cap.get_width() for cap in caps) + round(s * 0.6)
    images = [paint.shortened(words, s, room - indent, MUTED) for _, words in rows]
    head = paint.shortened(title, round(s * 1.2), room, INK, True)
    width = max(head.get_width(), indent + max(image.get_width() for image in images))
    sheet = pygame.Surface((width, _height(len(rows), s)), pygame.SRCALPHA)
    put(sheet, head, (0, 0))
    for i, (cap, image) in enumerate(zip(caps, images)):
        y = _height(i, s) + line / 2
        put(sheet, cap, (0, y), "midleft")
        put(sheet, image, (indent, y), "midleft")
    return sheet


def _about(session: Session) -> str:
    ckpt = session.checkpoint
    game = "" if ckpt.game == ckpt.name else f"{ckpt.game} · "
    return f"{ckpt.name} · {game}{ckpt.parameters / 1e6:.1f} M parameters · {session.schema.fps:g} frames/s"
