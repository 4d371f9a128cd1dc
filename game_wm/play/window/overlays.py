"""What a window shows while somebody plays: the picture, and beside it views of what goes on inside: memory, latents,
times of the frames, dream against real game."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pygame

from game_wm.memory.protocol import NEVER
from game_wm.play.scene import DIVERGED_DB
from game_wm.play.window import display, paint
from game_wm.play.window.paint import AMBER, INK, MUTED, RED, Board, put, text

if TYPE_CHECKING:
    from game_wm.play.session import Session
    from game_wm.play.window.window import Window

GRAPH_FRAMES = 120  # frames in a graph
SPREAD = 2.5  # standard deviations of a latent at which its colour is full
FAITHFUL = 40.0  # dB at the top of the graph of the dream's likeness


def play(window: Window, board: Board, now: float) -> None:
    """All that a window shows while somebody plays, at this moment."""
    session, rewinding = window.session, window.keys.rewinding
    real, over = session.scene.beside, session.scene.ended and not rewinding
    shown = [*([] if real is None else [real.moment.picture]), session.now.picture]
    display.pictures(window.surface, shown, dimmed=over or window.help)
    if window.help:
        sheets = window.help_pages()
        board.put(sheets[min(window.help_page, len(sheets) - 1)], window.surface.get_rect().center, "center")
        return
    if window.hud:
        period = window.periods.mean()
        fps = 1 / period if period else None
        window.figures.draw(board, session, fps, now, rewinding, window.recording_waits())
    if over:
        display.notice(board, "The episode has ended", "another one begins")
    elif real is not None:
        likeness(board, session)
    display.hint(board, window.hint)
    if over:
        return
    dreaming = session.scene.view != "real"
    left(board, session, window.latents and dreaming, window.graph)
    if session.scene.inspect and dreaming:
        memory(board, session)


def left(board: Board, session: Session, inside: bool, graph: bool) -> None:
    """Panels below each other at the left edge: latents (`inside`), times of the frames (`graph`)."""
    s = paint.type_size(board.target)
    gap = round(s * 0.7)
    top, bottom = board.gap(0, s * 13 + 3 * gap)
    graphs = [times(session, s)] if graph else []
    room = bottom - top - 2 * gap - sum(sheet.get_height() + gap for sheet in graphs)
    sheets = [sheet for sheet in [latents(session, s, room) if inside else None, *graphs] if sheet is not None]
    y = (top + bottom - sum(sheet.get_height() for sheet in sheets) - gap * (len(sheets) - 1)) / 2
    for sheet in sheets:
        if where := board.put(sheet, (gap, y)):
            y = where.bottom + gap


def latents(session: Session, s: int, room: int) -> pygame.Surface | None:
    """The channels of the last latent as tiles: blue below zero, amber above; None where `room` pixels are too few."""
    values = session.dream.state.dynamics.latents[0, -1].float().cpu().numpy()  # (C, h, w)
    channels, height, width = values.shape
    columns = math.ceil(math.sqrt(channels * height / width))
    rows = math.ceil(channels / columns)
    gap = 2
    inside = room - _panel_height(0, s) - gap * (rows - 1)
    side = min(round(s * 13 / (columns * width)), inside // (rows * height))
    if side < 1:
        return None
    level = np.clip(values / SPREAD, -1, 1)[..., None]
    cold, warm, ground = (np.array(colour, float) for colour in ((92, 158, 255), AMBER, (24, 26, 31)))
    pixels = np.where(level < 0, ground + (cold - ground) * -level, ground + (warm - ground) * level).astype(np.uint8)
    cell = (width * side, height * side)
    wide, tall = columns * (cell[0] + gap) - gap, rows * (cell[1] + gap) - gap
    sheet, at = _panel("latents", wide, tall, s)
    for i in range(channels):
        tile = paint.tile(pixels[i], cell)
        sheet.blit(tile, (at[0] + i % columns * (cell[0] + gap), at[1] + i // columns * (cell[1] + gap)))
    return sheet


def times(session: Session, s: int) -> pygame.Surface:
    """How long each of the last frames took, beside the time that there is for one."""
    wide, tall = round(s * 13), round(s * 5)
    taken = session.times.last(GRAPH_FRAMES) * 1e3
    room = 1e3 / (session.fps or session.schema.fps)
    # What is later still stands out by its colour.
    top = room * min(2.0, max(1.25, float(taken.max(initial=0.0)) / room))
    sheet, at = _panel(f"ms a frame, of {room:.0f}", wide, tall, s)
    bar = wide / GRAPH_FRAMES
    for i, value in enumerate(taken):
        high = max(1, round(tall * min(1.0, value / top)))
        x = at[0] + round((GRAPH_FRAMES - len(taken) + i) * bar)
        pygame.draw.rect(sheet, INK if value <= room else RED, (x, at[1] + tall - high, max(1, round(bar)), high))
    y = at[1] + tall - round(tall * room / top)
    pygame.draw.line(sheet, AMBER, (at[0], y), (at[0] + wide, y))
    return sheet


def likeness(board: Board, session: Session) -> None:
    """Above the two pictures whose each is, below them the PSNR of the dream against the real game, now and before."""
    s = paint.type_size(board.target)
    width, height = board.target.get_size()
    psnr, diverged = session.scene.likeness.psnr, session.scene.likeness.diverged
    now = f"{psnr[-1]:.1f} dB" if psnr else "the same moment"
    words = "together so far" if diverged is None else f"parted after {diverged / session.schema.fps:.1f} s"
    wide, tall = max(s, round(min(width - 4 * s, s * 26))), round(s * 3.4)
    sheet, (x, y) = _panel(f"PSNR {now} · {words}", wide, tall, s)
    _line(sheet, session, (x, y, wide, tall))
    board.slide(sheet, (width / 2, height - s * 5.6), -max(1, s // 2), "midbottom")
    pictures = display.places(board.target, [session.dream.moment.picture.shape] * 2)
    labels = [text(words, round(s * 1.2), INK, True) for words in ("real game", "dream")]
    for y in range(max(0, round(pictures[0].top - s * 1.8)), height, max(1, s // 3)):
        spots = [label.get_rect(midtop=(where.centerx, y)) for label, where in zip(labels, pictures)]
        if all(board.free(spot) for spot in spots):
            for label, spot in zip(labels, spots):
                board.put(label, spot.topleft)
            break


def _line(sheet: pygame.Surface, session: Session, box: tuple[int, int, int, int]) -> None:
    """The PSNR of every frame since both were at the same moment, and the mark at which the dream has diverged."""
    x, y, wide, tall = box
    level = y + tall - round(tall * DIVERGED_DB / FAITHFUL)
    pygame.draw.line(sheet, (90, 92, 98), (x, level), (x + wide, level))
    values = np.array(session.scene.likeness.psnr)
    if len(values) < 2:
        return
    which = np.linspace(0, len(values) - 1, min(len(values), wide)).round().astype(int)
    across = x + which / max(GRAPH_FRAMES, len(values) - 1) * wide
    down = y + tall - np.clip(values[which] / FAITHFUL, 0, 1) * tall
    pygame.draw.aalines(sheet, INK, False, list(zip(across.tolist(), down.tolist())))
    if (diverged := session.scene.likeness.diverged) is not None:
        at = x + (diverged - 1) / max(GRAPH_FRAMES, len(values) - 1) * wide
        pygame.draw.line(sheet, AMBER, (at, y), (at, y + tall))


def _panel_height(tall: int, s: int) -> int:
    return tall + round(s * 1.7) + 2 * round(s * 0.7)


def _panel(title: str, wide: int, tall: int, s: int) -> tuple[pygame.Surface, tuple[int, int]]:
    """A sheet with a title and room for `wide` x `tall` pixels at the returned point."""
    gap, line = round(s * 0.7), round(s * 1.7)
    words = text(title, s, INK, True)
    sheet = paint.panel(max(wide, words.get_width()) + 2 * gap, _panel_height(tall, s), round(s * 0.6))
    put(sheet, words, (gap, gap * 0.7))
    return sheet, (gap, gap + line)


def memory(board: Board, session: Session) -> None:
    """What memory gave for the last frame: the rendered view, its source pictures with their ages, and a map of where
    the stored frames were seen, the player in the middle looking up. A small window has room for the first of these."""
    found, s = session.dream.remembered, paint.type_size(board.target)
    gap = round(s * 0.7)
    sources = _sources(session, s)
    side = max(round(s * 7.2), sources[0].get_width() * 2 + gap if sources else 0)
    top, bottom = board.gap(board.target.get_width() - side - 3 * gap, side + 3 * gap)
    parts = [text("memory", s, INK, True)]
    if found is None or not sources:
        parts.append(text("nothing yet", s, MUTED))
    else:
        drawn = found.view.numpy() * found.known[..., None].numpy()
        parts.append(paint.tile(drawn, (side, round(side * drawn.shape[0] / drawn.shape[1]))))
        parts += [paint.beside(sources[i : i + 2], gap) for i in range(0, len(sources), 2)]
    parts.append(_trail(found.trail.numpy() if found is not None else np.zeros((0, 2)), side, s))
    while len(parts) > 1 and sum(part.get_height() + gap for part in parts) + gap > bottom - top - gap:
        parts.pop()
    inside = paint.stacked(parts, gap)
    sheet = paint.panel(side + 2 * gap, inside.get_height() + 2 * gap, round(s * 0.6))
    put(sheet, inside, (gap, gap))
    board.put(sheet, (board.target.get_width() - gap, (top + bottom) / 2), "midright")


def _sources(session: Session, s: int) -> list[pygame.Surface]:
    """The source pictures of the view, each with its age below, all of one size."""
    found = session.dream.remembered
    if found is None:
        return []
    fps = session.schema.fps
    ages = [text("before" if age >= NEVER else f"{int(age) / fps:.1f} s ago", s, MUTED) for age in found.ages]
    wide = max([round(s * 3.3), *(age.get_width() for age in ages)])
    high, across = found.pictures.shape[1:3] if len(found.pictures) else (1, 1)
    tiles = [paint.tile(picture.numpy(), (wide, round(wide * high / across))) for picture in found.pictures]
    return [paint.stacked([tile, age], 0) for tile, age in zip(tiles, ages)]


def _trail(trail: np.ndarray, side: int, s: int) -> pygame.Surface:
    """A map (T, 2) of where frames were seen, to the right and ahead of the player."""
    sheet = pygame.Surface((side, round(s * 1.4) + side), pygame.SRCALPHA)
    put(sheet, text("its map", s, MUTED), (0, 0))
    x, y, r = side / 2, sheet.get_height() - side / 2, s * 0.45
    reach = max(4.0, float(np.abs(trail).max(initial=0.0)))
    for right, ahead in (trail / reach * (side / 2 - 2)).tolist():
        pygame.draw.circle(sheet, MUTED, (x + right, y - ahead), max(1, s // 12))
    pygame.draw.polygon(sheet, AMBER, ((x, y - r), (x - r * 0.7, y + r * 0.7), (x + r * 0.7, y + r * 0.7)))
    return sheet
