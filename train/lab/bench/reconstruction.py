"""Tokenizers side by side: what is left of a frame, in how many tokens, and how long decoding takes.

    python -m train bench reconstruction runs/*/tokenizer/last.ckpt --data runs/maze/data [--frames 256] [--json]

PSNR (all pixels of all frames; those that move), sharpness (mean gradient over that of the frame) and feature distance
of held-out frames, encoded and decoded in 32 bits after the two frames before them. The time is the median of decoding
one frame as in play, with weights laid out once (`packing.py`); each tokenizer takes turns with the first.

Legend: B frames, E episodes, T frames in a row, H, W pixels.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.acceleration import pack
from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.rollout import round_trip
from game_wm.model.tokenizer import Tokenizer
from game_wm.pictures import moving
from train.assemble import HELD_OUT
from train.checkpoints import load_tokenizer
from train.commands import tools
from train.data.frames import PooledFrames
from train.data.recordings import Recording
from train.lab.timing import Tick, in_turn
from train.report.console import say
from train.report.machine import use_all_cores

TIMED, SECONDS = 100, 15.0  # frames decoded by each, at most
COLUMNS = {"reconstruction_psnr": 2, "reconstruction_psnr_moving": 2, "sharpness": 2, "feature_distance": 3,
           "tokens_per_frame": 0, "channels": 0, "decoder_parameters": 0, "ms_to_decode": 2}  # decimals  # fmt: skip


def reconstruction(
    tokenizer: Tokenizer, frames_BTHWC: Tensor, medians_BHWC: Tensor, features: FeatureDistance
) -> dict[str, float]:
    """The figures of a tokenizer on the last of each row of three frames, uint8 (B, 3, H, W, 3), and where that differs
    from the median picture of its episode."""
    truth, decoded = frames_BTHWC[:, -1], round_trip(tokenizer, frames_BTHWC)
    slopes = torch.stack((metrics.gradient(decoded), metrics.gradient(truth)), 1)
    height, width = tokenizer.config.grid
    errors = metrics.squared_error(truth, decoded, moving(truth, medians_BHWC))
    return {
        "reconstruction_psnr": metrics.pooled_psnr(metrics.squared_error(truth, decoded)),
        **({"reconstruction_psnr_moving": metrics.pooled_psnr(errors)} if errors[:, 1].any() else {}),
        "sharpness": metrics.ratio(np.asarray(slopes, np.float64)),
        "feature_distance": float(features.distance(truth, decoded).mean()),
        "tokens_per_frame": height * width,
        "channels": tokenizer.config.channels,
        "decoder_parameters": sum(p.numel() for p in tokenizer.decoder.parameters()),
    }


def decoder_tick(tokenizer: Tokenizer) -> Tick:
    """Decodes one frame, to be timed. The tokenizer is packed in place."""
    pack(tokenizer)
    latent = torch.randn(1, tokenizer.config.channels, *tokenizer.config.grid)

    @torch.inference_mode()
    def tick() -> None:
        tokenizer.decode(latent, latent)

    return tick


def main(arguments: list[str]) -> int:
    """Print a row a tokenizer; exit status 0. Raises `UserError` for what is no tokenizer or no recording."""
    options = tools.bench_reconstruction().parse_args(arguments)
    use_all_cores()
    source = PooledFrames([Recording(folder) for folder in options.data], 0, HELD_OUT, 1)
    source.row, source.still = 3, True
    frames = torch.from_numpy(source.validation(options.frames))
    if not len(frames):
        raise UserError(f"{options.data[0]} has no held-out frames to measure on: record more episodes")
    table, ticks, features = dict[str, dict[str, Any]](), dict[str, Tick](), FeatureDistance()
    for path in options.tokenizers:
        tokenizer = load_tokenizer(path)
        if frames.shape[2:4] != (tokenizer.config.height, tokenizer.config.width):
            raise UserError(f"{path} codes frames of another size than those of {options.data[0]}: name another --data")
        table[path] = reconstruction(tokenizer, frames[:, 1:], frames[:, 0], features)
        ticks[path] = decoder_tick(tokenizer)
    for path, tick in ticks.items():
        table[path]["ms_to_decode"], _ = in_turn(tick, ticks[options.tokenizers[0]], frames=TIMED, seconds=SECONDS)
    if options.json:
        print(json.dumps(table, indent=1))
        return 0
    longest = max(len(path) for path in table)
    say(f"{'':{longest}}" + "".join(f"{name.replace('_', ' '):>27}" for name in COLUMNS))
    for path, row in table.items():
        cells = (f"{row[name]:,.{digits}f}" if name in row else "–" for name, digits in COLUMNS.items())
        say(f"{path:{longest}}" + "".join(f"{cell:>27}" for cell in cells))
    return 0
