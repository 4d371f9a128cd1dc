"""Training checkpoints (`last.ckpt`): reading them with care, and starting from their weights.

state = check_card(Path("runs/maze/tokenizer/last.ckpt"))["state_dict"]     # the averaged weights
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError, refusal
from data_collect.files import whole
from game_wm import checkpoint
from game_wm.finite import diverged, unsound


def check_card(path: Path, card: dict[str, Any] | None = None) -> dict[str, Any]:
    """A training checkpoint, checked to be of this stage, game and action schema. `UserError` when it is not."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found, stage, _ = state["game_wm"], state["game_wm"]["stage"], state["state_dict"]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: train that stage first, or name another checkpoint") from None
    except (RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        if isinstance(error, OSError) and refusal(error):
            raise
        raise UserError(f"{path} is damaged or no training checkpoint: name another, or train it again") from None
    if broken := unsound(state["state_dict"]):
        raise UserError(f"{path}: {diverged(broken)}")
    if card is None:
        return state
    if stage != card["stage"]:
        raise UserError(f"{path} is a checkpoint of {stage}, not of {card['stage']}")
    if card["game"] is not None and found["game"].split("?")[0] != card["game"].split("?")[0]:
        raise UserError(f"{path} was trained on {found['game']}, the recording is of {card['game']}: name another")
    if card["stage"] != "tokenizer" and found["schema"]["names"] != card["schema"]["names"]:
        raise UserError(f"{path} knows the actions {found['schema']['names']}, the recording {card['schema']['names']}")
    return state


def weights_hash(path: Path) -> str:
    """Of the averaged weights in a training checkpoint: changes when any does."""
    digest = hashlib.sha256()
    for name, value in sorted(check_card(path)["state_dict"].items()):
        digest.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def trained_minutes(path: Path) -> float:
    """Minutes that a run has trained so far, over all resumes; 0 without a checkpoint."""
    if not path.exists():
        return 0.0
    card = check_card(path)["game_wm"]
    return 60 * (card["trained"]["hours"] - card.get("before", {}).get("hours", 0.0))


def check_network(
    model: pl.LightningModule, part: str, path: Path, state: dict[str, Any], card: dict[str, Any]
) -> None:
    """`UserError` when a run cannot go on from its own checkpoint: network, objective or optimiser is another one now,
    or there is nothing in it to go on with."""
    if "current_model_state" not in state:
        raise UserError(f"{path} was trained by graphs and cannot be resumed: choose another --name")
    if broken := unsound(state["current_model_state"]):
        raise UserError(f"{path}: {diverged(broken)}")
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if name.startswith(f"{part}.")}
    found = {name: tuple(w.shape) for name, w in state["current_model_state"].items() if name.startswith(f"{part}.")}
    configured: dict[str, Any] = {}
    model.on_save_checkpoint(configured)
    kinds = [each["config"].get("objective", {}).get("kind", "flow") for each in (configured, state)]
    optimizers = [each["settings"]["model"].get("optimizer", "adamw") for each in (card, state["game_wm"])]
    if own != found or kinds[0] != kinds[1] or optimizers[0] != optimizers[1]:
        raise UserError(
            f"{path} was trained with another network, objective or optimizer than is configured now: resume with what "
            f"{path.with_name('config.yaml')} says, or choose another --name"
        )


PARTS = {"tokenizer": "tokenizer", "geometry": "geometry", "dynamics": "dynamics", "distill": "dynamics"}
# Given by the recording or the objective, not by the checkpoint that training starts from.
SHAPES = ("channels", "height", "width", "actions", "trunk", "levels")
OF_THE_DATA = {"tokenizer": ("height", "width"), "geometry": SHAPES, "dynamics": SHAPES}


def initialise(model: pl.LightningModule, stage: str, path: Path, card: dict[str, Any]) -> None:
    """Start from the weights of a training checkpoint or of a playable one (.safetensors), of whatever game.

    Raises `UserError` when they do not fit: other actions, other sizes.
    """
    part = PARTS[stage]
    if path.suffix == ".safetensors":
        playable = checkpoint.load(path)
        kind = playable.model.config.objective.kind
        weights, names = getattr(playable.model, part).state_dict(), list(playable.schema.names)
        if part == "dynamics" and names != card["schema"]["names"]:
            raise UserError(f"{path} knows the actions {names}, the recording {card['schema']['names']}")
    else:
        state = check_card(path, {**card, "stage": part, "game": None})
        kind = state["config"]["objective"].get("kind", "flow") if part == "dynamics" else ""
        found = state["state_dict"].items()
        weights = {name.removeprefix(f"{part}."): w for name, w in found if name.startswith(f"{part}.")}
    if stage == "distill" and kind != "flow":
        raise UserError(f"{path} was trained by {kind}, distillation is of flow matching alone: name another --init")
    try:
        getattr(model, part).load_state_dict(grown(weights, getattr(model, part).state_dict()))
    except RuntimeError as error:
        line = next((row.strip() for row in str(error).splitlines()[1:]), str(error))
        raise UserError(f"{path} does not fit this configuration: {line[:160]}") from None


def grown(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a network that may have gained recurrent memory or views, which are nothing at first, or inertia or
    the unhindered step, which are learnt anew."""
    weights = dict(weights)
    if "motion.free.weight" in wanted and "motion.free.weight" not in weights:  # inertia
        heads = ("motion.was.", "motion.next.", "motion.free.")
        weights = {name: value for name, value in weights.items() if not name.startswith(heads)}
        weights |= {name: value for name, value in wanted.items() if name.startswith(heads)}
    for name in ("denoiser.enter.weight",):
        if name in weights and name in wanted and (more := wanted[name].shape[1] - weights[name].shape[1]) > 0:
            weights[name] = F.pad(weights[name], (0, 0) * (weights[name].ndim - 2) + (0, more))
    if "denoiser.enter.weight" in weights:
        for gate in (k for k in wanted if k.startswith("denoiser.gate.")):
            views, had = len(wanted[gate]), weights.get(gate, wanted[gate][:0])
            weights[gate] = torch.cat((had, torch.zeros_like(wanted[gate][: views - len(had)])))
    return {k: v for k, v in wanted.items() if ".recurrent." in k or k.startswith("motion.free.")} | weights


def save_part(checkpoint: dict[str, Any], part: str, weights: dict[str, Tensor], out: Path) -> None:
    """Write a stage's checkpoint with other weights, averaged ones too, in a part of its network ("geometry.depth")."""
    named = {f"{part}.{k}": v for k, v in weights.items()}
    for name in ("state_dict", "current_model_state"):
        checkpoint[name] = checkpoint[name] | named
    with whole(out) as file:
        torch.save(checkpoint, file)


def trained_before(path: Path, stage: str) -> dict[str, float]:
    """Frames, hours and steps behind the weights that a stage starts from; the teacher's are not a student's own."""
    if stage == "distill":
        return {}
    if path.suffix != ".safetensors":
        return check_card(path)["game_wm"].get("trained", {})
    trained = checkpoint.load(path).trained if stage == "dynamics" else {}
    return {name: trained[name] for name in ("frames", "hours", "steps") if name in trained}


def size_flags(path: Path, stage: str) -> list[str]:
    """The sizes of the network in a checkpoint as flags of a stage, so that who starts from it need not know them."""
    part = PARTS[stage]
    if path.suffix == ".safetensors":
        config = checkpoint.load(path).model.config
        found = config.memory if part == "geometry" else getattr(config, part)
        if found is None:
            raise UserError(f"{path} has no geometry: name a model with episodic memory with --init")
        sizes = asdict(found)
    else:
        state = check_card(path)
        config, trained = state["config"], state["game_wm"]["stage"]
        if PARTS.get(trained) != part:
            raise UserError(f"{path} is a checkpoint of {trained}, not of {part}: name another with --init")
        sizes = config if part == "tokenizer" else config[part]
    given = {name: value for name, value in sizes.items() if name not in OF_THE_DATA[part]}
    written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return [flag for name, value in written.items() for flag in (f"--model.{part}.{name}", value)]
