"""Worker processes of the recorder: each takes an episode by number and writes shards of its own; its game is a guest.

    Pool(dataset, plan, settings, Children(4), on_frames=print).run()

A worker that loses its parent ends at once; the lock on the folder keeps a new recorder waiting until it has.
"""

from __future__ import annotations

import copy
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Protocol

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.guest.child import Child
from data_collect.guest.guest import Guest
from data_collect.lock import folder_lock
from data_collect.recording.plan import Plan
from data_collect.recording.recorder import EpisodeRecorder, Stopped
from data_collect.shards.chunk import Chunk
from data_collect.shards.index import ChunkIndex, row_of
from data_collect.shards.remote import on_disk
from data_collect.shards.writer import ShardWriter, salvage

# Threads of a numerical library would only fight the other workers for the cores.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LOST = 3  # workers that may die in an episode
LEAVING = 20.0  # seconds that a worker has to finish its shard


class Crew(Protocol):
    """Where workers come from: pipes to some at once, and doors by which others come."""

    replaces: bool  # another worker comes for one that dies
    doors: list[Any]

    def start(self) -> list[Any]: ...

    def accept(self) -> Any: ...

    def end(self) -> None: ...


class Children:
    """So many processes of this machine."""

    replaces = False

    def __init__(self, count: int) -> None:
        self.count, self.doors, self.children = count, list[Any](), list[Child]()

    def start(self) -> list[Any]:
        self.children = [Child("data_collect.recording.workers:work", ONE_THREAD) for _ in range(self.count)]
        return [child.pipe for child in self.children]

    def accept(self) -> Any:
        raise AssertionError("there is no door")

    def end(self) -> None:
        for child in self.children:
            child.pipe.close()  # whoever is still at work sees it, finishes its shard and leaves
        for child in self.children:
            child.end(LEAVING)


class Pool:
    """Runs a plan on worker processes. `run` returns when it is done, or raises what stopped a worker.

    `on_frames(count)` is called for every chunk, `on_shard(name)` for every whole shard, `on_line(text)` to tell.
    """

    def __init__(
        self, dataset: Dataset, plan: Plan, settings: dict[str, Any], crew: Crew, on_frames: Callable[[int], None],
        on_shard: Callable[[str], Any], on_line: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.dataset, self.plan, self.settings, self.crew = dataset, plan, settings, crew
        self.on_frames, self.on_shard, self.on_line = on_frames, on_shard, on_line
        self.episodes: dict[Any, int | None] = {}  # which one each worker is at, by its pipe
        self.lost = Counter[int]()  # workers that died, by episode
        self.asking: dict[Any, int] = {}  # the limit that a waiting worker knows

    def run(self) -> None:
        """Start the workers, hand out episodes, send the workers home."""
        reader = copy.copy(self.dataset)
        reader.forget_index()  # it may be large, and a worker is told what it needs of it
        about = reader, self.settings, self.crew.replaces
        try:
            for pipe in self.crew.start():
                self._join(pipe, about)
            self.hand_out()
            while self.episodes or self.plan.left:
                for ready in connection.wait([*self.episodes, *self.crew.doors]):
                    if ready in self.crew.doors:
                        self._join(self.crew.accept(), about)
                    elif ready in self.episodes:
                        self.hear(ready)
                self.hand_out()
        finally:
            for pipe in self.episodes:
                pipe.close()
            self.crew.end()

    def _join(self, pipe: Any, about: Any) -> None:
        if pipe is not None:
            self.episodes[pipe] = None
            self._send(pipe, about)

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
        if not self.plan.running and not self.plan.left:
            for pipe in list(self.episodes):
                self._send(pipe, None)
            while self.episodes:
                self.hear(next(iter(self.episodes)))

    def _send(self, pipe: Connection, message: Any) -> None:
        try:
            pipe.send(message)
        except ConnectionError:
            while pipe in self.episodes:  # the worker has ended: raises what it said last, or that it was killed
                self.hear(pipe)

    def hear(self, pipe: Any) -> None:
        try:
            what, value = pipe.recv()
        except (EOFError, ConnectionError):
            if self.crew.replaces:
                self._lose(pipe)
                return
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

    def _lose(self, pipe: Any) -> None:
        """A worker has died: another one goes on with its episode, behind what it has kept of it."""
        number, folder = self.episodes.pop(pipe), on_disk(self.dataset.folder)
        self.asking.pop(pipe, None)
        pipe.close()
        if number is None:
            return
        self.lost[number] += 1
        if self.lost[number] > LOST:
            raise UserError(f"{LOST + 1} workers died in episode {number}: see why, and run the same command again")
        for name in salvage(folder, number):
            self.on_shard(name)
        rows = [row_of(path) for path in folder.glob(f"shard-{number:06d}-*.tar")]
        found = {ref.chunk: ref for ref in (*self.plan.kept.get(number, ()), *ChunkIndex.of(rows))}
        self.plan.again(number, [ref for _, ref in sorted(found.items()) if ref.episode == number])


def work(pipe: Connection) -> None:
    """A worker's life: messages in (number, kept chunks, limit), out (what, value)."""
    try:
        dataset, settings, alone = pipe.recv()
        shared, game = folder_lock(dataset.folder, shared=True), Guest(settings["game"], frame=dataset.frame_size)
        with shared, game as env, ShardWriter(dataset.folder) as writer:
            _serve(pipe, env, writer, dataset, settings, alone)
        pipe.send(("bye", None))
    except (EOFError, ConnectionError, Stopped):
        pass  # the parent has left, or wants to
    except Exception as error:
        known = isinstance(error, UserError)
        with suppress(OSError):
            pipe.send(("user" if known else "bug", str(error) if known else traceback.format_exc()))


def _serve(
    pipe: Connection, env: Guest, writer: ShardWriter, dataset: Dataset, settings: dict[str, Any], alone: bool
) -> None:
    """`alone`: a shard holds chunks of one episode, so that it is known what a worker that dies has kept."""

    def add(chunk: Chunk) -> None:
        pipe.send(("frames", writer.add(chunk).frames))
        publish()

    def publish() -> None:
        for name in writer.closed:
            pipe.send(("shard", name))
        writer.closed.clear()

    def say(line: str) -> None:
        pipe.send(("line", line))

    def more(known: int) -> tuple[int, bool]:
        pipe.send(("limit", known))
        return pipe.recv()

    recorder = EpisodeRecorder(env, settings, add, dataset.read, stop=pipe.poll)
    while (task := pipe.recv()) is not None:
        number, kept, limit = task
        frames, fault = recorder.record_or_keep(number, limit, kept, say, more)
        if alone:
            writer.close()
            publish()
        pipe.send(("done", (number, frames, fault)))
