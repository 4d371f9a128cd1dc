"""What the window does when a key asks for it: a method for a command of `keymap.py` that does more than switch.

    commands = Commands(window)
    commands.obey("pause")

The window (`window.py`) has the loop and the pictures; here is what changes them, and the files that come of it.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from data_collect.errors import UserError
from data_collect.files import cannot_write
from game_wm.dream import saved
from game_wm.play import keymap
from game_wm.play.files import folder
from game_wm.play.session import MOST_STEPS
from game_wm.play.window import opening, screen

if TYPE_CHECKING:
    from game_wm.play.session import Session
    from game_wm.play.window.window import Window

SWITCHES = ("hud", "latents", "graph")  # what the window shows or not


class Commands:
    """The commands of one window, and what they remember from one to the next."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.saved: Path | None = None  # the dream that "back" goes on with
        self.windowed: tuple[int, int] | None = None  # the size to come back to from full screen
        self._keeper = folder.Keeper()
        self._unkept = False  # whether it was said that the dream cannot be kept
        self._marks = folder.Marks()

    @property
    def session(self) -> Session:
        return self.window.session

    def obey(self, command: str) -> None:
        """Do what a command of `keymap.py` says; an error is shown."""
        try:
            if command in keymap.PLACES:
                self.session.scene.restart(keymap.PLACES[command])
                self.window.draw()
            elif command in SWITCHES:
                setattr(self.window, command, not getattr(self.window, command))
            else:
                getattr(self, command)()
        except UserError as error:
            self.window.fail(error)
        except OSError as error:
            self.window.fail(cannot_write(folder.FOLDER, error))

    def begin(self) -> str:
        """Another session is played; the words that offer the dream that was left last."""
        self._marks = folder.Marks()
        fresh = self.saved is None and not self.session.dream.moment.frames
        if fresh and (left := folder.newest(self.session.checkpoint)):
            self.saved = left
            return f"; {self.key('back')} goes on where you left"
        return ""

    def key(self, command: str) -> str:
        """A command's key, as a sentence calls it."""
        name = keymap.shown(keymap.key_of(self.session.schema, command, self.session.commands))
        return name[0].upper() + name[1:]

    def quit(self) -> None:
        """From the sheet of keys to play, from play to the gallery, which is left by the same key."""
        if self.window.help:
            self.window.help = False
            self.window.interrupt()
        else:
            self.open()

    def leave(self) -> None:
        """Close the window once the dream is kept; where it cannot be, say so, and close it at the next request."""
        unkept = self._keeper.keep(self.session)
        if unkept and not self._unkept:
            self._unkept = True
            self.window.fail(UserError(f"{unkept}; ask again to leave without keeping the dream"))
        else:
            self.window.running = False

    def finish(self, session: Session) -> None:
        """Keep the dream of a session that is over, and finish what it was recording."""
        with ExitStack() as stack:  # each of them happens, whatever becomes of the others
            if session.scene.real is not None:
                stack.callback(session.scene.real.close)
            stack.callback(lambda: self._tell(session.stop_data()))
            stack.callback(lambda: self._tell(session.stop_recording()))
            if unkept := self._keeper.keep(session):
                print(f"the dream is not kept: {unkept}", file=sys.stderr)

    def pause(self) -> None:
        self.session.paused = not self.session.paused
        self.window.interrupt()

    def single(self) -> None:
        self.session.paused = True
        self.session.controls.keyboard.pressed_at = None
        self.window.interrupt(forget=False)
        self.window.advance()
        self.window.interrupt(forget=False)

    def rewind(self) -> None:
        self.window.keys.rewinding = True
        self.window.resume_at = 0.0

    def save(self) -> None:
        path = folder.new_file(self.window.name, saved.SUFFIX)
        saved.save(path, self.session.snapshot())
        self.saved, self._keeper.kept = path, self.session.dream.moment
        self.window.say(f"saved {path}; {self.key('back')} comes back to this moment")
        self.window.interrupt()

    def back(self) -> None:
        if self.saved is None:
            self.window.say("no moment is saved yet")
            return
        self.restore(self.saved)
        self.window.interrupt()
        self.window.draw()

    def restore(self, path: Path) -> None:
        """Go on in a saved dream; a recording of the real game, which that leaves, is finished."""
        data = self.session.data
        self.session.restore(saved.load(path, self.session.checkpoint))
        self.saved, self._keeper.kept = path, self.session.dream.moment
        if data is not None and self.session.data is None and data.steps:
            self._tell(data.folder)

    def open(self) -> None:
        opening.choose(self.window)

    def help(self) -> None:
        """The first sheet of keys, the next, and after the last one back to play."""
        self.window.help_page = self.window.help_page + 1 if self.window.help else 0
        self.window.help = self.window.help_page < len(self.window.help_pages())
        self.window.interrupt()

    def switch(self) -> None:
        self._show("dream" if self.session.scene.view == "real" else "real")

    def beside(self) -> None:
        self._show("dream" if self.session.scene.view == "both" else "both")

    def _show(self, view: str) -> None:
        session, window = self.session, self.window
        data, came_from = session.data, session.scene.view
        if came_from == "real":
            window.say("the dream looks back over what was played …")  # a second, in a model with memory
            window.draw()
        session.show(view)
        if data is not None and session.data is None and data.steps:
            window.say(f"saved {data.folder}")
        elif session.scene.view != view:
            pass  # the real game has failed, which the next picture says
        elif view == "real":
            window.say(f"the real game; {self.key('switch')} dreams on from where it stands")
        elif came_from == "real":
            window.say(f"a dream of the last {len(session.dream.prompt[0])} real frames")
        window.interrupt()
        window.draw()

    def memory(self) -> None:
        self.session.scene.inspect = not self.session.scene.inspect
        if not self.session.checkpoint.model.memory.reaches_back:
            self.session.scene.inspect = False
            self.window.say(f"{self.window.name} has no episodic memory")
        self.window.draw()

    def full_screen(self) -> None:
        self.window.surface, self.windowed = screen.full(self.window.surface, self.windowed)

    def take_over(self) -> None:
        self.session.take_over()

    def quality(self) -> None:
        self.window.say(f"quality: {self.session.change_quality()}")
        self.window.interrupt()

    def fewer(self) -> None:
        self._set_steps(max(1, self.session.scene.steps // 2))

    def more(self) -> None:
        self._set_steps(min(MOST_STEPS, self.session.scene.steps * 2))

    def _set_steps(self, steps: int) -> None:
        try:
            self.session.checkpoint.check_steps(steps)
        except UserError:
            self.window.say(f"{self.window.name} takes {self.session.scene.steps} calls a frame")
        else:
            self.session.scene.steps = steps

    def record(self) -> None:
        if self.session.video is None:
            self.session.record(folder.new_file(self.window.name, ".mp4"))
        else:
            self._tell(self.session.stop_recording())

    def record_data(self) -> None:
        if self.session.data is None:
            self.session.record_data(folder.new_file(self.window.name, "-data"))
            self.window.interrupt()
        else:
            self._tell(self.session.stop_data())

    def save_log(self) -> None:
        path = folder.new_file(self.window.name, ".npz")
        self.session.save_log(path)
        self.window.say(f"saved {path}")

    def mark(self) -> None:
        if self.session.scene.view == "real":
            self.window.say("this is the real game: only a dream has bad moments to mark")
        else:
            path = self._marks.add(self.session, self.window.name)
            self.window.say(f"marked frame {self.session.now.frames} in {path}")

    def _tell(self, path: Path | None) -> None:
        if path is not None:
            print(f"saved {path}", file=sys.stderr)
            self.window.say(f"saved {path}")
