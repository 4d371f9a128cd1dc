"""What the window shows: the picture, the figures over it, the key map, notices, and the page while it loads.

Everything is drawn from the session; nothing is kept here but the few texts that should not flicker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pygame

from game_wm.ui import keymap, paint
from game_wm.ui.paint import AMBER, GROUND, INK, MUTED, RED, put, text

if TYPE_CHECKING:
    from game_wm.ui.session import Session

REFRESH = 0.25  # seconds between changes of the figures
MOST_CAPS = 6  # keys beyond the arrows that have a cap of their own


def scaled_to_fit(size: tuple[int, int], room: tuple[int, int]) -> pygame.Rect:
    """The largest whole multiple of `size` in `room`, centred (smaller than 1:1 only where there is no room)."""
    factor: float = min(room[0] // size[0], room[1] // size[1])
    if factor < 1:
        factor = min(room[0] / size[0], room[1] / size[1])
    width, height = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
    return pygame.Rect((room[0] - width) // 2, (room[1] - height) // 2, width, height)


def picture(target: pygame.Surface, image: np.ndarray, dimmed: bool = False) -> None:
    """The dream, uint8 (H, W, 3), in whole pixels on a dark ground."""
    height, width = image.shape[:2]
    where = scaled_to_fit((width, height), target.get_size())
    target.fill(GROUND)
    source = pygame.image.frombuffer(np.ascontiguousarray(image).tobytes(), (width, height), "RGB")
    target.blit(pygame.transform.scale(source, where.size), where)
    if dimmed:
        veil = pygame.Surface(target.get_size(), pygame.SRCALPHA)
        veil.fill((*GROUND, 165))
        target.blit(veil, (0, 0))


class Figures:
    """The head-up display."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._next = 0.0

    def draw(self, target: pygame.Surface, session: Session, fps: float | None, now: float) -> None:
        """Name and place above left, pace above right, keys below left, score below right."""
        if now >= self._next or session.paused or session.ended:
            self._next = now + REFRESH
            self._texts = _figures(session, fps)
        t = self._texts
        width, height = target.get_size()
        s = paint.type_size(target)
        margin, big = round(s * 1.3), round(s * 1.45)
        band = round(s * 8.5)
        target.blit(paint.shade(width, band, 205, True), (0, 0))
        target.blit(paint.shade(width, band, 205, False), (0, height - band))

        put(target, text(session.checkpoint.name, big, INK, True), (margin, margin))
        put(target, text(t["place"], s, MUTED), (margin, margin + big * 1.4))
        put(target, text(t["pace"], big, INK, True), (width - margin, margin), "topright")
        put(target, text(t["frame"], s, MUTED), (width - margin, margin + big * 1.4), "topright")
        if t["latency"]:
            at = (width - margin, margin + big * 1.4 + s * 1.45)
            put(target, text(t["latency"], s, MUTED), at, "topright")
        put(target, text(t["score"], big, INK, True), (width - margin, height - margin - s * 1.45), "bottomright")
        put(target, text(t["calls"], s, MUTED), (width - margin, height - margin), "bottomright")
        _caps(target, session, margin, height - margin, s)
        self._status(target, session, margin, s, big)

    def _status(self, target: pygame.Surface, session: Session, margin: int, s: int, big: int) -> None:
        """Paused, filming, another player: in the middle above."""
        states: list[tuple[str, tuple[int, int, int]]] = []
        if session.video is not None:
            seconds = int(session.video.frames / (session.fps or session.schema.fps))
            states.append((f"filming {seconds // 60}:{seconds % 60:02d}", RED))
        if session.paused:
            states.append(("paused", INK))
        if session.player is not session.keyboard:
            states.append((f"{_player(session.player_name)} plays", AMBER))
        images = [text(words, s, colour) for words, colour in states]
        gap, dot = round(s * 1.6), round(s * 0.28)
        x = (target.get_width() - sum(i.get_width() + 4 * dot for i in images) - gap * max(0, len(images) - 1)) / 2
        y = margin + big * 1.4 + s * 3.2 if target.get_width() < 36 * s else margin + big * 0.6
        for image, (_, colour) in zip(images, states):
            pygame.draw.circle(target, colour, (x + dot, y + 1), dot)
            put(target, image, (x + 4 * dot, y), "midleft")
            x += image.get_width() + 4 * dot + gap


def _figures(session: Session, fps: float | None) -> dict[str, str]:
    median, late = session.times.quantile_ms(0.5), session.times.quantile_ms(0.95)
    key, key_late = session.latencies.quantile_ms(0.5), session.latencies.quantile_ms(0.95)
    calls = f"{session.steps} denoiser call{'s' if session.steps > 1 else ''}"
    return {
        "place": f"place {session.context + 1} of {session.contexts}",
        "pace": f"{fps:.0f} frames/s" if fps else "– frames/s",
        "frame": "" if median is None or late is None else f"frame {median:.0f} ms, 95% in {late:.0f}",
        "latency": "" if key is None or key_late is None else f"key to picture {key:.0f} ms, 95% in {key_late:.0f}",
        "score": f"score {session.score + 0.0:.1f}".replace("-0.0", "0.0"),
        "calls": f"frame {session.frames} · {calls}",
    }


def _player(name: str) -> str:
    """Short for the screen: of policy:MODULE:FUNCTION, the function."""
    return name.rsplit(":", 1)[-1]


def _caps(target: pygame.Surface, session: Session, left: float, bottom: float, s: int) -> None:
    """The game's keys, lit as the last action has them: arrows as on a keyboard, then the others."""
    schema = session.schema
    down = keymap.pressed(schema, session.action)
    side, gap = round(s * 1.9), round(s * 0.3)
    step = side + gap
    places = {"left": (0, 1), "down": (1, 1), "right": (2, 1), "up": (1, 0)}
    x = left
    firsts = [keys[0] for keys, _ in keymap.game_keys(schema)]
    arrows = [key for key in firsts if key in places]
    for key in arrows:
        column, row = places[key]
        at = (left + column * step, bottom - side - (1 - row) * step)
        put(target, paint.cap(key, s, _level(down[key])), at)
    if arrows:
        x += 3 * step + gap
    others = [key for key in firsts if key not in places]
    if len(others) > MOST_CAPS:
        put(target, text(keymap.describe(schema, session.action), s), (x, bottom - side / 2), "midleft")
        return
    for key in others:
        image = paint.cap(keymap.meaning(schema, key), s, _level(down[key]))
        x = put(target, image, (x, bottom), "bottomleft").right + gap


def _level(value: float) -> int:
    return round(8 * min(1.0, value))


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
        sheet.blit(_tile(drawn, side), (gap, y))
    y += side + gap
    for i in range(count):
        assert found is not None
        at = (gap + (i % 2) * (small + gap), y + (i // 2) * (small + line))
        sheet.blit(_tile(found.pictures[i].numpy(), small), at)
        age = f"{int(found.ages[i]) / session.schema.fps:.1f} s ago"
        put(sheet, text(age, max(8, round(s * 0.8)), MUTED), (at[0], at[1] + small))
    y += rows * (small + line)
    put(sheet, text("its map", s, MUTED), (gap, y))
    _trail(sheet, found.trail.numpy() if found is not None else np.zeros((0, 2)), (gap, y + line, side, side), s)
    room = target.get_size()
    if sheet.get_height() > room[1] - 8:
        sheet = pygame.transform.smoothscale_by(sheet, (room[1] - 8) / sheet.get_height())
    put(target, sheet, (room[0] - gap, room[1] / 2), "midright")


def _tile(image: np.ndarray, width: int) -> pygame.Surface:
    """A picture uint8 (H, W, 3) in a square of `width`, its proportions kept."""
    high, wide = image.shape[:2]
    source = pygame.image.frombuffer(np.ascontiguousarray(image).tobytes(), (wide, high), "RGB")
    tile = pygame.Surface((width, width))
    tile.fill(GROUND)
    size = (width, width * high // wide)
    tile.blit(pygame.transform.scale(source, size), (0, (width - size[1]) // 2))
    return tile


def _trail(sheet: pygame.Surface, trail: np.ndarray, box: tuple[int, int, int, int], s: int) -> None:
    left, top, width, height = box
    middle = (left + width / 2, top + height / 2)
    reach = max(4.0, float(np.abs(trail).max(initial=0.0)))
    for right, ahead in (trail / reach * (width / 2 - 2)).tolist():
        pygame.draw.circle(sheet, MUTED, (middle[0] + right, middle[1] - ahead), max(1, s // 12))
    x, y, r = *middle, s * 0.45
    pygame.draw.polygon(sheet, AMBER, ((x, y - r), (x - r * 0.7, y + r * 0.7), (x + r * 0.7, y + r * 0.7)))


def help_sheet(target: pygame.Surface, session: Session) -> None:
    """The key map: what the game's keys do, and the window's."""
    s = paint.type_size(target)
    groups: list[tuple[str, list[tuple[tuple[str, ...], str]]]] = [
        ("Play", keymap.game_keys(session.schema)[:18]),
        ("Window", [((key,), words) for key, words in keymap.shown_keys(session.schema)]),
    ]
    line, pad, gutter = round(s * 2.3), round(s * 2.2), round(s * 3)
    columns = []
    for title, rows in groups:
        caps = [_row([paint.cap(keymap.shown(key), s) for key in keys[:3]], round(s * 0.3)) for keys, _ in rows]
        words = [text(words, s, MUTED) for _, words in rows]
        indent = max((c.get_width() for c in caps), default=0) + round(s * 0.9)
        columns.append((title, caps, words, indent, indent + max((w.get_width() for w in words), default=0)))
    rows_height = max(len(column[1]) for column in columns) * line
    head = round(s * 3)
    about = _about(session)
    width = max(sum(c[4] for c in columns) + gutter, text(about, s).get_width()) + 2 * pad
    sheet = paint.panel(width, head + rows_height + round(s * 3) + 2 * pad - round(s), round(s * 0.9))
    x: float = pad
    for title, caps, words, indent, column_width in columns:
        put(sheet, text(title, round(s * 1.45), INK, True), (x, pad))
        for i, (cap, word) in enumerate(zip(caps, words)):
            y = pad + head + i * line + s * 0.95
            put(sheet, cap, (x, y), "midleft")
            put(sheet, word, (x + indent, y), "midleft")
        x += column_width + gutter
    put(sheet, text(about, s, MUTED), (pad, sheet.get_height() - pad), "bottomleft")
    room = target.get_size()
    if sheet.get_width() > room[0] - 8 or sheet.get_height() > room[1] - 8:
        factor = min((room[0] - 8) / sheet.get_width(), (room[1] - 8) / sheet.get_height())
        sheet = pygame.transform.smoothscale_by(sheet, factor)
    put(target, sheet, (room[0] / 2, room[1] / 2), "center")


def _row(images: list[pygame.Surface], gap: int) -> pygame.Surface:
    """Images side by side."""
    width = sum(image.get_width() for image in images) + gap * (len(images) - 1)
    row = pygame.Surface((width, max(image.get_height() for image in images)), pygame.SRCALPHA)
    x = 0
    for image in images:
        x = put(row, image, (x, 0)).right + gap
    return row


def _about(session: Session) -> str:
    ckpt = session.checkpoint
    game = "" if ckpt.game == ckpt.name else f"{ckpt.game} · "
    return f"{ckpt.name} · {game}{ckpt.parameters / 1e6:.1f} M parameters · {session.schema.fps:g} frames/s"


def notice(target: pygame.Surface, words: str, below: str = "") -> None:
    """A short sentence in the middle."""
    s = paint.type_size(target)
    x, y = target.get_width() / 2, target.get_height() / 2
    put(target, text(words, round(s * 1.8), INK, True), (x, y), "midbottom" if below else "center")
    if below:
        put(target, text(below, s, MUTED), (x, y + s * 0.6), "midtop")


def hint(target: pygame.Surface, words: str) -> None:
    """A line that passes: where a file went, what went wrong, how to find the keys."""
    s = paint.type_size(target)
    image = _shortened(words, s, target.get_width() - 6 * s)
    sheet = paint.panel(image.get_width() + 2 * s, round(s * 2.2), round(s * 0.6), 190)
    put(sheet, image, (sheet.get_width() / 2, sheet.get_height() / 2), "center")
    put(target, sheet, (target.get_width() / 2, target.get_height() - s * 7.2), "midbottom")


def _shortened(words: str, s: int, room: int) -> pygame.Surface:
    image = text(words, s)
    while image.get_width() > room and len(words) > 8:
        words = words[: int(len(words) * 0.9) - 1].rstrip() + "…"
        image = text(words, s)
    return image


def loading(target: pygame.Surface, name: str, stage: str, fraction: float) -> None:
    """The page while the checkpoint loads."""
    s = paint.type_size(target)
    width, height = target.get_size()
    target.fill(GROUND)
    put(target, text(name, round(s * 2.4), INK, True), (width / 2, height / 2 - s * 1.6), "midbottom")
    bar = pygame.Rect(0, 0, round(min(width * 0.5, 22 * s)), max(2, s // 5))
    bar.center = (width // 2, height // 2)
    pygame.draw.rect(target, (48, 50, 56), bar, border_radius=bar.height)
    done = pygame.Rect(bar.left, bar.top, round(bar.width * min(1.0, fraction)), bar.height)
    pygame.draw.rect(target, INK, done, border_radius=bar.height)
    put(target, text(stage, s, MUTED), (width / 2, height / 2 + s * 1.6), "midtop")
