"""What is played, as an mp4 or a GIF: one video frame for each dreamt one, enlarged without smoothing.

with VideoWriter("dream.mp4", fps=20) as video:
    video.write(picture)            # uint8 (H, W, 3)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.files import Part, cannot_write
from data_collect.games.resize import resize

TARGET = {"mp4": 512, "gif": 256}  # pixels of the shorter side, about: players smooth small videos, GIFs are large


def fitted(picture: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """A picture uint8 (H, W, 3) in the middle of one of `shape`, made smaller where it must: a film keeps its size."""
    if shape is None or picture.shape[:2] == shape:
        return picture
    height, width = picture.shape[:2]
    scale = min(1.0, shape[0] / height, shape[1] / width)
    small = resize(picture, max(1, int(width * scale)), max(1, int(height * scale)))
    whole = np.zeros((*shape, 3), np.uint8)
    top, left = (shape[0] - small.shape[0]) // 2, (shape[1] - small.shape[1]) // 2
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole


class VideoWriter:
    """Writes beside `path` and renames when whole, so that a file under that name always plays.

    The name says which: .gif or .mp4 (H.264 where PyAV has it, else MPEG-4). `shape` is (H, W) of what was written
    first. `UserError` when the file cannot be written (folder, device, another ending, rights, full disk): then nothing
    of it is left, and it writes no more.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = Path(path)
        self.format = self.path.suffix.lower().removeprefix(".")
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder: name a file such as {self.path / 'dream.mp4'}")
        if self.format not in TARGET:
            raise UserError(f"{self.path} ends in neither .mp4 nor .gif, the two kinds of video: name such a file")
        self.frames = 0
        self.shape: tuple[int, int] | None = None
        # A GIF counts hundredths of a second.
        self._fps = Fraction(100, max(2, round(100 / fps))) if self.format == "gif" else Fraction(fps)
        self._fps = self._fps.limit_denominator(1001) or Fraction(20)
        self._container: Any = None
        self._stream: Any = None
        self._colours: Any = None
        self._part: Part | None = Part(self.path)

    def write(self, picture: np.ndarray) -> None:
        """Append one picture, uint8 (H, W, 3)."""
        import av

        with self._written() as part:
            if self._stream is None:
                self._open(part, *picture.shape[:2])
            height, width = picture.shape[:2]
            image = picture.repeat(self._scale, 0).repeat(self._scale, 1)
            # 4:2:0 needs even sides: repeat the last row or column of an odd picture.
            image = np.pad(image, ((0, height * self._scale % 2), (0, width * self._scale % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if self._colours is not None:
                frame.pts, frame.time_base = self.frames, 1 / self._fps
                self._colours.push(frame)
                frame = self._colours.pull()
            self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left where nothing was written."""
        if self._part is None:
            return
        if self._container is None:
            self._abandon()
            return
        with self._written() as part:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._part = None
            part.finish()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _written(self) -> Iterator[Part]:
        """The file to write to; where that fails it is gone, and the error a sentence."""
        import av

        if self._part is None:
            raise UserError(f"{self.path} is finished: nothing more can be filmed to it")
        try:
            yield self._part
        except OSError as error:  # most of PyAV's errors, too
            self._abandon()
            raise cannot_write(self.path, error) from error
        except av.FFmpegError as error:
            self._abandon()
            raise UserError(f"{self.path} cannot be filmed ({error.strerror}): film to another kind of file") from error

    def _open(self, part: Part, height: int, width: int) -> None:
        import av

        self.shape = (height, width)
        self._scale = max(1, TARGET[self.format] // min(height, width))
        wide, tall = (side * self._scale + side * self._scale % 2 for side in (width, height))
        # The open file, since FFmpeg takes a name with a colon for an address.
        self._container = av.open(part.file, "w", format=self.format)
        if self.format == "gif":
            self._stream = self._container.add_stream("gif", rate=self._fps)
            self._stream.pix_fmt = "pal8"
            self._colours = _palettes(wide, tall, self._fps)
        else:
            codec = next(name for name in ("libx264", "mpeg4") if name in av.codecs_available)
            quality = {"preset": "veryfast", "crf": "17"} if codec == "libx264" else {"q": "3"}
            self._stream = self._container.add_stream(codec, rate=self._fps, options=quality)
            self._stream.pix_fmt = "yuv420p"
        self._stream.width, self._stream.height = wide, tall
        self._stream.codec_context.thread_count = 1  # the model needs the other cores

    def _abandon(self) -> None:
        """Let everything go, so that the space is free again."""
        part, self._part = self._part, None
        container, self._container, self._stream, self._colours = self._container, None, None, None
        if container is not None:
            with suppress(Exception):  # it would write its end, which fails as the rest did
                container.close()
        if part is not None:
            part.abandon()


def _palettes(width: int, height: int, fps: Fraction) -> Any:
    """A filter that gives every frame of a GIF the 256 colours that suit it."""
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / fps)
    split, use, sink = graph.add("split"), graph.add("paletteuse", "new=1:dither=none"), graph.add("buffersink")
    palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
