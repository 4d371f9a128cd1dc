"""Pens for the window: type, key caps, soft shades, and a board on which nothing covers anything else.

Nothing here knows of the dream.

Sizes are in units of the text size, so that the whole display grows with the window. No text is smaller than
`LEAST_TYPE`: what has no room at that size is left out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache

import numpy as np
import pygame

INK = (243, 242, 238)
MUTED = (205, 206, 208)
GROUND = (13, 14, 17)
RED = (255, 92, 87)
AMBER = (255, 190, 92)
ARROW_WAYS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}
LEAST_TYPE, LARGEST_TYPE = 12, 20  # pixels of text
FONTS = "inter,sfprotext,helveticaneue,segoeui,roboto,notosans,opensans,dejavusans,liberationsans,arial"


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> pygame.font.Font:
    """The first family that this machine has, else pygame's own."""
    if not pygame.font.get_init():
        pygame.font.init()
    path = pygame.font.match_font(FONTS, bold=bold)
    return pygame.font.Font(path, size)


@lru_cache(maxsize=512)
def text(words: str, size: int, colour: tuple[int, int, int] = INK, bold: bool = False) -> pygame.Surface:
    """Rendered words on their own soft shadow, cached: figures repeat."""
    pen = font(size, bold)
    letters = pen.render(words, True, colour)
    if sum(colour) < 200:
        return letters
    shadow = pen.render(words, True, (0, 0, 0))
    shadow.set_alpha(110)
    image = pygame.Surface((letters.get_width() + 1, letters.get_height() + 1), pygame.SRCALPHA)
    image.blit(shadow, (1, 1))
    image.blit(letters, (0, 0))
    return image


def put(target: pygame.Surface, image: pygame.Surface, at: tuple[float, float], anchor: str = "topleft") -> pygame.Rect:
    """Blit `image` with its `anchor` (a `Rect` attribute) at a point, all of it where it is no larger than `target`."""
    where = image.get_rect(**{anchor: (round(at[0]), round(at[1]))}).clamp(target.get_rect())
    target.blit(image, where)
    return where


class Board:
    """A surface with what was put on it: nothing that would leave it, or touch what is there, is put."""

    def __init__(self, target: pygame.Surface) -> None:
        self.target = target
        self.taken: list[pygame.Rect] = []

    def put(self, image: pygame.Surface, at: tuple[float, float], anchor: str = "topleft") -> pygame.Rect | None:
        """Blit `image` with its `anchor` at a point; None where there is no room for it there."""
        where = image.get_rect(**{anchor: (round(at[0]), round(at[1]))})
        if not self.free(where):
            return None
        self.taken.append(where)
        return put(self.target, image, where.topleft)

    def free(self, where: pygame.Rect) -> bool:
        return self.target.get_rect().contains(where) and where.collidelist(self.taken) < 0

    def slide(self, image: pygame.Surface, at: tuple[float, float], step: int, anchor: str) -> pygame.Rect | None:
        """As `put`, the first place from there on that is free, going up (`step` below 0) or down."""
        y, height = at[1], self.target.get_height()
        while 0 <= y <= height:
            if where := self.put(image, (at[0], y), anchor):
                return where
            y += step
        return None

    def gap(self, x: float, width: float) -> tuple[int, int]:
        """The highest stretch (top, bottom) that is free over all of this width."""
        column = pygame.Rect(round(x), 0, max(1, round(width)), self.target.get_height())
        there = sorted((box.top, box.bottom) for box in self.taken if box.colliderect(column))
        best, top = (0, 0), 0
        for start, end in [*there, (column.height, column.height)]:
            best = max(best, (top, start), key=lambda stretch: stretch[1] - stretch[0])
            top = max(top, end)
        return best


@lru_cache(maxsize=8)
def shade(width: int, height: int, strength: int, down: bool) -> pygame.Surface:
    """Dark ground that fades out downwards (or upwards), so that light type stays readable on any picture."""
    column = pygame.Surface((1, height), pygame.SRCALPHA)
    for y in range(height):
        rest = 1 - y / height if down else (y + 1) / height
        column.set_at((0, y), (*GROUND, round(strength * rest * rest * (3 - 2 * rest))))
    return pygame.transform.scale(column, (width, height))


@lru_cache(maxsize=256)
def cap(label: str, size: int, lit: int = 0) -> pygame.Surface:
    """A key cap with a word or an arrow on it; `lit` 0 to 8 says how far it is down."""
    height = round(size * 1.9)
    arrow = ARROW_WAYS.get(label)
    words = None if arrow else text(label, size, GROUND if lit > 3 else INK)
    width = height if words is None else max(height, words.get_width() + round(size * 1.1))
    scale = 3  # drawn large and reduced: smooth corners
    big = pygame.Surface((width * scale, height * scale), pygame.SRCALPHA)
    radius = round(size * 0.38 * scale)
    fill = (*INK, 30 + 25 * lit) if lit else (0, 0, 0, 70)
    pygame.draw.rect(big, fill, big.get_rect(), border_radius=radius)
    pygame.draw.rect(big, (*INK, 90 + 20 * lit), big.get_rect(), max(2, scale), border_radius=radius)
    if arrow:
        dx, dy = arrow
        cx, cy, r = width * scale / 2, height * scale / 2, size * 0.34 * scale
        tip, left, right = (
            (cx + dx * r, cy + dy * r), (cx - dx * r - dy * r, cy - dy * r + dx * r),
            (cx - dx * r + dy * r, cy - dy * r - dx * r),
        )  # fmt: skip
        pygame.draw.polygon(big, GROUND if lit > 3 else INK, (tip, left, right))
    image = pygame.transform.smoothscale(big, (width, height))
    if words is not None:
        put(image, words, (width / 2, height / 2), "center")
    return image


def panel(width: int, height: int, radius: int, alpha: int = 226) -> pygame.Surface:
    """A dark, rounded, translucent sheet."""
    sheet = pygame.Surface((width, height), pygame.SRCALPHA)
    pygame.draw.rect(sheet, (*GROUND, alpha), sheet.get_rect(), border_radius=radius)
    pygame.draw.rect(sheet, (*INK, 36), sheet.get_rect(), 1, border_radius=radius)
    return sheet


CORRIDOR = (0.86, 0.6, 0.4, 0.26)  # of the icon's side: its rings, the last of which is the lit door


def icon(side: int = 128) -> pygame.Surface:
    """The window's icon: a corridor, and light at its end."""
    scale = 4  # drawn large and reduced: smooth edges
    sheet = pygame.Surface((side * scale, side * scale), pygame.SRCALPHA)
    pygame.draw.rect(sheet, GROUND, sheet.get_rect(), border_radius=side * scale // 5)
    boxes = [sheet.get_rect().scale_by(share) for share in CORRIDOR]
    for outer, inner, colour in zip(boxes, boxes[1:], ((46, 56, 78), (72, 84, 110), (104, 112, 132))):
        corners = [("topleft", "topright"), ("bottomleft", "bottomright"), ("topleft", "bottomleft"),
                   ("topright", "bottomright")]  # fmt: skip
        for (one, other), light in zip(corners, (0.55, 0.8, 1.0, 0.9)):  # ceiling, floor, walls
            shape = [getattr(outer, one), getattr(outer, other), getattr(inner, other), getattr(inner, one)]
            pygame.draw.polygon(sheet, [round(value * light) for value in colour], shape)
    pygame.draw.rect(sheet, AMBER, boxes[-1])
    return pygame.transform.smoothscale(sheet, (side, side))


def type_size(target: pygame.Surface) -> int:
    return letters(target.get_size())


def letters(size: tuple[int, int]) -> int:
    """The text size that suits a window of so many pixels."""
    return max(LEAST_TYPE, min(LARGEST_TYPE, round(min(size) / 50)))


def tile(image: np.ndarray, size: tuple[int, int]) -> pygame.Surface:
    """A picture uint8 (H, W, 3) in the middle of a surface of `size`, its proportions kept."""
    high, wide = image.shape[:2]
    scale = min(size[0] / wide, size[1] / high)
    source = pygame.image.frombuffer(np.ascontiguousarray(image).tobytes(), (wide, high), "RGB")
    sheet = pygame.Surface(size)
    sheet.fill(GROUND)
    put(sheet, pygame.transform.scale(source, (wide * scale, high * scale)), (size[0] / 2, size[1] / 2), "center")
    return sheet


def framed(image: np.ndarray, size: tuple[int, int], radius: int) -> pygame.Surface:
    """A picture uint8 (H, W, 3), all of it as large as it can be, before a blurred and darkened copy that fills `size`;
    its upper corners are round."""
    high, wide = image.shape[:2]
    source = pygame.image.frombuffer(np.ascontiguousarray(image).tobytes(), (wide, high), "RGB")
    sheet = pygame.Surface(size, pygame.SRCALPHA)
    sheet.blit(pygame.transform.smoothscale(pygame.transform.smoothscale(source, (6, 4)), size), (0, 0))
    sheet.fill((110, 110, 110), special_flags=pygame.BLEND_RGB_MULT)
    scale = min(size[0] / wide, size[1] / high)
    # Whole pixels first, then down: no row of them is wider than its neighbours.
    times = max(1, math.ceil(scale))
    large = pygame.transform.scale_by(source, times)
    small = pygame.transform.smoothscale(large, (max(1, round(wide * scale)), max(1, round(high * scale))))
    put(sheet, small, (size[0] / 2, size[1] / 2), "center")
    corners = pygame.Surface(size, pygame.SRCALPHA)
    pygame.draw.rect(corners, (255, 255, 255), (0, 0, size[0], size[1] + radius), border_radius=radius)
    sheet.blit(corners, (0, 0), special_flags=pygame.BLEND_RGBA_MIN)
    return sheet


def stacked(images: list[pygame.Surface], gap: int, centred: bool = False) -> pygame.Surface:
    height = sum(image.get_height() for image in images) + gap * (len(images) - 1)
    stack = pygame.Surface((max(image.get_width() for image in images), height), pygame.SRCALPHA)
    y = 0
    for image in images:
        x = stack.get_width() / 2 if centred else 0
        y = put(stack, image, (x, y), "midtop" if centred else "topleft").bottom + gap
    return stack


def beside(images: list[pygame.Surface], gap: int) -> pygame.Surface:
    width = sum(image.get_width() for image in images) + gap * (len(images) - 1)
    row = pygame.Surface((width, max(image.get_height() for image in images)), pygame.SRCALPHA)
    x = 0
    for image in images:
        x = put(row, image, (x, 0)).right + gap
    return row


def wrapped(
    words: str, size: int, room: float, most: int, colour: tuple[int, int, int] = INK, bold: bool = False
) -> list[pygame.Surface]:
    """Rendered words in at most `most` lines of at most `room`, the last one cut. A word that is too long for
    a line (a path) is broken."""

    def wide(line: str) -> int:
        return font(size, bold).size(line)[0] + 1  # with its shadow

    lines = [""]
    pieces = list[str]()
    for word in words.split():
        while wide(word) > room and len(word) > 1:
            fits = max(1, _that_fit(word, size, bold, room))
            part = max(word.rfind(sign, 0, fits) for sign in "/-_.") + 1
            fits = part if part > fits // 2 else fits
            pieces.append(word[:fits])
            word = word[fits:]
        pieces.append(word)
    for word in pieces:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(lines) < most and wide(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, size, room, colour, bold) for line in lines]


def shortened(
    words: str, size: int, room: float, colour: tuple[int, int, int] = INK, bold: bool = False
) -> pygame.Surface:
    """Rendered words, cut so that they are no wider than `room`."""
    if font(size, bold).size(words)[0] < room:
        return text(words, size, colour, bold)
    kept = _that_fit(words, size, bold, room - font(size, bold).size("…")[0])
    return text(f"{words[:kept].rstrip()}…", size, colour, bold)


def _that_fit(words: str, size: int, bold: bool, room: float) -> int:
    """How many letters are narrower than `room`, shadow and all."""
    return bisect_left(range(1, len(words) + 1), room, key=lambda count: font(size, bold).size(words[:count])[0])
