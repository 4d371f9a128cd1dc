"""What a model is worth beside repeating the last frame, and which stage it is that holds it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from game_wm.checkpoint import load, save
from game_wm.play.app import main as play
from tests.tiny import tiny_checkpoint, tiny_world
from train.assemble import SeedContexts
from train.diagnosis import Diagnosis, measure, summary


@pytest.mark.parametrize(
    ("tokenizer", "frame", "teacher", "repeat", "limit"),
    [
        (24.8, 24.1, None, 28.6, "tokenizer"),  # the newcomer's scrolling game
        (24.8, 20.0, None, 28.6, "tokenizer"),  # nothing else helps while that is worse than repeating
        (31.3, 29.8, 29.9, 27.8, "tokenizer"),
        (35.0, 27.0, 27.5, 22.0, "dynamics"),
        (35.0, 24.0, 33.0, 22.0, "distill"),
        (35.0, 30.0, 28.0, 22.0, "dynamics"),  # a student may be better than its teacher
    ],
)
def test_the_stage_with_the_largest_part_of_the_error_is_named(
    tokenizer: float, frame: float, teacher: float | None, repeat: float, limit: str
) -> None:
    psnr = {"tokenizer": tokenizer, "next_frame": frame, "repeat": repeat}
    figures = Diagnosis(64, psnr | ({"teacher": teacher} if teacher else {}))
    assert figures.limit == limit
    *lines, last = summary(figures)
    assert len(lines) == len(figures.psnr) and f"{tokenizer:6.2f} dB" in lines[0] and f"{repeat:6.2f} dB" in lines[-1]
    assert (
        last.startswith("warning: WORSE than" if frame < repeat else "better than")
        and f"{abs(frame - repeat):.2f}" in last
    )


def test_figures_are_of_the_last_frame_of_each_prompt() -> None:
    """Nothing moves but a square, whose error counts alone where something moves."""
    frames = torch.full((20, 6, 64, 64, 3), 100, dtype=torch.uint8)
    for prompt in range(20):
        for t in range(6):
            frames[prompt, t, 8:16, 2 * t + prompt : 2 * t + prompt + 8] = 200
    world, median = tiny_world(), torch.full((20, 64, 64, 3), 100, dtype=torch.uint8)
    figures = measure(world, SeedContexts(frames, torch.zeros(20, 6, 4), None, median), teacher=world)
    assert set(figures.psnr) == set(figures.psnr_moving) == {"tokenizer", "next_frame", "repeat", "teacher"}
    off = 2 * 2 * 8 * 100**2 / (64 * 64)  # two columns appear, two are left, of eight rows
    assert figures.psnr["repeat"] == pytest.approx(20 * torch.log10(torch.tensor(255 / off**0.5)).item(), abs=1e-4)
    assert figures.psnr_moving["repeat"] == pytest.approx(20 * torch.log10(torch.tensor(255 / 50)).item(), abs=1e-4)
    assert figures.psnr["teacher"] == figures.psnr["next_frame"]
    still = measure(world, SeedContexts(median[:1, None].repeat(1, 3, 1, 1, 1), torch.zeros(1, 3, 4), None, median[:1]))
    assert still.psnr_moving == {} and "moves" not in "".join(summary(still)[:3])


def test_what_is_worse_than_repeating_says_so_when_it_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors")
    for frame, said in ((20.0, True), (30.0, False)):
        checkpoint = load(path)
        checkpoint.measured = {"psnr": {"tokenizer": 31.0, "next_frame": frame, "repeat": 25.0}}
        save(path, checkpoint)
        assert load(path).measured == checkpoint.measured
        assert play([str(path), "--headless", "--frames", "2"]) == 0
        assert ("worse than the last one again (20.0 against 25.0 dB)" in capsys.readouterr().err) == said
