"""The folder of what is made while playing and was given no name: films, dreams, shards, actions, marks.

path = new_file("maze", ".mp4")         # recordings/maze-20261130-101500.mp4
keep(session)                           # when its player leaves; `newest(checkpoint)` offers it next time

PyTorch is imported where a dream is read or written: the gallery asks for the folder alone, and does not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from data_collect.errors import UserError
from data_collect.files import append_line
from game_wm.library import LEFT, SUFFIX
from game_wm.play.gallery import RUNS

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint
    from game_wm.dream import Moment
    from game_wm.play.session import Session

FOLDER = Path("recordings")
MARKS_FILE = "marks.jsonl"
MOST_LEFT = 3  # dreams of a checkpoint that are kept when their player leaves, of up to 100 MB each


def new_file(name: str, suffix: str) -> Path:
    """A path that is free, named after a checkpoint, by the second and by number within it."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    names = (f"{stem}{suffix}", *(f"{stem}-{i}{suffix}" for i in range(2, 1000)))
    return next(FOLDER / name for name in names if not (FOLDER / name).exists())


class Keeper:
    """Keeps the dream of a session that is left, so that the next start can go on with it."""

    def __init__(self) -> None:
        self.kept: Moment | None = None  # the moment that is saved already

    def needless(self, session: Session) -> bool:
        """Whether nothing was dreamt, or it is over, or saved already, or the real game is played."""
        now = session.dream.moment
        return session.scene.view == "real" or not now.frames or now.ended or now is self.kept

    def keep(self, session: Session) -> str:
        """Save the dream in place of the oldest that was kept so; why that cannot be, or nothing."""
        from game_wm.dream import saved

        if self.needless(session):
            return ""
        name = session.checkpoint.name
        try:
            saved.save(new_file(name, f"{LEFT}{SUFFIX}"), session.snapshot())
            for older in saved.left(FOLDER, name)[MOST_LEFT:]:
                older.unlink(missing_ok=True)
        except Exception as error:  # whatever ails the dream, the window can be left
            return str(error) or type(error).__name__
        self.kept = session.dream.moment
        return ""


def newest(checkpoint: Checkpoint) -> Path | None:
    """The dream of this very checkpoint that was left last."""
    from game_wm.dream import saved

    for path in saved.left(FOLDER, checkpoint.name):
        with suppress(UserError):  # a damaged one is no offer
            if is_of(path, checkpoint):
                return path
    return None


def is_of(dream: Path, checkpoint: Checkpoint) -> bool:
    """Whether this very checkpoint has dreamt it. `UserError` where it is no saved dream."""
    from game_wm.dream import saved

    return saved.peek(dream)[0].digest == checkpoint.digest


def checkpoint_of(dream: Path, folders: Sequence[Path]) -> Path:
    """The checkpoint of the name that a saved dream tells, in some folders or in the user's runs.

    `UserError` where there is none.
    """
    from game_wm.dream import saved

    name = saved.peek(dream)[0].checkpoint
    named = [folder / f"{name}.safetensors" for folder in (*folders, *RUNS.glob("*/"))]
    found = next((file for file in named if file.is_file()), None)
    if found is None:
        raise UserError(f"{dream} was dreamt by {name}, which is not here: get that file first")
    return found


class Marks:
    """Bad moments of a session: a line for each in `marks.jsonl`, which names a file that leads there.

    That is an action file, which marks share as long as time has not run backwards, or the dream itself where it began
    in the real game.
    """

    def __init__(self) -> None:
        self._log: tuple[Path, int] | None = None  # the action file, and how many actions were taken back before it

    def add(self, session: Session, name: str) -> Path:
        """Mark the moment of a dream; the file with the line."""
        path, dream, frames = FOLDER / MARKS_FILE, session.dream, session.now.frames
        mark = {
            "checkpoint": session.checkpoint.name, "frame": frames,
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(frames / session.schema.fps, 2), "context": dream.context, "seed": dream.seed,
            "calls": session.scene.steps, **self._leads_here(session, name),
        }  # fmt: skip
        append_line(path, json.dumps(mark))
        return path

    def _leads_here(self, session: Session, name: str) -> dict[str, str | int]:
        """The entries that name the file, which is written."""
        from game_wm.dream import NO_CONTEXT, saved

        dream = session.dream
        if dream.context == NO_CONTEXT:
            path = new_file(name, f"-marked{SUFFIX}")
            saved.save(path, session.snapshot())
            return {"dream": str(path)}
        if self._log is None or self._log[1] != dream.log.dropped:
            self._log = (new_file(name, "-marked.npz"), dream.log.dropped)
        session.save_log(self._log[0])
        return {"actions": str(self._log[0]), "step": len(dream.log)}
