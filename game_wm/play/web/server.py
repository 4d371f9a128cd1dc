"""The server: one dream for each player, a line to each page, and the page that they play on.

    server = Server(checkpoint.load("checkpoints/maze.safetensors"), players=2)
    asyncio.run(serve(server, listen("127.0.0.1", 8080)))

One thread has the model and dreams a frame for everybody who plays, at the game's pace; the event loop only passes
pictures and keys on. `seats.py` has the players, `lines.py` what goes to and comes from a page.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, web

from data_collect.errors import UserError
from game_wm.play import keymap
from game_wm.play.session import check
from game_wm.play.timing import Pacer
from game_wm.play.web import answers
from game_wm.play.web.door import Connection, Door
from game_wm.play.web.dreams import Dreams
from game_wm.play.web.limits import Bucket, Buckets
from game_wm.play.web.lines import FAREWELL, GONE, PLAYED_ELSEWHERE, Line
from game_wm.play.web.page import about, full_page, page
from game_wm.play.web.quiet import quiet
from game_wm.play.web.seats import Seats

if TYPE_CHECKING:
    import socket

    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.play.web.player import Player

HEARTBEAT = 5.0  # seconds between two questions whether a page is still there; it has half of that to answer
GRACE = 1.5  # seconds that a line waits for a place: a page that is loaded anew opens one before its old one is gone
RETRY = 5  # seconds until a page that found no place asks for one again
MESSAGE_BYTES = 4096  # bytes of a page's message
ARRIVALS = 1.0, 4.0  # of players from one address, a second and at once
SAVES = 0.1, 2.0  # of dreams by one player, a second and at once
OWES = 30.0  # seconds that a page may leave a picture unseen
AWAY = 120.0  # seconds that a hidden page keeps its seat
PAUSED = 600.0  # seconds that a page which pauses keeps it


class Server:
    """The page, and up to `players` who play on it.

    `seed`, `context`, `steps`, `fps` and `quality` are those of `Session`; the n-th player to come has the noise, and
    without `context` the place, of seed + n. With a `token`, only addresses that hold it are answered; without one,
    only those of this machine. `UserError` for what the checkpoint cannot play.
    """

    door: Door

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
        token: str | None = None,
        quality: Quality | None = None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        check(checkpoint, steps, context)
        if checkpoint.model.memory.grows and players > 1:
            raise UserError(f"{checkpoint.name} has a memory that grows, which cannot be shared: give --players 1")
        contexts = len(checkpoint.contexts_frames)
        self.checkpoint, self.token, self.heartbeat = checkpoint, token, heartbeat
        self.fps = checkpoint.schema.fps if fps is None else fps
        self.seats = Seats(checkpoint.schema, players, seed, context, contexts)
        self.lines: dict[int, Line] = {}  # by the player's number
        self.about = about(checkpoint, commands) | {"limit": players, "places": contexts}
        self._quality = quality
        self._dreams = Dreams(checkpoint, steps, quality)
        self._model = ThreadPoolExecutor(1, "model")
        self._arrivals = Buckets(*ARRIVALS)
        self._saves: dict[int, Bucket] = {}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[answers.guard(self.token)])
        app.add_routes([web.get("/", self._page), web.get("/play", self._play), web.get("/dream", self._save)])
        app.on_shutdown.append(self._dismiss)
        return app

    async def dream(self) -> None:
        """Dream for all players, for ever; while there are none, prompts are read ahead, then it sleeps."""
        pacer, loop, seats = Pacer(self.fps), asyncio.get_running_loop(), self.seats
        known: set[int] = set()
        try:
            while True:
                seats.changed.clear()
                there = seats.players.keys() | seats.left.keys()
                if known <= there and all(player.waits for player in seats.players.values()):
                    if not await loop.run_in_executor(self._model, self._dreams.read_ahead):
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
        finally:
            self._model.shutdown(wait=False, cancel_futures=True)

    async def watch(self) -> None:
        """Free the seats of pages that do not answer, or rest for too long; for ever."""
        while True:
            await asyncio.sleep(min(1.0, OWES / 4, AWAY / 4))
            now = time.monotonic()
            for number, player in list(self.seats.players.items()):
                rests, owes = player.rests_since, player.owes_since
                longest = AWAY if player.hidden else PAUSED
                if (owes is not None and now - owes > OWES) or (rests is not None and now - rests > longest):
                    await self.lines[number].close(GONE, "away for too long")

    async def _page(self, request: web.Request) -> web.Response:
        """The page; in a full game it is the same one, since a place may be free by the time it asks for it."""
        text, headers = page()
        if len(self.seats.players) < self.seats.limit:
            return web.Response(text=text, content_type="text/html", headers=headers)
        headers = {**headers, "Retry-After": str(RETRY)}
        return web.Response(status=503, text=full_page(self._full()), content_type="text/html", headers=headers)

    def _full(self) -> str:
        return (
            f"Full\n{self.checkpoint.name} is played by {self.seats.limit} already, as many as can.\n"
            f"This page looks again every {RETRY} seconds."
        )

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
        ticket = request.query.get("ticket")
        if (number := self.seats.number_of(ticket)) is not None:
            await self.lines[number].close(PLAYED_ELSEWHERE, "played elsewhere")
        try:
            async with asyncio.timeout(GRACE):
                await self.seats.free.acquire()
        except TimeoutError:
            await line.send_json({"full": self._full(), "again": RETRY})
            await line.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"full")
            return line
        farewell = None
        try:
            connection.keep()
            if not connection.lost:
                farewell = await self._seat(line, connection, *self.seats.give(ticket))
        finally:
            self.seats.free.release()
            connection.release()
        if farewell is not None:
            await farewell  # with the handler ends the connection, and what the page has not read yet is lost
        return line

    async def _seat(
        self, socket: web.WebSocketResponse, connection: Connection, number: int, player: Player
    ) -> asyncio.Task[None] | None:
        """Let the page at the other end play, until its line is closed or lost; its farewell, if any."""

        def heard() -> None:
            self.seats.plan(player)
            self.seats.changed.set()

        line = Line(socket, connection, player, heard)
        self.seats.players[number], self.lines[number] = player, line
        player.connect(connection.address)
        self.seats.changed.set()
        try:
            await line.carry(self.about, self._status, self.fps)
        finally:
            del self.lines[number]
            self.seats.leave(number)
        return line.farewell

    def _status(self) -> dict[str, Any]:
        quality = None if self._quality is None else self._quality.label
        return {"players": len(self.seats.players), "quality": quality}

    async def _save(self, request: web.Request) -> web.StreamResponse:
        connection, number = self.door.of(request), self.seats.number_of(request.query.get("ticket"))
        if number is None or self.seats.players[number].moment is None:
            return answers.refusal(404, "there is no such dream")
        self._saves = {known: bucket for known, bucket in self._saves.items() if not bucket.full}
        if not self._saves.setdefault(number, Bucket(*SAVES)).take():
            return answers.refusal(429, f"a dream can be saved every {1 / SAVES[0]:.0f} seconds")
        loop = asyncio.get_running_loop()
        return await answers.download(
            request, connection, self.checkpoint.name,
            lambda: loop.run_in_executor(self._model, self._dreams.copy, number),
        )  # fmt: skip

    async def _dismiss(self, app: web.Application) -> None:
        for line in list(self.lines.values()):
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
        tasks = [asyncio.create_task(each()) for each in (server.dream, server.watch)]
        door = asyncio.create_task(server.door.open())
        try:
            ready()
            done, _ = await asyncio.wait((*tasks, door), return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await runner.cleanup()
            door.cancel()
            await asyncio.gather(*tasks, door, return_exceptions=True)
