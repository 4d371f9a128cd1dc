"""The window: keys in, pictures out, at the game's own pace.

    window = Window("maze", load=lambda report: Session(...))
    window.run()

Events come through `keys.py`, what they ask for is done in `commands.py`, and `display.py` draws. While paused the
window sleeps until an event comes. An event does not say when it happened, only that it was not there when the window
last looked: latencies count from then.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pygame

from data_collect.errors import UserError
from game_wm.dream import saved
from game_wm.play.timing import NOTICE, Pacer, Timings
from game_wm.play.window import display, help, loading, overlays, paint, screen
from game_wm.play.window.commands import HINT, Commands
from game_wm.play.window.keys import Keys

if TYPE_CHECKING:
    from game_wm.play.session import Session
    from game_wm.play.window.chooser import Chooser

READING = 0.06  # seconds that a letter is shown
IDLE = 0.25  # seconds asleep at most while paused, so that Ctrl-C is heard


class Window:
    """One window and the session in it; `load` makes the session in a thread while a bar fills.

    `opener(path)` gives the `load` of another checkpoint, which `folders` are searched for.
    """

    session: Session

    def __init__(
        self,
        name: str,
        load: loading.Load,
        opener: Callable[[Path], loading.Load] | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.surface = screen.open_screen(f"{name} – game_wm")
        self.name, self.opener, self.folders = name, opener, folders
        self.running, self.hud, self.help, self.help_page = True, True, False, 0
        self.latents, self.graph = False, False
        self.chooser: Chooser | None = None
        self.commands = Commands(self)
        self.hint = ""  # words that are shown, for a while
        self.resume_at = 0.0  # when the next episode begins, after the end of one
        self.figures = display.Figures()
        self._load = load
        self.periods = Timings(60)
        self._last_shown: float | None = None
        self._looked = time.perf_counter()
        self._hint_until = 0.0

    def run(self) -> None:
        """Load, then play until the window is closed; films are finished whatever happens."""
        try:
            if self.load():
                self.begin()
                while self.running:
                    self.turn()
        finally:
            if hasattr(self, "session"):
                self.commands.finish(self.session)
            pygame.display.quit()

    def load(self) -> bool:
        """Make the session; False when the window was closed meanwhile, or Esc goes back to what was played before."""
        made = loading.load(self.surface, self.name, self._load)
        if isinstance(made, str):
            self.running = made == "back" and hasattr(self, "session")
            return False
        self.session = made
        return True

    def begin(self) -> None:
        """The session is there: choose the keys, show the first picture."""
        session = self.session
        self.keys = Keys(session)
        self._pacer = Pacer(session.fps)
        self.surface = screen.fit(self.surface, session.now.picture.shape[:2])
        self.say(f"{self.commands.key('help')} shows the keys{self.commands.begin()}")
        self.draw()

    def open(self, path: Path) -> None:
        """Play another checkpoint, or go on in a saved dream; where that fails, what was played goes on."""
        try:
            dream = path if path.suffix == saved.SUFFIX else None
            whose = path if dream is None else _checkpoint_of(dream, self.session.checkpoint.digest, self.folders)
            if whose is None:
                self.commands.restore(path)
            elif self._open(whose) and dream is not None:
                self.commands.restore(dream)
                self.draw()
        except UserError as error:
            gone = UserError(f"{path} is gone; {self.commands.key('open')} shows what there is")
            self.fail(error if path.exists() else gone)

    def _open(self, path: Path) -> bool:
        """Play another checkpoint; False where the player has thought better of it."""
        if self.opener is None:
            raise UserError("this window plays one checkpoint only")
        before, playing, loaded = (self._load, self.name), self.session, False
        self._load, self.name = self.opener(path), path.stem
        try:
            loaded = self.load()
        finally:
            if not loaded:
                self._load, self.name = before
        if not loaded:
            self.interrupt()
            return False
        pygame.display.set_caption(f"{self.name} – game_wm")
        self.commands.saved = None
        self.begin()
        self.commands.finish(playing)
        return True

    def turn(self) -> None:
        seen = self.pump(min(self.wait(time.perf_counter()), IDLE))
        now = time.perf_counter()
        if not self.running:
            return
        if self.wait(now) == 0:
            if self.keys.rewinding:
                self.rewind()
            else:
                self.advance()
        elif seen or (self.hint and now > self._hint_until):
            self.draw()

    def wait(self, now: float) -> float:
        rewinding = self.keys.rewinding
        if self.help or self.chooser or (self.session.paused and not rewinding):
            return IDLE
        waiting = self.resume_at - now if self.session.scene.ended and not rewinding else 0.0
        return max(self._pacer.wait(now), waiting)

    def pump(self, wait: float = 0.0) -> bool:
        """Handle what has happened, waiting at most `wait` seconds for something; True when anything did."""
        events = pygame.event.get()
        at = self._looked if events else None  # it came between two looks, at a moment that is not known
        if not events and wait > 0:
            first = pygame.event.wait(math.ceil(wait * 1000))
            events = [] if first.type == pygame.NOEVENT else [first, *pygame.event.get()]
        now = self._looked = time.perf_counter()
        for event in events:
            self._handle(event, now if at is None else at)
        return bool(events)

    def _handle(self, event: pygame.event.Event, at: float) -> None:
        if event.type == pygame.QUIT:
            self.commands.leave()
            return
        choosing = self.chooser is not None and event.type != pygame.KEYUP
        command = self.keys.hear(event, at, self.surface.get_size(), play=not choosing)
        if choosing:
            self._choose(event)
        if command is not None:
            self.commands.obey(command)

    def _choose(self, event: pygame.event.Event) -> None:
        assert self.chooser is not None
        chosen = event.type == pygame.MOUSEBUTTONDOWN and event.button == 1 and self.chooser.at(event.pos)
        if event.type == pygame.KEYDOWN:
            key = pygame.key.name(event.key)
            chosen = key in ("return", "enter", "space")
            if self.keys.meant(event)[1] in ("quit", "open"):
                self.commands.open()
                return
            self.chooser.key(key)
        if chosen:
            path = self.chooser.entry.path
            self.commands.open()
            self.open(path)

    def advance(self) -> None:
        started = time.perf_counter()
        self._pacer.advance(started)
        session = self.session
        filmed, recorded = session.video, session.data
        try:
            session.tick()
        except UserError as error:
            # A full disk ends the film or the recording, a faulty player its turn; the dream goes on.
            self.fail(error)
            if session.video is filmed and session.data is recorded:
                session.take_over("keyboard")
        if session.scene.ended:
            self.resume_at = started + NOTICE
        self.draw()
        session.shown()
        now = time.perf_counter()
        if words := session.adapt_quality(now - started):
            self.say(words)
        if self._last_shown is not None:
            self.periods.add(now - self._last_shown)
        self._last_shown = now

    def rewind(self) -> None:
        self._pacer.advance(time.perf_counter())
        waited = self.recording_waits()
        try:
            if not self.session.rewind():
                self.say("no further back: the episode began here, or memory of it ends")
            elif not waited and (waits := self.recording_waits()):
                self.say(f"the recording{waits}")
        except UserError as error:
            self.fail(error)
        self.interrupt()
        self.draw()

    def interrupt(self, forget: bool = True) -> None:
        """What lies between is neither a slow frame nor, with `forget`, a slow answer to keys."""
        self._last_shown = None
        if forget:
            self.figures.refresh()
            self.session.controls.keyboard.forget()

    def say(self, words: str) -> None:
        """Show words for as long as it takes to read them."""
        self.hint, self._hint_until = words, time.perf_counter() + max(HINT, len(words) * READING)

    def fail(self, error: UserError) -> None:
        print(f"error: {error}", file=sys.stderr)
        self.say(str(error))

    def help_pages(self) -> list[pygame.Surface]:
        """The sheets of keys for the window as large as it is now."""
        return help.pages(self.session, self.surface.get_size())

    def recording_waits(self) -> str:
        """For what a recording waits: the real game, once time has run back in it, is recorded from its next start."""
        data, real = self.session.data, self.session.scene.real
        if data is None or real is None or real.data is not data or data.playing or self.session.scene.ended:
            return ""
        return f" waits: {self.commands.key('next')} begins the next episode"

    def draw(self) -> None:
        now = time.perf_counter()
        self.surface = pygame.display.get_surface() or self.surface  # its size is the window's
        if news := self.session.scene.news():
            self.figures.refresh()
            key = self.commands.key
            self.fail(UserError(f"{news}; {key('switch')} or {key('beside')} begins it anew"))
        if now >= self._hint_until:
            self.hint = ""
        board = paint.Board(self.surface)
        if self.chooser:
            self.chooser.draw(board)
            display.hint(board, self.hint)
        else:
            _draw_play(self, board, now)
        pygame.display.flip()


def _draw_play(window: Window, board: paint.Board, now: float) -> None:
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
        overlays.likeness(board, session)
    display.hint(board, window.hint)
    if over:
        return
    dreaming = session.scene.view != "real"
    overlays.left(board, session, window.latents and dreaming, window.graph)
    if session.scene.inspect and dreaming:
        overlays.memory(board, session)


def _checkpoint_of(dream: Path, digest: str, folders: Sequence[Path]) -> Path | None:
    """The checkpoint that a saved dream was dreamt by, None where that has this digest."""
    about, _ = saved.peek(dream)
    if about.digest == digest:
        return None
    named = [folder / f"{about.checkpoint}.safetensors" for folder in folders]
    found = next((file for file in named if file.is_file()), None)
    if found is None:
        raise UserError(f"{dream} was dreamt by {about.checkpoint}, which is not here: get that file first")
    return found
