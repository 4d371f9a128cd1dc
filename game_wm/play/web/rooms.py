"""Rooms: a model, and those who play it. One is there from the start, or each is made when somebody chooses it.

    room = Room(checkpoint.load("checkpoints/maze.safetensors"), players=2)
    gallery = Gallery([SHIPPED], make=lambda path, report: Room(...))
    gallery.tiles()                     # for the page, as JSON
    room = await gallery.enter(key)     # of one of them; `gallery.stage` tells how far it is

One thread has the models and dreams a frame for everybody who plays, at the game's pace.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from data_collect.errors import UserError
from game_wm.play import gallery, keymap
from game_wm.play.session import check
from game_wm.play.timing import Pacer
from game_wm.play.web.dreams import Dreams
from game_wm.play.web.lines import GONE, Line
from game_wm.play.web.page import about
from game_wm.play.web.seats import Seats

if TYPE_CHECKING:
    from aiohttp import web

    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.dream.saved import SavedDream
    from game_wm.play.web.door import Connection

OWES = 30.0  # seconds that a page may leave a picture unseen
AWAY = 120.0  # seconds that a hidden page keeps its seat
PAUSED = 600.0  # seconds that a page which pauses keeps it
MOST_ROOMS = 2  # models that are kept, beyond those that are played
EVERY = 2  # frames of a tile from one that its page has to the next
STRIP: dict[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": 0}

Report = Callable[[str, float], None]


class Room:
    """Up to `players` who play one model.

    `seed`, `context`, `steps`, `fps` and `quality` are those of `Session`; the n-th player to come has the noise, and
    without `context` the place, of seed + n. `UserError` for what the checkpoint cannot play.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        players: int = 2,
        seed: int = 0,
        context: int | None = None,
        steps: int | None = None,
        fps: float | None = None,
        commands: tuple[keymap.Command, ...] = keymap.COMMANDS,
        quality: Quality | None = None,
    ) -> None:
        check(checkpoint, steps, context)
        if checkpoint.model.memory.grows and players > 1:
            raise UserError(f"{checkpoint.name} has a memory that grows, which cannot be shared: give --players 1")
        contexts = len(checkpoint.contexts_frames)
        self.checkpoint, self.quality = checkpoint, quality
        self.fps = checkpoint.schema.fps if fps is None else fps
        self.seats = Seats(checkpoint.schema, players, seed, context, contexts)
        self.lines: dict[int, Line] = {}  # by the player's number
        self.about = about(checkpoint, commands) | {"limit": players, "places": contexts}
        self.guests = 0  # who play, or are about to
        self._dreams = Dreams(checkpoint, steps, quality)
        self._tasks: list[asyncio.Task[None]] = []

    def start(
        self, model: ThreadPoolExecutor, failed: Callable[[asyncio.Task[None]], None], idle: Callable[[], bool]
    ) -> None:
        """Dream and watch until `stop`, in the thread that has the models; what raises is handed to `failed`. Prompts
        are read ahead where all rooms are `idle`."""
        self._model, self._idle = model, idle
        self._tasks = [asyncio.create_task(each()) for each in (self._dream, self._watch)]
        for task in self._tasks:
            task.add_done_callback(failed)

    @property
    def waits(self) -> bool:
        """Whether nobody here wants a frame."""
        return all(player.waits for player in self.seats.players.values())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dream(self) -> None:
        """Dream for all players, for ever; while there are none, prompts are read ahead, then it sleeps."""
        pacer, loop, seats = Pacer(self.fps), asyncio.get_running_loop(), self.seats
        known: set[int] = set()
        while True:
            seats.changed.clear()
            there = seats.players.keys() | seats.left.keys()
            if known <= there and self.waits:
                if not (self._idle() and await loop.run_in_executor(self._model, self._dreams.read_ahead)):
                    await seats.changed.wait()
                continue
            await asyncio.sleep(pacer.wait(loop.time()))
            pacer.advance(loop.time())
            wishes = {number: player.wish() for number, player in seats.players.items()}
            wishes |= dict.fromkeys(seats.left)
            known = set(wishes)
            shown = await loop.run_in_executor(self._model, self._dreams.turn, wishes)
            for number, what in shown.items():
                seats.show(number, what)

    async def _watch(self) -> None:
        """Free the seats of pages that do not answer, or rest for too long; for ever."""
        while True:
            await asyncio.sleep(min(1.0, OWES / 4, AWAY / 4))
            now = time.monotonic()
            for number, player in list(self.seats.players.items()):
                rests, owes = player.rests_since, player.owes_since
                longest = AWAY if player.hidden else PAUSED
                if (owes is not None and now - owes > OWES) or (rests is not None and now - rests > longest):
                    await self.lines[number].close(GONE, "away for too long")

    async def seat(
        self, socket: web.WebSocketResponse, connection: Connection, ticket: str | None, status: Callable[[], Any]
    ) -> asyncio.Task[None] | None:
        """Let the page at the other end play, until its line is closed or lost; its farewell, if any."""
        number, player = self.seats.give(ticket)

        def heard() -> None:
            self.seats.plan(player)
            self.seats.changed.set()

        line = Line(socket, connection, player, heard)
        self.seats.players[number], self.lines[number] = player, line
        player.connect(connection.address)
        self.seats.changed.set()
        try:
            await line.carry(self.about, status, self.fps)
        finally:
            del self.lines[number]
            self.seats.leave(number)
        return line.farewell

    async def copy(self, number: int) -> SavedDream:
        """A player's dream, to be saved."""
        return await asyncio.get_running_loop().run_in_executor(self._model, self._dreams.copy, number)


class Gallery:
    """The tiles of some folders, and the rooms of those that are played; `make(path, report)` makes one in a thread."""

    def __init__(self, folders: Sequence[Path], make: Callable[[Path, Report], Room]) -> None:
        self._folders, self._make = folders, make
        self.rooms: OrderedDict[str, Room] = OrderedDict()  # by key, the one that was entered last at the end
        self.stage = ("", 0.0)  # what is being done for the room that is made, and how much is done by then
        self.start: Callable[[Room], None]  # how a room begins to dream, which the server says
        self._paths: dict[str, Path] = {}  # of the tiles, by key
        self._problems: dict[str, str] = {}
        self._strips: dict[tuple[Path, int], str] = {}
        self._lock = asyncio.Lock()

    def tiles(self) -> list[dict[str, Any]]:
        """What the page shows: `key`, `group`, `name`, `line`, `figures`, `problem`, and `picture`, a strip of `frames`
        below each other, as a data URL."""
        found = []
        for tile in gallery.checkpoints(self._folders):
            key, frames = _key(tile.path), tile.frames[::-EVERY][::-1]
            self._paths[key] = tile.path
            size = {"width": frames.shape[2], "height": frames.shape[1], "frames": len(frames), "fps": tile.fps / EVERY}
            written = {"group": tile.group, "name": tile.name, "line": tile.line, "figures": tile.figures}
            problem = tile.problem or self._problems.get(key, "")
            found.append({"key": key, **written, **size, "problem": problem, "picture": self._strip(tile, frames)})
        return found

    def _strip(self, tile: gallery.Tile, frames: np.ndarray) -> str:
        if not len(frames):
            return ""
        with suppress(OSError):
            known = tile.path, tile.path.stat().st_mtime_ns
            if known not in self._strips:
                file = io.BytesIO()
                Image.fromarray(np.concatenate(frames)).save(file, **STRIP)
                self._strips[known] = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
            return self._strips[known]
        return ""

    async def enter(self, key: str) -> Room:
        """The room of a tile, to be left again (`guests`). `UserError`: there is none, or it cannot be played."""
        async with self._lock:
            if key not in self.rooms:
                self._problems.pop(key, None)
                path = self._paths.get(key, Path())
                if not path.is_file():
                    raise UserError("This dream is gone: choose another one.")
                await self._make_space()
                self._report("Opening", 0.0)
                try:
                    room = await asyncio.to_thread(self._make, path, self._report)
                except UserError as error:
                    self._problems[key] = str(error).replace(str(path), path.name)
                    raise UserError(self._problems[key]) from error
                self.start(room)
                self.rooms[key] = room
            self.rooms.move_to_end(key)
            self.rooms[key].guests += 1
            return self.rooms[key]

    def _report(self, stage: str, done: float) -> None:
        self.stage = stage, done

    async def _make_space(self) -> None:
        """Close the rooms that were entered longest ago, of those that nobody is in."""
        empty = [key for key, room in self.rooms.items() if not room.guests]
        for key in empty[: max(0, len(self.rooms) + 1 - MOST_ROOMS)]:
            await self.rooms.pop(key).stop()


def _key(path: Path) -> str:
    """A name for the address, which does not tell where the file lies."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
