"""The server: seats for so many players, one dream for each, and the page that they play on.

    server = Server(checkpoint.load("checkpoints/maze.safetensors"), players=2)
    asyncio.run(serve(server, listen("127.0.0.1", 8080)))

One thread has the model and dreams a frame for everybody who plays, at the game's pace; the event loop only passes
pictures and keys on. A line that is too slow gets fewer pictures, never old ones: no more than UNSEEN are on their way.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from PIL import Image

from data_collect.errors import UserError
from data_collect.places import CODES
from game_wm.dream import saved
from game_wm.play import keymap
from game_wm.play.session import check
from game_wm.play.timing import Pacer
from game_wm.play.web.addresses import hostname, is_loopback, netloc
from game_wm.play.web.door import Connection, Door
from game_wm.play.web.dreams import Begin, Dreams, Shown
from game_wm.play.web.limits import Bucket, Buckets
from game_wm.play.web.page import HEADERS, full_page, page
from game_wm.play.web.player import Player
from game_wm.play.web.quiet import quiet

if TYPE_CHECKING:
    import socket

    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint

COMMANDS = ("previous", "restart", "next", "pause", "rewind", "save", "hud", "full_screen")  # of the window's
HEARTBEAT = 5.0  # seconds between two questions whether a page is still there; it has half of that to answer
NOTICE = 1.6  # seconds that the end of an episode is shown
CLOSING = 1.0  # seconds that a page has to answer when it is told to go
GRACE = 1.5  # seconds that a line waits for a place: a page that is loaded anew opens one before its old one is gone
AGAIN = 5  # seconds until a page that found no place asks for one again
LONGEST = 4096  # bytes of a page's message
MESSAGES = 200.0, 1000.0  # of a page, a second and at once: what says more is no page of ours
ARRIVALS = 1.0, 4.0  # of players from one address, a second and at once
FASTEST = 60.0  # pictures a second to each page, where the model has no rate
SAVES = 0.1, 2.0  # of dreams by one player, a second and at once
PART = 1 << 18  # bytes of a saved dream on their way
DOWNLOAD = 300.0  # seconds for a saved dream to arrive
OWES = 30.0  # seconds that a page may leave a picture unseen
AWAY = 120.0  # seconds that a hidden page keeps its seat
PAUSED = 600.0  # seconds that a page which pauses keeps it
KEPT = 300.0  # seconds that the dream of somebody who has left can be gone on with
GONE, ELSEWHERE = 4000, 4001  # close codes: the seat was given up; the dream goes on by another line

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
        memory = checkpoint.model.config.memory
        if memory is not None and memory.growing and players > 1:
            raise UserError(f"{checkpoint.name} has a memory that grows, which cannot be shared: give --players 1")
        self.checkpoint, self.limit, self.token, self.heartbeat = checkpoint, players, token, heartbeat
        self.fps = checkpoint.schema.fps if fps is None else fps
        self.players: dict[int, Player] = {}
        self.left: dict[int, tuple[Player, asyncio.TimerHandle]] = {}  # who may come back, and until when
        self._seed, self._context, self._quality = seed, context, quality
        self._dreams = Dreams(checkpoint, steps, quality)
        self._model = ThreadPoolExecutor(1, "model")
        self._contexts = len(checkpoint.contexts_frames)
        self.came = 0
        self._places = asyncio.Semaphore(players)
        self._arrivals = Buckets(*ARRIVALS)
        self._saves: dict[int, Bucket] = {}
        self.lines: dict[int, tuple[web.WebSocketResponse, Connection, asyncio.Task[None]]] = {}  # and who listens
        self._farewells: dict[web.WebSocketResponse, asyncio.Task[None]] = {}  # of lines that are being closed
        self._wake = asyncio.Event()
        self.about = _about(checkpoint, commands) | {"limit": players, "places": self._contexts}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes([web.get("/", self._page), web.get("/play", self._play), web.get("/dream", self._save)])
        app.on_shutdown.append(self._dismiss)
        return app

    # --- dreams -------------------------------------------------------------------------------------------------

    async def dream(self) -> None:
        """Dream for those who are there, for ever; while nobody plays, prompts are read ahead, then nothing is done."""
        pacer, loop = Pacer(self.fps), asyncio.get_running_loop()
        known: set[int] = set()
        try:
            while True:
                self._wake.clear()
                there = self.players.keys() | self.left.keys()
                if known <= there and all(player.waits for player in self.players.values()):
                    if not await loop.run_in_executor(self._model, self._dreams.read_ahead):
                        await self._wake.wait()
                    continue
                await asyncio.sleep(pacer.wait(loop.time()))
                pacer.advance(loop.time())
                wishes = {number: player.wish() for number, player in self.players.items()}
                wishes |= dict.fromkeys(self.left)
                known = set(wishes)
                shown = await loop.run_in_executor(self._model, self._dreams.turn, wishes)
                for number, what in shown.items():
                    if number in self.players:
                        self._show(self.players[number], what)
        finally:
            self._model.shutdown(wait=False, cancel_futures=True)

    def _show(self, player: Player, shown: Shown) -> None:
        player.show(shown)
        self._plan(player)

    def _plan(self, player: Player) -> None:
        """After the end of an episode comes the next place, unless the player goes back before it."""
        if not player.ended and player.next_place is not None:
            player.next_place.cancel()
            player.next_place = None
        elif player.ended and player.next_place is None:
            player.next_place = asyncio.get_running_loop().call_later(NOTICE, self._next, player)

    def _next(self, player: Player) -> None:
        player.next_place = None
        player.move(1)
        self._wake.set()

    # --- who may ------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who lacks the token, and pages of other sites that a visitor's browser has open."""
        try:
            response = self._refused(request) or await handler(request)
        except web.HTTPException as error:
            response = _refusal(error.status, error.reason)
        except ConnectionError:  # the line broke meanwhile: nobody reads what is answered
            response = web.Response()
        if not response.prepared:
            response.force_close()  # one request a connection: their number is what the door counts
        return response

    def _refused(self, request: web.Request) -> web.Response | None:
        if self.token is not None:
            if not secrets.compare_digest(request.query.get("token", "").encode(), self.token.encode()):
                return _refusal(403, "the address needs the token that was printed where the player was started")
        elif not is_loopback(hostname(request.host)):
            return _refusal(403, "this player answers on its own machine alone, as 127.0.0.1 or localhost")
        origin = request.headers.get("Origin")
        if origin is not None and netloc(origin) != request.host:
            return _refusal(403, "this player answers its own page alone")
        return None

    async def _page(self, request: web.Request) -> web.Response:
        """The page; in a full game it is the same one, since a place may be free by the time it asks for it."""
        text, headers = page()
        if len(self.players) < self.limit:
            return web.Response(text=text, content_type="text/html", headers=headers)
        headers = {**headers, "Retry-After": str(AGAIN)}
        return web.Response(status=503, text=full_page(self._full()), content_type="text/html", headers=headers)

    def _full(self) -> str:
        """What is said to those for whom there is no place."""
        return (
            f"Full\n{self.checkpoint.name} is played by {self.limit} already, as many as can.\n"
            f"This page looks again every {AGAIN} seconds."
        )

    # --- players ------------------------------------------------------------------------------------------------

    async def _play(self, request: web.Request) -> web.WebSocketResponse:
        """One player, from the connection until it is closed or lost."""
        connection = self.door.of(request)
        # Pings are answered by `_listen`, which counts them; PNG is not compressed twice.
        line = web.WebSocketResponse(
            heartbeat=self.heartbeat, timeout=CLOSING, max_msg_size=LONGEST, autoping=False, compress=False
        )
        await line.prepare(request)
        arrivals = self._arrivals.of(connection.address)
        async with arrivals.queue:
            while not connection.lost and not arrivals.take():
                await asyncio.sleep(arrivals.wait())
        ticket = request.query.get("ticket")
        for number, player in list(self.players.items()):
            if player.ticket == ticket:
                await self._send_away(number, ELSEWHERE, "played elsewhere")
        try:
            async with asyncio.timeout(GRACE):
                await self._places.acquire()
        except TimeoutError:
            await line.send_json({"full": self._full(), "again": AGAIN})
            await line.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"full")
            return line
        try:
            connection.keep()
            if not connection.lost:
                await self._seat(line, connection, *self._player(ticket))
        finally:
            self._places.release()
            connection.release()
        if (farewell := self._farewells.pop(line, None)) is not None:
            await farewell  # with the handler ends the connection, and what the page has not read yet is lost
        return line

    def _player(self, ticket: str | None) -> tuple[int, Player]:
        """Who holds this ticket and has left, or somebody new."""
        for number, (player, end) in self.left.items():
            if player.ticket == ticket:
                end.cancel()
                del self.left[number]
                return number, player
        number = self.came
        self.came += 1
        seed = self._seed + number
        begin = Begin(seed % self._contexts if self._context is None else self._context, seed)
        return number, Player(self.checkpoint.schema, begin, self._contexts)

    async def _seat(self, line: web.WebSocketResponse, connection: Connection, number: int, player: Player) -> None:
        """Let the page at the other end of the line play, until it is closed or lost."""
        listener = asyncio.create_task(self._listen(player, line, connection))
        self.players[number], self.lines[number] = player, (line, connection, listener)
        player.connect(connection.address)
        self._wake.set()
        sender = asyncio.create_task(self._send(player, line))
        try:
            await asyncio.wait([listener])
            if not listener.cancelled():
                listener.result()
        finally:
            del self.players[number], self.lines[number]
            self._leave(number, player)
            listener.cancel()
            sender.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sender

    def _leave(self, number: int, player: Player) -> None:
        """Keep his dream for a while: a page that is loaded anew, or whose line broke, goes on with it."""
        player.disconnect()
        self._plan(player)
        if player.moment is not None:
            if len(self.left) >= max(2, self.limit):
                # Of the address that has most of them: who comes and goes all the time only loses his own.
                of = Counter([player.address, *(each.address for each, _ in self.left.values())])
                self._forget(max(self.left, key=lambda n: of[self.left[n][0].address]))
            self.left[number] = player, asyncio.get_running_loop().call_later(KEPT, self._forget, number)
        self._wake.set()

    def _forget(self, number: int) -> None:
        player, end = self.left.pop(number)
        end.cancel()
        if player.next_place is not None:
            player.next_place.cancel()
        self._saves.pop(number, None)
        self._wake.set()

    async def _send(self, player: Player, line: web.WebSocketResponse) -> None:
        await line.send_json(self.about | {"ticket": player.ticket})
        pictures = Bucket(1.5 * (self.fps or FASTEST), 4.0)
        while True:
            await player.changed.wait()
            while not pictures.take():
                await asyncio.sleep(pictures.wait())
            player.changed.clear()
            if (newest := player.take()) is not None:
                status, picture = newest
                status["players"] = len(self.players)
                status["quality"] = None if self._quality is None else self._quality.label
                await line.send_bytes(await asyncio.to_thread(pack, status, picture))

    async def _listen(self, player: Player, line: web.WebSocketResponse, connection: Connection) -> None:
        """Hear what a page says until its line is closed or lost."""
        messages = Bucket(*MESSAGES)
        async for message in line:
            if not messages.take():
                connection.cut()  # without a farewell, which would be at the end of all that it has sent
                return
            if message.type is WSMsgType.PING:
                await line.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                try:
                    player.hear(json.loads(message.data))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    break
                self._plan(player)
                self._wake.set()
            elif message.type is WSMsgType.BINARY:
                break
        else:
            return
        await line.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a message of the page")

    async def watch(self) -> None:
        """Free the seats of those who are not there, for ever."""
        while True:
            await asyncio.sleep(min(1.0, OWES / 4, AWAY / 4))
            now = time.monotonic()
            for number, player in list(self.players.items()):
                rests, owes = player.rests_since, player.owes_since
                longest = AWAY if player.hidden else PAUSED
                if (owes is not None and now - owes > OWES) or (rests is not None and now - rests > longest):
                    await self._send_away(number, GONE, "away for too long")

    async def _send_away(self, number: int, code: int, words: str) -> None:
        """Close a player's line, whether the other end listens or not."""
        line, connection, listener = self.lines[number]
        connection.release()
        if line not in self._farewells:
            self._farewells[line] = asyncio.create_task(_close(line, listener, code, words))
        await asyncio.shield(self._farewells[line])

    async def _save(self, request: web.Request) -> web.StreamResponse:
        """A player's dream as a file, which the window goes on with (`--load`)."""
        ticket, connection = request.query.get("ticket"), self.door.of(request)
        found = [number for number, player in self.players.items() if player.ticket == ticket]
        if not found or self.players[found[0]].moment is None:
            return _refusal(404, "there is no such dream")
        if not self._saves.setdefault(found[0], Bucket(*SAVES)).take():
            return _refusal(429, f"a dream can be saved every {1 / SAVES[0]:.0f} seconds")
        loop = asyncio.get_running_loop()
        connection.keep()
        try:
            async with asyncio.timeout(DOWNLOAD):
                dream = await loop.run_in_executor(self._model, self._dreams.copy, found[0])
                with tempfile.TemporaryDirectory() as folder:
                    name = f"{self.checkpoint.name}-{datetime.now():%Y%m%d-%H%M%S}{saved.SUFFIX}"
                    file = Path(folder) / "saved"
                    await asyncio.to_thread(saved.save, file, dream)
                    disposition = f"attachment; filename*=UTF-8''{quote(name)}"
                    response = web.StreamResponse(headers={**HEADERS, "Content-Disposition": disposition})
                    response.content_length = file.stat().st_size
                    response.force_close()
                    await response.prepare(request)
                    with file.open("rb") as opened:
                        while part := await asyncio.to_thread(opened.read, PART):
                            await response.write(part)
                    await response.write_eof()
                    return response
        except UserError as error:
            return _refusal(507, str(error))
        except TimeoutError:
            connection.cut()
            raise ConnectionResetError("the download took too long") from None
        finally:
            connection.release()

    async def _dismiss(self, app: web.Application) -> None:
        for number in list(self.players):
            await self._send_away(number, WSCloseCode.GOING_AWAY, "play.py has ended")


async def _close(line: web.WebSocketResponse, listener: asyncio.Task[None], code: int, words: str) -> None:
    """Say farewell, and wait until the other end has heard it, or has not for too long.

    aiohttp waits for that only where nobody else reads the line.
    """
    listener.cancel()
    await asyncio.wait([listener])
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(CLOSING):
            await line.close(code=code, message=words.encode(), drain=False)


def pack(status: dict[str, Any], picture: np.ndarray) -> bytes:
    """The message of one picture, uint8 (H, W, 3); nothing of it is lost."""
    head, png = json.dumps(status).encode(), BytesIO()
    Image.fromarray(picture).save(png, "PNG", compress_level=1)
    return len(head).to_bytes(4, "big") + head + png.getvalue()


async def serve(
    server: Server,
    listening: socket.socket,
    ready: Callable[[], None] = lambda: None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Answer until cancelled, as Ctrl-C does; then every page is told."""
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=CLOSING, lingering_time=0.0)
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


def _about(checkpoint: Checkpoint, commands: tuple[keymap.Command, ...]) -> dict[str, Any]:
    """What a page must know: the model's name, the size of a picture and the keys."""
    schema = checkpoint.schema
    height, width = checkpoint.contexts_frames.shape[2:4]
    keys = [{"keys": keys, "text": text} for keys, text in keymap.game_keys(schema)]
    offered = [
        {"name": command.name, "text": command.text, "keys": keymap.keys_of(schema, command)}
        for command in commands
        if command.name in COMMANDS
    ]
    size = {"width": int(width), "height": int(height)}
    named = {"name": checkpoint.name, "axes": schema.kind == "box", "codes": CODES}
    return {**named, **size, "keys": keys, "commands": offered}


def _refusal(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=f"{status}: {sentence}\n", headers=HEADERS)
