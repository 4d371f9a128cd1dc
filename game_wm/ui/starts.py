"""Where dreams begin other than in a checkpoint's own seed contexts: a picture, or a recording of the game.

checkpoint = from_picture(checkpoint, "room.png")
checkpoint = from_recording(checkpoint, "data/mine")        # each episode is a place
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.games.resize import resize
from game_wm.checkpoint import Checkpoint

STILL = 8  # frames for which a picture is stood still in front of
MOST = 64  # episodes of a recording


def from_picture(checkpoint: Checkpoint, path: str | Path) -> Checkpoint:
    """The checkpoint with one place: a picture of any size, turned as its camera was held and cut to its frames'
    aspect, in front of which nobody moved.

    `UserError` where it cannot be read.
    """
    try:
        with Image.open(path) as image:
            picture = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(f"{path} has more than {most} million pixels: give a smaller picture") from None
    except (OSError, ValueError, TypeError, SyntaxError, struct.error) as error:  # the latter three: damaged EXIF
        reason = getattr(error, "strerror", None) or "it is no picture, or a damaged one"
        raise UserError(f"{path} cannot be read ({reason}): give a PNG or JPEG file") from None
    height, width = checkpoint.contexts_frames.shape[2:4]
    frame = torch.from_numpy(resize(picture, width, height, cut=True).copy())
    rest = torch.from_numpy(checkpoint.schema.encode(checkpoint.schema.noop()))
    frames, actions = frame.expand(1, STILL, -1, -1, -1), rest.expand(1, STILL - 1, -1)
    return replace(checkpoint, contexts_frames=frames.clone(), contexts_actions=actions.clone(), contexts_poses=None)


def from_recording(checkpoint: Checkpoint, folder: str | Path) -> Checkpoint:
    """The checkpoint with a place for each episode of a recording (the first 64), prompted as in its own contexts.

    `UserError`: no recording, other actions, frames of another size, or no episode that is long enough.
    """
    dataset, schema = Dataset(folder), checkpoint.schema
    frames, (height, width) = checkpoint.contexts_frames.shape[1], checkpoint.contexts_frames.shape[2:4]
    if (dataset.schema.kind, dataset.schema.names) != (schema.kind, schema.names):
        raise UserError(
            f"{folder} was played with other actions ({', '.join(dataset.schema.names)}) than {checkpoint.name} knows "
            f"({', '.join(schema.names)}): name a recording of {checkpoint.game}"
        )
    found, poses = list[tuple[np.ndarray, np.ndarray]](), list[np.ndarray | None]()
    for refs in list(dataset.by_episode.values()):
        if refs[0].frames < frames or len(found) == MOST:
            continue
        chunk = dataset.read(refs[0])
        if chunk.frames.shape[1:3] != (height, width):
            size = f"{chunk.frames.shape[2]}x{chunk.frames.shape[1]}"
            raise UserError(f"{folder} holds frames of {size}, {checkpoint.name} dreams {width}x{height}: name another")
        found.append((chunk.frames[:frames], schema.encode(chunk.actions[: frames - 1])))
        poses.append(None if chunk.pose is None else chunk.pose[:frames])
    if not found:
        raise UserError(f"{folder} has no episode of {frames} frames, which a dream begins with: record longer ones")
    pictures, actions = (torch.from_numpy(np.stack(part)) for part in zip(*found))
    known = [each for each in poses if each is not None]
    placed = torch.from_numpy(np.stack(known)).float() if len(known) == len(found) else None
    return replace(checkpoint, contexts_frames=pictures, contexts_actions=actions, contexts_poses=placed)
