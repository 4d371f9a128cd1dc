"""What the window shows: the picture, the figures over it, notices, and the page while it loads.

Everything is drawn from the session; nothing is kept here but the few texts that should not flicker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pygame

from game_wm.play import keymap
from game_wm.play.window import paint
from game_wm.play.window.paint import AMBER, GROUND, INK, MUTED, RED, Board, put, text

if TYPE_CHECKING:
    from game_wm.play.session import Session

REFRESH = 0.25  # seconds between changes of the figures
MOST_CAPS = 6  # keys beyond the arrows that have a cap of their own
HINT_LINES = 5


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
    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._next = 0.0

    def refresh(self) -> None:
        """Bring the figures up to date with the next picture."""
        self._next = 0.0

    def draw(
        self, board: Board, session: Session, fps: float | None, now: float, rewinding: bool = False, waiting: str = ""
    ) -> None:
        """Name and place above left, pace above right, keys below left, score below right, and what is going on in the
        middle above; `waiting` says for what a recording waits. What has no room is left out."""
        if now >= self._next or session.paused or session.scene.ended or rewinding:
            self._next = now + REFRESH
            self._texts = _figures(session, fps)
        t = self._texts
        width, height = board.target.get_size()
        s = paint.type_size(board.target)
        margin, big = round(s * 1.3), round(s * 1.45)
        band = min(round(s * 11), height)
        board.target.blit(paint.shade(width, band, 205, True), (0, 0))
        board.target.blit(paint.shade(width, band, 205, False), (0, height - band))

        pace = board.put(text(t["pace"], big, INK, True), (width - margin, margin), "topright")
        room = (pace.left if pace else width) - 3 * margin
        board.put(paint.shortened(session.checkpoint.name, big, room, INK, True), (margin, margin))
        board.put(text(t["score"], big, INK, True), (width - margin, height - margin - s * 1.45), "bottomright")
        _caps(board, session, margin, height - margin, s)
        board.put(text(t["calls"], s, MUTED), (width - margin, height - margin), "bottomright")
        board.put(text(t["place"], s, MUTED), (margin, margin + big * 1.4))
        y = margin + big * 1.4
        for name in ("frame", "latency"):
            if t[name] and (where := board.put(text(t[name], s, MUTED), (width - margin, y), "topright")):
                y = max(y + s * 1.45, where.bottom)
        if found := states(session, rewinding, waiting):
            _status(board, found, margin + big * 0.6, s)


def states(session: Session, rewinding: bool, waiting: str) -> list[tuple[str, tuple[int, int, int]]]:
    """Paused, filming, another player: what is going on, and its colour."""
    found = []
    if session.video is not None:
        seconds = int(session.video.frames / (session.fps or session.schema.fps))
        found.append((f"filming {seconds // 60}:{seconds % 60:02d}", RED))
    if session.data is not None:
        found.append((f"recording data{waiting or f', {session.data.steps} steps'}", AMBER if waiting else RED))
    if rewinding:
        found.append(("backwards", AMBER))
    elif session.paused:
        found.append(("paused", INK))
    if session.controls.agent is not session.controls.keyboard:
        found.append((f"{session.controls.name.rsplit(':', 1)[-1]} plays", AMBER))  # of policy:MODULE:FUNCTION the last
    return found


def _status(board: Board, states: list[tuple[str, tuple[int, int, int]]], y: float, s: int) -> None:
    """States side by side, below each other where the window is narrow, as high as there is room."""
    gap, dot, room = round(s * 1.6), round(s * 0.28), board.target.get_width() - 4 * s
    rows: list[list[pygame.Surface]] = [[]]
    for words, colour in states:
        image = paint.shortened(words, s, room - 4 * dot, colour)
        state = pygame.Surface((image.get_width() + 4 * dot, image.get_height()), pygame.SRCALPHA)
        pygame.draw.circle(state, colour, (dot, image.get_height() // 2 + 1), dot)
        put(state, image, (4 * dot, 0))
        if rows[-1] and sum(x.get_width() + gap for x in rows[-1]) + state.get_width() > room:
            rows.append([])
        rows[-1].append(state)
    stack = paint.stacked([paint.beside(row, gap) for row in rows], round(s * 0.3), centred=True)
    sheet = paint.panel(stack.get_width() + 2 * s, stack.get_height() + s // 2, round(s * 0.6), 150)
    put(sheet, stack, (s, s // 4))
    board.slide(sheet, (board.target.get_width() / 2, max(2, y - sheet.get_height() / 2)), max(1, s // 3), "midtop")


def _figures(session: Session, fps: float | None) -> dict[str, str]:
    median, late = session.times.quantile_ms(0.5), session.times.quantile_ms(0.95)
    key, key_late = session.latencies.quantile_ms(0.5), session.latencies.quantile_ms(0.95)
    calls = f" · {session.scene.steps} denoiser call{'s' if session.scene.steps > 1 else ''}"
    if session.quality is not None:
        calls += f" · {session.quality.label}"
    return {
        "place": _place(session),
        "pace": f"{fps:.0f} frames/s" if fps else "– frames/s",
        "frame": "" if median is None or late is None else f"frame {median:.0f} ms, 95% in {late:.0f}",
        "latency": "" if key is None or key_late is None else f"key to picture {key:.0f} ms, 95% in {key_late:.0f}",
        "score": f"score {session.now.score + 0.0:.1f}".replace("-0.0", "0.0"),
        "calls": f"frame {session.now.frames}{calls if session.scene.view != 'real' else ''}",
    }


def _place(session: Session) -> str:
    if session.scene.view != "dream" and session.scene.real is not None:
        what = "the real game" if session.scene.view == "real" else "real game and dream"
        return f"{what}, episode {session.scene.real.number + 1}"
    if session.dream.context < 0:
        return "begun in the real game"
    return f"place {session.dream.context + 1} of {session.scene.contexts}"


def _caps(board: Board, session: Session, left: int, bottom: int, s: int) -> None:
    """The game's keys, lit as the last action has them: arrows as on a keyboard, then the others; in words,
    where they have no room."""
    schema = session.schema
    down = keymap.pressed(schema, session.now.action)
    side, gap = round(s * 1.9), round(s * 0.3)
    step = side + gap
    places = {"left": (0, 1), "down": (1, 1), "right": (2, 1), "up": (1, 0)}
    firsts = [keys[0] for keys, _ in keymap.game_keys(schema)]
    arrows = [key for key in firsts if key in places]
    for key in arrows:
        column, row = places[key]
        board.put(paint.cap(key, s, _level(down[key])), (left + column * step, bottom - side - (1 - row) * step))
    x = left + (3 * step + gap if arrows else 0)
    others = [key for key in firsts if key not in places]
    if not others:
        return
    caps = paint.beside([paint.cap(keymap.meaning(schema, key), s, _level(down[key])) for key in others], gap)
    if len(others) > MOST_CAPS or not board.put(caps, (x, bottom), "bottomleft"):
        room = board.target.get_width() - x - left
        words = paint.shortened(keymap.describe(schema, session.now.action), s, room)
        board.put(words, (x, bottom - side / 2), "midleft")


def _level(value: float) -> int:
    return round(8 * min(1.0, value))


def notice(board: Board, words: str, below: str = "") -> None:
    s = paint.type_size(board.target)
    room = board.target.get_width() - 2 * s
    lines = [*paint.wrapped(words, round(s * 1.8), room, 3, bold=True), *paint.wrapped(below, s, room, 3, MUTED)]
    sheet = paint.stacked([line for line in lines if line.get_width() > 1], s // 3, centred=True)
    board.put(sheet, board.target.get_rect().center, "center")


def hint(board: Board, words: str) -> None:
    """Words that pass: where a file went, what went wrong, how to find the keys; over what is there, if need be."""
    if not words:
        return
    s = paint.type_size(board.target)
    lines = paint.wrapped(words, s, board.target.get_width() - 4 * s, HINT_LINES)
    stack = paint.stacked(lines, round(s * 0.3), centred=True)
    sheet = paint.panel(stack.get_width() + 2 * s, stack.get_height() + round(s * 0.8), round(s * 0.6), 250)
    put(sheet, stack, (s, round(s * 0.4)))
    at = board.target.get_width() / 2, board.target.get_height() - s * 6.4
    fits = board.target.get_rect().contains(sheet.get_rect())
    if fits and not board.slide(sheet, at, -max(1, s // 2), "midbottom"):
        put(board.target, sheet, at, "midbottom")


def loading(target: pygame.Surface, name: str, stage: str, fraction: float) -> None:
    s = paint.type_size(target)
    width, height = target.get_size()
    target.fill(GROUND)
    board = Board(target)
    room = width - 2 * s
    board.put(paint.shortened(name, round(s * 2.4), room, INK, True), (width / 2, height / 2 - s * 1.6), "midbottom")
    bar = pygame.Rect(0, 0, round(min(width * 0.5, 22 * s)), max(2, s // 5))
    bar.center = (width // 2, height // 2)
    pygame.draw.rect(target, (48, 50, 56), bar, border_radius=bar.height)
    done = pygame.Rect(bar.left, bar.top, round(bar.width * min(1.0, fraction)), bar.height)
    pygame.draw.rect(target, INK, done, border_radius=bar.height)
    board.put(paint.shortened(stage, s, room, MUTED), (width / 2, height / 2 + s * 1.6), "midtop")
