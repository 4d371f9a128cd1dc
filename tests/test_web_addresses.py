"""Who may reach the page, and by what name: tokens, certificates, QR codes, the command line."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from tiny import tiny_checkpoint  # noqa: E402
from web_table import SOON, Page, run, served  # noqa: E402

from data_collect.errors import UserError, main_guard  # noqa: E402
from game_wm.checkpoint import Checkpoint, load  # noqa: E402
from game_wm.play import app, web  # noqa: E402
from game_wm.play.web import addresses  # noqa: E402

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


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
    web.Room(loaded, players=2)
    loaded.model.memory.grows = True
    with pytest.raises(UserError, match="--players 1"):
        web.Room(loaded, players=2)


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
