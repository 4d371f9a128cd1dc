"""A recording made in a process of its own, which needs no PyTorch; a `UserError` there is raised here.

status = record_apart({"out": "runs/maze/data", "game": "maze", "player": "random", "frames": 1000})
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from data_collect.errors import UserError, main_guard


def record_apart(values: dict[str, Any]) -> int:
    """`python -m data_collect record` with these values of its flags; its exit status. `UserError` as there."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_record, args=(theirs, values))
    with passing_on_sigterm(child):
        child.start()
        theirs.close()
        try:
            sentence = ours.recv()
        except EOFError:
            sentence = None  # it has nothing to say
        child.join()
    if sentence is not None:
        raise UserError(sentence)
    return exit_status(child.exitcode or 0)


@contextmanager
def passing_on_sigterm(child: Any) -> Iterator[None]:
    """Inside the block, SIGTERM ends the child process too; Ctrl-C reaches it by itself."""
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(code: int) -> int:
    """As a shell has it: 128 and the number of the signal that ended the process."""
    return code if code >= 0 else 128 - code


def _record(pipe: Connection, values: dict[str, Any]) -> None:
    from data_collect.commands import make_recording

    def run() -> int:
        try:
            return make_recording(**values)
        except UserError as error:
            pipe.send(" ".join(str(error).split()))
            return 2

    sys.exit(main_guard(run))
