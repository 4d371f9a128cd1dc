"""The page on phones: thumbs that walk and turn, and where they rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from browser import chromium  # noqa: E402
from web_table import held, run, served  # noqa: E402

from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play import keymap  # noqa: E402

pytestmark = pytest.mark.slow


def test_one_thumb_walks_while_the_other_turns(loaded: Checkpoint, tmp_path: Path) -> None:
    # To the model A and D are the arrows; the page is told that they are not.
    schema = replace(loaded.schema, keys={**loaded.schema.keys, "a": "turn_left", "d": "turn_right"})
    steps = [{"keys": ["a"], "text": "step left"}, {"keys": ["d"], "text": "step right"}]
    locks = """navigator.wakeLock.request = async () => {
        locks += 1; return {addEventListener() {}, async release() { locks -= 1; }}; }"""

    async def play() -> None:
        sideways = replace(loaded, schema=schema)
        async with served(sideways) as table, chromium(table.session, tmp_path / "profile") as browser:
            table.room.about["keys"] = [{"keys": k, "text": t} for k, t in keymap.game_keys(loaded.schema)] + steps
            ann = await browser.open("about:blank")
            await ann.before(f"let locks = 0; {locks}", table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            await ann.phone(390, 844)
            await ann.until("locks === 1")
            x, y, side, _ = await ann.box("$('stick')")
            away = {"up": (0.5, 0.1), "up right": (0.8, 0.2), "right": (0.95, 0.55), "back left": (0.2, 0.8)}
            at = {way: (x + side * across, y + side * down) for way, (across, down) in away.items()}
            turns = [await ann.box(f"$('turn').children[{i}]") for i in (0, 1)]
            left, right = ((box[0] + box[2] / 2, box[1] + box[3] / 2) for box in turns)

            await ann.touch("touchStart", a=at["up"])
            await held(table, "up")
            await ann.touch("touchMove", a=at["up right"])
            await held(table, "up", "d")  # a diagonal: forward and a step aside
            await ann.touch("touchStart", a=at["up right"], b=left)
            await held(table, "up", "d", "left")
            await ann.touch("touchMove", a=at["up right"], b=right)
            await held(table, "up", "d", "right")  # slid from one button to the other
            await ann.touch("touchMove", a=(x + side, y - 300), b=right)
            await held(table, "up", "right")  # the thumb may leave the stick
            await ann.touch("touchEnd", a=(x + side, y - 300))
            await held(table, "right")
            await ann.touch("touchStart", b=right, c=at["back left"])
            await held(table, "right", "down", "a")
            await ann.touch("touchMove", b=right, c=(x + side / 2, y + side / 2))
            await held(table, "right")
            await ann.touch("touchEnd")
            await held(table)

            pause = "document.querySelector('[data-command=pause]')"
            assert await ann.value(f"{pause}.textContent") == "pause"
            await ann.value(f"{pause}.click()")
            await ann.until(f"{pause}.textContent === 'resume'")
            assert await ann.value("$('notice').hidden && $('badge').textContent === 'paused'")
            await ann.until("locks === 0")
            await ann.value(f"{pause}.click()")
            await ann.until(f"{pause}.textContent === 'pause' && locks === 1 && $('badge').hidden")

    run(play())


LAID_OUT = """(() => {
    const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
    const seen = [...document.querySelectorAll("button, #stick")].filter(each => each.offsetParent);
    fit();
    return {picture: box(canvas), commands: seen.filter(b => !b.closest("#touch")).map(box),
            thumbs: seen.filter(b => b.closest("#touch")).map(box)};
})()"""


def apart(a: list[float], b: list[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) have nothing in common."""
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_thumbs_beside_the_picture_on_phones(loaded: Checkpoint, tmp_path: Path) -> None:
    names = ("forward", "back", "turn left", "turn right", "strafe left", "strafe right", "attack", "accelerate")
    keys = [{"keys": [key], "text": text} for key, text in zip((*keymap.ARROWS, *"adxy"), names, strict=True)]
    pictures = {(390, 844): 384, (320, 568): 320, (320, 454): 320, (844, 390): 512, (667, 375): 384, (568, 320): 320}

    async def play() -> None:
        async with served(loaded) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            for count in (4, 6, 8):
                about = f"{{...about, width: 128, height: 96, keys: {json.dumps(keys[:count])}}}"
                await ann.value(f"begin({about})")
                for (width, height), least in pictures.items():
                    await ann.phone(width, height)
                    laid = await ann.value(LAID_OUT)
                    picture, commands, thumbs = laid["picture"], laid["commands"], laid["thumbs"]
                    assert picture[2] - picture[0] >= least, (count, width, height, picture)
                    assert len(commands) == 3 and len(thumbs) == 3 + max(0, count - 6)  # the stick, two that turn
                    buttons = commands + thumbs
                    for i, button in enumerate(buttons):
                        assert 0 <= button[0] < button[2] <= width and 0 <= button[1] < button[3] <= height
                        assert all(apart(button, other) for other in (picture, *buttons[:i]))
                    for button in thumbs:
                        assert min(button[2] - button[0], button[3] - button[1]) >= 44
            await ann.value("$('menu').click()")
            assert len((await ann.value(LAID_OUT))["commands"]) == 10
            await ann.value("$('menu').click()")
            assert len((await ann.value(LAID_OUT))["commands"]) == 3

    run(play())
