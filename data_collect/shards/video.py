"""Lossless frames: FFV1 in Matroska, in memory.

    data = encode_frames(frames, fps=20)      # frames uint8 (T, H, W, 3), RGB
    same = decode_frames(data)                # bit for bit

FFV1 stores 8-bit RGB as bgr0. It predicts inside each picture, and its statistics run on over a chunk's frames, since a
chunk is read whole. One thread and one slice: more cost time and bytes at game size, and each core has a recorder.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

# The range coder saves a quarter over Rice codes and costs 0.02 ms a frame at 64x64. Level 1 has no slices.
OPTIONS = {"level": "1", "coder": "range_def", "g": "1000"}


def encode_frames(frames: np.ndarray, fps: float) -> bytes:
    """Matroska file with the frames, uint8 (T, H, W, 3) RGB, T >= 1."""
    _, height, width, _ = frames.shape
    buffer = io.BytesIO()
    # bitexact keeps dates and random ids out: the same frames, the same bytes.
    with av.open(buffer, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1000), options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            picture = av.VideoFrame(width, height, "bgr0")
            _pixels(picture, height, width)[..., :3] = pixels[..., ::-1]
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decode_frames(data: bytes) -> np.ndarray:
    """uint8 (T, H, W, 3) RGB of what `encode_frames` wrote; `ValueError` when it is something else or damaged."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            height, width = stream.height, stream.width
            pictures = list(container.decode(stream))
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"frames cannot be decoded: {error}") from None
    frames = np.empty((len(pictures), height, width, 3), np.uint8)
    for pixels, picture in zip(frames, pictures):
        if picture.format.name != "bgr0":
            raise ValueError(f"frames are {picture.format.name}, not bgr0")
        pixels[:] = _pixels(picture, height, width)[..., 2::-1]
    return frames


def _pixels(picture: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """View (H, W, 4) of a bgr0 picture's memory; its lines may be padded."""
    plane = picture.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
    return lines[:, : width * 4].reshape(height, width, 4)
