"""The player in a browser: a real server on a free port, and aiohttp's client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from tiny import tiny_checkpoint  # noqa: E402
from web_table import SOON, Page, car, run, served  # noqa: E402

from data_collect.errors import UserError, main_guard  # noqa: E402
from game_wm.checkpoint import Checkpoint, load  # noqa: E402
from game_wm.dream import saved  # noqa: E402
from game_wm.play import app, keymap, web  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.web import addresses, dreams, lines, seats, server  # noqa: E402
from game_wm.play.web.page import PAGE_COMMANDS  # noqa: E402
from game_wm.play.web.player import UNSEEN  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


# --- one player -------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table, table.session.get(table.http) as answer:
            page = await answer.text()
            assert answer.status == 200 and "<canvas" in page and "://" not in page.replace('"}://${location', "")
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
            assert page.count("<script>") == page.count("</script>") == policy.split("; ")[1].count("sha256")

    run(play())


def test_frames_are_those_of_the_model_under_the_same_keys(loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Any] = []
    step = dreams.Batch.step
    monkeypatch.setattr(dreams.Batch, "step", lambda *a: (played.extend(a[1].values()), step(*a))[1])
    page: Page

    async def play() -> None:
        nonlocal page
        async with served(loaded, seed=7) as table:
            page = await table.sit()
            about = await page.about()
            assert (about["name"], about["width"], about["limit"], about["places"]) == ("tiny", 16, 2, 3)
            assert {"keys": ["up"], "text": "forward"} in about["keys"]
            assert [command["name"] for command in about["commands"]] == [
                command.name for command in keymap.COMMANDS if command.name in PAGE_COMMANDS
            ]
            await page.until(lambda status: status["frame"] >= 3)
            await page.say(key="up", level=1, at=123.5)
            await page.until(lambda status: status["answers"] == 123.5)
            await page.say(key="left", level=1, at=130)
            await page.say(key="up", level=0, at=131)
            await page.until(lambda status: status["answers"] == 130)
            await page.until(lambda status: status["frame"] >= 20)

    run(play())
    assert {tuple(action.tolist()) for action in played} >= {(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0)}
    frames, actions = loaded.contexts_frames[7 % 3], loaded.contexts_actions[7 % 3]
    state = loaded.model.start(frames[None], actions[None], torch.tensor([7]))
    dreamt = [frames[-1].numpy()]
    for action in played:
        outcome, state = loaded.model.step(state, action[None])
        dreamt.append(outcome.frames[0].numpy())
    assert len(page.pictures) > 10 and len({picture.tobytes() for _, picture in page.pictures}) > 10
    for status, picture in page.pictures:
        assert np.array_equal(picture, dreamt[status["frame"]])


def test_another_place_the_same_again_and_a_pause(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            page = await table.sit()
            await page.about()
            await page.until(lambda status: status["frame"] >= 2)
            assert page.pictures[0][0]["place"] == 0
            await page.say(command="next")
            await page.until(lambda status: status["place"] == 1 and status["frame"] == 0)
            assert np.array_equal(page.pictures[-1][1], loaded.contexts_frames[1, -1].numpy())
            await page.until(lambda status: status["frame"] >= 2)
            await page.say(command="restart")
            await page.until(lambda status: status["place"] == 1 and status["frame"] == 0)
            await page.say(command="previous")
            await page.say(command="previous")
            await page.until(lambda status: status["place"] == 2 and status["frame"] == 3)
            await page.say(command="pause")
            stopped = await page.until(lambda status: status["paused"])
            with pytest.raises(TimeoutError):
                while True:  # the frame that was in the making may follow
                    frame = json.loads((await page.line.receive(0.3)).data[4:].split(b"}")[0] + b"}")["frame"]
                    assert frame <= stopped["frame"] + 1
            await page.say(seen=0)
            await page.say(command="pause")
            await page.until(lambda status: status["frame"] >= stopped["frame"] + 3)

    run(play())


def test_after_the_end_comes_the_next_place(web_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = load(web_path)
    ending.model.dynamics.context.outcome.bias[0] = 50
    monkeypatch.setattr(seats, "NOTICE", 0.05)

    async def play() -> None:
        async with served(ending) as table:
            page = await table.sit()
            await page.about()
            assert (await page.until(lambda status: status["ended"]))["frame"] == 1
            assert (await page.until(lambda status: status["place"] == 1))["ended"] is False

    run(play())


def test_axes_go_part_of_the_way(web_path: Path) -> None:
    seen = []

    async def play() -> None:
        async with served(car(web_path)) as table:
            page = await table.sit()
            assert (await page.about())["axes"]
            await page.until(lambda status: status["frame"] >= 1)
            await page.say(key="left", level=0.25, at=1)
            await page.until(lambda status: status["answers"] == 1)
            (player,) = table.server.seats.players.values()
            seen.append(player.keyboard.act(np.zeros(0), {}))

    run(play())
    assert seen[0].tolist() == [-0.25, 0, 0, 0]


@pytest.mark.parametrize("words", ["{", "[1]", "3", '{"key": "up", "level": NaN, "at": 0}', '{"command": "dance"}',
                                   '{"key": "up", "level": 2, "at": 0}', '{"key": [], "level": 1, "at": 0}',
                                   '{"key": "up", "level": 1, "at": 1' + "0" * 400 + "}", "[" * 4000])  # fmt: skip
def test_what_no_page_sends_ends_the_line(loaded: Checkpoint, words: str) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            page = await table.sit()
            await page.about()
            await page.line.send_str(words)
            async with asyncio.timeout(SOON):
                while (await page.line.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
            assert page.line.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION
            await table.seats(0)

    run(play())


# --- several ----------------------------------------------------------------------------------------------------


def test_two_play_at_once_and_the_third_is_told(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, players=2) as table:
            ann = await table.sit()
            bob = await table.sit()
            await ann.about()
            await bob.about()
            for page in (ann, bob):
                await page.until(lambda status: status["frame"] >= 3 and status["players"] == 2)
            assert table.server.seats.players.keys() == {0, 1}
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
            assert table.server.seats.players.keys() == {0}
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
            assert table.server.seats.players[0].moment.frames <= stopped + 1
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
            first = [await page.look(seen=False) for _ in range(UNSEEN)]
            (player,) = table.server.seats.players.values()
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


# --- who leaves and comes back ------------------------------------------------------------------------------------


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
            left = table.server.seats.left[0][0].moment.frames
            other = await table.sit(ticket="not hers")
            assert (await other.about())["ticket"] != ticket
            assert (await other.until(lambda status: status["frame"] >= 2))["place"] == 1  # of seed 1
            await other.line.close()
            await table.seats(0)
            again = await table.sit(ticket)
            assert (await again.about())["ticket"] == ticket
            assert await again.look() | {"answers": None} == ann.pictures[-1][0] | {"frame": left, "answers": None}
            await again.until(lambda status: status["frame"] >= left + 3)
            assert table.server.seats.players.keys() == {0}

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
            assert (await new.look())["frame"] >= 3 and table.server.seats.players.keys() == {0}

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
            assert table.server.seats.left.keys() == {0, 4}
            again = Page(await session.ws_connect(f"{table.http}/play?ticket={ticket}"))
            await again.about()
            assert (await again.look())["frame"] >= 3

    run(play())


@pytest.mark.parametrize("limit", ["AWAY", "PAUSED", "OWES"])
def test_a_seat_is_given_up(loaded: Checkpoint, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, limit, 0.4)
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
                await table.until(lambda: table.server.seats.players[0].waits)
            assert await closed(ann) == lines.GONE
            await bob_plays
            assert table.server.seats.players.keys() == {1} and table.server.seats.left.keys() == {0}

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
            stopped = table.server.seats.players[0].moment.frames
            await bob.until(lambda status: status["frame"] > 40)
            assert table.server.seats.players[0].moment.frames == stopped
            await ann.say(hidden=False)
            await ann.until(lambda status: status["frame"] >= stopped + 3)

    run(play())


# --- back in time, and files --------------------------------------------------------------------------------------


def test_time_runs_back_and_the_same_way_again(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            page = await table.sit()
            await page.about()
            await page.until(lambda status: status["frame"] >= 20)
            seen = {status["frame"]: picture for status, picture in page.pictures}
            await page.say(rewind=True)
            back = await page.until(lambda status: status["rewinding"] and status["frame"] <= 5)
            assert np.array_equal(page.pictures[-1][1], seen.get(back["frame"], page.pictures[-1][1]))
            await page.until(lambda status: status["frame"] == 0)
            assert np.array_equal(page.pictures[-1][1], loaded.contexts_frames[0, -1].numpy())
            await page.say(rewind=False)
            await page.until(lambda status: not status["rewinding"] and status["frame"] >= 20)
            again = [(status["frame"], picture) for status, picture in page.pictures[-10:]]
            assert all(np.array_equal(picture, seen.get(frame, picture)) for frame, picture in again)
            assert len(seen.keys() & {frame for frame, _ in again}) > 3

    run(play())


def test_time_runs_back_from_the_end_of_an_episode(web_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = load(web_path)
    ending.model.dynamics.context.outcome.bias[0] = 50
    monkeypatch.setattr(seats, "NOTICE", 0.5)

    async def play() -> None:
        async with served(ending) as table:
            page = await table.sit()
            await page.about()
            await page.until(lambda status: status["ended"])
            await page.say(rewind=True)
            await page.until(lambda status: status["frame"] == 0)
            player = table.server.seats.players[0]
            await asyncio.sleep(0.6)
            assert player.place.context == 0 and player.next_place is None
            await page.say(rewind=False)
            await page.until(lambda status: status["ended"] and status["frame"] == 1)
            await page.until(lambda status: status["place"] == 1)

    run(play())


def test_a_dream_is_saved_beside_others_and_goes_on_in_the_window(loaded: Checkpoint, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(loaded, players=2) as table:
            ann, bob = await table.sit(), await table.sit()
            ticket = (await ann.about())["ticket"]
            await bob.about()
            await bob.until(lambda status: status["frame"] >= 2)
            await ann.say(key="up", level=1, at=1)
            await ann.until(lambda status: status["frame"] >= 6)
            async with table.session.get(f"{table.http}/dream?ticket={ticket}") as answer:
                assert answer.status == 200 and answer.headers["Content-Disposition"].startswith("attachment; ")
                (tmp_path / "walk.dream").write_bytes(await answer.read())
            async with table.session.get(f"{table.http}/dream?ticket={ticket}") as answer:
                assert answer.status == 200
            async with table.session.get(f"{table.http}/dream?ticket={ticket}") as answer:
                assert answer.status == 429 and "every 10 seconds" in await answer.text()
            for wrong in ("", "?ticket=", "?ticket=other"):
                async with table.session.get(f"{table.http}/dream{wrong}") as answer:
                    assert answer.status == 404

    run(play())
    dream = saved.load(tmp_path / "walk.dream", loaded)
    assert dream.about.context == 0 and len(dream.actions) >= 6 and dream.actions[-1].tolist() == [1, 0, 0, 0]
    assert "batch of 2" in dream.about.executable
    session = Session(loaded, beginning=dream)
    assert session.now.frames == len(dream.actions) and np.array_equal(session.now.picture, dream.picture)
    session.tick()
    again = Session(loaded)
    again.replay(dream)
    for _ in dream.actions:
        again.tick()
    difference = np.abs(again.now.picture.astype(int) - dream.picture)  # of another batch: rounding
    assert difference.max() <= 2


# --- who may ----------------------------------------------------------------------------------------------------


def test_the_token_is_asked_for_everywhere(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded, token="right") as table:
            for path in ("/", "/play", "/other"):
                for query in ("", "?token=", "?token=wrong", "?token=rights", "?token=%C3%BC"):
                    async with table.session.get(table.http + path + query) as answer:
                        assert answer.status == 403 and "token" in await answer.text()
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await table.session.ws_connect(f"{table.http}/play?token=wrong")
            async with table.session.get(f"{table.http}/?token=right", headers={"Host": "my.machine"}) as answer:
                assert answer.status == 200
            async with table.session.ws_connect(f"{table.http}/play?token=right") as line:
                assert (await line.receive(SOON)).type is aiohttp.WSMsgType.TEXT

    run(play())


def test_pages_of_other_sites_are_refused(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table:
            for origin in ("http://evil.example", "null", f"http://127.0.0.1:{table.port + 1}", "http://[", "file://"):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await table.sit(headers={"Origin": origin})
            for host in ("evil.example", "evil.example:8080", "[", "0.0.0.0", ""):  # a name that leads here by now
                async with table.session.get(table.http, headers={"Host": host}) as answer:
                    assert answer.status in (400, 403)
            for host in ("localhost:9000", "[::1]:8080"):
                async with table.session.get(table.http, headers={"Host": host}) as answer:
                    assert answer.status == 200
            await (await table.sit(headers={"Origin": table.http})).about()

    run(play())


def test_loopback_by_any_name() -> None:
    assert all(web.is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
    assert not any(web.is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "localhost.example", ""))


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with web.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert web.address(listening, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
        assert web.address(listening, "::1", None) == f"http://[::1]:{port}/"
        monkeypatch.setattr(addresses, "own_address", {"0.0.0.0": "192.168.1.5", "::": "fd00::5"}.get)
        assert web.address(listening, "0.0.0.0", "abc") == f"http://192.168.1.5:{port}/?token=abc"
        assert web.address(listening, "::", None) == f"http://[fd00::5]:{port}/"
        monkeypatch.setattr(addresses, "own_address", lambda everywhere: None)
        assert web.address(listening, "0.0.0.0", "abc") == f"http://{socket.gethostname()}:{port}/?token=abc"


def test_the_address_on_the_network_is_one_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for everywhere in ("0.0.0.0", "::"):
        if (own := addresses.own_address(everywhere)) is not None:  # where there is a network
            assert not web.is_loopback(own) and (":" in own) == (":" in everywhere)
            web.listen(own, 0).close()
    for nowhere in ("127.0.0.1", "255.255.255.255"):  # a machine on no network; one whose system refuses
        monkeypatch.setattr(addresses, "PROBES", {"0.0.0.0": nowhere})
        assert addresses.own_address("0.0.0.0") is None


# --- the command line -------------------------------------------------------------------------------------------


def sentence(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What play.py says on stderr as it exits with status 2."""
    assert main_guard(lambda: app.main([str(argument) for argument in arguments])) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")
    return err


def test_a_taken_port_is_one_sentence(web_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        said = sentence(capsys, web_path, "--web", "--port", port)
    assert f"port {port} of 127.0.0.1 is taken" in said and "--port" in said


def test_bad_options(web_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--host" in sentence(capsys, web_path, "--web", "--host", "192.0.2.1.example.invalid")
    assert "--host" in sentence(capsys, web_path, "--web", "--host", "192.0.2.1")
    assert "--web" in sentence(capsys, web_path, "--port", 8080)
    assert "--headless" in sentence(capsys, web_path, "--web", "--headless")
    assert "--record" in sentence(capsys, web_path, "--web", "--record", "a.mp4")
    assert "--view" in sentence(capsys, web_path, "--web", "--view", "both")
    assert "0 to 2" in sentence(capsys, web_path, "--web", "--port", 0, "--context", 3)
    assert "missing.safetensors" in sentence(capsys, web_path.with_name("missing.safetensors"), "--web", "--port", 0)


def test_a_memory_that_grows_is_for_one(tmp_path: Path) -> None:
    loaded = load(tiny_checkpoint(tmp_path / "recall.safetensors", side=16, recall=True))
    web.Server(loaded, players=2)
    config = loaded.model.config
    loaded.model.config = replace(config, memory=replace(config.memory, growing=True))
    with pytest.raises(UserError, match="--players 1"):
        web.Server(loaded, players=2)


# --- on the network -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> Any:
    return pytest.importorskip("trustme").CA()


def test_an_encrypted_line(loaded: Checkpoint, authority: Any, tmp_path: Path) -> None:
    issued, trusted = authority.issue_cert("localhost"), ssl.create_default_context()
    authority.configure_trust(trusted)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    tls = web.certificate(tmp_path / "both.pem", None)

    async def play() -> None:
        async with served(loaded, tls=tls, token="right") as table:
            https = f"https://localhost:{table.port}"
            async with table.session.ws_connect(f"{https}/play?token=right", ssl=trusted) as line:
                page = Page(line)
                ticket = (await page.about())["ticket"]
                await page.until(lambda status: status["frame"] >= 3)
                async with table.session.get(f"{https}/?token=right", ssl=trusted) as answer:
                    assert answer.status == 200
                async with table.session.get(f"{https}/dream?token=right&ticket={ticket}", ssl=trusted) as answer:
                    assert answer.status == 200 and len(await answer.read()) > 1000
                with pytest.raises(aiohttp.ClientError):
                    await table.session.get(f"http://localhost:{table.port}/?token=right")
                _, writer = await asyncio.open_connection("127.0.0.1", table.port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await page.until(lambda status: status["frame"] >= 6)
                writer.close()

    run(play())


def test_certificates_that_are_none(
    web_path: Path, authority: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives import serialization as forms

    one, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    for name, pem in (
        ("a.pem", one.cert_chain_pems[0]),
        ("a.key", one.private_key_pem),
        ("b.key", other.private_key_pem),
    ):
        pem.write_to_path(tmp_path / name)
    (tmp_path / "noise.pem").write_bytes(b"noise")
    key = forms.load_pem_private_key(one.private_key_pem.bytes(), None)
    locked = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.BestAvailableEncryption(b"secret"))
    (tmp_path / "locked.key").write_bytes(locked)

    def said(*arguments: Any) -> str:
        return sentence(capsys, web_path, "--web", "--port", 0, *arguments)

    assert "--certificate" in said("--key", tmp_path / "a.key")
    assert "missing.pem is no file" in said("--certificate", tmp_path / "missing.pem")
    assert "missing.key is no file" in said("--certificate", tmp_path / "a.pem", "--key", tmp_path / "missing.key")
    assert "noise.pem cannot be used" in said("--certificate", tmp_path / "noise.pem")
    assert "b.key is not the key of" in said("--certificate", tmp_path / "a.pem", "--key", tmp_path / "b.key")
    assert "locked by a password" in said("--certificate", tmp_path / "a.pem", "--key", tmp_path / "locked.key")
    assert "a.pem cannot be used" in said("--certificate", tmp_path / "a.pem")
    assert "--web" in sentence(capsys, web_path, "--certificate", tmp_path / "a.pem")


def test_the_address_as_a_qr_code() -> None:
    """What a phone's camera sees: white where nothing is printed, read back from the half blocks."""
    import segno

    words = "http://192.168.1.5:8080/?token=abcdefghijklmnopqrstuv"
    drawn = web.qr_code(words, "UTF-8")
    rows = re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines()
    assert {*"".join(rows)} <= {*" ▀▄█"}
    halves = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
    picture = [[halves[each][half] for each in row] for row in rows if row for half in (0, 1)]
    matrix = [list(row) for row in segno.make_qr(words).matrix_iter(border=2)]
    assert picture[: len(matrix)] == matrix
    assert "▀" not in web.qr_code(words, "latin-1") and web.qr_code(words, "latin-1").isascii()


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_the_qr_code_is_for_terminals(web_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = start_play(web_path, "--host", "0.0.0.0", stderr=theirs)
    os.close(theirs)
    try:
        assert process.stdout is not None
        words = process.stdout.readline().strip()
        drawn = web.qr_code(words, "utf-8").splitlines()
        said = b""
        while drawn[-1] not in said.decode(errors="ignore"):
            said += os.read(ours, 65536)
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def start_play(path: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "play.py", str(path), "--web", "--port", "0", "--precision", "32", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_it_and_tells_the_pages(web_path: Path) -> None:
    process = start_play(web_path, "--host", "0.0.0.0", "--players", "1")
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://") and "/?token=" in address
        _, _, rest = address.partition("://")[2].partition(":")

        async def play() -> None:
            async with aiohttp.ClientSession() as session:
                line = await session.ws_connect(f"http://127.0.0.1:{rest.replace('/?', '/play?')}")
                page = Page(line)
                await page.about()
                await page.until(lambda status: status["frame"] >= 2)
                process.send_signal(signal.SIGINT)
                async with asyncio.timeout(SOON):
                    while (await line.receive()).type is aiohttp.WSMsgType.BINARY:
                        pass
                assert line.close_code == aiohttp.WSCloseCode.GOING_AWAY

        run(play())
        _, err = process.communicate(timeout=SOON)
        assert process.returncode == 130
        assert err.splitlines() == ["tiny, 1 player at most; Ctrl-C ends it", "interrupted"]
    finally:
        process.kill()
        process.wait()
