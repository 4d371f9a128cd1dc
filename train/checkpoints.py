"""Training checkpoints (`last.ckpt`): checked reading, the networks in them, starting from their weights.

    state = read_checkpoint(Path("runs/maze/tokenizer/last.ckpt"))["state_dict"]     # the averaged weights
    tokenizer = load_tokenizer("runs/maze/tokenizer/last.ckpt")                      # or a playable file

Run metadata is the entry `game_wm`: stage, game, action schema, settings, and what it took to train.
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
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig
from game_wm.memory.first_person.system import FirstPersonMemory
from game_wm.memory.protocol import Memory, NoMemory
from game_wm.memory.registry import from_entries, make_memory
from game_wm.model.config import DynamicsConfig, build
from game_wm.model.dynamics import Dynamics
from game_wm.model.names import present_names
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig
from game_wm.objectives import Objective, make_objective
from game_wm.training import diverged, unsound
from train.transfer import transferred


def read_checkpoint(path: Path, metadata: dict[str, Any] | None = None, as_stored: bool = False) -> dict[str, Any]:
    """A training checkpoint, its weights under the names of today unless `as_stored`. `UserError` when it is damaged,
    or of another stage, game or schema than `metadata` says."""
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
    for name in ("state_dict", "current_model_state") if not as_stored else ():
        if name in state:
            state[name] = present_names(state[name])
    if metadata is None:
        return state
    if stage != metadata["stage"]:
        raise UserError(f"{path} is a checkpoint of {stage}, not of {metadata['stage']}")
    if metadata["game"] is not None and found["game"].split("?")[0] != metadata["game"].split("?")[0]:
        raise UserError(f"{path} was trained on {found['game']}, the recording is of {metadata['game']}: name another")
    if metadata["stage"] != "tokenizer":
        check_actions(path, found["schema"]["names"], metadata)
    return state


def check_actions(path: Path, names: list[str], metadata: dict[str, Any]) -> None:
    if names != (recorded := metadata["schema"]["names"]):
        raise UserError(f"{path} knows the actions {names}, the recording {recorded}")


def weights_of(state: dict[str, Any], part: str) -> dict[str, Tensor]:
    """The averaged weights of one network in a training checkpoint, under the network's own names."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): w for name, w in state["state_dict"].items() if name.startswith(prefix)}


def load_tokenizer(path: str | Path, device: str = "cpu") -> Tokenizer:
    """The frozen tokenizer of a training checkpoint (.ckpt) or a playable one (.safetensors). Raises `UserError`."""
    if Path(path).suffix == ".safetensors":
        return checkpoint.load(path, device, contexts=False).model.tokenizer
    state = _of_stage(path, "name a tokenizer's", "tokenizer")
    tokenizer = Tokenizer(build(TokenizerConfig, state["config"]))
    tokenizer.load_state_dict(weights_of(state, "tokenizer"))
    return tokenizer.to(device).eval().requires_grad_(False)


def load_dynamics(path: str | Path, device: str = "cpu") -> tuple[Dynamics, Objective]:
    """The frozen network and the objective of a training checkpoint. Raises `UserError`."""
    state = _of_stage(path, "name one of dynamics or distill", "dynamics", "distill")
    dynamics = Dynamics(build(DynamicsConfig, state["config"]["dynamics"]))
    dynamics.load_state_dict(weights_of(state, "dynamics"))
    return dynamics.to(device).eval().requires_grad_(False), make_objective(state["config"]["objective"])


def load_geometry(path: str | Path, device: str = "cpu") -> Geometry:
    """The frozen geometry of a training checkpoint (.ckpt) or a playable one (.safetensors). Raises `UserError`."""
    memory = load_memory(path, device)
    if not isinstance(memory, FirstPersonMemory):
        raise UserError(f"{path} has no geometry: name a model with first-person memory, or train it")
    return memory.geometry


def load_memory(path: str | Path | None, device: str = "cpu") -> Memory:
    """The frozen memory of a playable checkpoint, of `train scroll`, or around a trained geometry; none without a path.
    Raises `UserError`."""
    if path is None:
        return NoMemory()
    if Path(path).suffix == ".safetensors":
        model = checkpoint.load(path, device, contexts=False).model
        if model.config.memory is None:
            raise UserError(f"{path} has no memory: name a model with one, or train its geometry")
        return model.memory
    state = _of_stage(path, "name one of geometry or scroll", "geometry", "scroll")
    if state["game_wm"]["stage"] == "scroll":
        memory = make_memory(from_entries(state["config"]["memory"]), DynamicsConfig(recall=True, warp=True))
        memory.load_state_dict(weights_of(state, "memory"))
        return memory.to(device).eval().requires_grad_(False)
    geometry = Geometry(build(MemoryConfig, state["config"]["geometry"]))
    geometry.load_state_dict(weights_of(state, "geometry"))
    geometry.to(device).eval().requires_grad_(False)
    return FirstPersonMemory.around(geometry, DynamicsConfig(recall=True, warp=True))


def _of_stage(path: str | Path, remedy: str, *stages: str) -> dict[str, Any]:
    state = read_checkpoint(Path(path))
    if (stage := state["game_wm"]["stage"]) not in stages:
        raise UserError(f"{path} is a checkpoint of {stage}; {remedy}")
    return state


def weights_hash(path: Path) -> str:
    """Of the averaged weights in a training checkpoint, under the names in the file."""
    digest = hashlib.sha256()
    for name, value in sorted(read_checkpoint(path, as_stored=True)["state_dict"].items()):
        digest.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def trained_here(path: Path) -> tuple[float, int]:
    """Minutes and steps that a run has trained so far, over all resumes; nothing without a checkpoint."""
    if not path.exists():
        return 0.0, 0
    metadata = read_checkpoint(path)["game_wm"]
    hours, steps = (metadata["trained"][name] - metadata.get("before", {}).get(name, 0) for name in ("hours", "steps"))
    return 60 * hours, steps


def check_network(
    model: pl.LightningModule, part: str, path: Path, state: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """`UserError` when a run cannot resume from its checkpoint: other network, objective or optimiser, or no
    weights."""
    if "current_model_state" not in state:
        raise UserError(f"{path} was trained by graphs and cannot be resumed: choose another --name")
    if broken := unsound(state["current_model_state"]):
        raise UserError(f"{path}: {diverged(broken)}")
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if name.startswith(f"{part}.")}
    found = {name: tuple(w.shape) for name, w in state["current_model_state"].items() if name.startswith(f"{part}.")}
    configured: dict[str, Any] = {}
    model.on_save_checkpoint(configured)
    kinds = [each["config"].get("objective", {}).get("kind", "flow") for each in (configured, state)]
    optimizers = [each["settings"]["model"].get("optimizer", "adamw") for each in (metadata, state["game_wm"])]
    if own != found or kinds[0] != kinds[1] or optimizers[0] != optimizers[1]:
        raise UserError(
            f"{path} was trained with another network, objective or optimizer than is configured now: resume with what "
            f"{path.with_name('config.yaml')} says, or choose another --name"
        )


# The network that a stage trains.
NETWORKS = {"tokenizer": "tokenizer", "geometry": "geometry", "dynamics": "dynamics", "distill": "dynamics"}
# Given by the recording or the objective, not by the checkpoint that training starts from.
SHAPES = ("channels", "height", "width", "actions", "trunk", "levels")
OF_THE_DATA = {"tokenizer": ("height", "width"), "geometry": SHAPES, "dynamics": SHAPES}


def initialise(model: pl.LightningModule, stage: str, path: Path, metadata: dict[str, Any]) -> str:
    """Start from the weights of a training checkpoint or of a playable one (.safetensors), of whatever game; what of
    them was not taken as it is, "" where all was.

    Dynamics may be of other actions and another size (`transfer.py`). Raises `UserError` for weights that do not fit.
    """
    part, said = NETWORKS[stage], ""
    network, sizes = getattr(model, part), DynamicsConfig()
    if path.suffix == ".safetensors":
        playable = checkpoint.load(path, contexts=False)
        kind, sizes = playable.model.config.objective.kind, playable.model.config.dynamics
        found = load_geometry(path) if part == "geometry" else getattr(playable.model, part)
        weights, names = found.state_dict(), list(playable.schema.names)
    else:
        state = _of_stage(path, "name another with --init", part)
        kind = state["config"]["objective"].get("kind", "flow") if part == "dynamics" else ""
        sizes = build(DynamicsConfig, state["config"]["dynamics"]) if part == "dynamics" else sizes
        weights, names = weights_of(state, part), state["game_wm"]["schema"]["names"]
    if stage in ("distill", "geometry"):
        check_actions(path, names, metadata)
    if stage == "distill" and kind != "flow":
        raise UserError(f"{path} was trained by {kind}, distillation is of flow matching alone: name another --init")
    try:
        if stage == "dynamics":
            weights, said = transferred(weights, sizes, network, names == metadata["schema"]["names"])
        network.load_state_dict(grown(weights, network.state_dict()))
    except RuntimeError as error:
        line = next((row.strip() for row in str(error).splitlines()[1:]), str(error))
        raise UserError(f"{path} does not fit this configuration: {line[:160]}") from None
    return said


def grown(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a network that gained recurrent memory or views, which begin as nothing, or inertia, which is learnt
    anew."""
    weights = dict(weights)
    if "motion.free.weight" in wanted and "motion.free.weight" not in weights:  # inertia
        heads = ("motion.observed.", "motion.forecast.", "motion.free.")
        weights = {name: value for name, value in weights.items() if not name.startswith(heads)}
        weights |= {name: value for name, value in wanted.items() if name.startswith(heads)}
    if (name := "denoiser.conv_in.weight") in weights:
        if name in wanted and (more := wanted[name].shape[1] - weights[name].shape[1]) > 0:
            weights[name] = F.pad(weights[name], (0, 0) * (weights[name].ndim - 2) + (0, more))
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
        return read_checkpoint(path)["game_wm"].get("trained", {})
    trained = checkpoint.load(path, contexts=False).trained if stage == "dynamics" else {}
    return {name: trained[name] for name in ("frames", "hours", "steps") if name in trained}


def size_flags(path: Path, stage: str) -> list[str]:
    """The sizes of the network in a checkpoint as flags of a stage, so that who starts from it need not know them."""
    part = NETWORKS[stage]
    if path.suffix == ".safetensors":
        config = checkpoint.load(path, contexts=False).model.config
        found = config.memory if part == "geometry" else getattr(config, part)
        if found is None:
            raise UserError(f"{path} has no geometry: name a model with first-person memory with --init")
        sizes = asdict(found)
    else:
        state = read_checkpoint(path)
        config, trained = state["config"], state["game_wm"]["stage"]
        if NETWORKS.get(trained) != part:
            raise UserError(f"{path} is a checkpoint of {trained}, not of {part}: name another with --init")
        sizes = config if part == "tokenizer" else config[part]
    given = {name: value for name, value in sizes.items() if name not in OF_THE_DATA[part]}
    written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return [flag for name, value in written.items() for flag in (f"--model.{part}.{name}", value)]
