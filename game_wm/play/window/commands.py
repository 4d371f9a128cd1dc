"""What the window does when a key asks for it: one method for every command of `keymap.py`.

    class Window(Commands): ...         # `_do_pause` is the command "pause"

The window (`window.py`) has the loop and the pictures; here is what changes them, and the files that come of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pygame

from data_collect.errors import UserError
from data_collect.files import append_line
from game_wm.dream import NO_CONTEXT
from game_wm.play import keymap
from game_wm.play.window import screen

if TYPE_CHECKING:
    from game_wm.dream import Moment
    from game_wm.play.session import Session
    from game_wm.play.window.chooser import Chooser
    from game_wm.play.window.gamepad import Gamepad

FOLDER = Path("recordings")  # films, dreams, data and action files that were not given a name
MARKS = "marks.jsonl"
MOST_LEFT = 3  # dreams of a checkpoint that are kept when their player leaves, of up to 100 MB each
HINT = 4.0  # seconds that words are shown at least


class Commands:
    """The half of `Window` that obeys; what it works on is the other half's."""

    session: Session
    name: str
    surface: pygame.Surface
    chooser: Chooser | None
    running: bool
    hud: bool
    help: bool
    help_page: int
    latents: bool
    graph: bool
    rewinding: bool
    _folders: Sequence[Path]
    _pad: Gamepad
    _saved: Path | None
    _log: tuple[Path, int] | None
    _kept: Moment | None  # the moment that is saved already
    _asked_until: float  # until then Esc leaves
    _unkept: bool
    _windowed: tuple[int, int] | None
    _resume_at: float
    _last_shown: float | None

    def advance(self) -> None:
        raise NotImplementedError

    def draw(self) -> None:
        raise NotImplementedError

    def _break(self) -> None:
        raise NotImplementedError

    def _say(self, words: str) -> None:
        raise NotImplementedError

    def _fail(self, error: UserError) -> None:
        raise NotImplementedError

    def _do_quit(self) -> None:
        now = time.perf_counter()
        if self.help:
            self.help = False
            self._break()
        elif now < self._asked_until:
            self.leave()
        else:
            self._asked_until = now + HINT
            kept = "" if self._kept_already() else f"; the dream is kept, {self._key('back')} goes on with it next time"
            self._say(f"{self._key('quit')} again leaves{kept}")

    def leave(self) -> None:
        """Close the window once the dream is kept. Where it cannot be, that is said, and whoever asks again leaves."""
        unkept = self._keep(self.session)
        if unkept and not self._unkept:
            self._unkept = True
            self._fail(UserError(f"{unkept}; ask again to leave without keeping the dream"))
        else:
            self.running = False

    def _do_help(self) -> None:
        """The first sheet of keys, the next, and after the last one back to play."""
        self.help_page = self.help_page + 1 if self.help else 0
        self.help = self.help_page < len(self._help_pages())
        self._break()

    def _help_pages(self) -> list[pygame.Surface]:
        """The sheets of keys for the window as large as it is now."""
        from game_wm.play.window import help

        return help.pages(self.session, self.surface.get_size())

    def _waits(self) -> str:
        """For what a recording waits: the real game, once time has run back in it, is recorded from its next start."""
        data, real = self.session.data, self.session.scene.real
        if data is None or real is None or real.data is not data or data.playing or self.session.scene.ended:
            return ""
        return f" waits: {self._key('next')} begins the next episode"

    def _do_hud(self) -> None:
        self.hud = not self.hud

    def _do_pause(self) -> None:
        self.session.paused = not self.session.paused
        self._break()

    def _do_single(self) -> None:
        self.session.paused = True
        self.session.controls.keyboard.pressed_at = self._last_shown = None
        self.advance()
        self._last_shown = None

    def _do_rewind(self) -> None:
        self.rewinding = True
        self._resume_at = 0.0

    def _do_restart(self) -> None:
        self.session.scene.restart()
        self.draw()

    def _do_next(self) -> None:
        self.session.scene.restart(1)
        self.draw()

    def _do_previous(self) -> None:
        self.session.scene.restart(-1)
        self.draw()

    def _do_save(self) -> None:
        from game_wm.dream import saved

        path = self._new_file(saved.SUFFIX)
        saved.save(path, self.session.snapshot())
        self._saved, self._kept = path, self.session.dream.moment
        self._say(f"saved {path}; {self._key('back')} comes back to this moment")
        self._break()

    def _do_back(self) -> None:
        if self._saved is None:
            self._say("no moment is saved yet")
            return
        self._restore(self._saved)
        self._break()
        self.draw()

    def _restore(self, path: Path) -> None:
        """Go on in a saved dream; a recording of the real game, which that leaves, is finished."""
        from game_wm.dream import saved

        data = self.session.data
        self.session.restore(saved.load(path, self.session.checkpoint))
        self._saved, self._kept = path, self.session.dream.moment
        if data is not None and self.session.data is None and data.steps:
            self._tell(data.folder)

    def _do_open(self) -> None:
        from game_wm.play.window.chooser import Chooser, checkpoints, dreams

        if self.chooser:
            self.chooser = None
        else:
            entries = checkpoints(self._folders, self.session.checkpoint.path) + dreams(FOLDER)
            if entries:
                self.chooser = Chooser(entries, self.session.checkpoint.path)
                self.session.controls.keyboard.release_all()
                self._pad.release_all()
            else:
                self._say("there is nothing else to open yet")
        self._break()

    def _do_switch(self) -> None:
        self._show("dream" if self.session.scene.view == "real" else "real")

    def _do_beside(self) -> None:
        self._show("dream" if self.session.scene.view == "both" else "both")

    def _show(self, view: str) -> None:
        data, came_from = self.session.data, self.session.scene.view
        if came_from == "real":
            self._say("the dream looks back over what was played …")  # a second, in a model with memory
            self.draw()
        self.session.show(view)
        if data is not None and self.session.data is None and data.steps:
            self._say(f"saved {data.folder}")
        elif self.session.scene.view != view:
            pass  # the real game has failed, which is told with the next picture
        elif view == "real":
            self._say(f"the real game; {self._key('switch')} dreams on from where it stands")
        elif came_from == "real":
            self._say(f"a dream of the last {len(self.session.dream.prompt[0])} real frames")
        self._break()
        self.draw()

    def _do_latents(self) -> None:
        self.latents = not self.latents

    def _do_graph(self) -> None:
        self.graph = not self.graph

    def _do_full_screen(self) -> None:
        self.surface, self._windowed = screen.full(self.surface, self._windowed)

    def _do_take_over(self) -> None:
        self.session.take_over()

    def _do_record(self) -> None:
        if self.session.video is None:
            self.session.record(self._new_file(".mp4"))
        else:
            self._stop_film()

    def _do_record_data(self) -> None:
        if self.session.data is None:
            self.session.record_data(self._new_file("-data"))
            self._break()
        else:
            self._stop_data()

    def _do_save_log(self) -> None:
        path = self._new_file(".npz")
        self.session.dream.log.save(path, self.session.checkpoint.name, self.session.scene.steps)
        self._say(f"saved {path}")

    def _do_mark(self) -> None:
        """A line in `marks.jsonl`, and what leads there: the actions, or the dream if it began in the real game."""
        session = self.session
        if session.scene.view == "real":
            self._say("this is the real game: only a dream has bad moments to mark")
            return
        path = FOLDER / MARKS
        mark = {
            "checkpoint": session.checkpoint.name, "frame": session.now.frames,
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(session.now.frames / session.schema.fps, 2), "context": session.dream.context,
            "seed": session.dream.seed,
            "calls": session.scene.steps, **self._leads_here(),
        }  # fmt: skip
        append_line(path, json.dumps(mark))
        self._say(f"marked frame {session.now.frames} in {path}")

    def _leads_here(self) -> dict[str, str | int]:
        """The file that a mark names, written; marks share a file as long as time has not run backwards."""
        from game_wm.dream import saved

        session = self.session
        if session.dream.context == NO_CONTEXT:
            path = self._new_file(f"-marked{saved.SUFFIX}")
            saved.save(path, session.snapshot())
            return {"dream": str(path)}
        dropped = session.dream.log.dropped
        if self._log is None or self._log[1] != dropped:
            self._log = (self._new_file("-marked.npz"), dropped)
        session.dream.log.save(self._log[0], session.checkpoint.name, session.scene.steps)
        return {"actions": str(self._log[0]), "step": len(session.dream.log)}

    def _do_memory(self) -> None:
        self.session.scene.inspect = not self.session.scene.inspect
        if self.session.dream.state.episodic is None:
            self.session.scene.inspect = False
            self._say(f"{self.name} has no episodic memory")
        self.draw()

    def _do_fewer(self) -> None:
        self._set_steps(max(1, self.session.scene.steps // 2))

    def _do_more(self) -> None:
        self._set_steps(min(64, self.session.scene.steps * 2))

    def _do_quality(self) -> None:
        self.session.change_quality()
        assert self.session.quality is not None
        self._say(f"quality: {self.session.quality.label}")
        self._break()

    def _set_steps(self, steps: int) -> None:
        try:
            self.session.checkpoint.check_steps(steps)
        except UserError:
            self._say(f"{self.name} takes {self.session.scene.steps} calls a frame")
        else:
            self.session.scene.steps = steps

    # --- files ------------------------------------------------------------------------------------

    def _leave(self, session: Session | None = None) -> None:
        """Keep the dream of a session (by default the present one), and finish what it was recording."""
        session = session or self.session
        with ExitStack() as stack:  # each of them happens, whatever becomes of the others
            if session.scene.real is not None:
                stack.callback(session.scene.real.close)
            stack.callback(self._stop_data, session)
            stack.callback(self._stop_film, session)
            if unkept := self._keep(session):
                print(f"the dream is not kept: {unkept}", file=sys.stderr)

    def _kept_already(self, session: Session | None = None) -> bool:
        """Whether there is nothing to keep: nothing was dreamt, it is over, it is saved, or the real game is played."""
        now = session or self.session
        moment = now.dream.moment
        return now.scene.view == "real" or not moment.frames or moment.ended or moment is self._kept

    def _keep(self, session: Session) -> str:
        """Save the dream, so that the next start can go on with it, in place of the oldest that was saved so; why that
        cannot be, or nothing."""
        from game_wm.dream import saved

        if self._kept_already(session):
            return ""
        try:
            path = self._new_file(f"{saved.LEFT}{saved.SUFFIX}", session.checkpoint.name)
            saved.save(path, session.snapshot())
            for older in saved.left(FOLDER, session.checkpoint.name)[MOST_LEFT:]:
                older.unlink(missing_ok=True)
        except Exception as error:  # whatever ails the dream, the window can be left
            return str(error) or type(error).__name__
        self._kept = session.dream.moment
        return ""

    def _left(self) -> Path | None:
        """The dream of this very checkpoint that was left last."""
        from game_wm.dream import saved

        for path in saved.left(FOLDER, self.session.checkpoint.name):
            with suppress(UserError):  # a damaged one is no offer
                if saved.peek(path)[0].digest == self.session.checkpoint.digest:
                    return path
        return None

    def _stop_film(self, session: Session | None = None) -> None:
        self._tell((session or self.session).stop_recording())

    def _stop_data(self, session: Session | None = None) -> None:
        self._tell((session or self.session).stop_data())

    def _tell(self, path: Path | None) -> None:
        if path is not None:
            print(f"saved {path}", file=sys.stderr)
            self._say(f"saved {path}")

    def _key(self, command: str) -> str:
        """A command's key, as a sentence calls it."""
        name = keymap.shown(keymap.key_of(self.session.schema, command, self.session.commands))
        return name[0].upper() + name[1:]

    def _new_file(self, suffix: str, name: str | None = None) -> Path:
        """A name that is free, by the second and by number within it; `name` is that of the checkpoint."""
        stem = f"{name or self.name}-{datetime.now():%Y%m%d-%H%M%S}"
        names = (f"{stem}{suffix}", *(f"{stem}-{i}{suffix}" for i in range(2, 1000)))
        return next(FOLDER / name for name in names if not (FOLDER / name).exists())
