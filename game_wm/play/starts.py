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
from data_collect.shards.chunk import Chunk
from game_wm.checkpoint import Checkpoint

PICTURE_FRAMES = 8  # frames of a prompt that is one picture
MOST_EPISODES = 64  # of a recording, that become contexts
SHORTEST = 32  # frames that an episode must have, where the checkpoint's own prompts are longer


def from_picture(checkpoint: Checkpoint, path: str | Path) -> Checkpoint:
    """The checkpoint with one place: a picture of any size, turned as its camera was held and cut to its frames'
    aspect, and the player standing still.

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
    frames, actions = frame.expand(1, PICTURE_FRAMES, -1, -1, -1), rest.expand(1, PICTURE_FRAMES - 1, -1)
    return replace(checkpoint, contexts_frames=frames.clone(), contexts_actions=actions.clone(), contexts_poses=None)


def from_recording(checkpoint: Checkpoint, folder: str | Path) -> Checkpoint:
    """The checkpoint with a place for each episode of a recording (the first 64), prompted as in its own contexts, or
    by as many frames as the longest episode has. Shorter episodes are left out. Poses are given where it is a recording
    of the checkpoint's very game: another level has others.

    `UserError`: no recording, other actions, frames of another size, or no episode that is long enough.
    """
    dataset, schema = Dataset(folder), checkpoint.schema
    frames, (height, width) = checkpoint.contexts_frames.shape[1], checkpoint.contexts_frames.shape[2:4]
    if (dataset.schema.kind, dataset.schema.names) != (schema.kind, schema.names):
        raise UserError(
            f"{folder} was played with other actions ({', '.join(dataset.schema.names)}) than {checkpoint.name} knows "
            f"({', '.join(schema.names)}): name a recording of {checkpoint.game}"
        )
    lengths = dict(zip(dataset.by_episode, dataset.whole.per_episode("frames").tolist()))
    longest = max(lengths.values(), default=0)
    if longest < min(frames, SHORTEST):
        least = min(frames, SHORTEST)
        raise UserError(f"{folder} has no episode of {least} frames, which a dream begins with: record longer ones")
    frames = min(frames, longest)
    found, poses = list[tuple[np.ndarray, np.ndarray]](), list[np.ndarray]()
    for number in [number for number, length in lengths.items() if length >= frames][:MOST_EPISODES]:
        chunks = list[Chunk]()
        while sum(len(chunk.frames) for chunk in chunks) < frames:
            chunks.append(dataset.read(dataset.by_episode[number][len(chunks)]))
        pictures, raw = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("frames", "actions"))
        if pictures.shape[1:3] != (height, width):
            size = f"{pictures.shape[2]}x{pictures.shape[1]}"
            raise UserError(f"{folder} holds frames of {size}, {checkpoint.name} dreams {width}x{height}: name another")
        found.append((pictures[:frames], schema.encode(raw[: frames - 1])))
        if all(chunk.pose is not None for chunk in chunks):
            poses.append(np.concatenate([chunk.pose for chunk in chunks if chunk.pose is not None])[:frames])
    shown, actions = (torch.from_numpy(np.stack(part)) for part in zip(*found))
    have_poses = dataset.game == checkpoint.game and len(poses) == len(found)
    poses_EP3 = torch.from_numpy(np.stack(poses)).float() if have_poses else None
    return replace(checkpoint, contexts_frames=shown, contexts_actions=actions, contexts_poses=poses_EP3)
