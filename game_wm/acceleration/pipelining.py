"""Pipelining: a frame is decoded while the context stream reads it.

    model = pipeline(model)         # in place; the same frames

Both begin from the finished latent and neither waits for the other; what needs both (episodic memory, the last frames)
comes after. It wants a free core, and layers large enough that the threads do not wait for one interpreter: it is not
for compiled code, which is one part there.

Legend: B players, C channels, h, w latent grid, H, W picture.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.world import WorldModel


def pipeline(model: WorldModel) -> WorldModel:
    """The same model with a thread of its own for the decoder, changed in place.

    Raises UserError for a model that is compiled.
    """
    if model.compiling is not None:
        raise UserError("in compiled code decoding and reading are one part: take pipelining or compilation")
    pool = ThreadPoolExecutor(1, thread_name_prefix="decoder")

    def decode(clean_BCHW: Tensor, before_BCHW: Tensor, threads: int) -> Tensor:
        torch.set_num_threads(threads)  # a new thread begins with its own number
        return model.decode(clean_BCHW, before_BCHW)

    def decoding(clean_BCHW: Tensor, before_BCHW: Tensor) -> Callable[[], Tensor]:
        return pool.submit(decode, clean_BCHW, before_BCHW, torch.get_num_threads()).result

    model.decoding = decoding  # type: ignore[method-assign]
    return model
