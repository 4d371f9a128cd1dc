"""The gallery in a browser: tiles as JSON, rooms that are made when somebody comes, and the page that chooses."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from browser import Tab, chromium, needs_chromium  # noqa: E402
from PIL import Image  # noqa: E402
from web_table import SOON, Page, Table, run, served  # noqa: E402

from game_wm.checkpoint import load  # noqa: E402
from game_wm.play import gallery, web  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def offered(web_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> web.Gallery:
    """Three dreams, one of which is cut off in the middle, and a run of the user's."""
    shipped = tmp_path / "checkpoints"
    for name in ("checkpoints/one", "checkpoints/two", "runs/mine/mine"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(web_path, tmp_path / f"{name}.safetensors")
    content = web_path.read_bytes()
    (shipped / "broken.safetensors").write_bytes(content[:-7] + b"changed")
    monkeypatch.setattr(gallery, "SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    return web.Gallery([shipped], made)


def made(path: Path, report: Callable[[str, float], None]) -> web.Room:
    report(f"Reading {path.name}", 0.5)
    time.sleep(0.5)  # a larger one takes longer, and its page is told so
    return web.Room(load(path), fps=50.0)


async def tiles(table: Table) -> dict[str, dict[str, Any]]:
    async with table.session.get(f"{table.http}/gallery") as answer:
        assert answer.status == 200
        return {tile["name"]: tile for tile in await answer.json()}


async def sit(table: Table, key: str, ticket: str = "") -> tuple[Page, dict[str, Any], list[str]]:
    """A page that has chosen; what it is told at last, and what it was told before that."""
    page, stages = Page(await table.session.ws_connect(f"{table.http}/play?dream={key}&ticket={ticket}")), list[str]()
    while "loading" in (told := await page.about()):
        stages.append(told["loading"])
    return page, told, stages


def test_tiles_and_rooms(offered: web.Gallery) -> None:
    async def play() -> None:
        async with served(offered) as table:
            found = await tiles(table)
            assert [(tile["group"], name) for name, tile in found.items()] == [
                ("Dreams", "broken"), ("Dreams", "one"), ("Dreams", "two"), ("Your own", "mine"),
            ]  # fmt: skip
            one = found["one"]
            strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["picture"].partition(",")[2]))))
            assert strip.shape == (one["height"] * one["frames"], one["width"], 3) and one["line"] == "Maze"
            ann, about, stages = await sit(table, one["key"])
            assert about["name"] == "tiny" and stages
            await ann.until(lambda status: status["frame"] >= 3 and status["players"] == 1)
            bob, _, _ = await sit(table, found["two"]["key"])
            await bob.until(lambda status: status["frame"] >= 3 and status["players"] == 2)  # in another room
            assert len(table.server.rooms) == 2
            _, told, _ = await sit(table, found["mine"]["key"])
            assert told["full"].startswith("Full: 2 play already")
            await ann.line.close()
            await table.until(lambda: not offered.rooms[one["key"]].guests)
            again, about, stages = await sit(table, one["key"], about["ticket"])
            assert not stages and (await again.look())["frame"] >= 3  # the dream that was left goes on
            await again.line.close()
            await table.until(lambda: not offered.rooms[one["key"]].guests)
            cid, _, _ = await sit(table, found["mine"]["key"])
            await cid.until(lambda status: status["frame"] >= 3)
            assert offered.rooms.keys() == {found["two"]["key"], found["mine"]["key"]}  # the empty room is closed

    run(play())


def test_what_cannot_be_played_says_why(offered: web.Gallery, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(offered) as table:
            found = await tiles(table)
            page, told, _ = await sit(table, found["broken"]["key"])
            assert told["failed"].startswith("broken.safetensors: not a whole game_wm checkpoint")
            assert str(tmp_path) not in told["failed"]  # strangers are not told where files lie
            assert (await page.line.receive(SOON)).type is aiohttp.WSMsgType.CLOSE
            assert (await tiles(table))["broken"]["problem"] == told["failed"]
            (tmp_path / "checkpoints" / "one.safetensors").unlink()
            for key in (found["one"]["key"], "", "nothing"):
                _, told, _ = await sit(table, key)
                assert "is gone" in told["failed"]
            page, about, _ = await sit(table, found["two"]["key"])
            assert about["name"] == "tiny"

    run(play())


def test_one_dream_has_no_gallery(web_path: Path) -> None:
    async def play() -> None:
        async with served(load(web_path)) as table:
            async with table.session.get(f"{table.http}/gallery") as answer:
                assert answer.status == 404
            async with table.session.get(table.http) as answer:
                assert "<body>" in await answer.text()

    run(play())


async def press(tab: Tab, *keys: str) -> None:
    for key in keys:
        text = {"text": "\r"} if key == "Enter" else {}
        await tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text)
        await tab.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)


THERE = "typeof tileOf === 'function'"  # the page's scripts
CHOSEN = "document.activeElement.querySelector('.name')?.textContent"
PLAYS = "!choosing() && +document.body.dataset.frame > 3"


@needs_chromium
def test_choosing_playing_and_coming_back(offered: web.Gallery, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(offered) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            desk = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            await ann.call("Emulation.setDeviceMetricsOverride", **desk)
            await ann.until(f"{THERE} && choosing() && {CHOSEN} === 'broken'")
            await press(ann, "ArrowRight", "ArrowRight")
            assert await ann.value(CHOSEN) == "two"
            await press(ann, "ArrowDown")
            assert await ann.value(CHOSEN) == "mine"
            await press(ann, "ArrowUp", "ArrowRight", "Enter")
            await ann.until(PLAYS)
            reached = await ann.value("+document.body.dataset.frame")
            await press(ann, "Escape")
            await ann.until(f"choosing() && {CHOSEN} === 'one'")
            await table.until(lambda: not any(room.seats.players for room in table.server.rooms))
            await press(ann, "Enter")
            await ann.until(f"{PLAYS} && +document.body.dataset.frame > {reached}")  # in the same dream
            assert sum(room.seats.came for room in table.server.rooms) == 1
            await ann.call("Page.reload")
            await ann.until(f"{THERE} && {PLAYS}")
            await ann.value("history.back()")
            await ann.until("choosing() && document.querySelectorAll('.tile').length === 4")
            await ann.value("tileOf(tiles[0].key).click()")
            problem = "document.querySelector('.problem')?.textContent"
            await ann.until(f"choosing() && {problem}?.startsWith('broken.safetensors: not a whole')")
            await ann.value("tileOf(tiles[3].key).click()")
            await ann.until(PLAYS)

    run(play())


PAD = """(() => {
    window.pad = {index: 0, axes: [0, 0], buttons: Array.from({length: 17}, () => ({value: 0, pressed: false}))};
    navigator.getGamepads = () => [pad];
    dispatchEvent(new Event("gamepadconnected"));
})()"""


@needs_chromium
def test_fingers_gamepads_and_screen_readers_choose(offered: web.Gallery, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(offered) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until(f"{THERE} && choosing() && {CHOSEN} === 'broken'")
            await ann.phone(390, 844)
            boxes = [await ann.box(f"document.querySelectorAll('.tile')[{i}]") for i in range(4)]
            assert all(left >= 0 and left + width <= 390 and height > 200 for left, _, width, height in boxes)
            assert all(above[1] + above[3] < below[1] for above, below in pairwise(boxes))
            await ann.phone(844, 390)
            assert (await ann.box("$('gallery')"))[2:] == (844, 390)
            await ann.phone(390, 844)
            whole = (await ann.call("Accessibility.getFullAXTree"))["nodes"]
            told = [(node["role"]["value"], node["name"]["value"]) for node in whole if node.get("name")]
            assert ("heading", "Your own") in told and ("list", "") in told
            label = next(name for role, name in told if role == "button" and name.startswith("one"))
            assert "Maze" in label and "MiB" in label
            left, top, width, height = boxes[1]
            await ann.touch("touchStart", a=(left + width / 2, top + height / 4))
            await ann.touch("touchEnd")
            await ann.until(PLAYS)
            await ann.value("document.querySelector('[data-command=quit]').click()")
            await ann.until(f"choosing() && {CHOSEN} === 'one'")
            await ann.value(PAD)
            await ann.value("pad.axes = [0, 0.9]")
            await ann.until(f"{CHOSEN} === 'two'")
            await ann.value("pad.axes = [0, 0]; pad.buttons[0] = {value: 1, pressed: true}")
            await ann.until(PLAYS)
            await ann.value("pad.buttons[0] = {value: 0, pressed: false}; pad.buttons[8] = {value: 1, pressed: true}")
            await ann.until("choosing()")

    run(play())


@needs_chromium
def test_an_empty_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "SHIPPED", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)

    async def play() -> None:
        empty = web.Gallery([tmp_path / "checkpoints"], made)
        async with served(empty) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until(f"{THERE} && !$('empty').hidden && $('empty').textContent.startsWith('There is no dream')")
            await press(ann, "ArrowDown", "Enter", "Escape")
            assert await ann.value("choosing()")

    run(play())
