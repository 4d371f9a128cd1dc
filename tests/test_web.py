"""The page and one player on it: keys in, pictures out, back in time, a dream as a file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from web_table import SOON, Page, car, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint, load  # noqa: E402
from game_wm.dream import saved  # noqa: E402
from game_wm.play import keymap  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.web import dreams, seats  # noqa: E402
from game_wm.play.web.page import PAGE_COMMANDS  # noqa: E402

pytestmark = pytest.mark.slow


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
            await page.until(lambda status: status["place"] == 2 and status["frame"] >= 3)
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
            (player,) = table.room.seats.players.values()
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
            player = table.room.seats.players[0]
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
