"""A recording made in a process of its own, which needs no PyTorch; its refusal is raised here.

status = record({"out": "runs/maze/data", "game": "maze", "player": "random", "frames": 1000})
"""

from __future__ import annotations

import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from data_collect.errors import UserError, main_guard


def record(values: dict[str, Any]) -> int:
    """`python -m data_collect record` with these values of its flags; its exit status. `UserError` as there."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_record, args=(theirs, values))
    # Ctrl-C reaches the recorder by itself, SIGTERM has to be passed on.
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        child.start()
        theirs.close()
        try:
            sentence = ours.recv()
        except EOFError:
            sentence = None  # it has nothing to say
        child.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    if sentence is not None:
        raise UserError(sentence)
    status = child.exitcode or 0
    return status if status >= 0 else 128 - status


def _record(pipe: Connection, values: dict[str, Any]) -> None:
    from data_collect.commands import make_recording

    def run() -> int:
        try:
            return make_recording(**values)
        except UserError as error:
            pipe.send(" ".join(str(error).split()))
            return 2

    sys.exit(main_guard(run))
