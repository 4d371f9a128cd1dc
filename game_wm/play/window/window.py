"""The window: keys in, pictures out, at the game's own pace.

    window = Window("maze", load=lambda report: Session(...))
    window.run()
    Window(opener=lambda path: lambda report: Session(...), folders=[SHIPPED]).run()    # begins in the gallery

Events come through `keys.py`, `commands.py` and `opening.py` do what they ask for, `display.py` draws. While
paused the window sleeps until an event comes. An event does not say when it happened, only that it was not there when
the window last looked: latencies count from then.
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
from game_wm.play.timing import NOTICE, Pacer, Timings
from game_wm.play.window import display, gamepad, help, loading, opening, paint, screen
from game_wm.play.window.keys import Keys

if TYPE_CHECKING:
    from game_wm.play.session import Session
    from game_wm.play.window.chooser import Chooser
    from game_wm.play.window.commands import Commands

HINT = 4.0  # seconds that words are shown at least
READING = 0.06  # seconds that a letter is shown
MOVING = 0.05  # seconds between pictures of the gallery, in which one tile moves
IDLE = 0.25  # seconds asleep at most while paused, so that Ctrl-C is heard


class Window:
    """One window and the session in it; `load` makes the session in a thread while a bar fills. Without it the gallery
    is shown, and there is no session until somebody has chosen.

    `opener(path)` gives the `load` of another checkpoint, which `folders` are searched for.
    """

    session: Session
    commands: Commands

    def __init__(
        self,
        name: str = "",
        load: loading.Load | None = None,
        opener: Callable[[Path], loading.Load] | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.surface = screen.open_screen(name, screen.SQUARE if load else screen.GALLERY)
        self.plugged = gamepad.plugged()
        self.name, self.opener, self.folders = name, opener, folders
        self.running, self.hud, self.help, self.help_page = True, True, False, 0
        self.latents, self.graph = False, False
        self.chooser: Chooser | None = None
        self.hint = ""  # words that are shown, for a while
        self.resume_at = 0.0  # when the next episode begins, after the end of one
        self.figures = display.Figures()
        self.made_by = load
        self.periods = Timings(60)
        self._last_shown: float | None = None
        self._looked = time.perf_counter()
        self._hint_until = 0.0

    def run(self) -> None:
        """Load, then play until the window is closed; films are finished whatever happens."""
        try:
            if self.made_by is None:
                opening.choose(self)
            elif self.load():
                self.begin()
            while self.running:
                self.turn()
        finally:
            if self.playing:
                self.commands.finish(self.session)
            pygame.display.quit()

    @property
    def playing(self) -> bool:
        """Whether there is a session."""
        return hasattr(self, "session")

    def load(self) -> bool:
        """Make the session; False when the window was closed meanwhile, or Esc goes back to where one came from."""
        assert self.made_by is not None
        try:
            made = loading.load(self.made_by, self._show_loading)
        finally:
            if self.chooser:
                self.chooser.loading = None
        if isinstance(made, str):
            self.running = made == "back" and (self.playing or self.chooser is not None)
            return False
        self.session = made
        return True

    def _show_loading(self, stage: str, done: float) -> None:
        if self.chooser:
            self.chooser.loading = stage, done
            self.draw()
        else:
            display.loading(self.surface, self.name, stage, done)
            pygame.display.flip()

    def begin(self) -> None:
        """The session is there: choose the keys, show the first picture."""
        from game_wm.play.window.commands import Commands  # with PyTorch, which the gallery does not wait for

        if not hasattr(self, "commands"):
            self.commands = Commands(self)
        session, self.chooser = self.session, None
        self.keys = Keys(session)
        self._pacer = Pacer(session.fps)
        self.surface = screen.fit(self.surface, session.now.picture.shape[:2])
        self.say(f"{self.commands.key('help')} shows the keys{self.commands.begin()}")
        self.draw()

    def leave(self) -> None:
        if self.playing:
            self.commands.leave()
        else:
            self.running = False

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
        elif seen or self.chooser or (self.hint and now > self._hint_until):
            self.draw()

    def wait(self, now: float) -> float:
        if self.chooser:
            return MOVING
        rewinding = self.keys.rewinding
        if self.help or (self.session.paused and not rewinding):
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
            self.leave()
            return
        if event.type == pygame.JOYDEVICEADDED:
            self.plugged.append(pygame.joystick.Joystick(event.device_index))
        command = None
        if self.playing:
            command = self.keys.hear(event, at, self.surface.get_size(), play=self.chooser is None)
        if self.chooser is not None:
            self._choose(self.chooser, event)
        elif command is not None:
            self.commands.obey(command)

    def _choose(self, chooser: Chooser, event: pygame.event.Event) -> None:
        asked, tile = chooser.hear(event), chooser.tile
        command = self.keys.meant(event)[1] if self.playing and event.type == pygame.KEYDOWN else None
        if asked == "leave" or command == "quit":
            self.leave()
        elif command == "open" or (asked == "play" and tile and tile.path.resolve() == chooser.current):
            opening.choose(self)
        elif asked == "play" and tile:
            opening.play(self, tile.path)

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
        if forget and self.playing:
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
        if self.playing and (news := self.session.scene.news()):
            self.figures.refresh()
            key = self.commands.key
            self.fail(UserError(f"{news}; {key('switch')} or {key('beside')} begins it anew"))
        if now >= self._hint_until:
            self.hint = ""
        board = paint.Board(self.surface)
        if self.chooser:
            back = f"{self.commands.key('open')} goes back to {self.name} · " if self.playing else ""
            self.chooser.draw(board, f"arrows and Enter, a click or a gamepad · {back}Esc leaves", now)
            display.hint(board, self.hint)
        else:
            from game_wm.play.window import overlays

            overlays.play(self, board, now)
        pygame.display.flip()
