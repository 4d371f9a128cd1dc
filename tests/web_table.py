"""A server of `play.py --web` that is running, and pages of it without a browser."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image
from tiny import tiny_checkpoint

from data_collect.schema import ActionSchema
from game_wm.checkpoint import Checkpoint, load
from game_wm.play import web

SOON = 20.0  # seconds for whatever must happen; a tenth of one is usual


def web_checkpoint(folder: Path) -> Path:
    """Small pictures, three places, and no episode that ends."""
    return tiny_checkpoint(folder / "tiny.safetensors", side=16, endless=True)


class Table:
    """A server that is running, and a client of it."""

    def __init__(self, server: web.Server, session: aiohttp.ClientSession, port: int) -> None:
        self.server, self.session, self.port = server, session, port
        self.http = f"http://127.0.0.1:{port}"

    @property
    def room(self) -> web.Room:
        """The only one that is there."""
        (room,) = self.server.rooms
        return room

    async def sit(self, ticket: str = "", **options: Any) -> Page:
        return Page(await self.session.ws_connect(f"{self.http}/play?ticket={ticket}", **options))

    async def seats(self, taken: int) -> None:
        """Wait until so many play."""
        await self.until(lambda: len(self.room.seats.players) == taken)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not true():
                await asyncio.sleep(0.01)


class Heard(logging.Handler):
    """What the server would print."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(self.format(record))


class Page:
    """What the page does, without a browser."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.line = line
        self.pictures: list[tuple[dict[str, Any], np.ndarray]] = []

    async def about(self) -> dict[str, Any]:
        return json.loads((await self.line.receive(SOON)).data)

    async def look(self, seen: bool = True) -> dict[str, Any]:
        """The next picture's status."""
        message = await self.line.receive(SOON)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        length = int.from_bytes(message.data[:4], "big")
        status = json.loads(message.data[4 : 4 + length])
        self.pictures.append((status, np.asarray(Image.open(io.BytesIO(message.data[4 + length :])))))
        if seen:
            await self.say(seen=status["frame"])
        return status

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(3 * SOON):
            while not true(status := await self.look()):
                pass
        return status

    async def say(self, **message: Any) -> None:
        await self.line.send_json(message)


@asynccontextmanager
async def served(
    loaded: Checkpoint | web.Gallery,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Table]:
    """`options`: those of `Server` and `Room`, at 50 frames a second unless they say otherwise. Nothing is logged
    meanwhile."""
    said = Heard()
    logging.getLogger().addHandler(said)
    listening, ready = web.listen(host, port), asyncio.Event()
    own = {name: options.pop(name) for name in ("token", "heartbeat") if name in options}
    players = options.get("players", 2)
    room = loaded if isinstance(loaded, web.Gallery) else web.Room(loaded, **{"fps": 50.0, **options})
    server = web.Server(room, players=players, **own)
    task = asyncio.create_task(web.serve(server, listening, ready.set, tls))
    try:
        async with asyncio.timeout(SOON):
            await ready.wait()
        async with aiohttp.ClientSession() as session:
            yield Table(server, session, listening.getsockname()[1])
        assert not task.done(), task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        logging.getLogger().removeHandler(said)
    assert not said.words


def run(play: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(3 * SOON):
            await play

    asyncio.run(limited())


def car(path: Path) -> Checkpoint:
    """The same model with a steering wheel."""
    keys = {"left": "steer-", "right": "steer+", "up": "gas+", "down": "brake+"}
    low, high = (-1, 0, 0, 0), (1, 1, 1, 1)
    schema = ActionSchema("box", ("steer", "gas", "brake", "horn"), low=low, high=high, keys=keys, fps=50)
    return replace(load(path), schema=schema)


async def held(table: Table, *keys: str) -> None:
    """Wait until these keys of the first player are down, and no others."""
    await table.until(lambda: set(table.room.seats.players[0].keyboard.held) == set(keys))
