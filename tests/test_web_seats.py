"""Several players on one server: places, lines that break, and who comes back."""

from __future__ import annotations

import asyncio

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from web_table import SOON, Page, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play.web import dreams, lines, rooms, seats  # noqa: E402
from game_wm.play.web.player import MOST_UNSEEN  # noqa: E402

pytestmark = pytest.mark.slow


def test_two_play_at_once_and_the_third_is_told(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, players=2) as table:
            ann = await table.sit()
            bob = await table.sit()
            await ann.about()
            await bob.about()
            for page in (ann, bob):
                await page.until(lambda status: status["frame"] >= 3 and status["players"] == 2)
            assert table.room.seats.players.keys() == {0, 1}
            assert [page.pictures[0][0]["place"] for page in (ann, bob)] == [0, 1]
            async with table.session.get(table.http) as answer:
                assert answer.status == 503 and "tiny is played by 2 already" in await answer.text()
            late = await table.sit()
            assert "tiny is played by 2 already" in (await late.about())["full"]
            message = await late.line.receive(SOON)
            assert message.type is aiohttp.WSMsgType.CLOSE and message.data == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            await bob.line.close()
            await table.seats(1)
            async with table.session.get(table.http) as answer:
                assert answer.status == 200
            cid = await table.sit()
            await cid.about()
            await cid.until(lambda status: status["frame"] >= 3)
            before = (await ann.look())["frame"]  # who stayed has gone on in the same dream
            assert (await ann.until(lambda status: status["frame"] > before))["place"] == 0

    run(play())


def test_a_page_that_comes_before_its_old_line_goes_gets_the_place(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, players=1) as table:
            old = await table.sit()
            await old.about()
            new = await table.sit()
            await asyncio.sleep(0.1)
            assert table.room.seats.players.keys() == {0}
            await old.line.close()
            assert (await new.about())["name"] == "tiny"
            await new.until(lambda status: status["frame"] >= 2 and status["players"] == 1)
            late = await table.sit()
            assert "full" in await late.about()

    run(play())


def test_one_who_rests_does_not_hold_up_the_other(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            ann, bob = await table.sit(), await table.sit()
            await ann.about()
            await bob.about()
            await ann.say(command="pause")
            stopped = (await ann.until(lambda status: status["paused"]))["frame"]
            await bob.until(lambda status: status["frame"] > stopped + 20)
            assert table.room.seats.players[0].moment.frames <= stopped + 1
            await ann.say(command="pause")
            await ann.until(lambda status: status["frame"] == stopped + 3)

    run(play())


def test_a_killed_connection_frees_its_place(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, players=1) as table:
            page = await table.sit()
            await page.about()
            await table.seats(1)
            transport = page.line._response.connection.transport
            transport.abort()  # a reset, no farewell
            await table.seats(0)
            again = await table.sit()
            await again.about()
            await again.until(lambda status: status["frame"] >= 2)

    run(play())


def test_a_page_that_does_not_answer_loses_its_place(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, heartbeat=0.8) as table:
            await table.sit(autoping=False)  # as behind a line that was cut: open, and silent
            await table.seats(1)
            await table.seats(0)
            there = await table.sit()
            await there.about()
            await there.until(lambda status: status["frame"] >= 80)  # who answers stays

    run(play())


def test_a_slow_page_gets_the_newest_pictures(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            page = await table.sit()
            await page.about()
            first = [await page.look(seen=False) for _ in range(MOST_UNSEEN)]
            (player,) = table.room.seats.players.values()
            async with asyncio.timeout(SOON):
                while player.moment.frames < 40:
                    await asyncio.sleep(0.01)
            now = player.moment.frames
            await page.say(seen=first[0]["frame"])
            newest = (await page.look(seen=False))["frame"]
            assert first[-1]["frame"] < 10 and newest >= now  # what was dreamt between is nowhere
            with pytest.raises(TimeoutError):
                await page.line.receive(0.3)

    run(play())


def test_nothing_is_dreamt_while_nobody_plays(loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    turn = dreams.Dreams.turn
    monkeypatch.setattr(seats, "LEFT_SECONDS", 0.05)
    monkeypatch.setattr(dreams.Dreams, "turn", lambda self, wishes: (turns.append(len(wishes)), turn(self, wishes))[1])

    async def play() -> None:
        async with served(loaded) as table:
            page = await table.sit()
            await page.about()
            await page.look()
            await page.line.close()
            await table.seats(0)
            await asyncio.sleep(0.1)
            assert turns[-1] == 0  # the dream of the one who left is let go
            before = len(turns)
            await asyncio.sleep(0.2)
            assert len(turns) == before

    run(play())


async def closed(page: Page) -> int | None:
    """Wait until a page's line is closed; with which code."""
    async with asyncio.timeout(SOON):
        while (await page.line.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
    return page.line.close_code


def test_a_line_that_breaks_is_gone_on_with(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, players=1) as table:
            ann = await table.sit()
            ticket = (await ann.about())["ticket"]
            await ann.say(command="next")
            await ann.until(lambda status: status["place"] == 1 and status["frame"] >= 5)
            await ann.line.close()
            await table.seats(0)
            left = table.room.seats.left[0][0].moment.frames
            other = await table.sit(ticket="not hers")
            assert (await other.about())["ticket"] != ticket
            assert (await other.until(lambda status: status["frame"] >= 2))["place"] == 1  # of seed 1
            await other.line.close()
            await table.seats(0)
            again = await table.sit(ticket)
            assert (await again.about())["ticket"] == ticket
            assert await again.look() | {"answers": None} == ann.pictures[-1][0] | {"frame": left, "answers": None}
            await again.until(lambda status: status["frame"] >= left + 3)
            assert table.room.seats.players.keys() == {0}

    run(play())


def test_the_same_dream_in_another_tab_goes_on_there(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, players=1) as table:
            old = await table.sit()
            ticket = (await old.about())["ticket"]
            await old.until(lambda status: status["frame"] >= 3)
            new = await table.sit(ticket)
            assert await closed(old) == lines.PLAYED_ELSEWHERE
            await new.about()
            assert (await new.look())["frame"] >= 3 and table.room.seats.players.keys() == {0}

    run(play())


def test_who_comes_and_goes_takes_nobody_elses_dream(loaded: Checkpoint) -> None:
    async def play() -> None:
        elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with served(loaded, players=2) as table, aiohttp.ClientSession(connector=elsewhere) as session:
            ann = Page(await session.ws_connect(f"{table.http}/play"))
            ticket = (await ann.about())["ticket"]
            await ann.until(lambda status: status["frame"] >= 3)
            await ann.line.close()
            await table.seats(0)
            for _ in range(4):
                bob = await table.sit()
                await bob.about()
                await bob.look()
                await bob.line.close()
                await table.seats(0)
            assert table.room.seats.left.keys() == {0, 4}
            again = Page(await session.ws_connect(f"{table.http}/play?ticket={ticket}"))
            await again.about()
            assert (await again.look())["frame"] >= 3

    run(play())


@pytest.mark.parametrize("limit", ["AWAY", "PAUSED", "OWES"])
def test_a_seat_is_given_up(loaded: Checkpoint, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, limit, 0.4)
    word = {"AWAY": {"hidden": True}, "PAUSED": {"command": "pause"}, "OWES": None}[limit]

    async def play() -> None:
        async with served(loaded, players=2) as table:
            ann, bob = await table.sit(), await table.sit()
            for page in (ann, bob):
                await page.about()
                await page.until(lambda status: status["frame"] >= 2)
            bob_plays = asyncio.create_task(bob.until(lambda status: status["players"] == 1))
            if word is not None:
                await ann.say(**word)
                await table.until(lambda: table.room.seats.players[0].waits)
            assert await closed(ann) == lines.GONE
            await bob_plays
            assert table.room.seats.players.keys() == {1} and table.room.seats.left.keys() == {0}

    run(play())


def test_a_hidden_page_costs_nothing(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            ann, bob = await table.sit(), await table.sit()
            await ann.about()
            await bob.about()
            await ann.until(lambda status: status["frame"] >= 2)
            await ann.say(hidden=True)
            await bob.until(lambda status: status["frame"] > 20)
            stopped = table.room.seats.players[0].moment.frames
            await bob.until(lambda status: status["frame"] > 40)
            assert table.room.seats.players[0].moment.frames == stopped
            await ann.say(hidden=False)
            await ann.until(lambda status: status["frame"] >= stopped + 3)

    run(play())
