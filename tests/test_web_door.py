"""Connections that are nobody's: cut in time, few from one address, and no harm to who plays."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from web_raw import HANDSHAKE, TLS_HELLO, beside, frame, lost  # noqa: E402
from web_table import SOON, Page, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play.web import door  # noqa: E402
from game_wm.play.web.limits import MANY, Bucket, Buckets  # noqa: E402

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "first",
    [
        b"", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", HANDSHAKE[:-4],
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
    ],
    ids=["silent", "half-word", "half-header", "half-handshake", "half-body"],
)  # fmt: skip
def test_who_says_too_little_is_cut(
    loaded: Checkpoint, first: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At once or a byte at a time: PATIENCE counts from the first packet."""
    monkeypatch.setattr(door, "UNKEPT_SECONDS", 0.5)

    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            lines = [await asyncio.open_connection("127.0.0.1", table.port) for _ in range(3)]
            for _, writer in lines:
                writer.write(first)

            async def trickle(writer: asyncio.StreamWriter) -> None:
                while not writer.is_closing():
                    writer.write(b"a")
                    await asyncio.sleep(0.02)

            slow = asyncio.create_task(trickle(lines[0][1]))
            for reader, _ in lines:
                await lost(reader)
            slow.cancel()

    run(play())


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (TLS_HELLO, b"400"), (b"\xff\x00" * 500, b"400"), (b"HELO you\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60000 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(500)) + b"\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200, b"200"),
        (b"GET /play HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET /dream HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"a" * 400000, b""),
    ],
    ids=["tls", "noise", "other", "header", "headers", "pipeline", "no-upgrade", "path", "dream", "method", "flood"],
)  # fmt: skip
def test_what_is_no_request_of_the_page(
    loaded: Checkpoint, words: bytes, answer: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            reader, writer = await asyncio.open_connection("127.0.0.1", table.port)
            writer.write(words)
            said = await lost(reader)
            assert said.split(b" ")[1:2] == ([answer] if answer else []) and said.count(b"HTTP/1.1 ") <= 1
            writer.close()

    run(play())


def test_lines_that_break_at_any_moment(loaded: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            for words in (b"", request[:10], request, HANDSHAKE[:50], HANDSHAKE, HANDSHAKE + frame(1, b"{")[:4]):
                for reset in (True, False):
                    line = socket.create_connection(("127.0.0.1", table.port))
                    if reset:
                        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    line.sendall(words)
                    line.close()
                    await asyncio.sleep(0)
            await table.until(lambda: len(table.room.seats.players) == 1)

    run(play())


def test_few_connections_from_one_address(loaded: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    """The oldest goes; whoever plays, or comes from elsewhere, stays."""

    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            elsewhere, kept = await asyncio.open_connection("127.0.0.1", table.port, local_addr=("127.0.0.2", 0))
            lines = [await asyncio.open_connection("127.0.0.1", table.port) for _ in range(door.FROM_ONE + 3)]
            for reader, _ in lines[:3]:
                await lost(reader)
            assert len(table.server.door.known) == 1 + 1 + door.FROM_ONE
            assert not elsewhere.at_eof() and not any(reader.at_eof() for reader, _ in lines[3:])
            async with table.session.get(table.http) as answer:  # in place of the next one
                assert answer.status == 200
            for _, writer in lines:
                writer.close()
            table.server.door.most = 3
            lines = [await asyncio.open_connection("127.0.0.1", table.port) for _ in range(3)]
            await lost(lines[0][0])
            assert not elsewhere.at_eof()
            for writer in (kept, *(writer for _, writer in lines)):
                writer.close()

    run(play())


def test_connections_come_at_a_rate(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those beyond it wait, and come in then."""
    monkeypatch.setattr(door, "ACCEPTED", (1.0, 4.0))

    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            lines = [await asyncio.open_connection("127.0.0.1", table.port) for _ in range(5)]
            assert len(table.server.door.known) <= 4
            await table.until(lambda: len(table.server.door.known) == 6)
            for _, writer in lines:
                writer.close()

    run(play())


def test_addresses_that_count_as_one() -> None:
    assert door.network("192.0.2.7") == door.network("::ffff:192.0.2.7") == "192.0.2.7"
    assert door.network("2001:db8::1") == door.network("2001:db8::ffff:1%eth0") != door.network("2001:db8:0:1::1")
    assert door.network("") == ""


def test_a_bucket() -> None:
    now = 0.0
    bucket = Bucket(2.0, 3.0, lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.wait() == 0.5 and not bucket.full
    now = 0.5
    assert bucket.take() and not bucket.take()
    now = 100.0
    assert bucket.full and [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_addresses_that_are_quiet_are_forgotten() -> None:
    buckets = Buckets(1e9, 1.0)
    for number in range(10 * MANY):
        buckets.of(str(number)).take()
    assert len(buckets) <= MANY


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors of POSIX")
def test_silent_sockets_beyond_the_file_descriptors(web_path: Path) -> None:
    options = "--web --port 0 --precision 32 --players 1"
    command = f"ulimit -n 256; exec {sys.executable} play.py {web_path} {options}"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines: list[socket.socket] = []
    try:
        assert process.stdout is not None
        http = process.stdout.readline().strip().rstrip("/")
        port = int(http.rpartition(":")[2])

        async def play() -> None:
            async with aiohttp.ClientSession() as session:
                page = Page(await session.ws_connect(f"{http}/play"))
                await page.about()
                for count in (150, 300):
                    while len(lines) < count:
                        lines.append(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port)))
                    reached = (await page.look())["frame"]
                    await page.until(lambda status, reached=reached: status["frame"] > reached + 5)
                    async with session.get(http) as answer:
                        assert answer.status == 503 and "Full" in await answer.text()
                await page.line.close()
                other = Page(await session.ws_connect(f"{http}/play"))
                await other.about()
                await other.until(lambda status: status["frame"] > 5)

        run(play())
        open_files = len(os.listdir(f"/proc/{process.pid}/fd")) if sys.platform == "linux" else 0
        assert open_files < 64
        process.terminate()
        _, err = process.communicate(timeout=SOON)
        assert len(err) < 10_000 and "Traceback" not in err
    finally:
        process.kill()
        process.wait()
        for line in lines:
            line.close()
