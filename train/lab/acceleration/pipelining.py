"""Pipelining: a frame is decoded while the context stream reads it.

    model = pipeline(model)         # in place; the same frames

Both begin from the finished latent and neither waits for the other; what needs both (episodic memory, the last frames)
comes after. It wants a free core, and layers large enough that the threads do not wait for one interpreter.

Legend: B players, C channels, h, w latent grid, H, W picture.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.protocol import Frame
from game_wm.state import WorldState
from game_wm.world import WorldModel


def pipeline(model: WorldModel) -> WorldModel:
    """The same model with a thread of its own for the decoder, changed in place.

    Raises UserError for a model that is compiled.
    """
    if model.compiling is not None:
        raise UserError("compiled code decodes on all cores already: take pipelining or compilation")
    pool, own = ThreadPoolExecutor(1, thread_name_prefix="decoder"), model.parts
    decoding: list[Future[Tensor]] = []  # of the frame that is being committed

    @torch.inference_mode()  # which is a thread's own
    def fill(frames_BHWC: Tensor, clean_BCHW: Tensor, before_BCHW: Tensor, threads: int) -> Tensor:
        torch.set_num_threads(threads)  # a new thread begins with its own number
        return frames_BHWC.copy_(own.decode(clean_BCHW, before_BCHW))

    def decode(clean_BCHW: Tensor, before_BCHW: Tensor) -> Tensor:
        """Frames that are there once `commit` is through."""
        frames = torch.empty(len(clean_BCHW), model.height, model.width, 3, dtype=torch.uint8, device=clean_BCHW.device)
        decoding.append(pool.submit(fill, frames, clean_BCHW, before_BCHW, torch.get_num_threads()))
        return frames

    def commit(state: WorldState, step: Any, frame: Frame) -> tuple[Tensor, Tensor]:
        with model.autocast():
            outcome = model.dynamics.encode_context(state.dynamics, frame.latent, frame.action)
            while decoding:
                decoding.pop().result()
            model.memory.commit(state.memory, step, frame)
        return outcome

    model.parts = replace(own, decode=decode, commit=commit)
    return model
