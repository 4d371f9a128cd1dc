"""Tokenizers side by side: what is left of a frame, in how many tokens, and how long it takes to see it.

    python -m train bench reconstruction runs/*/tokenizer/last.ckpt --data runs/maze/data [--frames 256] [--json]

PSNR (all pixels of all frames) and sharpness (mean gradient over that of the frame) of held-out frames, coded and
decoded in 32 bits. The time is the median of decoding one frame, as play has it: weights laid out once (`packing.py`).

Legend: B frames, T frames in a row, H, W pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.acceleration import pack
from game_wm.evaluation import metrics
from game_wm.tokenizer import Tokenizer
from train.checkpoints import open_tokenizer
from train.frames import PooledFrames, Recording
from train.machine import use_all_cores
from train.report import say

HELD_OUT = 0.04  # as the tokenizer's training has it
REPEATS = 100
COLUMNS = {"psnr": 2, "sharpness": 2, "tokens": 0, "channels": 0, "decoder_parameters": 0, "decode_ms": 2}  # decimals


@torch.inference_mode()
def reconstruction(tokenizer: Tokenizer, frames_BTHWC: Tensor) -> dict[str, float]:
    """The figures of a tokenizer on the last of each row of three frames, uint8 (B, 3, H, W, 3)."""
    first, before, now = frames_BTHWC.unbind(1)
    made = []
    for parts in zip(first.split(32), before.split(32), now.split(32)):
        past = tokenizer.encode(parts[1], parts[0])
        made.append(tokenizer.decode(tokenizer.encode(parts[2], parts[1]), past))
    shown = torch.cat(made)
    slopes = torch.stack((metrics.gradient(shown), metrics.gradient(now)), 1)
    height, width = tokenizer.config.grid
    return {
        "psnr": metrics.pooled_psnr(metrics.squared_error(now, shown).numpy()),
        "sharpness": metrics.ratio(slopes.double().numpy()),
        "tokens": height * width,
        "channels": tokenizer.config.channels,
        "decoder_parameters": sum(p.numel() for p in tokenizer.decoder.parameters()),
        "decode_ms": 1000 * decode_seconds(tokenizer, past[:1]),
    }


def decode_seconds(tokenizer: Tokenizer, latent_BCHW: Tensor) -> float:
    """Median time to decode one frame. The tokenizer is packed in place."""
    pack(tokenizer)  # type: ignore[arg-type]
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        tokenizer.decode(latent_BCHW, latent_BCHW)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main(arguments: list[str]) -> int:
    """Print a row a tokenizer; exit status 0. Raises `UserError` for what is no tokenizer or no recording."""
    parser = argparse.ArgumentParser("python -m train bench reconstruction", description="Tokenizers side by side.")
    parser.add_argument("tokenizers", nargs="+", help="checkpoints of a tokenizer, or playable ones")
    parser.add_argument("--data", nargs="+", required=True, help="folders that `data_collect record` wrote")
    parser.add_argument("--frames", type=int, default=256, help="held-out frames (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the table for programs")
    options = parser.parse_args(arguments)
    use_all_cores()
    source = PooledFrames([Recording(folder) for folder in options.data], 0, HELD_OUT, 1)
    source.row = 3
    frames = torch.from_numpy(source.validation(options.frames))
    if not len(frames):
        raise UserError(f"{options.data[0]} has no held-out frames to measure on: record more episodes")
    table: dict[str, dict[str, Any]] = {}
    for path in options.tokenizers:
        tokenizer = open_tokenizer(path)
        if frames.shape[2:4] != (tokenizer.config.height, tokenizer.config.width):
            raise UserError(f"{path} codes frames of another size than those of {options.data[0]}: name another --data")
        table[path] = reconstruction(tokenizer, frames)
    if options.json:
        print(json.dumps(table, indent=1))
        return 0
    longest = max(len(path) for path in table)
    say(f"{'':{longest}}" + "".join(f"{name.replace('_', ' '):>19}" for name in COLUMNS))
    for path, row in table.items():
        say(f"{path:{longest}}" + "".join(f"{row[name]:>19,.{digits}f}" for name, digits in COLUMNS.items()))
    return 0
