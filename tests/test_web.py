"""The player in a browser: a real server on a free port, aiohttp's client, and Chromium where there is one."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from PIL import Image  # noqa: E402
from tiny import tiny_checkpoint  # noqa: E402

from data_collect.errors import UserError, main_guard  # noqa: E402
from data_collect.schema import ActionSchema  # noqa: E402
from game_wm.checkpoint import Checkpoint, load  # noqa: E402
from game_wm.ui import app, keymap, web  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SOON = 20.0  # seconds for whatever must happen; a tenth of one is usual


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("web") / "tiny.safetensors", side=16, endless=True)


@pytest.fixture
def loaded(path: Path) -> Checkpoint:
    return load(path)


class Table:
    """A server that is running, and a client of it."""

    def __init__(self, server: web.Server, session: aiohttp.ClientSession, port: int) -> None:
        self.server, self.session, self.port = server, session, port
        self.http = f"http://127.0.0.1:{port}"

    async def sit(self, **options: Any) -> Page:
        return Page(await self.session.ws_connect(f"{self.http}/play", **options))

    async def seats(self, taken: int) -> None:
        """Wait until so many play."""
        async with asyncio.timeout(SOON):
            while len(self.server.players) != taken:
                await asyncio.sleep(0.01)


class Page:
    """What the page does, without a browser."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.line = line
        self.pictures: list[tuple[dict[str, Any], np.ndarray]] = []

    async def about(self) -> dict[str, Any]:
        return json.loads((await self.line.receive(SOON)).data)

    async def look(self, seen: bool = True) -> dict[str, Any]:
        """The next picture's status."""
        message = await self.line.receive(SOON)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        length = int.from_bytes(message.data[:4], "big")
        status = json.loads(message.data[4 : 4 + length])
        self.pictures.append((status, np.asarray(Image.open(io.BytesIO(message.data[4 + length :])))))
        if seen:
            await self.say(seen=status["frame"])
        return status

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(SOON):
            while not true(status := await self.look()):
                pass
        return status

    async def say(self, **message: Any) -> None:
        await self.line.send_json(message)


@asynccontextmanager
async def served(loaded: Checkpoint, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Table]:
    listening, ready = web.listen(host, 0), asyncio.Event()
    server = web.Server(loaded, **{"fps": 50.0, **options})
    task = asyncio.create_task(web.serve(server, listening, ready.set))
    try:
        async with asyncio.timeout(SOON):
            await ready.wait()
        async with aiohttp.ClientSession() as session:
            yield Table(server, session, listening.getsockname()[1])
        assert not task.done(), task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(play: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(3 * SOON):
            await play

    asyncio.run(limited())


# --- one player -------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(loaded: Checkpoint) -> None:
    async def play() -> None:
        async with served(loaded) as table, table.session.get(table.http) as answer:
            page = await answer.text()
            assert answer.status == 200 and "<canvas" in page and "://" not in page.replace('"}://${location', "")
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    run(play())


def test_frames_are_those_of_the_model_under_the_same_keys(loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Any] = []
    step = web.Batch.step
    monkeypatch.setattr(web.Batch, "step", lambda *a: (played.extend(a[1].values()), step(*a))[1])
    page: Page

    async def play() -> None:
        nonlocal page
        async with served(loaded, seed=7) as table:
            page = await table.sit()
            about = await page.about()
            assert (about["name"], about["width"], about["limit"], about["places"]) == ("tiny", 16, 2, 3)
            assert {"keys": ["up"], "text": "forward"} in about["keys"]
            assert [command["name"] for command in about["commands"]] == [
                command.name for command in keymap.COMMANDS if command.name in web.COMMANDS
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


def test_after_the_end_comes_the_next_place(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = load(path)
    ending.model.dynamics.context.outcome.bias[0] = 50
    monkeypatch.setattr(web, "NOTICE", 0.05)

    async def play() -> None:
        async with served(ending) as table:
            page = await table.sit()
            await page.about()
            assert (await page.until(lambda status: status["ended"]))["frame"] == 1
            assert (await page.until(lambda status: status["place"] == 1))["ended"] is False

    run(play())


def car(path: Path) -> Checkpoint:
    """The same model with a steering wheel."""
    keys = {"left": "steer-", "right": "steer+", "up": "gas+", "down": "brake+"}
    low, high = (-1, 0, 0, 0), (1, 1, 1, 1)
    schema = ActionSchema("box", ("steer", "gas", "brake", "horn"), low=low, high=high, keys=keys, fps=50)
    return replace(load(path), schema=schema)


def test_axes_go_part_of_the_way(path: Path) -> None:
    seen = []

    async def play() -> None:
        async with served(car(path)) as table:
            page = await table.sit()
            assert (await page.about())["axes"]
            await page.say(key="left", level=0.25, at=1)
            await page.until(lambda status: status["answers"] == 1)
            (player,) = table.server.players.values()
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
            assert table.server.players.keys() == {0, 1}
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
            assert table.server.players.keys() == {0}
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
            assert table.server.players[0].frames <= stopped + 1
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
            first = [await page.look(seen=False) for _ in range(web.UNSEEN)]
            (player,) = table.server.players.values()
            async with asyncio.timeout(SOON):
                while player.frames < 40:
                    await asyncio.sleep(0.01)
            now = player.frames
            await page.say(seen=first[0]["frame"])
            newest = (await page.look(seen=False))["frame"]
            assert first[-1]["frame"] < 10 and newest >= now  # what was dreamt between is nowhere
            with pytest.raises(TimeoutError):
                await page.line.receive(0.3)

    run(play())


def test_nothing_is_dreamt_while_nobody_plays(loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    turn = web.Dreams.turn
    monkeypatch.setattr(web.Dreams, "turn", lambda self, wishes: (turns.append(len(wishes)), turn(self, wishes))[1])

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
        monkeypatch.setattr(web, "_own_address", {"0.0.0.0": "192.168.1.5", "::": "fd00::5"}.get)
        assert web.address(listening, "0.0.0.0", "abc") == f"http://192.168.1.5:{port}/?token=abc"
        assert web.address(listening, "::", None) == f"http://[fd00::5]:{port}/"
        monkeypatch.setattr(web, "_own_address", lambda everywhere: None)
        assert web.address(listening, "0.0.0.0", "abc") == f"http://{socket.gethostname()}:{port}/?token=abc"


def test_the_address_on_the_network_is_one_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for everywhere in ("0.0.0.0", "::"):
        if (own := web._own_address(everywhere)) is not None:  # where there is a network
            assert not web.is_loopback(own) and (":" in own) == (":" in everywhere)
            web.listen(own, 0).close()
    for nowhere in ("127.0.0.1", "255.255.255.255"):  # a machine on no network; one whose system refuses
        monkeypatch.setattr(web, "ELSEWHERE", {"0.0.0.0": nowhere})
        assert web._own_address("0.0.0.0") is None


# --- the command line -------------------------------------------------------------------------------------------


def sentence(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What play.py says on stderr as it exits with status 2."""
    assert main_guard(lambda: app.main([str(argument) for argument in arguments])) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")
    return err


def test_a_taken_port_is_one_sentence(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        said = sentence(capsys, path, "--web", "--port", port)
    assert f"port {port} of 127.0.0.1 is taken" in said and "--port" in said


def test_bad_options(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--host" in sentence(capsys, path, "--web", "--host", "192.0.2.1.example.invalid")
    assert "--host" in sentence(capsys, path, "--web", "--host", "192.0.2.1")
    assert "--web" in sentence(capsys, path, "--port", 8080)
    assert "--headless" in sentence(capsys, path, "--web", "--headless")
    assert "--record" in sentence(capsys, path, "--web", "--record", "a.mp4")
    assert "--view" in sentence(capsys, path, "--web", "--view", "both")
    assert "0 to 2" in sentence(capsys, path, "--web", "--port", 0, "--context", 3)
    assert "missing.safetensors" in sentence(capsys, path.with_name("missing.safetensors"), "--web", "--port", 0)


def test_a_memory_that_grows_is_for_one(tmp_path: Path) -> None:
    loaded = load(tiny_checkpoint(tmp_path / "recall.safetensors", side=16, recall=True))
    web.Server(loaded, players=2)
    config = loaded.model.config
    loaded.model.config = replace(config, memory=replace(config.memory, growing=True))
    with pytest.raises(UserError, match="--players 1"):
        web.Server(loaded, players=2)


def start_play(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "play.py", str(path), "--web", "--port", "0", "--precision", "32", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_it_and_tells_the_pages(path: Path) -> None:
    process = start_play(path, "--host", "0.0.0.0", "--players", "1")
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


# --- a real browser ---------------------------------------------------------------------------------------------

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

    async def key(self, kind: str, key: str) -> None:
        await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def kill(self) -> None:
        """Its process dies, without a word to anybody."""
        await self.line.send_json({"id": 0, "method": "Page.crash"})


class Chromium:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session, self.http = session, f"http://127.0.0.1:{port}"

    async def open(self, address: str) -> Tab:
        async with self.session.put(f"{self.http}/json/new?{address}") as answer:
            target = await answer.json(content_type=None)
        return Tab(await self.session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0))


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


FIGURES = """(() => {
    figures({players: 1, place: 2, score: SCORE});
    return document.querySelector("#figures").textContent;
})()"""


@needs_chromium
def test_in_chromium(loaded: Checkpoint, tmp_path: Path) -> None:
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

            player = table.server.players[0]
            await ann.key("keyDown", "ArrowUp")
            await ann.until("latencies.length > 0")
            assert player.keyboard.held == ("up",)
            assert 0 < await ann.value("latencies[0]") < 1e3 * SOON
            await ann.key("keyUp", "ArrowUp")
            async with asyncio.timeout(SOON):
                while player.keyboard.held:
                    await asyncio.sleep(0.01)
            await ann.key("keyDown", "n")
            await ann.until("document.body.dataset.place === '1'")
            await ann.key("keyUp", "n")
            at = json.loads(await ann.value(
                "(() => { const b = document.querySelector('[data-arrow=left]'); document.querySelector('#touch').style"
                ".display = 'flex'; const r = b.getBoundingClientRect();"
                " return JSON.stringify({x: r.x + r.width / 2, y: r.y + r.height / 2}); })()"
            ))  # fmt: skip
            await ann.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
            async with asyncio.timeout(SOON):
                while player.keyboard.held != ("left",):
                    await asyncio.sleep(0.01)
            await ann.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            async with asyncio.timeout(SOON):
                while player.keyboard.held:
                    await asyncio.sleep(0.01)

            bob = await browser.open(table.http)
            await bob.until(f"{frame} > 3")
            now = await ann.value(frame)
            await ann.until(f"{frame} > {now} && document.querySelector('#figures').textContent.includes('2 of 2')")
            cid = await browser.open(table.http)
            await cid.until("document.querySelector('#notice')?.innerText.startsWith('Full\\ntiny is played by 2')")
            await bob.kill()
            await cid.until(f"{frame} > 3 && document.querySelector('#notice').hidden")

    run(play())


@needs_chromium
def test_loading_the_page_anew_in_a_full_game_in_chromium(
    loaded: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "AGAIN", 10 * SOON)  # who is told that it is full stays out

    async def play() -> None:
        async with served(loaded, players=1) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            for number in range(3):
                async with asyncio.timeout(SOON):
                    while table.server.players.keys() != {number}:
                        await asyncio.sleep(0.01)
                await ann.until("+document.body?.dataset.frame > 3")
                await ann.call("Page.reload")

    run(play())


@needs_chromium
def test_dragging_on_the_picture_in_chromium(path: Path, tmp_path: Path) -> None:
    async def play() -> None:
        async with served(car(path)) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            box = json.loads(
                await ann.value("JSON.stringify(document.querySelector('canvas').getBoundingClientRect())")
            )
            middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left"}
            await ann.call("Input.dispatchMouseEvent", type="mousePressed", clickCount=1, **middle)
            away = middle | {"x": middle["x"] + 0.15 * box["width"], "y": middle["y"] - 0.45 * box["height"]}
            await ann.call("Input.dispatchMouseEvent", type="mouseMoved", buttons=1, **away)
            keyboard = table.server.players[0].keyboard
            async with asyncio.timeout(SOON):
                while set(keyboard.held) != {"right", "up"}:
                    await asyncio.sleep(0.01)
            steer, gas, brake, horn = keyboard.act(np.zeros(0), {}).tolist()
            assert 0.45 < steer < 0.55 and (gas, brake, horn) == (1, 0, 0)
            await ann.call("Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **away)
            async with asyncio.timeout(SOON):
                while keyboard.held:
                    await asyncio.sleep(0.01)

    run(play())


LAID_OUT = """(() => {
    const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
    fit();
    return {picture: box(canvas), buttons: [...document.querySelectorAll("button")].map(box)};
})()"""


def apart(a: list[float], b: list[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) have nothing in common."""
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@needs_chromium
def test_buttons_beside_the_picture_on_phones_in_chromium(loaded: Checkpoint, tmp_path: Path) -> None:
    names = ("forward", "back", "turn left", "turn right", "strafe left", "strafe right", "attack", "accelerate")
    keys = [{"keys": [key], "text": text} for key, text in zip((*keymap.ARROWS, *"adxy"), names, strict=True)]
    pictures = {(390, 844): 384, (320, 568): 320, (320, 454): 320, (844, 390): 512, (667, 375): 448, (568, 320): 320}

    async def play() -> None:
        async with served(loaded) as table, chromium(table.session, tmp_path / "profile") as browser:
            ann = await browser.open(table.http)
            await ann.until("+document.body?.dataset.frame > 3")
            await ann.call("Emulation.setTouchEmulationEnabled", enabled=True)
            for count in (4, 6, 8):
                about = f"{{...about, width: 128, height: 96, keys: {json.dumps(keys[:count])}}}"
                await ann.value(f"$('pad').replaceChildren(); $('rest').replaceChildren(); begin({about})")
                for (width, height), least in pictures.items():
                    screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
                    await ann.call("Emulation.setDeviceMetricsOverride", **screen)
                    await ann.until(f"innerWidth === {width}")
                    laid = await ann.value(LAID_OUT)
                    picture, buttons = laid["picture"], laid["buttons"]
                    assert picture[2] - picture[0] >= least, (count, width, height, picture)
                    assert len(buttons) == 6 + count
                    for i, button in enumerate(buttons):
                        assert 0 <= button[0] < button[2] <= width and 0 <= button[1] < button[3] <= height
                        assert all(apart(button, other) for other in (picture, *buttons[:i]))
                    for button in buttons[6:]:
                        assert min(button[2] - button[0], button[3] - button[1]) >= 44

    run(play())
