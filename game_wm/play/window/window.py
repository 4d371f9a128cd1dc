"""The window: keys in, pictures out, at the game's own pace.

    window = Window("maze", load=lambda report: Session(...))
    window.run()

Keys come as events (SDL's dummy driver and other programs post them so). While paused it sleeps until one comes. An
event does not say when it happened, only that it was not there when the window last looked: latencies count from then.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pygame

from data_collect.errors import UserError
from data_collect.files import cannot_write
from data_collect.places import SCANCODES
from game_wm.play import keymap
from game_wm.play.timing import Pacer, Timings
from game_wm.play.window import commands, display, overlays, paint, screen
from game_wm.play.window.commands import HINT, Commands
from game_wm.play.window.gamepad import Gamepad

if TYPE_CHECKING:
    from game_wm.dream import Moment
    from game_wm.play.session import Session
    from game_wm.play.window.chooser import Chooser

Report = Callable[[str, float], None]
Load = Callable[[Report], "Session"]
NOTICE = 1.6  # seconds that the end of an episode is shown
READING = 0.06  # seconds that a letter is shown
IDLE = 0.25  # seconds asleep at most while paused, so that Ctrl-C is heard


class Window(Commands):
    """One window and the session in it; `load` makes the session in a thread while a bar fills.

    `opener(path)` gives the `load` of another checkpoint, which `folders` are searched for.
    """

    def __init__(
        self,
        name: str,
        load: Load,
        opener: Callable[[Path], Load] | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.surface = screen.open_screen(f"{name} – game_wm")
        self.name = name
        self.session: Session
        self.running, self.hud, self.help, self.help_page = True, True, False, 0
        self.latents, self.graph, self.rewinding = False, False, False
        self.chooser: Chooser | None = None
        self._load, self._opener, self._folders = load, opener, folders
        self._down: dict[int, tuple[str | None, str | None]] = {}  # keys that are held -> what they stood for
        self._figures = display.Figures()
        self._periods = Timings(60)
        self._last_shown: float | None = None
        self._looked = time.perf_counter()
        self._resume_at = 0.0
        self._hint = ("", 0.0)
        self._saved: Path | None = None
        self._kept: Moment | None = None
        self._asked_until, self._unkept = 0.0, False
        self._windowed: tuple[int, int] | None = None  # the size to come back to from full screen
        self._log: tuple[Path, int] | None = None  # the file of marks, and what had been taken back in it

    def run(self) -> None:
        """Load, then play until the window is closed; films are finished whatever happens."""
        try:
            if self.load():
                self.begin()
                while self.running:
                    self.turn()
        finally:
            if hasattr(self, "session"):
                self._leave()
            pygame.display.quit()

    # --- loading ------------------------------------------------------------------------------------------------

    def load(self) -> bool:
        """Show the bar while the session is made; False when the window was closed meanwhile, or Esc goes back to what
        was played before. Raises its errors."""
        stage, done = ("Starting", 0.0), 0.0
        failure: list[BaseException] = []
        made: list[Session] = []

        def report(text: str, fraction: float) -> None:
            nonlocal stage
            stage = (text, fraction)

        def work() -> None:
            try:
                made.append(self._load(report))
            except BaseException as error:  # raised again below, in the thread that can tell the user
                failure.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            for event in pygame.event.get():
                if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                    self.running = event.type != pygame.QUIT and hasattr(self, "session")
                    return False
            done += (stage[1] - done) * 0.12
            display.loading(self.surface, self.name, stage[0], done)
            pygame.display.flip()
            thread.join(1 / 30)
        if failure:
            raise failure[0]
        self.session = made[0]
        return True

    def begin(self) -> None:
        """The session is there: choose the keys, show the first picture."""
        session = self.session
        self._commands = keymap.command_keys(session.schema, session.commands)
        self._pad = Gamepad(session.schema)
        self._pacer = Pacer(session.fps)
        self._down.clear()
        self._log = None
        self.surface = screen.fit(self.surface, session.now.picture.shape[:2])
        words = f"{self._key('help')} shows the keys"
        if self._saved is None and not session.dream.moment.frames and (left := self._left()):
            self._saved = left
            words += f"; {self._key('back')} goes on where you left"
        self._say(words)
        self.draw()

    def open(self, path: Path) -> None:
        """Play another checkpoint, or go on in a saved dream; where that fails, what was played goes on."""
        from game_wm.dream import saved

        dream = path if path.suffix == saved.SUFFIX else None
        try:
            if dream is not None:
                about, _ = saved.peek(dream)
                if about.digest == self.session.checkpoint.digest:
                    self._restore(dream)
                    return
                whose = [folder / f"{about.checkpoint}.safetensors" for folder in self._folders]
                path = next((file for file in whose if file.is_file()), path)
                if path == dream:
                    raise UserError(f"{dream} was dreamt by {about.checkpoint}, which is not here: get that file first")
            if self._opener is None:
                raise UserError("this window plays one checkpoint only")
            before, self._load = self._load, self._opener(path)
            playing, name = self.session, self.name
            self.name = path.stem
            loaded = False
            try:
                loaded = self.load()
            finally:
                if not loaded:
                    self._load, self.name = before, name
            if not loaded:
                self._break()
                return
            pygame.display.set_caption(f"{self.name} – game_wm")
            self._saved = None
            self.begin()
            self._leave(playing)
            if dream is not None:
                self._restore(dream)
                self.draw()
        except UserError as error:
            gone = UserError(f"{path} is gone; {self._key('open')} shows what there is")
            self._fail(error if path.exists() else gone)

    # --- the loop -----------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Wait for the next frame or event, and answer it."""
        seen = self.pump(min(self._pause(time.perf_counter()), IDLE))
        now = time.perf_counter()
        if not self.running:
            return
        if self._pause(now) == 0:
            if self.rewinding:
                self.rewind()
            else:
                self.advance()
        elif seen or (self._hint[0] and now > self._hint[1]):
            self.draw()

    def _pause(self, now: float) -> float:
        """Seconds until the next frame."""
        if self.help or self.chooser or (self.session.paused and not self.rewinding):
            return IDLE
        waiting = self._resume_at - now if self.session.scene.ended and not self.rewinding else 0.0
        return max(self._pacer.wait(now), waiting)

    def pump(self, wait: float = 0.0) -> bool:
        """Handle what has happened, waiting at most `wait` seconds for something; True when anything did."""
        events = pygame.event.get()
        at = self._looked if events else None  # it came while nobody looked: since when cannot be told
        if not events and wait > 0:
            first = pygame.event.wait(math.ceil(wait * 1000))
            events = [] if first.type == pygame.NOEVENT else [first, *pygame.event.get()]
        now = self._looked = time.perf_counter()
        for event in events:
            self._handle(event, now if at is None else at)
        return bool(events)

    def advance(self) -> None:
        """Play one frame and show it."""
        started = time.perf_counter()
        self._pacer.advance(started)
        session = self.session
        filmed, recorded = session.video, session.data
        try:
            session.tick()
        except UserError as error:
            # A full disk ends the film or the recording, a faulty player its turn; the dream goes on.
            self._fail(error)
            if session.video is filmed and session.data is recorded:
                session.take_over("keyboard")
        if session.scene.ended:
            self._resume_at = started + NOTICE
        self.draw()
        session.shown()
        now = time.perf_counter()
        if words := session.adapt_quality(now - started):
            self._say(words)
        if self._last_shown is not None:
            self._periods.add(now - self._last_shown)
        self._last_shown = now

    def rewind(self) -> None:
        """Show the frame before."""
        self._pacer.advance(time.perf_counter())
        waited = self._waits()
        try:
            if not self.session.rewind():
                self._say("no further back: the episode began here, or memory of it ends")
            elif not waited and (waits := self._waits()):
                self._say(f"the recording{waits}")
        except UserError as error:
            self._fail(error)
        self._break()
        self.draw()

    def draw(self) -> None:
        """Everything that is on the screen."""
        session, now = self.session, time.perf_counter()
        self.surface = pygame.display.get_surface() or self.surface  # its size is the window's
        if news := session.scene.news():
            self._figures.refresh()
            self._fail(UserError(f"{news}; {self._key('switch')} or {self._key('beside')} begins it anew"))
        words, until = self._hint
        if now >= until:
            words, self._hint = "", ("", 0.0)
        board = paint.Board(self.surface)
        if self.chooser:
            self.chooser.draw(board)
            display.hint(board, words)
        else:
            self._draw_play(board, session, now, words)
        pygame.display.flip()

    def _draw_play(self, board: paint.Board, session: Session, now: float, words: str) -> None:
        real, over = session.scene.beside, session.scene.ended and not self.rewinding
        shown = [*([] if real is None else [real.moment.picture]), session.now.picture]
        display.pictures(self.surface, shown, dimmed=over or self.help)
        if self.help:
            sheets = self._help_pages()
            board.put(sheets[min(self.help_page, len(sheets) - 1)], self.surface.get_rect().center, "center")
            return
        if self.hud:
            period = self._periods.mean()
            fps = 1 / period if period else None
            self._figures.draw(board, session, fps, now, self.rewinding, self._waits())
        if over:
            display.notice(board, "The episode has ended", "another one begins")
        elif real is not None:
            overlays.likeness(board, session)
        display.hint(board, words)
        if over:
            return
        overlays.left(board, session, self.latents and session.scene.view != "real", self.graph)
        if session.scene.inspect and session.scene.view != "real":
            overlays.memory(board, session)

    # --- events -------------------------------------------------------------------------------------------------

    def _handle(self, event: pygame.event.Event, at: float) -> None:
        keyboard = self.session.controls.keyboard
        if event.type == pygame.QUIT:
            self.leave()
        elif event.type == pygame.KEYUP:
            key, command = self._down.pop(_which(event), (None, None))
            if key is not None and (key, None) not in self._down.values():
                keyboard.release(key, at)
            if command == "rewind":
                self.rewinding = False
        elif self.chooser:
            self._choose(event)
        elif event.type == pygame.KEYDOWN:
            key, command = self._meant(event)
            self._down[_which(event)] = key, command
            if key is not None:
                keyboard.press(key, at)
            elif command is not None:
                self._obey(command)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._down.clear()  # their KEYUP goes to another window
            keyboard.release_all()
            self._pad.release_all()
            self.rewinding = False
        if command := self._pad.command(event):
            if event.type == pygame.JOYBUTTONDOWN:
                self._obey(command)
            elif command == "rewind":
                self.rewinding = False
        for key, level in self._pad.press(event, self.surface.get_size()):
            if level:
                keyboard.press(key, at, level)
            else:
                keyboard.release(key, at)

    def _meant(self, event: pygame.event.Event) -> tuple[str | None, str | None]:
        """The game's key, or the command, that a key event stands for."""
        name, place = pygame.key.name(event.key), SCANCODES.get(getattr(event, "scancode", 0))
        ctrl = bool(getattr(event, "mod", 0) & pygame.KMOD_CTRL)
        return keymap.meant(self.session.schema, self._commands, name, place, ctrl)

    def _choose(self, event: pygame.event.Event) -> None:
        """An event while the page of checkpoints and dreams is shown."""
        assert self.chooser is not None
        chosen = event.type == pygame.MOUSEBUTTONDOWN and event.button == 1 and self.chooser.at(event.pos)
        if event.type == pygame.KEYDOWN:
            key = pygame.key.name(event.key)
            chosen = key in ("return", "enter", "space")
            if self._meant(event)[1] in ("quit", "open"):
                self._do_open()
                return
            self.chooser.key(key)
        if chosen:
            path = self.chooser.entry.path
            self._do_open()
            self.open(path)

    def _obey(self, command: str) -> None:
        try:
            getattr(self, f"_do_{command}")()
        except UserError as error:
            self._fail(error)
        except OSError as error:
            self._fail(cannot_write(commands.FOLDER, error))

    def _break(self) -> None:
        """What lies between is neither a slow frame nor a slow answer."""
        self._last_shown = None
        self._figures.refresh()
        self.session.controls.keyboard.forget()

    def _say(self, words: str) -> None:
        self._hint = (words, time.perf_counter() + max(HINT, len(words) * READING))

    def _fail(self, error: UserError) -> None:
        """What went wrong, here and on the terminal, where there is room for all of it."""
        print(f"error: {error}", file=sys.stderr)
        self._say(str(error))


def _which(event: pygame.event.Event) -> int:
    """A number of the key itself, which stays the same when the layout or Shift changes what it types."""
    scancode = getattr(event, "scancode", 0)
    return -scancode if scancode else event.key
