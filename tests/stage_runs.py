"""Flags of tiny training runs, and the data that they train on."""

from __future__ import annotations

from pathlib import Path

import torch

from game_wm.model.tokenizer import Tokenizer, TokenizerConfig

ROOT = Path(__file__).parent.parent
TINY = ["--model.dynamics.widths", "[16,32]", "--model.dynamics.blocks", "[1,1]", "--model.dynamics.heads", "2",
        "--model.dynamics.context_width", "32", "--model.dynamics.window", "8", "--model.targets", "4",
        "--model.rollout", "3", "--data.batch_size", "4", "--data.length", "16", "--data.validation_windows", "4",
        "--warmup", "3", "--model.tokenizer", "null", "--data.game", "null", "--wandb", "off",
        "--trainer.log_every_n_steps", "1", "--trainer.val_check_interval", "5"]  # fmt: skip


def stage_flags(latents: Path, runs: Path, name: str, stage: str = "dynamics") -> list[str]:
    config = str(ROOT / "configs" / "maze" / f"{stage}.yaml")
    return ["--config", config, "--runs", str(runs), "--name", name, "--minutes", "null",
            "--data.latents", str(latents), *TINY]  # fmt: skip


def small_tokenizer(seed: int) -> Tokenizer:
    torch.manual_seed(seed)
    return Tokenizer(TokenizerConfig(64, 64, 4, (16, 16, 16), (16, 16, 16), decoder_blocks=1)).eval()
