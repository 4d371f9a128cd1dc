"""A recording made in a process of its own, which needs no PyTorch; what it says in the end is said here.

status = record(["--game", "maze", "--player", "random", "--frames", "1000", "--out", "runs/maze/data"])
"""

from __future__ import annotations

import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection

from data_collect.errors import UserError, main_guard


def record(arguments: list[str]) -> int:
    """`python -m data_collect record` with these arguments; its exit status. `UserError` as there."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_record, args=(theirs, arguments))
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


def _record(pipe: Connection, arguments: list[str]) -> None:
    from data_collect.__main__ import main

    def run() -> int:
        try:
            return main(["record", *arguments])
        except UserError as error:
            pipe.send(" ".join(str(error).split()))
            return 2

    sys.exit(main_guard(run))
