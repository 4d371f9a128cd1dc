"""The server: the page, a line to each player, and the rooms in which they play.

    server = Server(Room(checkpoint.load("checkpoints/maze.safetensors")), players=2)
    asyncio.run(serve(server, listen("127.0.0.1", 8080)))

The event loop only passes pictures and keys on. `rooms.py` dreams, `seats.py` has the players, `lines.py` what goes to
and comes from a page.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, web

from data_collect.errors import UserError
from game_wm.play.web import answers
from game_wm.play.web.door import Door
from game_wm.play.web.limits import Bucket, Buckets
from game_wm.play.web.lines import FAREWELL, PLAYED_ELSEWHERE
from game_wm.play.web.page import full_page, gallery_page, page
from game_wm.play.web.quiet import quiet
from game_wm.play.web.rooms import Gallery, Room

if TYPE_CHECKING:
    import socket

HEARTBEAT = 5.0  # seconds between two questions whether a page is still there; it has half of that to answer
GRACE = 1.5  # seconds that a line waits for a place: a page that is loaded anew opens one before its old one is gone
RETRY = 5  # seconds until a page that found no place asks for one again
MESSAGE_BYTES = 4096  # bytes of a page's message
ARRIVALS = 1.0, 4.0  # of players from one address, a second and at once
SAVES = 0.1, 2.0  # of dreams by one player, a second and at once
TOLD = 0.2  # seconds between two words on how far a room is


class Server:
    """The page, and up to `players` who play on it: in one room, or in those of a gallery.

    With a `token`, only addresses that hold it are answered; without one, only those of this machine.
    """

    door: Door

    def __init__(
        self, room: Room | Gallery, *, players: int = 2, token: str | None = None, heartbeat: float = HEARTBEAT
    ) -> None:
        self.room = room if isinstance(room, Room) else None
        self.gallery = room if isinstance(room, Gallery) else None
        self.players, self.token, self.heartbeat = players, token, heartbeat
        self._free = asyncio.Semaphore(players)
        self._model = ThreadPoolExecutor(1, "model")
        self._arrivals = Buckets(*ARRIVALS)
        self._saves: dict[str, Bucket] = {}  # by ticket

    @property
    def rooms(self) -> list[Room]:
        return [self.room] if self.room else list(self.gallery.rooms.values()) if self.gallery else []

    def app(self) -> web.Application:
        app = web.Application(middlewares=[answers.guard(self.token)])
        routes = {"/": self._page, "/gallery": self._tiles, "/play": self._play, "/dream": self._save}
        app.add_routes([web.get(path, answer) for path, answer in routes.items()])
        app.on_shutdown.append(self._dismiss)
        return app

    async def dream(self) -> None:
        """Dream in all rooms until one of them fails, or this is cancelled."""
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def failed(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) and not broken.done():
                broken.set_exception(error)

        def start(room: Room) -> None:
            room.start(self._model, failed, lambda: all(each.waits for each in self.rooms))

        if self.gallery:
            self.gallery.start = start
        elif self.room:
            start(self.room)
        try:
            await broken
        finally:
            for room in self.rooms:
                await room.stop()
            self._model.shutdown(wait=False, cancel_futures=True)

    def _playing(self) -> int:
        return sum(len(room.seats.players) for room in self.rooms)

    async def _page(self, request: web.Request) -> web.Response:
        """The page; in a full game it is the same one, since a place may be free by the time it asks for it."""
        text, headers = page()
        if self.gallery:
            return web.Response(text=gallery_page(), content_type="text/html", headers=headers)
        if self._playing() < self.players:
            return web.Response(text=text, content_type="text/html", headers=headers)
        headers = {**headers, "Retry-After": str(RETRY)}
        return web.Response(status=503, text=full_page(self._full()), content_type="text/html", headers=headers)

    def _full(self) -> str:
        if self.room is None:
            return f"Full: {self.players} play already, as many as can. Choose again in a while."
        return (
            f"Full\n{self.room.checkpoint.name} is played by {self.players} already, as many as can.\n"
            f"This page looks again every {RETRY} seconds."
        )

    async def _tiles(self, request: web.Request) -> web.Response:
        if self.gallery is None:
            return answers.refusal(404, "one dream is served here, and no gallery")
        connection = self.door.of(request)
        connection.keep()  # for as long as it takes to read all files
        try:
            return web.json_response(await asyncio.to_thread(self.gallery.tiles), headers=answers.HEADERS)
        finally:
            connection.release()

    async def _play(self, request: web.Request) -> web.WebSocketResponse:
        """One player, from the connection until it is closed or lost."""
        connection = self.door.of(request)
        # Pings are answered by the line, which counts them; PNG is not compressed twice.
        line = web.WebSocketResponse(
            heartbeat=self.heartbeat, timeout=FAREWELL, max_msg_size=MESSAGE_BYTES, autoping=False, compress=False
        )
        await line.prepare(request)
        arrivals = self._arrivals.of(connection.address)
        async with arrivals.queue:
            while not connection.lost and not arrivals.take():
                await asyncio.sleep(arrivals.wait())
        if found := self._seat_of(request):
            room, number = found
            await room.lines[number].close(PLAYED_ELSEWHERE, "played elsewhere")
        try:
            async with asyncio.timeout(GRACE):
                await self._free.acquire()
        except TimeoutError:
            await line.send_json({"full": self._full(), "again": RETRY})
            await line.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"full")
            return line
        farewell = None
        try:
            connection.keep()
            if not connection.lost and (chosen := await self._enter(line, request.query.get("dream", ""))):
                try:
                    farewell = await chosen.seat(line, connection, request.query.get("ticket"), self._status(chosen))
                finally:
                    chosen.guests -= 1
        finally:
            self._free.release()
            connection.release()
        if farewell is not None:
            await farewell  # with the handler ends the connection, and what the page has not read yet is lost
        return line

    async def _enter(self, line: web.WebSocketResponse, key: str) -> Room | None:
        """The room that a page has chosen, which is told how far it is meanwhile, or why there is none."""
        if self.room:
            self.room.guests += 1
            return self.room
        assert self.gallery is not None
        entering = asyncio.create_task(self.gallery.enter(key))
        while not (await asyncio.wait([entering], timeout=TOLD))[0]:
            stage, done = self.gallery.stage
            with suppress(ConnectionError):
                await line.send_json({"loading": stage, "done": done})
        try:
            return entering.result()
        except UserError as error:
            await line.send_json({"failed": str(error)})
            await line.close(message=b"it cannot be played")
            return None

    def _status(self, room: Room) -> Callable[[], dict[str, Any]]:
        quality = room.quality
        return lambda: {"players": self._playing(), "quality": None if quality is None else quality.label}

    def _seat_of(self, request: web.Request) -> tuple[Room, int] | None:
        """Where the player with the ticket of a request sits."""
        ticket = request.query.get("ticket")
        seats = ((room, room.seats.number_of(ticket)) for room in self.rooms)
        return next(((room, number) for room, number in seats if number is not None), None)

    async def _save(self, request: web.Request) -> web.StreamResponse:
        connection, found = self.door.of(request), self._seat_of(request)
        if found is None or found[0].seats.players[found[1]].moment is None:
            return answers.refusal(404, "there is no such dream")
        room, number = found
        self._saves = {known: bucket for known, bucket in self._saves.items() if not bucket.full}
        if not self._saves.setdefault(room.seats.players[number].ticket, Bucket(*SAVES)).take():
            return answers.refusal(429, f"a dream can be saved every {1 / SAVES[0]:.0f} seconds")
        return await answers.download(request, connection, room.checkpoint.name, lambda: room.copy(number))

    async def _dismiss(self, app: web.Application) -> None:
        for room in self.rooms:
            for line in list(room.lines.values()):
                await line.close(WSCloseCode.GOING_AWAY, "play.py has ended")


async def serve(
    server: Server,
    listening: socket.socket,
    ready: Callable[[], None] = lambda: None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Answer until cancelled, as Ctrl-C does; then every page gets a farewell."""
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=FAREWELL, lingering_time=0.0)
    with quiet():
        await runner.setup()
        assert runner.server is not None
        server.door = Door(listening, runner.server, tls)
        dream = asyncio.create_task(server.dream())
        door = asyncio.create_task(server.door.open())
        try:
            ready()
            done, _ = await asyncio.wait((dream, door), return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            dream.cancel()
            await runner.cleanup()
            door.cancel()
            await asyncio.gather(dream, door, return_exceptions=True)
