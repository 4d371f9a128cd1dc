"""Players who do harm: what no page says, slow readers, floods of wishes."""

from __future__ import annotations

import asyncio
import time

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from web_raw import HANDSHAKE, beside, frame, lost  # noqa: E402
from web_table import SOON, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play.web import dreams, lines, rooms, server  # noqa: E402

pytestmark = pytest.mark.slow


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
            await table.until(lambda: table.room.seats.players[1].moment is not None)
            ticket = table.room.seats.players[1].ticket
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
    monkeypatch.setattr(rooms, "OWES", 0.5)

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
            ann = table.room.seats.players[0]
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
            started, came = time.monotonic(), table.room.seats.came

            async def hurry() -> None:
                while True:
                    bob = await table.sit()
                    try:
                        await bob.about()
                    finally:
                        await bob.line.close()

            task = asyncio.create_task(hurry())
            ann = table.room.seats.players[0]
            reached = ann.moment.frames if ann.moment else 0
            await table.until(lambda: ann.moment is not None and ann.moment.frames > reached + 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rate, burst = server.ARRIVALS
            assert table.room.seats.came - came <= burst + rate * (time.monotonic() - started) + 1

    run(play())
