"""A folder that one process writes to, a recording's or a run's: a second one is told so.

with folder_lock(folder) as share:
    share()                 # from here on this process's workers may take it shared
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from data_collect.errors import UserError

if sys.platform != "win32":  # without the lock there, two writers to one folder are the user's affair
    import fcntl

LOCK_SECONDS = 5.0  # for the workers of one that was killed to notice


def _take(file: int, shared: bool) -> bool:
    """Lock an open folder, for as long as this process lives; False where another process holds it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system that knows no locks
    return True


@contextmanager
def folder_lock(folder: Path, shared: bool = False) -> Iterator[Callable[[], object]]:
    """Hold `folder`, alone or shared. `UserError` when another process holds it."""
    file = os.open(folder, os.O_RDONLY) if sys.platform != "win32" else -1
    try:
        until = time.monotonic() + (0.0 if shared else LOCK_SECONDS)
        while not _take(file, shared):
            if time.monotonic() > until:
                raise UserError(f"another process is writing to {folder}: wait for it, or choose another folder")
            time.sleep(0.05)
        yield partial(_take, file, True)
    finally:
        if file >= 0:
            os.close(file)
