"""A Python process beside this one, and a pipe to it. It ends when this one ends, however that ends.

    child = Child("data_collect.guest.inside:serve")       # calls serve(pipe) there
    child.pipe.send("hello"); child.pipe.recv()
    child.end(seconds=2)

It is a session of its own: Ctrl-C does not reach it, and what it has started goes with it. It looks for modules where
this process does, and does not run this process's main module. What it prints goes to standard error.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe, connection
from typing import Any

from data_collect.system import end_group, kill_group


class Child:
    """A process that calls `target` ("module:function") with its end of `pipe`.

    `variables` are added to its environment, and it gets the open `files` by their numbers (not on Windows).
    """

    def __init__(self, target: str, variables: Mapping[str, str] = {}, files: Sequence[int] = ()) -> None:
        ours, theirs = Pipe()
        self.pipe: Any = ours  # a Connection, on Windows a PipeConnection
        paths = [os.path.abspath(path) for path in sys.path]
        code = f"import sys; sys.path[:] = {paths!a}; from data_collect.guest.child import live; "
        code += f"live({target!a}, {theirs.fileno()})"
        options: dict[str, Any] = {"start_new_session": True, "pass_fds": (theirs.fileno(), *files)}
        if sys.platform == "win32":
            os.set_handle_inheritable(theirs.fileno(), True)
            options = {"close_fds": False, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            # Its standard input stays open as long as we live: that is how it knows.
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                env={**os.environ, **variables}, **options,
            )  # fmt: skip
        finally:
            theirs.close()
        self._kill = weakref.finalize(self, _kill, self.process)

    def running(self) -> bool:
        return self.process.poll() is None

    def end(self, seconds: float = 0.0) -> None:
        """Close the pipe, give it so long to leave by itself, then kill it and all that it has started."""
        self.pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self._kill()

    def died(self) -> str:
        """How it ended, in words; one that has only closed its pipe is ended here."""
        self.end(1.0)
        code = self.process.returncode
        if code >= 0:
            return f"ended its process with exit status {code}"
        names = {number.value: number.name for number in signal.Signals}
        return f"was ended by {names.get(-code, f'signal {-code}')}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    kill_group(process)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


# --- in the child -----------------------------------------------------------------------------------------------------


def live(target: str, handle: int) -> None:
    """The child's main: call `target` with the pipe whose handle this is."""
    atexit.register(_leave)  # the first that is registered is the last that is called
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(nothing, 1)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if sys.platform == "win32":
        pipe: Any = connection.PipeConnection(handle)
    else:
        pipe = connection.Connection(handle)
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)(pipe)


def _end_with(parent: int) -> None:
    """Wait until the parent has gone, and then go as well."""
    with suppress(OSError):
        while os.read(parent, 1):
            pass
    end_group()


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    end_group()
