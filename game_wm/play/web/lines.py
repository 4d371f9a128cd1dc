"""The line to one page: a WebSocket on which its keys come in and its pictures go out.

line = Line(socket, connection, player, heard=lambda: ...)
await line.carry(about, status, fps=20)     # until it is closed or lost
await line.close(GONE, "away for too long")
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web
from PIL import Image

from game_wm.play.web.limits import Bucket

if TYPE_CHECKING:
    import numpy as np

    from game_wm.play.web.door import Connection
    from game_wm.play.web.player import Player

FAREWELL = 1.0  # seconds that a page has to answer a farewell
MESSAGES = 200.0, 1000.0  # of a page, a second and at once: what says more is no page of ours
FASTEST = 60.0  # pictures a second to each page, where the model has no rate
GONE, PLAYED_ELSEWHERE = 4000, 4001  # close codes: the seat was given up; the dream goes on by another line


class Line:
    """A page's line. A line that is too slow gets fewer pictures, never old ones."""

    def __init__(
        self, socket: web.WebSocketResponse, connection: Connection, player: Player, heard: Callable[[], None]
    ) -> None:
        self.socket, self.connection, self.player = socket, connection, player
        self.farewell: asyncio.Task[None] | None = None  # while it is being closed
        self._heard = heard
        self._listener = asyncio.create_task(self._listen())

    async def carry(self, about: dict[str, Any], status: Callable[[], dict[str, Any]], fps: float) -> None:
        """Hear and send until it is closed or lost; `status` goes along with each picture."""
        sender = asyncio.create_task(self._send(about, status, fps))
        try:
            await asyncio.wait([self._listener])
            if not self._listener.cancelled():
                self._listener.result()
        finally:
            self._listener.cancel()
            sender.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sender

    async def _send(self, about: dict[str, Any], status: Callable[[], dict[str, Any]], fps: float) -> None:
        player = self.player
        await self.socket.send_json(about | {"ticket": player.ticket})
        pictures = Bucket(1.5 * (fps or FASTEST), 4.0)
        while True:
            await player.changed.wait()
            while not pictures.take():
                await asyncio.sleep(pictures.wait())
            player.changed.clear()
            if (newest := player.take()) is not None:
                words, picture = newest
                await self.socket.send_bytes(await asyncio.to_thread(pack, words | status(), picture))

    async def _listen(self) -> None:
        messages = Bucket(*MESSAGES)
        async for message in self.socket:
            if not messages.take():
                self.connection.cut()  # without a farewell, which would be at the end of all that it has sent
                return
            if message.type is WSMsgType.PING:
                await self.socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                try:
                    self.player.hear(json.loads(message.data))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    break
                self._heard()
            elif message.type is WSMsgType.BINARY:
                break
        else:
            return
        await self.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a message of the page")

    async def close(self, code: int, words: str) -> None:
        """Close it, whether the other end listens or not."""
        self.connection.release()
        if self.farewell is None:
            self.farewell = asyncio.create_task(self._say_farewell(code, words))
        await asyncio.shield(self.farewell)

    async def _say_farewell(self, code: int, words: str) -> None:
        """Wait until the other end has heard it, or has not for too long.

        aiohttp waits for that only where nobody else reads the line.
        """
        self._listener.cancel()
        await asyncio.wait([self._listener])
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(FAREWELL):
                await self.socket.close(code=code, message=words.encode(), drain=False)


def pack(status: dict[str, Any], picture: np.ndarray) -> bytes:
    """The message of one picture, uint8 (H, W, 3); nothing of it is lost."""
    head, png = json.dumps(status).encode(), BytesIO()
    Image.fromarray(picture).save(png, "PNG", compress_level=1)
    return len(head).to_bytes(4, "big") + head + png.getvalue()
