"""What is played, as an mp4: one video frame for each dreamt one, enlarged without smoothing.

with VideoWriter("dream.mp4", fps=20) as video:
    video.write(picture)            # uint8 (H, W, 3)
"""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_collect.errors import UserError

TARGET = 512  # pixels of the shorter side, about: players smooth small videos


class VideoWriter:
    """Writes beside `path` and renames when whole, so that a file under that name always plays.

    H.264 where PyAV has it, else MPEG-4. `UserError` when the file cannot be written (folder, rights, full disk).
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = Path(path)
        self.frames = 0
        self._fps = Fraction(fps).limit_denominator(1001) or Fraction(20)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._container: Any = None
        self._stream: Any = None
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder: name a file such as {self.path / 'dream.mp4'}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.touch()
        except OSError as error:
            raise self._failure(error) from None

    def write(self, picture: np.ndarray) -> None:
        """Append one picture, uint8 (H, W, 3)."""
        import av

        try:
            if self._stream is None:
                self._open(*picture.shape[:2])
            height, width = picture.shape[:2]
            image = picture.repeat(self._scale, 0).repeat(self._scale, 1)
            # 4:2:0 needs even sides: repeat the last row or column of an odd picture.
            image = np.pad(image, ((0, height * self._scale % 2), (0, width * self._scale % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            self._container.mux(self._stream.encode(frame))
        except OSError as error:  # PyAV's errors are OSErrors with errno
            self._abandon()
            raise self._failure(error) from None
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left where nothing was written."""
        if self._container is None:
            self._part.unlink(missing_ok=True)
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode(None))
            container.close()
            self._part.replace(self.path)
        except OSError as error:
            self._abandon()
            raise self._failure(error) from None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self, height: int, width: int) -> None:
        import av

        self._scale = max(1, TARGET // min(height, width))
        self._container = av.open(str(self._part), "w", format="mp4")
        codec = next(name for name in ("libx264", "mpeg4") if name in av.codecs_available)
        quality = {"preset": "veryfast", "crf": "17"} if codec == "libx264" else {"q": "3"}
        self._stream = self._container.add_stream(codec, rate=self._fps, options=quality)
        self._stream.width = width * self._scale + width * self._scale % 2
        self._stream.height = height * self._scale + height * self._scale % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 1  # the model needs the other cores

    def _abandon(self) -> None:
        self._container = None
        self._part.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> UserError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return UserError(f"the disk is full while writing {self.path}; free some space or record elsewhere")
        return UserError(f"{self.path} cannot be written ({error.strerror or error}); name another file")
