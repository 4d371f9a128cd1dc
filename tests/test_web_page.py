"""The page in a browser: Chromium plays, by keys, mouse and gamepad, over a line that breaks."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from browser import chromium, needs_chromium  # noqa: E402
from PIL import Image  # noqa: E402
from web_table import SOON, car, held, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.dream import saved  # noqa: E402
from game_wm.play import headless, keymap  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.web import dreams, rooms, server  # noqa: E402
from game_wm.play.web.page import PAGE_COMMANDS  # noqa: E402

pytestmark = [pytest.mark.slow, needs_chromium]


FIGURES = """(() => {
    figures({players: 1, place: 2, score: SCORE});
    return document.querySelector("#figures").textContent;
})()"""


def test_a_player(loaded: Checkpoint, tmp_path: Path) -> None:
    frame = "+document.body?.dataset.frame"
    pixels = "Array.from(document.querySelector('canvas').getContext('2d').getImageData(0,0,16,16).data).join()"

    async def play() -> None:
        async with served(loaded, players=2, fps=20) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until(f"{frame} > 3")
            before = await ann.value(f"[{pixels}]")
            await ann.until(f"[{pixels}][0] !== {json.dumps(before[0])}")  # it moves
            assert "tiny" in await ann.value("document.title")
            words = {score: await ann.value(FIGURES.replace("SCORE", score)) for score in ("-0.04", "-0.06", "-10")}
            assert words["-0.04"].startswith("tiny 1 of 2 playingplace 3 of 3") and "-" not in words["-0.04"]
            assert words["-0.04"].endswith("score 0.0") and words["-0.06"].endswith("score -0.1")
            assert words["-10"].endswith("score -10.0")

            player = table.room.seats.players[0]
            await ann.key("keyDown", "ArrowUp")
            await ann.until("latencies.length > 0")
            assert player.keyboard.held == ("up",)
            assert 0 < await ann.value("latencies[0]") < 1e3 * SOON
            await ann.key("keyUp", "ArrowUp")
            await table.until(lambda: not player.keyboard.held)
            await ann.key("keyDown", "n")
            await ann.until("document.body.dataset.place === '1'")
            await ann.key("keyUp", "n")
            bob = await browser.open(table.http)
            await bob.until(f"{frame} > 3")
            now = await ann.value(frame)
            await ann.until(f"{frame} > {now} && document.querySelector('#figures').textContent.includes('2 of 2')")
            cid = await browser.open(table.http)
            await cid.until("document.querySelector('#notice')?.innerText.startsWith('Full\\ntiny is played by 2')")
            await bob.kill()
            await cid.until(f"{frame} > 3 && document.querySelector('#notice').hidden")

    run(play())


def test_loading_the_page_anew_in_a_full_game(
    loaded: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RETRY", 10 * SOON)  # who is told that it is full stays out

    async def play() -> None:
        async with served(loaded, players=1) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            reached = 3
            for _ in range(3):
                await ann.until(f"+document.body?.dataset.frame > {reached}")
                assert table.room.seats.players.keys() == {0}  # the dream that it had
                reached = await ann.value("+document.body.dataset.frame")
                await ann.call("Page.reload")

    run(play())


def test_dragging_on_the_picture(web_path: Path, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(car(web_path)) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            left, top, width, height = await ann.box("canvas")
            middle = {"x": left + width / 2, "y": top + height / 2, "button": "left"}
            await ann.call("Input.dispatchMouseEvent", type="mousePressed", clickCount=1, **middle)
            away = middle | {"x": middle["x"] + 0.15 * width, "y": middle["y"] - 0.45 * height}
            await ann.call("Input.dispatchMouseEvent", type="mouseMoved", buttons=1, **away)
            keyboard = table.room.seats.players[0].keyboard
            await table.until(lambda: set(keyboard.held) == {"right", "up"})
            steer, gas, brake, horn = keyboard.act(np.zeros(0), {}).tolist()
            assert 0.45 < steer < 0.55 and (gas, brake, horn) == (1, 0, 0)
            await ann.call("Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **away)
            await table.until(lambda: not keyboard.held)

    run(play())


NOTED = """(() => {
    window.said = [];
    new MutationObserver(() => said.push($("badge").textContent)).observe($("badge"), {childList: true});
})()"""


def test_the_page_waits_and_comes_back_by_itself(
    loaded: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = "+document.body?.dataset.frame"
    turn = dreams.Dreams.turn
    slow = 0.0
    monkeypatch.setattr(dreams.Dreams, "turn", lambda self, wishes: (time.sleep(slow), turn(self, wishes))[1])

    async def play() -> None:
        nonlocal slow
        async with served(loaded) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until(f"{frame} > 3")
            await ann.value(NOTED)
            slow = 2.0
            await ann.until("said.includes('waiting …')")
            slow = 0.0
            await ann.until("$('badge').hidden")

            reached = await ann.value(frame)
            table.room.lines[0].connection.cut()  # as a train in a tunnel
            await ann.until("said.includes('reconnecting …')")
            await ann.until(f"$('badge').hidden && {frame} > {reached}")
            assert table.room.seats.players.keys() == {0}  # in the same dream

            other = await browser.open("about:blank")  # a tab that was duplicated has the same ticket
            ticket = await ann.value("sessionStorage.getItem('ticket')")
            await other.before(f"sessionStorage.ticket = '{ticket}'", table.http)
            await other.until(f"{frame} > {reached}")
            await ann.until("$('notice').innerText.startsWith('This dream goes on in another tab.')")
            assert table.room.seats.players.keys() == {0}
            await ann.key("keyDown", " ", "Space")
            await ann.until(f"$('notice').hidden && {frame} > {reached}")
            await other.until("!$('notice').hidden")

    async def again() -> None:
        async with aiohttp.ClientSession() as session, chromium(session, tmp_path / "again") as browser:
            async with served(loaded) as table:
                port = table.port
                ann = await browser.open(table.http)
                await ann.until(f"{frame} > 3")
            await ann.until("$('notice').innerText.startsWith('The player has been ended.')")
            async with served(loaded, port=port):
                await ann.until("$('notice').hidden && !lost")
            async with served(loaded, port=port, token="another"):
                await ann.until("$('notice').innerText.startsWith('The player was started anew')")

    run(play())
    run(again())


def test_a_hidden_page_pauses_and_gives_up_its_seat(
    loaded: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "AWAY", 0.5)

    async def play() -> None:
        async with served(loaded) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            player = table.room.seats.players[0]
            await ann.key("keyDown", "ArrowUp")
            await held(table, "up")
            await ann.hide(True)
            await table.until(lambda: player.waits and not player.keyboard.held)
            await table.seats(0)
            reached = player.moment.frames
            await ann.until("$('notice').innerText.startsWith('Your seat was given up')")
            await ann.hide(False)
            await table.until(lambda: table.room.seats.players.get(0) is player and player.moment.frames > reached + 3)
            await ann.until("$('notice').hidden")

    run(play())


def test_keys_by_their_places(loaded: Checkpoint, tmp_path: Path) -> None:
    keys = dict(zip("wsad", loaded.schema.names, strict=True))
    wasd = replace(loaded, schema=replace(loaded.schema, keys=keys))
    places = {"KeyW": "w", "KeyA": "a", "KeyS": "s", "KeyD": "d"}
    layouts = ("wasd", "цфыв", "zqsd", ",aoe")  # where a US keyboard has W, A, S and D

    async def play() -> None:
        async with served(wasd) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            for letters in layouts:
                for letter, (code, key) in zip(letters, places.items(), strict=True):
                    await ann.key("keyDown", letter, code)
                    await held(table, key)
                    await ann.key("keyUp", letter, code)
                    await held(table)
            for place, (letter, code) in enumerate((("n", "KeyN"), ("т", "KeyN"), ("n", "KeyL")), 1):
                await ann.key("keyDown", letter, code)
                await ann.until(f"document.body.dataset.place === '{place % 3}'")
                await ann.key("keyUp", letter, code)

            # Whatever is pressed means what it means in the window.
            commands = {k: v for k, v in keymap.command_keys(wasd.schema).items() if v in PAGE_COMMANDS}
            letters = [None, *"wasdnrpzqхт,", "tab", "backspace"]
            asked = [[key, place, ctrl] for key in letters[1:] for place in letters[:9] for ctrl in (False, True)]
            for ctrl_plays in (False, True):
                schema = (
                    replace(wasd.schema, keys={**wasd.schema.keys, "left ctrl": "forward"})
                    if ctrl_plays
                    else wasd.schema
                )
                if ctrl_plays:
                    await ann.value("gameKeys.add('left ctrl')")
                said = await ann.value(f"{json.dumps(asked)}.map(each => meant(...each))")
                assert said == [list(keymap.meant(schema, commands, *each)) for each in asked]

    run(play())


GAMEPAD = """(() => {
    const up = {value: 0}, buttons = Array.from({length: 17}, () => ({value: 0}));
    window.pad = {index: 0, axes: [0, 0], buttons};
    navigator.getGamepads = () => [pad];
    dispatchEvent(new Event("gamepadconnected"));
})()"""


def test_time_runs_back_and_a_gamepad_plays(loaded: Checkpoint, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(loaded) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 20")
            player = table.room.seats.players[0]
            await ann.key("keyDown", "Backspace")
            await table.until(lambda: player.moment.frames < 10)
            assert await ann.value("$('badge').textContent") == "◀◀ going back"
            await ann.key("keyUp", "Backspace")
            await table.until(lambda: player.moment.frames > 12)
            await ann.until("$('badge').hidden")

            await ann.value(GAMEPAD)
            await ann.value("pad.axes = [-0.9, -0.7]")
            await held(table, "left", "up")
            await ann.value("pad.axes = [0.1, 0]")
            await held(table)
            await ann.value("pad.buttons[15].value = 1")
            await held(table, "right")
            await ann.value("pad.buttons[15].value = 0; pad.buttons[9].value = 1")
            await table.until(lambda: player.paused)
            await ann.value("pad.buttons[9].value = 0; pad.buttons[4].value = 1")
            await table.until(lambda: player.moment.frames == 0)
            await ann.value("pad.buttons[4].value = 0")
            await table.until(lambda: not player.rewinding)

    run(play())


def test_what_the_page_saves(loaded: Checkpoint, tmp_path: Path) -> None:
    async def file(pattern: str) -> Path:
        async with asyncio.timeout(SOON):
            while not (found := list(tmp_path.glob(pattern))):
                await asyncio.sleep(0.02)
        return found[0]

    async def play() -> None:
        async with served(loaded) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
            await ann.until("+document.body?.dataset.frame > 3")
            await ann.key("keyDown", "s")
            dream = saved.load(await file("tiny-*.dream"), loaded)
            assert len(dream.actions) > 3 and dream.about.executable.endswith("batch of 1")
            await ann.until("$('badge').textContent.startsWith('saved tiny-')")
            assert headless.compared(again(loaded, dream), dream) == "dreamt again: the same, bit for bit"

            await ann.value("document.querySelector('[data-command=pause]').click()")
            await ann.until("document.querySelector('[data-command=pause]').textContent === 'resume'")
            await ann.value("document.querySelector('[data-command=screenshot]').click()")
            shot = np.asarray(Image.open(await file("tiny-place*-frame*.png")).convert("RGB"))
            factor = shot.shape[0] // 16
            assert factor > 1 and np.array_equal(shot[::factor, ::factor], table.room.seats.players[0].moment.picture)

    run(play())


def again(loaded: Checkpoint, dream: saved.SavedDream) -> saved.SavedDream:
    """A saved dream, dreamt once more in the window's way."""
    session = Session(loaded)
    session.replay(dream)
    for _ in dream.actions:
        session.tick()
    return session.snapshot()
