"""Servers for tests: a folder over HTTP with range requests, an S3 store, and both with faults on demand."""

from __future__ import annotations

import gc
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Serves a folder, or hands requests on to another server, whose address it is given.

    `faults[name]` are what becomes of the next requests for a file of that name: "cut" (half of it, then the connection
    ends), "slow", "refuse" (503), "whole" (as if it knew no ranges). `asked` counts requests by name.
    """

    daemon_threads = True

    def __init__(self, source: Path | str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.source, self.faults, self.asked = source, defaultdict[str, list[str]](list), Counter[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        name = path.rpartition("/")[2]
        self.server.asked[name] += 1
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else ""
        if fault == "refuse":
            self.send_error(503)
            return
        status, headers, body = self._fetch(path, fault != "whole")
        if fault == "slow":
            time.sleep(0.3)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = fault == "cut"

    do_HEAD = do_GET

    def _fetch(self, path: str, ranges: bool) -> tuple[int, dict[str, str], bytes]:
        if isinstance(self.server.source, str):
            return self._hand_on(self.server.source)
        file = self.server.source / path
        if not file.is_file():
            return 404, {}, b"no such file"
        data = file.read_bytes()
        if not ranges or "Range" not in self.headers:
            return 200, {"Accept-Ranges": "bytes"}, data
        start, end = self.headers["Range"].removeprefix("bytes=").split("-")
        return 206, {"Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[int(start) : int(end) + 1]

    def _hand_on(self, address: str) -> tuple[int, dict[str, str], bytes]:
        headers = {key: value for key, value in self.headers.items() if key.lower() != "accept-encoding"}
        request = urllib.request.Request(address + self.path, headers=headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                found, status, body = answer.headers, answer.status, answer.read()
        except urllib.error.HTTPError as error:
            found, status, body = error.headers, error.code, error.read()
        left = ("content-length", "connection", "date", "server", "transfer-encoding")
        return status, {key: value for key, value in found.items() if key.lower() not in left}, body

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(source: Path | str) -> Iterator[Server]:
    with Server(source) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()
        gc.collect()  # cut connections, which tell of themselves where they are collected


@contextmanager
def s3_store(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """What a folder holds in a bucket of an S3 store, behind a server that can fail."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".cache" not in path.parts:
            client.upload_file(str(path), bucket, path.relative_to(folder).as_posix())
    try:
        with serving(f"http://{host}:{port}") as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            s3fs.S3FileSystem.clear_instance_cache()  # of other addresses
            yield server
    finally:
        store.stop()
