"""What moves weighs more: in a tokenizer's loss, by the frame before and the median picture of its episode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_runs import small_tokenizer, stage_flags

from data_collect.errors import UserError
from train.__main__ import main
from train.data.encode import encode
from train.data.frames import CachedFrames, PooledFrames
from train.data.recordings import Recording
from train.data.spans import Span
from train.data.windows import SequenceDataset
from train.report.figures import read_figures
from train.stages.moving import cell_weights, pixel_weights, weighed


def test_pixels_that_appear_vanish_or_differ_from_the_median_weigh_more() -> None:
    median = torch.zeros(1, 3, 8, 8)
    now, before = median.clone(), median.clone()
    now[0, :, 2, 2] = before[0, 0, 5, 5] = 1
    weights = pixel_weights(now, before, median, 30.0)
    assert weights.shape == (1, 1, 8, 8) and weights.mean().item() == pytest.approx(1)
    assert weights[0, 0, 2, 2] == weights[0, 0, 5, 5] == pytest.approx(31 * weights[0, 0, 0, 0].item())
    assert (weights[0, 0] > 1).sum() == 2
    still = pixel_weights(median, median, median, 30.0)
    scrolled = pixel_weights(median + 1, median, median, 30.0)
    assert (still == 1).all() and (scrolled == 1).all()
    assert weighed(now - median, weights) > weighed(now - median, None)


def test_cells_weigh_by_all_their_channels() -> None:
    median = torch.zeros(2, 3, 4, 8, 8)
    now = median.clone()
    now[1, 2, :, 4, 4] = 2
    weights = cell_weights(now, median, median, 10.0)
    assert weights.shape == (2, 3, 1, 8, 8) and (weights[0] == 1).all()
    assert weights[1, 2, 0, 4, 4] == pytest.approx(11 * weights[1, 2, 0, 0, 0].item())


@pytest.mark.parametrize("kind", [CachedFrames, PooledFrames])
def test_frames_come_behind_the_median_picture_of_their_episode(kind: Any, recording: Path) -> None:
    source = kind([Recording(recording)], 0, 0.3, *([100] if kind is PooledFrames else []))
    episodes = [source.read(np.arange(40 * i, 40 * i + 40)) for i in range(9)]
    medians = [np.median(frames, 0).astype(np.uint8) for frames in episodes]
    source.row, source.still = 2, True
    for row in np.concatenate((source.items(np.arange(30)), source.validation(10))):
        assert row.shape[0] == 3
        assert any((median == row[0]).all() and (frames == row[2]).all((1, 2, 3)).any()
                   for median, frames in zip(medians, episodes))  # fmt: skip


@pytest.mark.slow
def test_a_tokenizer_that_weighs_what_moves_trains_and_tells_it(recording: Path, tmp_path: Path) -> None:
    flags = [
        "--steps",
        "2",
        "--data.batch_size",
        "8",
        "--model.perceptual",
        "0",
        "--wandb",
        "off",
        "--runs",
        str(tmp_path),
    ]
    flags += ["--data.data", f"[{recording}]", "--model.equivariance", "0.5", "--trainer.val_check_interval", "1"]
    for temporal in ("false", "true"):
        more = ["--name", temporal, "--model.moving", "30", "--model.tokenizer.temporal", temporal]
        assert main(["tokenizer", *flags, *more]) == 0
        logged = [json.loads(line) for line in (tmp_path / temporal / "tokenizer" / "metrics.jsonl").open()]
        assert any("val_psnr_moving" in row for row in logged) and any("val_psnr" in row for row in logged)


@pytest.mark.slow
def test_dynamics_and_distillation_weigh_what_moves(recording: Path, tmp_path: Path) -> None:
    tokenizer = small_tokenizer(0)
    encode([str(recording)], tokenizer, tmp_path / "latents")
    losses = {}
    for name, more in {"alike": [], "moving": ["--model.moving", "30", "--model.objective.bootstrap", "0.25"]}.items():
        flags = [*stage_flags(tmp_path / "latents", tmp_path, name), "--steps", "2", *more]
        assert main(["dynamics", *flags]) == 0
        losses[name] = dict(read_figures(tmp_path / name / "dynamics", "flow"))
    assert losses["alike"] and losses["alike"] != losses["moving"]
    flags = [*stage_flags(tmp_path / "latents", tmp_path, "moving", "distill"), "--steps", "1", "--model.moving", "30"]
    assert main(["distill", *flags, "--init", str(tmp_path / "moving" / "dynamics" / "last.ckpt")]) == 0
    medians = SequenceDataset(tmp_path / "latents", 8)
    medians.still = True
    batch = medians.batch(0, 4)
    rows = [medians.store.read("latents", Span(e, 0, 40)).astype(np.float32) for e in batch["episode"].tolist()]
    assert np.allclose(batch["median"], np.median(rows, 1), atol=0.02)
    with pytest.raises(UserError, match="what moves is flow matching's alone"):
        main(["dynamics", *stage_flags(tmp_path / "latents", tmp_path, "other"), "--steps", "1", "--model.moving", "1",
              "--model.objective", "{kind: diffusion}"])  # fmt: skip
