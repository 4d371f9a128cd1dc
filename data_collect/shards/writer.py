"""Shards: WebDataset tar files that a killed recorder cannot corrupt.

    with ShardWriter(folder) as writer:
        ref = writer.add(chunk)         # a kill no longer loses it when this returns

A shard grows as `shard-{episode}-{chunk}.tar.part`. It is named by its first chunk, so that neither workers nor later
runs collide. A full shard gets its end mark and loses the `.part`, so a file with a shard's name is whole. `salvage`
makes whole shards of what a killed recorder left, without the chunk that it was writing.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from data_collect.errors import UserError, disk_full
from data_collect.shards.chunk import BLOCK, Chunk, ChunkRef, pack, scan, unpack
from data_collect.system import sync_folder

PART = ".part"
SHARD_BYTES = 32 << 20
SHARD_CHUNKS = 128


class ShardWriter:
    """Appends chunks to shards of about 32 MiB in `folder`; `closed` lists the shards that are whole.

    Raises `UserError` when the disk is full: what was added before stays, and the shard in hand is closed with it.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES, shard_chunks: int = SHARD_CHUNKS) -> None:
        self.folder = folder
        self.shard_bytes, self.shard_chunks = shard_bytes, shard_chunks
        self.closed: list[str] = []
        self._path: Path | None = None
        self._file = -1
        self._size = self._chunks = 0
        self._synced = 0.0

    def add(self, chunk: Chunk) -> ChunkRef:
        """Write a chunk; killing this process does not lose it any more."""
        blob = pack(chunk)
        if self._path is None:
            self._open(self.folder / f"shard-{chunk.meta['episode']:06d}-{chunk.meta['chunk']:04d}.tar")
        assert self._path is not None
        try:
            # The kernel keeps what a killed process wrote; syncing is for power cuts, and once a second will do.
            sync = time.monotonic() - self._synced > 1
            _write(self._file, blob, sync)
            self._synced = time.monotonic() if sync else self._synced
        except OSError as error:
            # Take back the part that was written, so that the shard ends with a whole chunk.
            os.ftruncate(self._file, self._size)
            self.close()
            raise _sentence(error, self.folder) from error
        offset, self._size = self._size, self._size + len(blob)
        ref = ChunkRef.of(self._path.name, offset, len(blob), chunk.meta)
        self._chunks += 1
        if self._size >= self.shard_bytes or self._chunks >= self.shard_chunks:
            self.close()
        return ref

    def _open(self, path: Path) -> None:
        if path.exists():
            raise UserError(f"{path} is in the way: it is damaged or of another recording; move it away")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.open(_part(path), flags, 0o644)
        except OSError as error:
            raise _sentence(error, self.folder) from error
        self._path, self._size, self._chunks = path, 0, 0

    def close(self) -> None:
        """Finish the shard in hand. If the disk has no room even for its end mark, `salvage` finishes it later."""
        path, self._path = self._path, None
        if path is None:
            return
        try:
            if self._size == 0:
                _part(path).unlink()
                return
            _write(self._file, bytes(2 * BLOCK))
            os.replace(_part(path), path)
            sync_folder(self.folder)
            self.closed.append(path.name)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        finally:
            os.close(self._file)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def part_files(folder: Path, episode: int | None = None) -> list[Path]:
    """Shards that are being written, or whose recorder was killed; those that begin with an episode, or all."""
    return sorted(folder.glob(f"shard-{'*' if episode is None else f'{episode:06d}-*'}.tar{PART}"))


def salvage(folder: Path, episode: int | None = None) -> list[str]:
    """Make whole shards of unfinished ones, with the whole chunks that they hold; returns their names."""
    saved = []
    for part in part_files(folder, episode):
        end = 0
        with part.open("r+b") as file:
            try:
                for ref, _ in scan(part):
                    # After a power cut the pages of a file may be on disk out of order: trust only the hashes.
                    file.seek(ref.offset)
                    unpack(file.read(ref.bytes), part.name, frames=False)
                    end = ref.offset + ref.bytes
            except ValueError:
                pass  # the end of what is whole
            if end:
                file.truncate(end)
                file.seek(end)
                try:
                    _write(file.fileno(), bytes(2 * BLOCK))
                except OSError as error:
                    raise _sentence(error, folder) from error
        path = part.with_name(part.name.removesuffix(PART))
        if not end:
            part.unlink()
            continue
        if path.exists():
            raise UserError(f"both {path} and {part.name} exist; move one of them away")
        os.replace(part, path)
        saved.append(path.name)
    sync_folder(folder)
    return saved


def write_atomic(path: Path, text: str) -> None:
    """Replace a small file by `text` so that a reader, or a power cut, sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write(file, text.encode())
        finally:
            os.close(file)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # a read-only disk refuses even what is not there
            temporary.unlink()
        raise _sentence(error, path) from error


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _write(file: int, data: bytes, sync: bool = True) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    if sync:
        os.fsync(file)


def _sentence(error: OSError, path: Path) -> Exception:
    """The user's error for a full or forbidden disk, or the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(disk_full(path))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return UserError(f"{path} cannot be written ({error.strerror}); choose another --out")
    return error
