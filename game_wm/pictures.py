"""Pictures: how a checkpoint file stores them, raw when they are few, AVIF one after another otherwise. And where
something moves in them: the pixels that differ from the median picture of their episode.

    mask = moving(frames, median_picture(episode))

Legend: S seed contexts, P frames of each, N pictures, B frames, T frames of an episode, H, W pixels.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MOVED = 24  # grey levels of 256 between a pixel and its episode's median picture where something moves
MEDIAN_FRAMES = 64  # of an episode, evenly spread: its median picture is theirs
RAW_BYTES = 4 * 2**20  # seed contexts of at most so many bytes are stored as they are
# Quality 60 loses less than any tokenizer does (docs/decisions).
AVIF: dict[str, Any] = {"quality": 60, "subsampling": "4:4:4", "speed": 4, "max_threads": 1}


def pack_contexts(frames_SPHWC: Tensor) -> dict[str, Tensor]:
    """The tensors that a file holds for the frames of its seed contexts, uint8."""
    if frames_SPHWC.nbytes <= RAW_BYTES:
        return {"contexts.frames": frames_SPHWC.contiguous()}
    coded, sizes_N = encode(frames_SPHWC.flatten(0, 1))
    return {"contexts.frames": coded, "contexts.sizes": sizes_N.view(frames_SPHWC.shape[:2])}


def unpack_contexts(tensors: dict[str, Tensor]) -> Tensor:
    """The inverse: uint8 (S, P, H, W, 3).

    Raises ValueError or OSError where the tensors hold no pictures.
    """
    frames, sizes_SP = tensors["contexts.frames"], tensors.get("contexts.sizes")
    if sizes_SP is None:
        return frames
    if sizes_SP.ndim != 2:
        raise ValueError("its contexts' pictures are not all there")
    return decode(frames, sizes_SP.flatten()).unflatten(0, tuple(sizes_SP.shape))


def encode(frames_NHWC: Tensor) -> tuple[Tensor, Tensor]:
    """AVIF pictures of frames, one after another (bytes), and the bytes of each (N,)."""

    def picture(frame_HWC: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(frame_HWC).save(file, "AVIF", **AVIF)
        return file.getvalue()

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        coded = list(threads.map(picture, frames_NHWC.contiguous().numpy()))
    sizes_N = torch.tensor([len(each) for each in coded], dtype=torch.int32)
    return torch.from_numpy(np.frombuffer(b"".join(coded), np.uint8).copy()), sizes_N


def decode(coded: Tensor, sizes_N: Tensor) -> Tensor:
    """The inverse: uint8 (N, H, W, 3). Any format that Pillow reads will do.

    Raises ValueError or OSError where the bytes are not these pictures.
    """
    ends = sizes_N.long().cumsum(0)
    if coded.ndim != 1 or not len(ends) or int(ends[-1]) != len(coded):
        raise ValueError("its pictures are not all there")
    parts = torch.tensor_split(coded, ends[:-1])
    try:
        pictures = [np.array(Image.open(io.BytesIO(part.numpy().tobytes())).convert("RGB")) for part in parts]
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    return torch.from_numpy(np.stack(pictures))


def median_picture(frames_THWC: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): what stays where it is, each pixel's median over an episode."""
    chosen = np.linspace(0, len(frames_THWC) - 1, min(MEDIAN_FRAMES, len(frames_THWC))).astype(np.int64)
    return np.median(frames_THWC[chosen], axis=0).astype(np.uint8)


def moving(frames_BHWC: Tensor, medians_BHWC: Tensor) -> Tensor:
    """Bool (B, H, W): where frames differ from the median pictures of their episodes, by more than `MOVED` in any
    colour."""
    return (frames_BHWC.short() - medians_BHWC.short()).abs().amax(-1) > MOVED
