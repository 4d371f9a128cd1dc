"""A folder that one process writes to, a recording's or a run's: a second one is told so.

with folder_lock(folder) as lock:
    lock.share()            # from here on with workers, which take it shared
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_collect.errors import UserError

if sys.platform != "win32":  # without the lock there, two writers to one folder are the user's affair
    import fcntl

LOCK_SECONDS = 5.0  # for the workers of one that was killed to notice


class FolderLock:
    """A lock on an open folder; it goes with its process."""

    def __init__(self, file: int) -> None:
        self.file = file

    def _take(self, alone: bool) -> bool:
        if sys.platform != "win32":
            try:
                fcntl.flock(self.file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:
                pass  # a file system that knows no locks
        return True

    def own(self) -> bool:
        """Take it alone, within `LOCK_SECONDS`."""
        until = time.monotonic() + LOCK_SECONDS
        while not self._take(alone=True):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def share(self) -> bool:
        """Let this process's workers have it too, but nobody who wants it alone."""
        return self._take(alone=False)


@contextmanager
def folder_lock(folder: Path, shared: bool = False) -> Iterator[FolderLock]:
    """Hold `folder`, alone or shared. `UserError` when another process holds it."""
    file = os.open(folder, os.O_RDONLY) if sys.platform != "win32" else -1
    try:
        lock = FolderLock(file)
        if not (lock.share() if shared else lock.own()):
            raise UserError(f"another process is writing to {folder}: wait for it, or choose another folder")
        yield lock
    finally:
        if file >= 0:
            os.close(file)
