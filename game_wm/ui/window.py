"""The window: keys in, pictures out, at the game's own pace.

    window = Window("maze", load=lambda report: Session(...))
    window.run()

Keys come as events (SDL's dummy driver and other programs post them so). While paused it sleeps until one comes.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pygame

from data_collect.errors import UserError
from game_wm.ui import display, keymap, screen
from game_wm.ui.timing import Pacer, Timings

if TYPE_CHECKING:
    from game_wm.ui.session import Session

Report = Callable[[str, float], None]
FOLDER = Path("recordings")  # films and action files that were not given a name
NOTICE = 1.6  # seconds that the end of an episode is shown
HINT = 4.0
IDLE = 0.25  # seconds asleep at most while paused, so that Ctrl-C is heard


class Window:
    """One window and the session in it; `load` makes the session in a thread while a bar fills."""

    def __init__(self, name: str, load: Callable[[Report], Session]) -> None:
        self.surface = screen.open_screen(f"{name} – game_wm")
        self.name = name
        self.session: Session
        self.running, self.hud, self.help = True, True, False
        self._load = load
        self._figures = display.Figures()
        self._periods = Timings(60)
        self._last_shown: float | None = None
        self._resume_at = 0.0
        self._hint = ("", 0.0)

    def run(self) -> None:
        """Load, then play until the window is closed; films are finished whatever happens."""
        try:
            if self.load():
                self.begin()
                while self.running:
                    self.turn()
        finally:
            if hasattr(self, "session"):
                self._stop_film()
            pygame.display.quit()

    # --- loading ------------------------------------------------------------------------------------------------

    def load(self) -> bool:
        """Show the bar while the session is made; False when the window was closed meanwhile. Raises its errors."""
        stage, done = ("Starting", 0.0), 0.0
        failure: list[BaseException] = []

        def report(text: str, fraction: float) -> None:
            nonlocal stage
            stage = (text, fraction)

        def work() -> None:
            try:
                self.session = self._load(report)
            except BaseException as error:  # raised again below, in the thread that can tell the user
                failure.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            for event in pygame.event.get():
                if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                    self.running = False
                    return False
            done += (stage[1] - done) * 0.12
            display.loading(self.surface, self.name, stage[0], done)
            pygame.display.flip()
            thread.join(1 / 30)
        if failure:
            raise failure[0]
        return True

    def begin(self) -> None:
        """The session is there: choose the keys, show the first picture."""
        session = self.session
        self._commands = keymap.command_keys(session.schema)
        self._pacer = Pacer(session.fps)
        self.surface = screen.fit(self.surface, session.picture.shape[:2])
        self._say(f"{keymap.shown(keymap.key_of(session.schema, 'help'))} shows the keys")
        self.draw()

    # --- the loop -----------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Wait for the next frame or event, and answer it."""
        seen = self.pump(min(self._pause(time.perf_counter()), IDLE))
        now = time.perf_counter()
        if not self.running:
            return
        if self._pause(now) == 0:
            self.advance()
        elif seen or (self._hint[0] and now > self._hint[1]):
            self.draw()

    def _pause(self, now: float) -> float:
        """Seconds until the next frame."""
        if self.session.paused or self.help:
            return IDLE
        return max(self._pacer.wait(now), self._resume_at - now if self.session.ended else 0.0)

    def pump(self, wait: float = 0.0) -> bool:
        """Handle what has happened, waiting at most `wait` seconds for something; True when anything did."""
        events = pygame.event.get()
        if not events and wait > 0:
            first = pygame.event.wait(math.ceil(wait * 1000))
            events = [] if first.type == pygame.NOEVENT else [first, *pygame.event.get()]
        now = time.perf_counter()
        for event in events:
            self._handle(event, now)
        return bool(events)

    def advance(self) -> None:
        """Dream one frame and show it."""
        started = time.perf_counter()
        self._pacer.advance(started)
        filmed = self.session.video
        try:
            self.session.tick()
        except UserError as error:
            # A full disk ends the film, a faulty player its turn; the dream goes on.
            self._say(str(error))
            if self.session.video is filmed:
                self.session.take_over("keyboard")
        if self.session.ended:
            self._resume_at = started + NOTICE
        self.draw()
        self.session.shown()
        now = time.perf_counter()
        if self._last_shown is not None:
            self._periods.add(now - self._last_shown)
        self._last_shown = now

    def draw(self) -> None:
        """Everything that is on the screen."""
        session, now = self.session, time.perf_counter()
        display.picture(self.surface, session.picture, dimmed=session.ended or self.help)
        if self.hud and not self.help:
            period = self._periods.mean()
            self._figures.draw(self.surface, session, 1 / period if period else None, now)
        if session.watching and not self.help:
            display.memory(self.surface, session)
        if self.help:
            display.help_sheet(self.surface, session)
        elif session.ended:
            display.notice(self.surface, "The episode has ended", "another one begins")
        words, until = self._hint
        if words and now < until and not self.help:
            display.hint(self.surface, words)
        elif words:
            self._hint = ("", 0.0)
        pygame.display.flip()

    # --- events -------------------------------------------------------------------------------------------------

    def _handle(self, event: pygame.event.Event, now: float) -> None:
        if event.type == pygame.QUIT:
            self.running = False
        elif event.type == pygame.KEYDOWN:
            key = pygame.key.name(event.key)
            if not self.session.keyboard.press(key, now) and key in self._commands:
                self._obey(self._commands[key])
        elif event.type == pygame.KEYUP:
            self.session.keyboard.release(pygame.key.name(event.key), now)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.session.keyboard.release_all()  # their KEYUP goes to another window

    def _obey(self, command: str) -> None:
        try:
            getattr(self, f"_do_{command}")()
        except UserError as error:
            self._say(str(error))

    def _do_quit(self) -> None:
        if self.help:
            self._do_help()
        else:
            self.running = False

    def _do_help(self) -> None:
        self.help = not self.help
        self._break()

    def _do_hud(self) -> None:
        self.hud = not self.hud

    def _do_pause(self) -> None:
        self.session.paused = not self.session.paused
        self._break()

    def _do_single(self) -> None:
        self.session.paused = True
        self.session.keyboard.pressed_at = self._last_shown = None
        self.advance()
        self._last_shown = None

    def _do_restart(self) -> None:
        self.session.begin()
        self.draw()

    def _do_next(self) -> None:
        self.session.begin(self.session.context + 1)
        self.draw()

    def _do_previous(self) -> None:
        self.session.begin(self.session.context - 1)
        self.draw()

    def _do_take_over(self) -> None:
        self.session.take_over()

    def _do_record(self) -> None:
        if self.session.video is None:
            self.session.record(self._new_file("mp4"))
        else:
            self._stop_film()

    def _do_save_log(self) -> None:
        path = self._new_file("npz")
        self.session.save_log(path)
        self._say(f"saved {path}")

    def _do_memory(self) -> None:
        self.session.watching = not self.session.watching
        if self.session.state.episodic is None:
            self.session.watching = False
            self._say(f"{self.name} has no episodic memory")
        self.draw()

    def _do_fewer(self) -> None:
        self._set_steps(max(1, self.session.steps // 2))

    def _do_more(self) -> None:
        self._set_steps(min(64, self.session.steps * 2))

    def _set_steps(self, steps: int) -> None:
        try:
            self.session.checkpoint.check_steps(steps)
        except UserError:
            self._say(f"{self.name} takes {self.session.steps} calls a frame")
        else:
            self.session.steps = steps

    def _break(self) -> None:
        """What lies between is neither a slow frame nor a slow answer."""
        self._last_shown = None
        self.session.keyboard.forget()

    def _stop_film(self) -> None:
        path = self.session.stop_recording()
        if path is not None:
            print(f"saved {path}", file=sys.stderr)
            self._say(f"saved {path}")

    def _say(self, words: str) -> None:
        self._hint = (words, time.perf_counter() + HINT)

    def _new_file(self, suffix: str) -> Path:
        return FOLDER / f"{self.name}-{datetime.now():%Y%m%d-%H%M%S}.{suffix}"
