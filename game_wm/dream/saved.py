"""A dream as a file: where it began, everything that was pressed, and the state it has reached.

    save("walk.dream", dream.snapshot(model))
    saved = load("walk.dream", checkpoint)          # checked against the checkpoint that it was dreamt by

A safetensors file: `state.*`, `prompt.frames`, `prompt.actions`, `prompt.poses` where there are any, `actions`,
`steps`, `picture`, and metadata. Going on from the state, or dreaming all of it again from the prompt, is exact to the
bit on the executable that it names; on another one (bits, threads, device, batch width) values are rounded otherwise,
and dreams diverge after a while.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_collect.errors import UserError
from data_collect.files import whole
from game_wm.checkpoint import content_hash, first_line, serialised
from game_wm.library import LEFT, SUFFIX
from game_wm.state import WorldState, from_first_format

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint

DREAM_FORMAT = "game_wm dream/3"


@dataclass(frozen=True)
class About:
    """What a dream says of itself. `context` is the seed context, -1 where it began elsewhere."""

    checkpoint: str
    digest: str
    executable: str
    context: int
    seed: int
    score: float
    ended: bool


@dataclass
class SavedDream:
    """`prompt`: frames uint8 (P, H, W, 3), actions float32 (P - 1, A), poses float32 (P, 3), if they are known; raw
    `actions` (T, D), denoiser calls of each frame `steps` uint8 (T,), the last `picture` uint8 (H, W, 3), and the
    `state` of one player."""

    about: About
    prompt: tuple[Tensor, Tensor, Tensor | None]
    actions: np.ndarray
    steps: np.ndarray
    picture: np.ndarray
    state: WorldState


def executable(model: Any, players: int = 1) -> str:
    """What the arithmetic ran on: the same bits come only from the same."""
    device = next(model.parameters()).device.type
    bits = "bfloat16" if model.low_precision else "float32"
    batch = f"batch of {players}{', compiled' if model.compiled else ''}"
    return f"torch {torch.__version__}, {device}, {bits}, {torch.get_num_threads()} threads, {batch}"


def save(path: str | Path, dream: SavedDream) -> None:
    """Write the file, whole or not at all. `UserError` when it cannot be written."""
    tensors = {f"state.{name}": value.cpu() for name, value in dream.state.to_dict().items()}
    prompt = zip(("frames", "actions", "poses"), dream.prompt)
    tensors |= {f"prompt.{name}": value.cpu() for name, value in prompt if value is not None}
    tensors |= {name: torch.tensor(getattr(dream, name)) for name in ("actions", "steps", "picture")}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    about = json.dumps(asdict(dream.about))
    metadata = {"format": DREAM_FORMAT, "about": about, "sha256": content_hash(about, tensors)}
    with whole(path) as file:
        file.write(serialised(tensors, metadata))


def left(folder: Path, name: str) -> list[Path]:
    """The dreams that were saved in a folder when their player left, of a checkpoint by its name; the newest first."""
    named = re.compile(rf"{re.escape(name)}-(\d{{8}}-\d{{6}})(?:-(\d+))?{LEFT}")
    found = [(match, path) for path in folder.glob(f"*{LEFT}{SUFFIX}") if (match := named.fullmatch(path.stem))]
    return [path for _, path in sorted(found, key=lambda x: (x[0][1], int(x[0][2] or 1)), reverse=True)]


def load(path: str | Path, checkpoint: Checkpoint) -> SavedDream:
    """Read a dream for this checkpoint. `UserError`: missing, damaged, no dream, or another checkpoint's."""
    path = Path(path)
    about, _ = peek(path)
    if about.digest != checkpoint.digest:
        raise UserError(
            f"{path} was dreamt by another checkpoint, {about.checkpoint}, and this one, {checkpoint.name}, is no "
            "exact copy of it: open it with the file that it was saved from"
        )
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if content_hash(file.metadata()["about"], tensors) != file.metadata()["sha256"]:
                raise ValueError("its content differs from its hash")
        device = next(checkpoint.model.parameters()).device
        values = {k.removeprefix("state."): v.to(device) for k, v in tensors.items() if k.startswith("state.")}
        actions, steps, picture = (tensors[name].numpy() for name in ("actions", "steps", "picture"))
        prompt = tensors["prompt.frames"], tensors["prompt.actions"], tensors.get("prompt.poses")
        return SavedDream(about, prompt, actions, steps, picture, WorldState.from_dict(from_first_format(values)))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def peek(path: Path) -> tuple[About, np.ndarray]:
    """What a dream says of itself, and its last picture, without reading the rest. `UserError` as in `load`."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: a saved dream is a file that ends in {SUFFIX}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            found = metadata.get("format", "")
            if found.startswith(DREAM_FORMAT.rpartition("/")[0]) and found != DREAM_FORMAT:
                raise UserError(
                    f"{path} is of another version ({found}; this one reads {DREAM_FORMAT}): open it with the game_wm "
                    "that saved it, or save another one"
                )
            if found != DREAM_FORMAT:
                raise UserError(f"{path} is no saved dream: take a {SUFFIX} file that the player has saved")
            return About(**json.loads(metadata["about"])), file.get_tensor("picture").numpy()
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is not a whole dream ({first_line(error)}); restore it from a copy, or save another one")
