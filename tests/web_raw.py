"""Raw connections to the server of web_table.py, for tests of what visitors may do to it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from web_table import SOON, Table  # noqa: E402

HANDSHAKE = (
    b"GET /play HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(200)


def frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    """A WebSocket frame as a browser sends it, with a mask that changes nothing."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([opcode | 0x80 * final]) + length + bytes(4) + payload


@asynccontextmanager
async def beside(table: Table, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[None]:
    """Somebody plays before, meanwhile and after; nobody else is left, and nothing was printed."""
    ann = await table.sit()
    await ann.about()
    await ann.until(lambda status: status["frame"] >= 2)
    reached = ann.pictures[-1][0]["frame"]
    watching = asyncio.create_task(ann.until(lambda status: False))
    yield
    assert not watching.done()
    await table.until(lambda: ann.pictures[-1][0]["frame"] > reached)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    async with table.session.get(table.http) as answer:
        assert answer.status in (200, 503)
    await table.until(lambda: len(table.server.door.known) == 1)
    await ann.line.close()
    await table.seats(0)
    assert capfd.readouterr() == ("", "")


async def lost(reader: asyncio.StreamReader) -> bytes:
    """Wait until the other end has closed the line; what it said before."""
    said = b""
    async with asyncio.timeout(SOON):
        try:
            while more := await reader.read(65536):
                said += more
        except ConnectionError:
            pass
    return said
