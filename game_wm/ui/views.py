"""Views of what goes on inside, beside the picture: memory, latents, times of the frames, dream against real game."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pygame

from game_wm.memory.episodic import NEVER
from game_wm.ui import display, paint
from game_wm.ui.paint import AMBER, INK, MUTED, RED, put, text

if TYPE_CHECKING:
    from game_wm.ui.session import Session

SHOWN = 120  # frames in a graph
SPREAD = 2.5  # standard deviations of a latent at which its colour is full
FAITHFUL = 40.0  # dB at the top of the graph of the dream's likeness


def left(target: pygame.Surface, sheets: list[pygame.Surface]) -> None:
    """Panels below each other in the middle of the left edge."""
    gap = round(paint.type_size(target) * 0.7)
    tall = sum(sheet.get_height() for sheet in sheets) + gap * (len(sheets) - 1)
    y = (target.get_height() - tall) / 2
    for sheet in sheets:
        y = put(target, sheet, (gap, y)).bottom + gap


def latents(session: Session, s: int) -> pygame.Surface:
    """The channels of the last latent as tiles: blue below zero, amber above."""
    values = session.state.dynamics.latents[0, -1].float().cpu().numpy()  # (C, h, w)
    channels, height, width = values.shape
    columns = math.ceil(math.sqrt(channels * height / width))
    rows = math.ceil(channels / columns)
    side = max(1, round(s * 13 / (columns * width)))
    level = np.clip(values / SPREAD, -1, 1)[..., None]
    cold, warm, ground = (np.array(colour, float) for colour in ((92, 158, 255), AMBER, (24, 26, 31)))
    pixels = np.where(level < 0, ground + (cold - ground) * -level, ground + (warm - ground) * level).astype(np.uint8)
    gap = 2
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
    taken = session.times.last(SHOWN) * 1e3
    room = 1e3 / (session.fps or session.schema.fps)
    top = room * min(
        2.0, max(1.25, float(taken.max(initial=0.0)) / room)
    )  # what is later still stands out by its colour
    sheet, at = _panel(f"ms a frame, of {room:.0f}", wide, tall, s)
    bar = wide / SHOWN
    for i, value in enumerate(taken):
        high = max(1, round(tall * min(1.0, value / top)))
        x = at[0] + round((SHOWN - len(taken) + i) * bar)
        pygame.draw.rect(sheet, INK if value <= room else RED, (x, at[1] + tall - high, max(1, round(bar)), high))
    y = at[1] + tall - round(tall * room / top)
    pygame.draw.line(sheet, AMBER, (at[0], y), (at[0] + wide, y))
    return sheet


def likeness(target: pygame.Surface, session: Session) -> None:
    """Above the two pictures whose each is, below them the PSNR of the dream against the real game, now and before."""
    s = paint.type_size(target)
    width, height = target.get_size()
    for where, words in zip(display.places(target, [session.moment.picture.shape] * 2), ("real game", "dream")):
        y = max(s * 6.2, where.top - s * 0.4 - s * 1.4)
        put(target, text(words, round(s * 1.2), INK, True), (where.centerx, y), "midtop")
    wide, tall = max(s, round(min(width - 8 * s, s * 26))), round(s * 3.4)
    now = f"{session.psnr[-1]:.1f} dB" if session.psnr else "the same moment"
    fps = session.schema.fps
    parted = session.parted
    words = "together so far" if parted is None else f"parted after {parted / fps:.1f} s"
    sheet, (x, y) = _panel(f"PSNR {now} · {words}", wide, tall, s)
    _line(sheet, session, (x, y, wide, tall))
    put(target, sheet, (width / 2, height - s * 5.4), "midbottom")


def _line(sheet: pygame.Surface, session: Session, box: tuple[int, int, int, int]) -> None:
    """The PSNR of every frame since both were at the same moment, and the mark at which a dream has parted."""
    x, y, wide, tall = box
    level = y + tall - round(tall * session.PARTED / FAITHFUL)
    pygame.draw.line(sheet, (90, 92, 98), (x, level), (x + wide, level))
    values = np.array(session.psnr)
    if len(values) < 2:
        return
    which = np.linspace(0, len(values) - 1, min(len(values), wide)).round().astype(int)
    across = x + which / max(SHOWN, len(values) - 1) * wide
    down = y + tall - np.clip(values[which] / FAITHFUL, 0, 1) * tall
    pygame.draw.aalines(sheet, INK, False, list(zip(across.tolist(), down.tolist())))
    if (parted := session.parted) is not None:
        at = x + (parted - 1) / max(SHOWN, len(values) - 1) * wide
        pygame.draw.line(sheet, AMBER, (at, y), (at, y + tall))


def _panel(title: str, wide: int, tall: int, s: int) -> tuple[pygame.Surface, tuple[int, int]]:
    """A sheet with a title and room for `wide` x `tall` pixels at the returned point."""
    gap, line = round(s * 0.7), round(s * 1.7)
    words = text(title, s, INK, True)
    sheet = paint.panel(max(wide, words.get_width()) + 2 * gap, tall + line + 2 * gap, round(s * 0.6))
    put(sheet, words, (gap, gap * 0.7))
    return sheet, (gap, gap + line)


def memory(target: pygame.Surface, session: Session) -> None:
    """What memory gave for the frame that is shown: the view it drew, the pictures it drew from with their ages, and
    where the frames that it keeps were seen, the player in the middle looking up."""
    found, s = session.remembered, paint.type_size(target)
    side, gap, line = round(s * 7.2), round(s * 0.7), round(s * 1.5)
    small = (side - gap) // 2
    count = 0 if found is None else len(found.ages)
    rows = (count + 1) // 2
    sheet = paint.panel(side + 2 * gap, 2 * (line + side) + rows * (small + line) + 3 * gap, round(s * 0.6))
    y = gap
    put(sheet, text("memory", s, INK, True), (gap, y))
    y += line
    if found is None or not count:
        put(sheet, text("nothing yet", s, MUTED), (gap, y))
    else:
        drawn = found.view.numpy() * found.known[..., None].numpy()
        sheet.blit(paint.tile(drawn, (side, side)), (gap, y))
    y += side + gap
    for i in range(count):
        assert found is not None
        at = (gap + (i % 2) * (small + gap), y + (i // 2) * (small + line))
        sheet.blit(paint.tile(found.pictures[i].numpy(), (small, small)), at)
        age = "known before" if found.ages[i] >= NEVER else f"{int(found.ages[i]) / session.schema.fps:.1f} s ago"
        put(sheet, text(age, max(8, round(s * 0.8)), MUTED), (at[0], at[1] + small))
    y += rows * (small + line)
    put(sheet, text("its map", s, MUTED), (gap, y))
    _trail(sheet, found.trail.numpy() if found is not None else np.zeros((0, 2)), (gap, y + line, side, side), s)
    room = target.get_size()
    if sheet.get_height() > room[1] - 8:
        sheet = pygame.transform.smoothscale_by(sheet, (room[1] - 8) / sheet.get_height())
    put(target, sheet, (room[0] - gap, room[1] / 2), "midright")


def _trail(sheet: pygame.Surface, trail: np.ndarray, box: tuple[int, int, int, int], s: int) -> None:
    left, top, width, height = box
    middle = (left + width / 2, top + height / 2)
    reach = max(4.0, float(np.abs(trail).max(initial=0.0)))
    for right, ahead in (trail / reach * (width / 2 - 2)).tolist():
        pygame.draw.circle(sheet, MUTED, (middle[0] + right, middle[1] - ahead), max(1, s // 12))
    x, y, r = *middle, s * 0.45
    pygame.draw.polygon(sheet, AMBER, ((x, y - r), (x - r * 0.7, y + r * 0.7), (x + r * 0.7, y + r * 0.7)))
