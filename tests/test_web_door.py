"""Strangers at the door of `play.py --web`: whatever they send or leave out, others play on and nothing is printed."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from web_table import SOON, Page, Table, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play.web import door, dreams, lines, server  # noqa: E402
from game_wm.play.web.limits import MANY, Bucket, Buckets  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
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


# --- connections that are nobody's ------------------------------------------------------------------------------


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
    monkeypatch.setattr(door, "PATIENCE", 0.5)

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
            await table.until(lambda: len(table.server.seats.players) == 1)

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


# --- players who do harm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        frame(9, b"ping") * 4000, frame(10, b"") * 4000, frame(1, b'{"seen": 1}') * 4000,
        frame(1, b'{"key": "up", "level": 1, "at": 1}') * 4000, frame(1, b"", False) + frame(0, b"", False) * 60000,
        frame(1, b"{", final=False) + frame(0, b" " * 100, final=False) * 200, frame(2, b"binary"),
        frame(1, b"\xff\xfe"), frame(1, b"[" * 3000), frame(1, b"a" * 5000), frame(3, b""), frame(8, b"\x00"),
        frame(1, b'{"key": "up", "level": NaN, "at": NaN}'), frame(1, b'{"hidden": [[]]}') + frame(1, b'{"rewind": }'),
    ],
    ids=["pings", "pongs", "seen", "keys", "fragments", "large-fragments", "binary", "utf-8", "deep", "large", "opcode",
         "close", "nan", "no-json"],
)  # fmt: skip
def test_what_no_page_says_ends_its_line_alone(
    loaded: Checkpoint, words: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            reader, writer = await asyncio.open_connection("127.0.0.1", table.port)
            writer.write(HANDSHAKE)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            await table.seats(2)
            writer.write(words)
            await lost(reader)
            writer.close()
            await table.seats(1)

    run(play())


def test_who_is_sent_away_hears_why_though_he_is_slow(loaded: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    """A page that hears no reason comes back by itself, and would take the dream from the one that has it now."""

    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            reader, writer = await asyncio.open_connection("127.0.0.1", table.port)
            writer.write(HANDSHAKE)
            await table.seats(2)
            await table.until(lambda: table.server.seats.players[1].moment is not None)
            ticket = table.server.seats.players[1].ticket
            taking = asyncio.create_task(table.sit(ticket))
            for _ in range(20):  # what it says while it has not read the farewell
                writer.write(frame(1, b'{"seen": 1}'))
                await asyncio.sleep(0.01)
            said = b""
            while code_of(said) is None:
                said += await asyncio.wait_for(reader.read(1 << 16), SOON)
            assert code_of(said) == lines.PLAYED_ELSEWHERE
            writer.write(frame(8, lines.PLAYED_ELSEWHERE.to_bytes(2, "big")))
            there = await taking
            assert (await there.about())["ticket"] == ticket
            await there.line.close()
            writer.close()

    run(play())


def code_of(said: bytes) -> int | None:
    """The code of the farewell that a server's words end with, None where they end with none."""
    said = said.partition(b"\r\n\r\n")[2]
    while len(said) > 1:
        length, head = said[1], 2
        if length > 125:
            head += 2 if length == 126 else 8
            length = int.from_bytes(said[2:head], "big")
        if said[0] == 0x88:
            return int.from_bytes(said[head : head + 2], "big")
        said = said[head + length :]
    return None


def test_who_does_not_read_loses_his_seat(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """He says that he has seen all pictures and reads none, or sends pings whose answers he does not read."""
    monkeypatch.setattr(server, "OWES", 0.5)

    async def play() -> None:
        async with served(loaded, heartbeat=60) as table, beside(table, capfd):
            _, writer = await asyncio.open_connection("127.0.0.1", table.port, limit=1)
            writer.write(HANDSHAKE)
            await table.seats(2)
            await table.seats(1)  # as soon as he owes an answer for too long
            writer.close()

    run(play())


@pytest.mark.parametrize(
    "words", ['{"command": "next"}', '{"command": "restart"}', '{"command": "pause"}', '{"rewind": true}'],
    ids=["next", "restart", "pause", "rewind"],
)  # fmt: skip
def test_a_flood_of_wishes_moves_the_batch_rarely(
    loaded: Checkpoint, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What costs the others, dreams that begin, join and leave, is as rare as CHANGES says; prompts are read once."""
    batch, calls = dreams.Batch, dict.fromkeys(("join", "leave"), 0)
    for name in calls:
        old = getattr(batch, name)
        monkeypatch.setattr(
            batch,
            name,
            lambda self, what, name=name, old=old: (calls.update({name: calls[name] + 1}), old(self, what))[1],
        )
    began: list[float] = []
    begin = dreams.Dreams._begin
    monkeypatch.setattr(
        dreams.Dreams, "_begin", lambda self, *rest: (began.append(time.monotonic()), begin(self, *rest))[1]
    )
    read: list[int] = []
    model_begin = loaded.model.begin
    monkeypatch.setattr(loaded.model, "begin", lambda *rest: (read.append(1), model_begin(*rest))[1])

    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            bob = await table.sit()
            await bob.about()
            await bob.until(lambda status: status["frame"] >= 1)

            async def spam() -> None:
                while True:
                    await bob.line.send_str(words)
                    await asyncio.sleep(0.01)

            async def look() -> None:
                while True:
                    await bob.look()

            started, before = time.monotonic(), sum(calls.values())
            del began[:]
            tasks = [asyncio.create_task(spam()), asyncio.create_task(look())]
            ann = table.server.seats.players[0]
            reached = ann.moment.frames if ann.moment else 0
            await table.until(lambda: ann.moment is not None and ann.moment.frames > reached + 60)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rate, burst = 1.0, 4.0
            changes = burst + rate * (time.monotonic() - started) + 1
            assert len(began) <= changes and sum(calls.values()) - before <= 2 * changes
            assert len(read) <= len(loaded.contexts_frames)
            await bob.line.close()
            await table.seats(1)

    run(play())


def test_who_comes_and_goes_all_the_time_waits(loaded: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    async def play() -> None:
        async with served(loaded) as table, beside(table, capfd):
            started, came = time.monotonic(), table.server.seats.came

            async def hurry() -> None:
                while True:
                    bob = await table.sit()
                    try:
                        await bob.about()
                    finally:
                        await bob.line.close()

            task = asyncio.create_task(hurry())
            ann = table.server.seats.players[0]
            reached = ann.moment.frames if ann.moment else 0
            await table.until(lambda: ann.moment is not None and ann.moment.frames > reached + 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rate, burst = server.ARRIVALS
            assert table.server.seats.came - came <= burst + rate * (time.monotonic() - started) + 1

    run(play())


class Clock:
    """A clock that a test turns, and that reading a prompt turns by two seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


def test_prompts_are_read_at_a_twentieth_of_the_others_time(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begin = Clock(), loaded.model.begin

    def slow(*arguments: Any) -> Any:
        clock.now += 2.0
        return begin(*arguments)

    monkeypatch.setattr(dreams, "time", clock)
    monkeypatch.setattr(loaded.model, "begin", slow)
    play = dreams.Dreams(loaded, None)
    idle, place = loaded.schema.raw(loaded.schema.noop()), dreams.Begin
    assert len(play.turn({0: place(0, 0), 1: place(0, 1)})) == 2 and clock.now == 2.0  # nobody plays yet; read once

    def turn(**wishes: dreams.Wish) -> set[int]:
        shown = play.turn({0: idle} | {int(name[1:]): wish for name, wish in wishes.items()})
        return {player for player, what in shown.items() if player and what.began}

    assert turn(p1=place(1, 1), p2=place(2, 2)) == set()  # 38 seconds, nineteen times as long, for player 0
    assert turn(p1=place(0, 7), p2=place(2, 2)) == {1}  # what has been read costs nothing
    clock.now = 40.0
    assert turn(p1=place(1, 1), p2=place(2, 2)) == {2}  # who has waited for longer comes first
    assert clock.now == 42.0 and turn(p1=place(1, 1), p2=idle) == set()
    clock.now = 80.0
    assert turn(p1=place(1, 1), p2=idle) == {1} and not play.read_ahead()


def test_what_is_kept_of_prompts_is_bounded(loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    play = dreams.Dreams(loaded, None)
    assert play.read_ahead()
    size = sum(state.nbytes for state in play._read.values())
    monkeypatch.setattr(dreams, "PROMPT_BYTES", 2 * size)
    assert play.read_ahead() and not play.read_ahead()
    for context in (2, 0, 1, 2):
        play.turn({0: dreams.Begin(context, 0)})
        assert len(play._read) == 2


def test_a_dream_begins_as_if_its_prompt_had_been_read_for_it(loaded: Checkpoint) -> None:
    play = dreams.Dreams(loaded, None)
    idle = loaded.schema.raw(loaded.schema.noop())
    for seed in (3, 4, 3):
        play.turn({0: dreams.Begin(1, seed)})
        fresh = loaded.model.begin(*loaded.prompt(1)[:2], seed, None).to_dict()
        kept = play.copy(0).state.to_dict()
        assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
        play.turn({0: idle})  # and changes nothing of what is kept
