"""Folders on servers, read through fsspec: s3://, gs://, http(s)://, hf:// and whatever else it knows.

    folder = place("s3://bucket/maze")              # a RemotePath; of "runs/maze" a Path
    (folder / "index.jsonl").read_text()
    read_range(folder / "shard-000000-0000.tar", offset, size)      # this part alone, kept on this disk

What is cut off, slow or refused for a while is asked for again. Parts are kept in `~/.cache/game_wm/remote` (`remote`
of the folder that GAME_WM_CACHE names), at most 16 GiB of them (GAME_WM_CACHE_GIB); the longest unread goes first.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from data_collect.errors import UserError
from data_collect.system import cache_folder

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before something is asked for again
SILENCE = 60  # seconds without a byte, after which a connection counts as cut
CACHE_GIB = 16.0
BLOCK_BYTES = 256 << 10  # of an array's rows that are fetched at once
HEADER = 128  # bytes before the rows of an array that NumPy wrote


@dataclass(frozen=True)
class RemotePath:
    """A file or a folder on a server; has of `Path` what reading needs."""

    url: str

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rpartition("/")[2]

    def read_text(self) -> str:
        """All of it, as it is now. `FileNotFoundError`; `UserError` where the server does not give it."""
        return _fetch(self.url).decode()

    def exists(self) -> bool:
        try:
            _fetch(self.url, 0, 1)
        except FileNotFoundError:
            return False
        return True

    def read_range(self, offset: int, size: int) -> bytes:
        """So many bytes from there on, from this disk where they are kept. Errors as in `read_text`."""
        cache = _cache(cache_folder("remote"), float(os.environ.get("GAME_WM_CACHE_GIB", CACHE_GIB)))
        key = hashlib.sha256(f"{self.url} {offset} {size}".encode()).hexdigest()[:32]
        data = cache.get(key)
        if data is None or len(data) != size:
            data = _fetch(self.url, offset, offset + size)
            cache.put(key, data)
        return data


Place: TypeAlias = Path | RemotePath


def place(name: str | Place) -> Place:
    """The path that a name stands for, on this machine or on a server."""
    return name if isinstance(name, RemotePath) else RemotePath(str(name)) if "://" in str(name) else Path(name)


def on_disk(name: str | Place) -> Path:
    """The path of what is to be written. `UserError` where it is on a server."""
    found = place(name)
    if isinstance(found, RemotePath):
        raise UserError(f"{found} cannot be written: name a folder on this machine, and copy it there afterwards")
    return found


def read_range(path: Place, offset: int, size: int) -> bytes:
    """So many bytes of a file from there on; fewer where a file on this machine ends before."""
    if isinstance(path, RemotePath):
        return path.read_range(offset, size)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


class RemoteRows:
    """Rows of an array in a `.npy` file on a server, fetched in blocks of about 256 KiB.

    `ValueError` where it is no such file, else the errors of `RemotePath.read_text`.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path, file = path, io.BytesIO(path.read_range(0, HEADER))
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("it is of another version")
        self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
        self.start, self.row = file.tell(), self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self.block = max(1, BLOCK_BYTES // max(1, self.row))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        first, parts = start // self.block, list[bytes]()
        for begin in range(first * self.block, stop, self.block):
            count = min(self.block, len(self) - begin)
            parts.append(self.path.read_range(self.start + begin * self.row, count * self.row))
        found = np.frombuffer(b"".join(parts), self.dtype).reshape(-1, *self.shape[1:])
        return found[start - first * self.block : stop - first * self.block : step]


class Cache:
    """Files of bytes by a key, so many bytes in all; other processes may use the same folder."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit, self.lock = folder, limit, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.bytes = sum(size for _, size, _ in self._files())

    def get(self, key: str) -> bytes | None:
        path = self.folder / key
        try:
            data = path.read_bytes()
            os.utime(path)  # the longest unread goes first
        except FileNotFoundError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        part = self.folder / f"{key}.{os.getpid()}.{threading.get_ident()}"
        try:
            part.write_bytes(data)
            part.replace(self.folder / key)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        with self.lock:
            self.bytes += len(data)
            if self.bytes > self.limit:
                self._shrink()

    def _files(self) -> list[tuple[float, int, str]]:
        found = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        return sorted(found)

    def _shrink(self) -> None:
        """Remove what was unread the longest, a tenth more than must be."""
        files = self._files()
        self.bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self.bytes <= 0.9 * self.limit:
                break
            with suppress(OSError):
                os.unlink(path)
            self.bytes -= size


@lru_cache
def _cache(folder: Path, gib: float) -> Cache:
    return Cache(folder, gib * 2**30)


def _fetch(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """A file or a part of it. `FileNotFoundError`; `UserError` where the server does not give it, asked six times."""
    for pause in (*PAUSES, None):
        try:
            files, path = _opened(url)
            data = files.cat_file(path, start=start, end=end)
            if start is None or end is None or len(data) == end - start:
                return data
            if len(data) > end - start:
                raise UserError(f"{url} comes whole where a part is asked for: its server must know range requests")
            raise OSError(f"{len(data)} bytes came instead of {end - start}")
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:  # each of the libraries behind fsspec has errors of its own
            said = " ".join(str(error).split())[:200] or type(error).__name__
            if isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403):
                raise UserError(f"{url} cannot be read ({said}): see that you are allowed to") from None
            if pause is None:
                raise UserError(
                    f"{url} cannot be read ({said}): see that its server answers, and run the same command again"
                ) from None
        time.sleep(pause)
    raise AssertionError("the last time it returns or raises")


def _opened(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    try:
        import fsspec

        options: dict[str, Any] = {}
        if url.startswith("http"):
            import aiohttp

            silence = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
            options["client_kwargs"] = {"timeout": silence}
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise UserError(f"{url} needs a package ({error}): pip install 'game_wm[remote]'") from None
    except ValueError as error:
        raise UserError(f"{url} cannot be read ({error}): name a folder, or a URL that fsspec knows") from None
