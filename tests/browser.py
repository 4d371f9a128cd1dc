"""Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from web_table import SOON

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


class Tab:
    """A tab of Chromium, driven through its DevTools protocol."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.line, self._sent = line, 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        await self.line.send_json({"id": self._sent, "method": method, "params": parameters})
        while True:
            answer = json.loads((await self.line.receive(SOON)).data)
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    async def value(self, script: str) -> Any:
        """What a script gives in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, script: str) -> None:
        async with asyncio.timeout(SOON):
            while not await self.value(script):
                await asyncio.sleep(0.02)

    async def key(self, kind: str, key: str, code: str | None = None, modifiers: int = 0) -> None:
        await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, modifiers=modifiers)

    async def touch(self, kind: str, **points: tuple[float, float]) -> None:
        """`touchStart` and `touchMove`: where all fingers are then, by name; `touchEnd`: which go (all without any)."""
        at = [{"x": x, "y": y, "id": 1 + "abcdefgh".index(name)} for name, (x, y) in points.items()]
        await self.call("Input.dispatchTouchEvent", type=kind, touchPoints=at)

    async def box(self, script: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element."""
        found = await self.value(f"(() => {{ const b = ({script}).getBoundingClientRect();"
                                 " return [b.left, b.top, b.width, b.height]; })()")  # fmt: skip
        return tuple(found)

    async def phone(self, width: int, height: int) -> None:
        """The screen of a phone, and fingers for it."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        await self.call("Emulation.setDeviceMetricsOverride", **screen)
        await self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        await self.until(f"innerWidth === {width} && matchMedia('(any-pointer: coarse)').matches")

    async def hide(self, hidden: bool) -> None:
        """As if another tab were before it, or no longer."""
        value = f"Object.defineProperty(document, 'hidden', {{configurable: true, value: {str(hidden).lower()}}})"
        await self.value(f"{value}; document.dispatchEvent(new Event('visibilitychange'))")

    async def before(self, script: str, address: str) -> None:
        """Open an address, with a script that runs before those of the page."""
        await self.call("Page.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        await self.call("Page.navigate", url=address)

    async def kill(self) -> None:
        """Its process dies, without a word to anybody."""
        await self.line.send_json({"id": 0, "method": "Page.crash"})


class Chromium:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session, self.http = session, f"http://127.0.0.1:{port}"

    async def open(self, address: str) -> Tab:
        """In a window of its own: a tab behind another one is hidden."""
        async with self.session.get(f"{self.http}/json/version") as answer:
            whole = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        async with self.session.ws_connect(whole) as line:
            made = await Tab(line).call("Target.createTarget", url=address, newWindow=True)
        page = f"{self.http}/devtools/page/{made['targetId']}"
        return Tab(await self.session.ws_connect(page, max_msg_size=0))


@asynccontextmanager
async def chromium(session: aiohttp.ClientSession, profile: Path) -> AsyncIterator[Chromium]:
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-background-networking", "--disable-extensions", "--no-proxy-server", "--touch-events=enabled",
               "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    with (profile.parent / "chromium.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(CHROMIUM, *options, stdout=log, stderr=log)
        try:
            chosen = profile / "DevToolsActivePort"
            async with asyncio.timeout(60):
                while not (chosen.is_file() and chosen.read_text().count("\n")):
                    assert process.returncode is None, (profile.parent / "chromium.log").read_text()
                    await asyncio.sleep(0.05)
            yield Chromium(session, int(chosen.read_text().split()[0]))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: install chromium (looked for {', '.join(BROWSERS)})"
)
