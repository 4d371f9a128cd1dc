"""One file is one playable model: weights, configuration, action schema, key map and seed contexts.

A `.safetensors` file, so that loading one runs no code. Weights are stored in 16 bits, seed contexts as the real
frames (uint8) that dreams begin from. Names: `model.*` weights, `contexts.frames`, `contexts.actions`,
`contexts.poses` where the game tells them. Frames of more than 4 MiB are AVIF pictures (older files have WebP), one
after another, and `contexts.sizes` (S, P) their bytes (`pictures.py`). A model with an atlas has `atlas.*`
(`memory/first_person/atlas_file.py`). Metadata `sha256` is the hash of all of it; files that have none were written
before there was one, and load unchecked.

Legend: S seed contexts, P frames of each, H, W pixels, A action vector.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from data_collect.errors import UserError, refusal
from data_collect.files import whole
from data_collect.schema import ActionSchema
from game_wm.device import usable
from game_wm.library import FORMAT
from game_wm.model.names import present_names
from game_wm.pictures import pack_contexts, unpack_contexts
from game_wm.training import diverged, unsound
from game_wm.world import WorldConfig, WorldModel

GEOMETRY = "geometry."  # of the first-person memory: a file has its weights beside those of tokenizer and dynamics


@dataclass
class Checkpoint:
    """A loaded model and what it needs to be played.

    `contexts_frames` uint8 (S, P, H, W, 3); `contexts_actions` float32 (S, P - 1, A), the encoded actions between
    them; `trained`: frames, hours and machine, for the card; `contexts_poses` float32 (S, P, 3), None where the game
    tells none; `measured`: how good the next frame was when it was exported (`train/diagnosis.py`).
    """

    model: WorldModel
    schema: ActionSchema
    game: str
    contexts_frames: Tensor
    contexts_actions: Tensor
    trained: dict[str, Any]
    name: str
    path: Path | None = None
    contexts_poses: Tensor | None = None
    measured: dict[str, Any] | None = None

    @property
    def warning(self) -> str | None:
        """What to say before it is played: that repeating the last frame would be better, where it would."""
        psnr = (self.measured or {}).get("psnr", {})
        if not {"next_frame", "repeat"} <= psnr.keys() or psnr["next_frame"] > psnr["repeat"]:
            return None
        return (
            f"the next frames of {self.name} are worse than the last one again ({psnr['next_frame']:.1f} against "
            f"{psnr['repeat']:.1f} dB): it was trained too little"
        )

    def prompt(self, context: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """A seed context: frames (P, H, W, 3), actions (P - 1, A) and poses (P, 3), if there are any."""
        poses = None if self.contexts_poses is None else self.contexts_poses[context]
        return self.contexts_frames[context], self.contexts_actions[context], poses

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def check_steps(self, steps: int) -> None:
        """`UserError` when this model cannot be played with so many network calls a frame."""
        if steps != self.model.steps and not self.model.config.objective.adjustable:
            raise UserError(f"{self.name} always takes {self.model.steps} calls a frame: leave --steps out")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file: what was dreamt by one checkpoint goes on only with its exact copy."""
        if self.path is None:
            raise UserError(f"checkpoint {self.name} is not a file yet: save it first")
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def card(self) -> dict[str, Any]:
        """The card beside the file (`NAME.json`); empty if there is none."""
        path = self.path.with_suffix(".json") if self.path else None
        return json.loads(path.read_text()) if path and path.is_file() else {}


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write the file, whole or not at all.

    `UserError` if the disk is full or the folder cannot be written, and for weights that are not finite.
    """
    memory = checkpoint.model.memory
    packed = tuple(f"memory.{name}" for name in memory.packed)
    state = {k: v for k, v in checkpoint.model.state_dict().items() if not k.startswith(packed)}
    weights = {k.removeprefix("memory.") if k.startswith(f"memory.{GEOMETRY}") else k: v for k, v in state.items()}
    tensors = {f"model.{k}": v.detach().to("cpu", torch.float16).contiguous() for k, v in weights.items()}
    # Normalisation statistics stay exact: they are few, and every latent passes through them.
    tensors |= {f"model.{k}": v.detach().cpu().float() for k, v in weights.items() if k.startswith("tokenizer.mean")}
    tensors |= {f"model.{k}": v.detach().cpu() for k, v in weights.items() if k.startswith("tokenizer.deviation")}
    if broken := unsound(tensors):
        raise UserError(f"{path} is not written: {diverged(broken)}")
    tensors |= pack_contexts(checkpoint.contexts_frames.cpu())
    tensors["contexts.actions"] = checkpoint.contexts_actions.cpu().float().contiguous()
    tensors |= memory.pack()
    if checkpoint.contexts_poses is not None:
        tensors["contexts.poses"] = checkpoint.contexts_poses.cpu().float().contiguous()
    metadata = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.model.config.to_dict()),
        "schema": json.dumps(checkpoint.schema.to_json()),
        "game": checkpoint.game,
        "trained": json.dumps(checkpoint.trained),
        "name": checkpoint.name,
    }
    if checkpoint.measured is not None:
        metadata["measured"] = json.dumps(checkpoint.measured)
    metadata["sha256"] = content_hash(json.dumps(metadata, sort_keys=True), tensors)
    with whole(path) as file:
        file.write(serialised(tensors, metadata))


def load(path: str | Path, device: str | torch.device = "cpu", contexts: bool = True) -> Checkpoint:
    """Read a checkpoint, weights in 32 bits on `device` (as `device.usable` takes it), gradients off.

    `contexts`: it is to be played, so there must be seed contexts; training begins with a file that has none, too.
    Raises UserError when the file is missing, damaged, no checkpoint of this program, or its weights are not finite,
    when it cannot be played, and when there is no such device.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; name a .safetensors file, for one of checkpoints/")
    device = usable(device)
    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(f"{path}: not a game_wm checkpoint; export one with `python -m train pipeline`")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stated = metadata.pop("sha256", None)
        if stated is not None and content_hash(json.dumps(metadata, sort_keys=True), tensors) != stated:
            raise ValueError("its content differs from its hash")
        model = WorldModel(WorldConfig.from_dict(json.loads(metadata["config"])))
        found = {k.removeprefix("model."): v.float() for k, v in tensors.items() if k.startswith("model.")}
        weights = {f"memory.{k}" if k.startswith(GEOMETRY) else k: v for k, v in found.items()}
        known = model.memory.unpack(tensors, model.height, model.width)
        weights = present_names(weights)
        model.load_state_dict(weights | {f"memory.{name}": value for name, value in known.items()})
        broken = unsound(model.state_dict() | {k: v for k, v in tensors.items() if k.startswith("contexts.")})
        schema = _schema(json.loads(metadata["schema"]))
        frames, actions, poses = unpack_contexts(tensors), tensors["contexts.actions"], tensors.get("contexts.poses")
        _check_contexts(model, schema, frames, actions, poses)
        trained, game, name = json.loads(metadata["trained"]), metadata["game"], metadata["name"]
        measured = json.loads(metadata["measured"]) if "measured" in metadata else None
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and refusal(error):
            raise
        raise UserError(
            f"{path}: not a whole game_wm checkpoint ({first_line(error)}); copy or export it again"
        ) from error
    if broken:
        raise UserError(f"{path}: {diverged(broken)}")
    if contexts and not frames.numel():
        raise UserError(
            f"{path}: a beginning for training, not for play; "
            f"python -m train pipeline --config configs/own/quick.yaml --init {path} --record.game ..."
        )
    model.to(device).eval().requires_grad_(False)
    return Checkpoint(model, schema, game, frames, actions, trained, name, path, poses, measured)


def content_hash(about: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of what a file says of itself, and of names, types, shapes and bytes."""
    found = hashlib.sha256(about.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def serialised(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file, the same bytes each time: the library orders metadata by chance."""
    made = serialise(tensors, metadata)
    start = 8 + int.from_bytes(made[:8], "little")
    header = json.loads(made[8:start])
    header["__metadata__"] = dict(sorted(metadata.items()))
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + made[start:]


def _schema(card: Any) -> ActionSchema:
    """The schema; ValueError where it is none, for what is read here names the file."""
    try:
        return ActionSchema.from_json(card)
    except UserError as error:
        raise ValueError(str(error)) from None


def _check_contexts(
    model: WorldModel, schema: ActionSchema, frames: Tensor, actions: Tensor, poses: Tensor | None
) -> None:
    """ValueError unless the model can begin from the seed contexts, if there are any."""
    size = model.config.dynamics.actions
    if schema.size != size:
        raise ValueError(f"its schema has actions of {schema.size} values, its network takes {size}")
    if frames.dtype != torch.uint8 or frames.shape[2:] != (model.height, model.width, 3):
        found = f"{frames.dtype} of shape {tuple(frames.shape)}"
        raise ValueError(f"its contexts' frames are {found}, the model's are {model.width}x{model.height} in uint8")
    wanted = (frames.shape[0], frames.shape[1] - 1, size)
    if actions.dtype != torch.float32 or tuple(actions.shape) != wanted:
        found = f"{actions.dtype} of shape {tuple(actions.shape)}"
        raise ValueError(f"its contexts' actions are {found}, not float32 of shape {wanted}")
    if poses is not None and (poses.dtype != torch.float32 or tuple(poses.shape) != (*frames.shape[:2], 3)):
        raise ValueError(f"its contexts' poses are {poses.dtype} of shape {tuple(poses.shape)}, not one for each frame")


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
