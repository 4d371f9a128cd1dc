"""The player in a browser: one page, a WebSocket for each player, all their dreams in one batch.

    server = Server(checkpoint.load("checkpoints/maze.safetensors"), players=2)
    asyncio.run(serve(server, listen("127.0.0.1", 8080)))

One thread has the model and dreams a frame for everybody who plays, at the game's pace; the event loop only passes
pictures and keys on. A line that is too slow gets fewer pictures, never old ones: no more than UNSEEN are on their way.

The page sends JSON: `{"key": "up", "level": 1, "at": 1234.5}` (how far a key is down, 0 to 1, at which moment of the
page's own clock), `{"command": "restart"}`, and `{"seen": 17}` for a picture that it has drawn. It gets `Server.about`
as JSON, then pictures: four bytes with the length of a JSON object (`Player.status`), the object, a PNG. Where there is
no place for it, it gets `{"full": words, "again": seconds}`, its line is closed, and it opens another then.
"""

from __future__ import annotations

import asyncio
import errno
import html
import io
import ipaddress
import json
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
from aiohttp import WSCloseCode, WSMsgType, web
from PIL import Image

from data_collect.errors import UserError
from game_wm.acceleration.batching import Batch
from game_wm.ui import keymap
from game_wm.ui.players import Keyboard
from game_wm.ui.session import ENDED, check
from game_wm.ui.timing import Pacer

if TYPE_CHECKING:
    from data_collect.schema import ActionSchema
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.world import WorldState

COMMANDS = ("previous", "restart", "next", "pause", "hud", "full_screen")  # of the window's, those of the page
UNSEEN = 2  # pictures on their way to a page at most
HEARTBEAT = 5.0  # seconds between two questions whether a page is still there; it has half of that to answer
NOTICE = 1.6  # seconds that the end of an episode is shown
CLOSING = 1.0  # seconds that a page has to answer when it is told to go
GRACE = 1.0  # seconds that a line waits for a place: a page that is loaded anew opens one before its old one is gone
AGAIN = 5  # seconds until a page that found no place asks for one again
ELSEWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # for all of one's addresses, one that is nobody's
LONGEST = 4096  # bytes of a page's message
FULL = "<!-- full -->"  # where web.html has room for the words that a full game is told in
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}


class Begin(NamedTuple):
    """A dream is to begin in this seed context, with this noise."""

    context: int
    seed: int


Wish = Begin | np.ndarray | None  # begin, a raw action (D,), or rest


class Shown(NamedTuple):
    """A picture, uint8 (H, W, 3), and what was said of the step to it; `began`: there was none."""

    picture: np.ndarray
    reward: float
    ended: bool
    began: bool


class Dreams:
    """The dreams of all players, those at rest aside. For one thread."""

    def __init__(self, checkpoint: Checkpoint, steps: int | None, quality: Quality | None = None) -> None:
        self.checkpoint, self.steps, self.quality = checkpoint, steps, quality
        self.device = next(checkpoint.model.parameters()).device
        self.batch = Batch(checkpoint.model)
        self._take_quality()
        self._members: dict[int, int] = {}  # player -> number in the batch
        self._resting: dict[int, WorldState] = {}

    def turn(self, wishes: Mapping[int, Wish]) -> dict[int, Shown]:
        """One frame for each player who acts, the first picture for each who begins; who is not named has left."""
        for player in [player for player in (*self._members, *self._resting) if player not in wishes]:
            self._drop(player)
        shown, vectors = {}, {}
        for player, wish in wishes.items():
            if isinstance(wish, Begin):
                self._drop(player)
                shown[player] = self._begin(player, wish)
            elif wish is None:
                if player in self._members:
                    self._resting[player] = self.batch.leave(self._members.pop(player))
            else:
                if player in self._resting:
                    self._members[player] = self.batch.join(self._resting.pop(player))
                vector = self.checkpoint.schema.encode(wish)
                vectors[self._members[player]] = torch.from_numpy(vector).to(self.device)
        started = time.perf_counter()
        outcomes = self.batch.step(vectors, self.steps)
        if vectors and self.quality is not None and (words := self.quality.saw(time.perf_counter() - started)):
            print(words, file=sys.stderr, flush=True)
            self._take_quality()
        for player, member in self._members.items():
            outcome = outcomes[member]
            ended = float(outcome.terminated) > ENDED
            shown[player] = Shown(outcome.frames.cpu().numpy(), float(outcome.rewards), ended, False)
        return shown

    def _take_quality(self) -> None:
        if self.quality is not None:
            self.batch.model, self.steps = self.quality.model, self.quality.calls

    def _begin(self, player: int, begin: Begin) -> Shown:
        frames, actions, poses = self.checkpoint.prompt(begin.context)
        self._resting[player] = self.batch.model.begin(frames, actions, begin.seed, poses)
        return Shown(frames[-1].cpu().numpy(), 0.0, False, True)

    def _drop(self, player: int) -> None:
        self._resting.pop(player, None)
        if player in self._members:
            self.batch.leave(self._members.pop(player))


class Player:
    """One page: its keys, where its dream stands, what it has been shown."""

    def __init__(self, schema: ActionSchema, begin: Begin) -> None:
        self.keyboard = Keyboard(schema)
        self.place = begin
        self.begin: Begin | None = begin  # where it is to begin, until it has
        self.paused = self.ended = False
        self.next_place: asyncio.TimerHandle | None = None
        self.frames, self.score = 0, 0.0
        self.picture: np.ndarray | None = None
        self.changed = asyncio.Event()  # there may be something to send
        self.sent = self.seen = 0
        self._fresh = False
        self._asked: float | None = None  # the oldest key that the frame in the making answers
        self._answers: float | None = None  # the oldest key that no picture sent has answered

    def move(self, begin: Begin) -> None:
        """Begin there."""
        self.place = self.begin = begin
        self.ended = False
        if self.next_place is not None:
            self.next_place.cancel()

    @property
    def waits(self) -> bool:
        """Whether it needs no frame."""
        return self.begin is None and (self.paused or self.ended)

    def wish(self) -> Wish:
        """What it wants of the next frame."""
        if self.waits:
            return None
        self._asked = self.keyboard.pressed_at
        begin, self.begin = self.begin, None
        if begin is not None or self.picture is None:
            self._asked = None
            self.keyboard.forget()
            return begin
        action = self.keyboard.act(self.picture, {})
        self.keyboard.forget()
        return self.keyboard.schema.raw(action)

    def show(self, shown: Shown) -> None:
        """The next picture is there."""
        self.frames = 0 if shown.began else self.frames + 1
        self.score = 0.0 if shown.began else self.score + shown.reward
        self.ended = shown.ended and self.begin is None
        self.picture = shown.picture
        self._answers = self._asked if self._answers is None else self._answers
        self.publish()

    def publish(self) -> None:
        """Have what it sees sent (again)."""
        self._fresh = self.picture is not None
        self.changed.set()

    def take(self) -> tuple[dict[str, Any], np.ndarray] | None:
        """The newest status and picture, once; None where there is nothing new, or the line is not free."""
        if not self._fresh or self.picture is None or self.sent - self.seen >= UNSEEN:
            return None
        self._fresh = False
        self.sent += 1
        status, self._answers = self.status() | {"answers": self._answers}, None
        return status, self.picture

    def status(self) -> dict[str, Any]:
        """What the page is told beside the picture."""
        return {
            "frame": self.frames, "score": round(self.score, 3), "place": self.place.context, "paused": self.paused,
            "ended": self.ended,
        }  # fmt: skip


class Server:
    """The page, and up to `players` who play on it.

    `seed`, `context`, `steps`, `fps` and `quality` are those of `Session`; the n-th player to come has the noise, and
    without `context` the place, of seed + n. With a `token`, only addresses that hold it are answered; without one,
    only those of this machine. `UserError` for what the checkpoint cannot play.
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
        self._seed, self._context, self._steps, self._quality = seed, context, steps, quality
        self._contexts = len(checkpoint.contexts_frames)
        self._came = 0
        self._places = asyncio.Semaphore(players)
        self._lines: set[web.WebSocketResponse] = set()
        self._wake = asyncio.Event()
        self.about = _about(checkpoint, commands) | {"limit": players, "places": self._contexts}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes([web.get("/", self._page), web.get("/play", self._play)])
        app.on_shutdown.append(self._dismiss)
        return app

    async def dream(self) -> None:
        """Dream for those who are there, for ever; nothing is computed while nobody plays."""
        pacer, loop = Pacer(self.fps), asyncio.get_running_loop()
        dreams = Dreams(self.checkpoint, self._steps, self._quality)
        known: set[int] = set()
        with ThreadPoolExecutor(1, "model") as model:
            while True:
                self._wake.clear()
                if known <= self.players.keys() and all(player.waits for player in self.players.values()):
                    await self._wake.wait()
                    continue
                await asyncio.sleep(pacer.wait(loop.time()))
                pacer.advance(loop.time())
                wishes = {number: player.wish() for number, player in self.players.items()}
                known = set(wishes)
                shown = await loop.run_in_executor(model, dreams.turn, wishes)
                for number, what in shown.items():
                    if number in self.players:
                        self._show(self.players[number], what)

    def _show(self, player: Player, shown: Shown) -> None:
        player.show(shown)
        if player.ended:
            later = asyncio.get_running_loop().call_later
            player.next_place = later(NOTICE, self._move, player, 1)

    def _move(self, player: Player, places: int) -> None:
        """So many places on; 0: the same again."""
        player.move(Begin((player.place.context + places) % self._contexts, player.place.seed))
        self._wake.set()

    # --- pages --------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse who lacks the token, and pages of other sites that a visitor's browser has open."""
        if self.token is not None:
            if not secrets.compare_digest(request.query.get("token", "").encode(), self.token.encode()):
                return _refusal("the address needs the token that was printed where the player was started")
        elif not is_loopback(_hostname(request.host)):
            return _refusal("this player answers on its own machine alone, as 127.0.0.1 or localhost")
        origin = request.headers.get("Origin")
        if origin is not None and _netloc(origin) != request.host:
            return _refusal("this player answers its own page alone")
        return await handler(request)

    async def _page(self, request: web.Request) -> web.Response:
        """The page; in a full game it is the same one, since a place may be free by the time it asks for it."""
        page = (resources.files("game_wm.ui") / "web.html").read_text("utf-8")
        if len(self.players) < self.limit:
            return web.Response(text=page, content_type="text/html", headers=HEADERS)
        page = page.replace(FULL, html.escape(self._full()))
        headers = {**HEADERS, "Retry-After": str(AGAIN)}
        return web.Response(status=503, text=page, content_type="text/html", headers=headers)

    def _full(self) -> str:
        """What is said to those for whom there is no place."""
        return (
            f"Full\n{self.checkpoint.name} is played by {self.limit} already, as many as can.\n"
            f"This page looks again every {AGAIN} seconds."
        )

    async def _play(self, request: web.Request) -> web.WebSocketResponse:
        """One player, from the connection until it is closed or lost."""
        line = web.WebSocketResponse(heartbeat=self.heartbeat, timeout=CLOSING, max_msg_size=LONGEST)
        await line.prepare(request)
        try:
            async with asyncio.timeout(GRACE):
                await self._places.acquire()
        except TimeoutError:
            with suppress(ConnectionError):
                await line.send_json({"full": self._full(), "again": AGAIN})
            await line.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"full")
            return line
        try:
            await self._seat(line)
        finally:
            self._places.release()
        return line

    async def _seat(self, line: web.WebSocketResponse) -> None:
        """Let the page at the other end of the line play, until it is closed or lost."""
        number = self._came
        self._came += 1
        seed = self._seed + number
        begin = Begin(seed % self._contexts if self._context is None else self._context, seed)
        player = self.players[number] = Player(self.checkpoint.schema, begin)
        self._wake.set()
        self._lines.add(line)
        sender = asyncio.create_task(self._send(player, line))
        try:
            async for message in line:
                if message.type is WSMsgType.TEXT:
                    self._hear(player, json.loads(message.data))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            await line.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a message of the page")
        finally:
            del self.players[number]
            if player.next_place is not None:
                player.next_place.cancel()
            self._wake.set()
            self._lines.discard(line)
            sender.cancel()
            with suppress(asyncio.CancelledError):
                await sender

    async def _send(self, player: Player, line: web.WebSocketResponse) -> None:
        with suppress(ConnectionError):  # the reader of the line sees its end as well, and frees the place
            await line.send_json(self.about)
            while True:
                await player.changed.wait()
                player.changed.clear()
                if (newest := player.take()) is not None:
                    status, picture = newest
                    status["players"] = len(self.players)
                    await line.send_bytes(await asyncio.to_thread(pack, status, picture))

    def _hear(self, player: Player, message: dict[str, Any]) -> None:
        """One message of a page; one of these errors for what a page does not send."""
        if "seen" in message:
            player.seen = min(player.seen + 1, player.sent)
            player.changed.set()
        elif "key" in message:
            key, level, at = message["key"], float(message["level"]), float(message["at"])
            if not (0 <= level <= 1 and math.isfinite(at)):
                raise ValueError(f"a key is down from 0 to 1, not {level}")
            if level:
                player.keyboard.press(key, at, level)
            else:
                player.keyboard.release(key, at)
        elif message["command"] == "pause":
            player.paused = not player.paused
            player.keyboard.forget()
            player.publish()
            self._wake.set()
        else:
            self._move(player, {"restart": 0, "next": 1, "previous": -1}[message["command"]])

    async def _dismiss(self, app: web.Application) -> None:
        for line in set(self._lines):
            await line.close(code=WSCloseCode.GOING_AWAY, message=b"play.py has ended")


def pack(status: dict[str, Any], picture: np.ndarray) -> bytes:
    """The message of one picture, uint8 (H, W, 3); nothing of it is lost."""
    head, png = json.dumps(status).encode(), io.BytesIO()
    Image.fromarray(picture).save(png, "PNG", compress_level=1)
    return len(head).to_bytes(4, "big") + head + png.getvalue()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any that is free); `UserError` where there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"--host {host} is no address of this machine: give 127.0.0.1, or 0.0.0.0 for all"
            ) from None
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({os.strerror(error.errno or 0)})"
        raise UserError(f"port {port} of {host} {what}: name another one with --port") from None


def address(listening: socket.socket, host: str, token: str | None) -> str:
    """What to open in the browser; of all this machine's addresses, the one that other machines know."""
    name = _own_address(host) or socket.gethostname() if host in ELSEWHERE else host
    name = f"[{name}]" if ":" in name else name
    query = f"?token={token}" if token else ""
    return f"http://{name}:{listening.getsockname()[1]}/{query}"


async def serve(server: Server, listening: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until cancelled, as Ctrl-C does; then every page is told."""
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=CLOSING)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        ready()
        await server.dream()
    finally:
        await runner.cleanup()


def _own_address(everywhere: str) -> str | None:
    """The address by which this machine is on its network, of the family of 0.0.0.0 or ::; None where it is on none."""
    family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((ELSEWHERE[everywhere], 9))  # of a datagram socket: looks up the route, sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    found = ipaddress.ip_address(own)
    return None if found.is_unspecified or found.is_loopback or found.is_link_local else own


def is_loopback(host: str) -> bool:
    """Whether only this machine can come by this name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    return {"name": checkpoint.name, "axes": schema.kind == "box", "keys": keys, "commands": offered} | size


def _hostname(host: str) -> str:
    """The name in a Host header, without its port."""
    with suppress(ValueError):  # a name with half a bracket is nobody's
        return urlsplit(f"//{host}").hostname or ""
    return ""


def _netloc(origin: str) -> str:
    with suppress(ValueError):
        return urlsplit(origin).netloc
    return ""


def _refusal(sentence: str) -> web.Response:
    return web.Response(status=403, text=f"403: {sentence}\n", headers=HEADERS)
