"""Worker processes of the recorder: each takes an episode by number and writes shards of its own; its game is a guest.

    Pool(dataset, plan, settings, workers=4, on_frames=print).run()

A worker that loses its parent ends at once; the lock on the folder keeps a new recorder waiting until it has.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.guest.child import Child
from data_collect.guest.guest import Guest
from data_collect.lock import folder_lock
from data_collect.recording.plan import Plan
from data_collect.recording.recorder import EpisodeRecorder, Stopped
from data_collect.shards.chunk import Chunk
from data_collect.shards.writer import ShardWriter

# Threads of a numerical library would only fight the other workers for the cores.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LEAVING = 20.0  # seconds that a worker has to finish its shard


class Pool:
    """Runs a plan on worker processes. `run` returns when it is done, or raises what stopped a worker.

    `on_frames(count)` is called for every chunk, `on_shard(name)` for every whole shard, `on_line(text)` to tell.
    """

    def __init__(
        self, dataset: Dataset, plan: Plan, settings: dict[str, Any], workers: int, on_frames: Callable[[int], None],
        on_shard: Callable[[str], Any], on_line: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.dataset, self.plan, self.settings, self.workers = dataset, plan, settings, workers
        self.on_frames, self.on_shard, self.on_line = on_frames, on_shard, on_line
        self.episodes: dict[Any, int | None] = {}  # which one each worker is at, by its pipe
        self.asking: dict[Any, int] = {}  # the limit that a waiting worker knows

    def run(self) -> None:
        """Start the workers, hand out episodes, send the workers home."""
        reader = copy.copy(self.dataset)
        reader.forget_index()  # it may be large, and a worker is told what it needs of it
        workers = [Child("data_collect.recording.workers:work", ONE_THREAD) for _ in range(self.workers)]
        try:
            for worker in workers:
                self.episodes[worker.pipe] = None
                self._send(worker.pipe, (reader, self.settings))
            self.hand_out()
            while self.episodes:
                for pipe in connection.wait(list(self.episodes)):
                    self._hear(pipe)
                self.hand_out()
        finally:
            for worker in workers:
                worker.pipe.close()  # whoever is still at work sees it, finishes its shard and leaves
            for worker in workers:
                worker.end(LEAVING)

    def hand_out(self) -> None:
        """Give idle workers an episode and waiting ones their limit; send all home when nothing is left to do."""
        for pipe, number in list(self.episodes.items()):
            if number is None and (number := self.plan.take()) is not None:
                self.episodes[pipe] = number
                self._send(pipe, (number, list(self.plan.kept.get(number, ())), self.plan.limit(number)))
        for pipe, known in list(self.asking.items()):
            number = self.episodes[pipe]
            assert number is not None
            limit, final = self.plan.limit(number)
            if final or limit > known:
                del self.asking[pipe]
                self._send(pipe, (limit, final))
        if not self.plan.running:
            for pipe in self.episodes:
                self._send(pipe, None)
            while self.episodes:
                self._hear(next(iter(self.episodes)))

    def _send(self, pipe: Connection, message: Any) -> None:
        try:
            pipe.send(message)
        except ConnectionError:
            while True:  # the worker has ended: raises what it said last, or that it was killed
                self._hear(pipe)

    def _hear(self, pipe: Any) -> None:
        try:
            what, value = pipe.recv()
        except (EOFError, ConnectionError):
            raise UserError("a worker process was killed; run the same command again, it continues") from None
        if what == "frames":
            self.on_frames(value)
        elif what == "shard":
            self.on_shard(value)
        elif what == "limit":
            self.asking[pipe] = value
        elif what == "done":
            self.plan.finish(*value)
            self.episodes[pipe] = None
        elif what == "line":
            self.on_line(value)
        elif what == "bye":
            del self.episodes[pipe]
            pipe.close()
        elif what == "user":
            raise UserError(value)
        else:
            raise RuntimeError(f"a worker process failed:\n{value}")


def work(pipe: Connection) -> None:
    """A worker's life: messages in (number, kept chunks, limit), out (what, value)."""
    try:
        dataset, settings = pipe.recv()
        shared, game = folder_lock(dataset.folder, shared=True), Guest(settings["game"], frame=dataset.frame_size)
        with shared, game as env, ShardWriter(dataset.folder) as writer:
            _serve(pipe, env, writer, dataset, settings)
        pipe.send(("bye", None))
    except (EOFError, ConnectionError, Stopped):
        pass  # the parent has left, or wants to
    except Exception as error:
        known = isinstance(error, UserError)
        with suppress(OSError):
            pipe.send(("user" if known else "bug", str(error) if known else traceback.format_exc()))


def _serve(pipe: Connection, env: Guest, writer: ShardWriter, dataset: Dataset, settings: dict[str, Any]) -> None:
    def add(chunk: Chunk) -> None:
        before = len(writer.closed)
        pipe.send(("frames", writer.add(chunk).frames))
        for name in writer.closed[before:]:
            pipe.send(("shard", name))

    def say(line: str) -> None:
        pipe.send(("line", line))

    def more(known: int) -> tuple[int, bool]:
        pipe.send(("limit", known))
        return pipe.recv()

    recorder = EpisodeRecorder(env, settings, add, dataset.read, stop=pipe.poll)
    while (task := pipe.recv()) is not None:
        number, kept, limit = task
        frames, fault = recorder.record_or_keep(number, limit, kept, say, more)
        pipe.send(("done", (number, frames, fault)))
