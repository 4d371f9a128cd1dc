"""Training checkpoints (`last.ckpt`): reading them with care, and starting from their weights.

state = check_card(Path("runs/maze/tokenizer/last.ckpt"))["state_dict"]     # the averaged weights
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from data_collect.errors import UserError
from game_wm import checkpoint


def check_card(path: Path, card: dict[str, Any] | None = None) -> dict[str, Any]:
    """A training checkpoint, checked to be of this stage, game and action schema. `UserError` when it is not."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found = state["game_wm"]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: train that stage first, or name another checkpoint") from None
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, OSError, pickle.UnpicklingError):
        raise UserError(
            f"{path} is damaged or no training checkpoint: name another, or train that stage again"
        ) from None
    if card is None:
        return state
    if found["stage"] != card["stage"]:
        raise UserError(f"{path} is a checkpoint of {found['stage']}, not of {card['stage']}")
    if card["game"] is not None and found["game"].split("?")[0] != card["game"].split("?")[0]:
        raise UserError(f"{path} was trained on {found['game']}, the recording is of {card['game']}: name another")
    if card["stage"] != "tokenizer" and found["schema"]["names"] != card["schema"]["names"]:
        raise UserError(f"{path} knows the actions {found['schema']['names']}, the recording {card['schema']['names']}")
    return state


def initialise(model: pl.LightningModule, stage: str, path: Path, card: dict[str, Any]) -> None:
    """Start from the weights of a training checkpoint of the same stage or of a playable checkpoint (.safetensors).

    The latents of dynamics must come from that checkpoint's own tokenizer: encode with it. Raises `UserError` when the
    weights do not fit.
    """
    try:
        if path.suffix == ".safetensors":
            playable = checkpoint.load(path)
            if stage != "tokenizer" and playable.schema.names != tuple(card["schema"]["names"]):
                raise UserError(f"{path} knows the actions {list(playable.schema.names)}, the recording others")
            part = "tokenizer" if stage == "tokenizer" else "dynamics"
            getattr(model, part).load_state_dict(getattr(playable.model, part).state_dict())
        else:
            # A tokenizer knows no game; dynamics may start from another game with the same actions.
            wanted = {**card, "stage": "dynamics" if stage == "distill" else stage, "game": None}
            model.load_state_dict(check_card(path, wanted)["state_dict"])
    except RuntimeError as error:
        line = next((row.strip() for row in str(error).splitlines()[1:]), str(error))
        raise UserError(f"{path} does not fit this configuration: {line[:160]}") from None
