"""Files that are whole or not there: written beside their name and renamed, so that a full disk costs no other file.

with whole("walk.npz") as file:         # open for bytes; what stood there before stays until all of it is written
    np.savez(file, actions=actions)

part = Part("dream.mp4")                # the same, where the writing has no block of its own
part.file.write(data)
part.finish()                           # or part.abandon()
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from data_collect.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # what a file system says that cannot sync
LONG = 60  # letters that a temporary name takes over from the file's: a system has room for 255 bytes


class Part:
    """A file in the making, open for bytes at `file`, under a temporary name.

    `UserError` where it cannot be made, or would replace what is no file (a folder, a device, a pipe).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._whole = Path(os.path.realpath(self.path))  # a link stays one
        self._part = self._whole.with_name(f".{self._whole.name[:LONG]}.part")
        self._made: list[Path] = []
        try:
            if self._whole.is_dir():
                raise UserError(f"{self.path} is a folder: name a file in it")
            if self._whole.exists() and not self._whole.is_file():
                raise UserError(f"{self.path} is a device or a pipe, which a file would replace: name a file")
            self._made = [folder for folder in self._whole.parents if not folder.exists()]
            self._whole.parent.mkdir(parents=True, exist_ok=True)
            self.file: BinaryIO = open(self._part, "wb")  # noqa: SIM115 `finish` and `abandon` close it
        except OSError as error:
            self._remove()
            raise cannot_write(self.path, error) from error

    def finish(self) -> None:
        """All is written: the file gets its name. `UserError`, and nothing left, where the disk is full after all."""
        try:
            with self.file:
                self.file.flush()
                _sync(self.file)
            self._part.replace(self._whole)
        except OSError as error:
            self._remove()
            raise cannot_write(self.path, error) from error

    def abandon(self) -> None:
        """Close and remove what there is, and the folders made for it; what stood under the name before stays."""
        with suppress(OSError):  # the buffer's rest may find the disk full once more
            self.file.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._part.unlink()
        for folder in self._made:
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()


@contextmanager
def whole(path: str | Path) -> Iterator[BinaryIO]:
    """The file of a `Part` that is finished when the block ends, abandoned when it raises. An OSError becomes a
    `UserError`."""
    part = Part(path)
    try:
        yield part.file
    except BaseException as error:
        part.abandon()
        if refused := _refused(error):
            raise cannot_write(part.path, refused) from error
        raise
    part.finish()


def save_picture(path: str | Path, picture: Image.Image) -> None:
    """Write a picture in the format that the name ends in. `UserError` where it cannot be written."""
    from PIL import Image

    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise UserError(f"{path} ends like no kind of picture: name a .png file")
    made = io.BytesIO()  # on a file of its own Pillow says no more than "encoder error"
    picture.save(made, kind)
    with whole(path) as file:
        file.write(made.getvalue())


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a file that may not be there yet. `UserError`, and nothing added, where there is no room for it."""
    path = Path(path)
    size = path.stat().st_size if path.exists() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            data = f"{line}\n".encode()
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size) if size is not None else path.unlink()
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    if error.errno in FULL or (error.errno is None and "requested and" in str(error)):  # NumPy, without a number
        return UserError(f"the disk is full while writing {path}: free some space and try again")
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{path} cannot be written (its name is too long): shorten it")
    reason = "its folder is a file" if error.errno in NO_FOLDER else error.strerror or error
    return UserError(f"{path} cannot be written ({reason}): change what stands in the way, or write elsewhere")


def _refused(error: BaseException | None) -> OSError | None:
    """The system's refusal that an error is, or tells of: a full disk is a RuntimeError to torch, a SafetensorError to
    safetensors."""
    if isinstance(error, OSError):
        return error
    if "os error 28" in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__ or error.__context__
    return error


def _sync(file: BinaryIO) -> None:
    """To the disk, where the file system can: some tell only now that they are full."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
