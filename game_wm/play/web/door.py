"""The door: which connections are let in, before it is known whose they are, and for how long.

    door = Door(listening, runner.server)       # aiohttp's, which makes the protocol of each connection
    await door.open()                           # lets in, until it is cancelled
    door.of(request).keep()                     # a player uses this one: it may stay

Anybody can connect, and a connection that says nothing, a byte a second or gibberish costs as much as one that plays.
So each has UNKEPT_SECONDS, whatever it does in them, unless it is kept; few may be open from one address, and fewer
than the process has file descriptors for in all. Where one too many comes, the oldest of those that are not kept is
closed: a page sends its request at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from game_wm.play.web.limits import Bucket

UNKEPT_SECONDS = 8.0  # seconds from the first packet until a connection must be a player's, or have its page
RELEASED_SECONDS = 2.0  # seconds that one which was kept has for its farewell
MOST_CONNECTIONS = 256  # connections, where the process may have twice as many file descriptors
FROM_ONE = 16  # connections that are not kept, from one address
ACCEPTED = 250.0, 400.0  # connections, a second and at once: the rest wait in the kernel, at no cost to players
BYTES = 32e3, 128e3  # of one connection: six times what a page sends with both thumbs on it


class Connection(asyncio.Protocol):
    """One connection: hands all on to aiohttp's protocol, and cuts the line when its time or its bytes are up."""

    def __init__(self, door: Door, inner: asyncio.Protocol, line: socket.socket, address: str) -> None:
        self.address, self.kept, self.lost = address, False, False
        self.transport: asyncio.Transport | None = None
        self._door, self._inner, self._line = door, inner, line
        self._bytes = Bucket(*BYTES)
        self._end = asyncio.get_running_loop().call_later(UNKEPT_SECONDS, self.cut)
        self.opening: asyncio.Task[None] | None = None

    def keep(self) -> None:
        self.kept = True
        self._end.cancel()

    def release(self) -> None:
        """It is to be closed; one that does not read would never be otherwise."""
        self.kept = False
        self._end.cancel()
        if not self.lost:
            self._end = asyncio.get_running_loop().call_later(RELEASED_SECONDS, self.cut)

    def cut(self) -> None:
        """Close it at once, without waiting for what it has not read."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def opened(self) -> None:
        """It has been opened, or could not be, or was cut before anything was tried."""
        if self.transport is None:
            self._line.close()
            self._gone()

    def _gone(self) -> None:
        self._end.cancel()
        self._door.forget(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._door.known[transport] = self
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._bytes.take(len(data)):
            self._inner.data_received(data)
        else:
            self.cut()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._inner.connection_lost(error)
        self._gone()


class Door:
    """Lets connections in, each with a protocol that `protocols` makes, encrypted where there is `tls`."""

    def __init__(
        self, listening: socket.socket, protocols: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> None:
        self.most = room()
        self.known: dict[asyncio.BaseTransport, Connection] = {}
        self._listening, self._protocols, self._tls = listening, protocols, tls
        self._there: dict[Connection, None] = {}  # in the order in which they came
        self._accepted = Bucket(*ACCEPTED)
        listening.setblocking(False)

    def of(self, request: web.BaseRequest) -> Connection:
        """The connection that a request came by; ConnectionError where it is gone."""
        connection = None if request.transport is None else self.known.get(request.transport)
        if connection is None:
            raise ConnectionResetError("the connection is gone")
        return connection

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if not self._accepted.take():
                    await asyncio.sleep(self._accepted.wait())
                    continue
                try:
                    line, peer = await loop.sock_accept(self._listening)
                except OSError:  # it is gone again, or something else has taken the last file descriptor
                    self._make_room(self._there)
                    await asyncio.sleep(0.05)
                    continue
                self._let_in(line, network(str(peer[0])))
        finally:
            self._listening.close()
            for connection in list(self._there):
                connection.cut()

    def forget(self, connection: Connection) -> None:
        self._there.pop(connection, None)
        if connection.transport is not None:
            self.known.pop(connection.transport, None)

    def _let_in(self, line: socket.socket, address: str) -> None:
        from_there = [c for c in self._there if c.address == address and not c.kept]
        if len(from_there) >= min(FROM_ONE, self.most // 2):
            self._make_room(from_there)
        if len(self._there) >= self.most and not self._make_room(self._there):
            line.close()
            return
        connection = Connection(self, self._protocols(), line, address)
        self._there[connection] = None
        connection.opening = asyncio.create_task(self._start(connection, line))
        connection.opening.add_done_callback(lambda _: connection.opened())

    async def _start(self, connection: Connection, line: socket.socket) -> None:
        loop, tls = asyncio.get_running_loop(), self._tls
        limit = None if tls is None else UNKEPT_SECONDS
        with suppress(OSError):  # ssl.SSLError and that it took too long among them: it spoke no TLS, or not ours
            await loop.connect_accepted_socket(lambda: connection, line, ssl=tls, ssl_handshake_timeout=limit)

    def _make_room(self, among: dict[Connection, None] | list[Connection]) -> bool:
        """Close the oldest that is not kept, of the address that has most of them; False where all are kept."""
        loose = [connection for connection in among if not connection.kept]
        if not loose:
            return False
        (address, _), *_ = Counter(connection.address for connection in loose).most_common(1)
        oldest = next(connection for connection in loose if connection.address == address)
        oldest.cut()
        self.forget(oldest)
        return True


def network(address: str) -> str:
    """What counts as one address: of IPv6 the network, whose addresses a single machine may all have."""
    with suppress(ValueError):
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address):
            mapped = found.ipv4_mapped
            return str(mapped or ipaddress.ip_network((found, 64), strict=False))
    return address


def room() -> int:
    """How many connections may be open: half of the process's file descriptors; the model's files have the rest."""
    if sys.platform == "win32":  # which counts no descriptors
        return MOST_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(2, min(MOST_CONNECTIONS, soft // 2))
