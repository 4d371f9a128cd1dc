"""Work by one process a core, for what is mostly not matrix products: results in the order of the jobs.

    with spread("train.first_person.draw_views:worker", (folder, network), [0, 1, 2], processes=2) as results:
        for views in results: ...          # worker(folder, network) gives there what maps a job to its result

Over pipes alone: multiprocessing's pools need locks, which a machine without shared memory does not have.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any

import torch

from data_collect.commandline import load
from data_collect.errors import UserError
from data_collect.guest.child import Child


@contextmanager
def spread(maker: str, about: Sequence[Any], jobs: Sequence[Any], processes: int) -> Iterator[Iterator[Any]]:
    """An iterator over the results. `UserError` from a process is raised here, and where one was killed."""
    children = [Child("train.spread:serve") for _ in range(min(processes, len(jobs)))]
    try:
        message = pickle.dumps((maker, tuple(about)))  # not by `send`, which puts tensors into shared memory
        for child in children:
            child.pipe.send_bytes(message)
        yield _results([child.pipe for child in children], jobs)
    finally:
        for child in children:
            child.end()


def _results(pipes: list[Any], jobs: Sequence[Any]) -> Iterator[Any]:
    ahead, numbers = dict[int, Any](), iter(range(len(jobs)))
    for pipe in pipes:
        _give(pipe, numbers, jobs)
    for wanted in range(len(jobs)):
        while wanted not in ahead:
            for pipe in connection.wait(pipes):
                number, result = _hear(pipe)
                ahead[number] = result
                _give(pipe, numbers, jobs)
        yield ahead.pop(wanted)


def _give(pipe: Any, numbers: Iterator[int], jobs: Sequence[Any]) -> None:
    """The next job, if there is one."""
    if (number := next(numbers, None)) is not None:
        with suppress(ConnectionError):  # it has ended: its last message is read next
            pipe.send_bytes(pickle.dumps((number, jobs[number])))


def _hear(pipe: Any) -> tuple[int, Any]:
    try:
        number, result = pickle.loads(pipe.recv_bytes())
    except (EOFError, ConnectionError):
        raise UserError("a worker process was killed; run the same command again, it continues") from None
    if number == "user":
        raise UserError(result)
    if number == "bug":
        raise RuntimeError(f"a worker process failed:\n{result}")
    return number, result


def serve(pipe: Any) -> None:
    """A process's loop: the maker and its arguments, then (number, job) in and (number, result) out."""
    torch.set_num_threads(1)
    try:
        maker, about = pickle.loads(pipe.recv_bytes())
        work: Callable[[Any], Any] = load(maker)(*about)
        while True:
            number, job = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(pickle.dumps((number, work(job))))
    except (EOFError, ConnectionError):
        pass  # the parent has ended
    except Exception as error:
        known = isinstance(error, UserError)
        with suppress(OSError):
            pipe.send_bytes(pickle.dumps(("user", str(error)) if known else ("bug", traceback.format_exc())))
