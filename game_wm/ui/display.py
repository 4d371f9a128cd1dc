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
HINT_LINES = 3


def scaled_to_fit(size: tuple[int, int], room: tuple[int, int]) -> pygame.Rect:
    """The largest whole multiple of `size` in `room`, centred (smaller than 1:1 only where there is no room)."""
    factor: float = min(room[0] // size[0], room[1] // size[1])
    if factor < 1:
        factor = min(room[0] / size[0], room[1] / size[1])
    width, height = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
    return pygame.Rect((room[0] - width) // 2, (room[1] - height) // 2, width, height)


def places(target: pygame.Surface, shapes: list[tuple[int, ...]]) -> list[pygame.Rect]:
    """Where one picture (H, W) goes, in whole pixels, or two side by side, as large as they can be."""
    gap = 2 if len(shapes) > 1 else 0
    room = (target.get_width() - gap * (len(shapes) - 1)) // len(shapes)
    found = []
    for height, width, *_ in shapes:
        where = scaled_to_fit((width, height), (room, target.get_height()))
        if gap:
            scale = min(room / width, target.get_height() / height)
            where = where.inflate(width * scale - where.width, height * scale - where.height)
        found.append(where)
    return [where.move(i * (room + gap), 0) for i, where in enumerate(found)]


def pictures(target: pygame.Surface, images: list[np.ndarray], dimmed: bool = False) -> None:
    """One picture or two side by side, uint8 (H, W, 3), on a dark ground."""
    target.fill(GROUND)
    for image, where in zip(images, places(target, [image.shape for image in images])):
        source = pygame.image.frombuffer(np.ascontiguousarray(image).tobytes(), (image.shape[1], image.shape[0]), "RGB")
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

    def refresh(self) -> None:
        """Something else is shown: the figures are not to wait."""
        self._next = 0.0

    def draw(
        self, target: pygame.Surface, session: Session, fps: float | None, now: float, rewinding: bool = False
    ) -> None:
        """Name and place above left, pace above right, keys below left, score below right."""
        if now >= self._next or session.paused or session.ended or rewinding:
            self._next = now + REFRESH
            self._texts = _figures(session, fps)
        t = self._texts
        width, height = target.get_size()
        s = paint.type_size(target)
        margin, big = round(s * 1.3), round(s * 1.45)
        band = round(s * 11)
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
        self._status(target, session, rewinding, margin, s, big)

    def _status(self, target: pygame.Surface, session: Session, rewinding: bool, margin: int, s: int, big: int) -> None:
        """Paused, filming, another player: in the middle above."""
        states: list[tuple[str, tuple[int, int, int]]] = []
        if session.video is not None:
            seconds = int(session.video.frames / (session.fps or session.schema.fps))
            states.append((f"filming {seconds // 60}:{seconds % 60:02d}", RED))
        if session.data is not None:
            states.append((f"recording data, {session.data.steps} steps", RED))
        if rewinding:
            states.append(("backwards", AMBER))
        elif session.paused:
            states.append(("paused", INK))
        if session.player is not session.keyboard:
            states.append((f"{_player(session.player_name)} plays", AMBER))
        images = [text(words, s, colour) for words, colour in states]
        gap, dot = round(s * 1.6), round(s * 0.28)
        x = (target.get_width() - sum(i.get_width() + 4 * dot for i in images) - gap * max(0, len(images) - 1)) / 2
        y = margin + big * 1.4 + s * 3.2 if target.get_width() < 36 * s else margin + big * 0.6
        if images:
            wide = target.get_width() - 2 * x + 2 * s
            put(target, paint.panel(round(wide), round(s * 2), round(s * 0.6), 150), (x - s, y), "midleft")
        for image, (_, colour) in zip(images, states):
            pygame.draw.circle(target, colour, (x + dot, y + 1), dot)
            put(target, image, (x + 4 * dot, y), "midleft")
            x += image.get_width() + 4 * dot + gap


def _figures(session: Session, fps: float | None) -> dict[str, str]:
    median, late = session.times.quantile_ms(0.5), session.times.quantile_ms(0.95)
    key, key_late = session.latencies.quantile_ms(0.5), session.latencies.quantile_ms(0.95)
    calls = f" · {session.steps} denoiser call{'s' if session.steps > 1 else ''}"
    if session.quality is not None:
        calls += f" · {session.quality.label}"
    return {
        "place": _place(session),
        "pace": f"{fps:.0f} frames/s" if fps else "– frames/s",
        "frame": "" if median is None or late is None else f"frame {median:.0f} ms, 95% in {late:.0f}",
        "latency": "" if key is None or key_late is None else f"key to picture {key:.0f} ms, 95% in {key_late:.0f}",
        "score": f"score {session.score + 0.0:.1f}".replace("-0.0", "0.0"),
        "calls": f"frame {session.frames}{calls if session.view != 'real' else ''}",
    }


def _place(session: Session) -> str:
    if session.view != "dream" and session.real is not None:
        what = "the real game" if session.view == "real" else "real game and dream"
        return f"{what}, episode {session.real.number + 1}"
    if session.context < 0:
        return "begun in the real game"
    return f"place {session.context + 1} of {session.contexts}"


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


HELP = (("Play", "Record"), ("Time",), ("See",))  # groups of commands, in columns


def help_sheet(target: pygame.Surface, session: Session) -> None:
    """The key map: what the game's keys do, and the window's; in the largest letters that fit."""
    room = target.get_width() - 8, target.get_height() - 8
    for s in range(paint.type_size(target), 7, -1):
        sheet = _help(session, s)
        if sheet.get_width() <= room[0] and sheet.get_height() <= room[1]:
            break
    else:
        factor = min(room[0] / sheet.get_width(), room[1] / sheet.get_height(), 1)
        sheet = pygame.transform.smoothscale_by(sheet, factor)
    put(target, sheet, (target.get_width() / 2, target.get_height() / 2), "center")


def _help(session: Session, s: int) -> pygame.Surface:
    columns = []
    for names in HELP:
        groups = []
        for name in names:
            rows = keymap.game_keys(session.schema)[:12] if name == "Play" else []
            commands = keymap.shown_keys(session.schema, name, session.commands)
            groups.append(_group(name, [*rows, *(((key,), words) for key, words in commands)], s))
        columns.append(_stack(groups, round(s * 1.4)))
    pad, gutter = round(s * 2), round(s * 2.4)
    about = text(_about(session), s, MUTED)
    inside = max(sum(c.get_width() for c in columns) + gutter * (len(columns) - 1), about.get_width())
    tall = max(c.get_height() for c in columns)
    sheet = paint.panel(inside + 2 * pad, tall + round(s * 2.6) + 2 * pad, round(s * 0.9), 240)
    x: float = pad
    for column in columns:
        x = put(sheet, column, (x, pad)).right + gutter
    put(sheet, about, (pad, sheet.get_height() - pad), "bottomleft")
    return sheet


def _group(title: str, rows: list[tuple[tuple[str, ...], str]], s: int) -> pygame.Surface:
    """A title, and under it keys and what they do."""
    line, head = round(s * 2.25), round(s * 2.5)
    caps = [_row([paint.cap(keymap.shown(key), s) for key in keys[:3]], round(s * 0.3)) for keys, _ in rows]
    images = [text(words, s, MUTED) for _, words in rows]
    indent = max(cap.get_width() for cap in caps) + round(s * 0.8)
    width = indent + max(image.get_width() for image in images)
    sheet = pygame.Surface((width, head + line * len(rows)), pygame.SRCALPHA)
    put(sheet, text(title, round(s * 1.35), INK, True), (0, 0))
    for i, (cap, image) in enumerate(zip(caps, images)):
        y = head + (i + 0.5) * line
        put(sheet, cap, (0, y), "midleft")
        put(sheet, image, (indent, y), "midleft")
    return sheet


def _stack(images: list[pygame.Surface], gap: int) -> pygame.Surface:
    """Images below each other."""
    height = sum(image.get_height() for image in images) + gap * (len(images) - 1)
    stack = pygame.Surface((max(image.get_width() for image in images), height), pygame.SRCALPHA)
    y = 0
    for image in images:
        y = put(stack, image, (0, y)).bottom + gap
    return stack


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


def hint(target: pygame.Surface, words: str, lifted: bool = False) -> None:
    """Words that pass: where a file went, what went wrong, how to find the keys; `lifted` over what is below."""
    s = paint.type_size(target)
    lines = paint.wrapped(words, s, target.get_width() - 6 * s, HINT_LINES)
    line = round(s * 1.5)
    wide = max(image.get_width() for image in lines) + 2 * s
    sheet = paint.panel(wide, round(s * 0.7) + line * len(lines), round(s * 0.6), 190)
    for i, image in enumerate(lines):
        put(sheet, image, (wide / 2, s * 0.35 + line * (i + 0.5)), "center")
    put(target, sheet, (target.get_width() / 2, target.get_height() - s * (14 if lifted else 7.2)), "midbottom")


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
