"""Pieces of real play, and several of them side by side.

Legend: E episodes, P frames of the prompt, N frames after it, H height, W width in pixels, A length of an encoded
action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_collect.guest.match import Leg
from game_wm.pictures import median_picture


class Prompt(NamedTuple):
    """What a dream begins with."""

    seed: int  # of the dream's noise
    frames: np.ndarray  # uint8 (P, H, W, 3)
    actions: np.ndarray  # float32 (P-1, A), encoded
    poses: np.ndarray | None = None  # float32 (P, 3), where the game tells them


@dataclass
class Play:
    """One piece of real play: P + N frames unless the game ended earlier, actions between them."""

    seed: int
    frames: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)  # encoded, one fewer than frames
    poses: list[np.ndarray] = field(default_factory=list)  # (3,) of the prompt's frames, where the game tells them
    rewards: list[float] = field(default_factory=list)  # after the prompt only
    terminated: bool = False
    seen: dict[int, np.ndarray] = field(default_factory=dict)  # horizon -> bool (H, W)
    width: int = 0  # A, which a prompt of one frame does not tell

    def prompt(self, frames: int) -> Prompt:
        """The prompt of so many frames that it begins with."""
        actions = np.array(self.actions[: frames - 1], np.float32).reshape(frames - 1, self.width)
        return Prompt(self.seed, np.stack(self.frames[:frames]), actions, np.stack(self.poses) if self.poses else None)


@dataclass
class Lead:
    """A game left at the end of a prompt."""

    play: Play
    info: dict[str, Any]  # of its last frame
    follower: Leg  # random-sticky play that goes on
    seen: np.ndarray | None  # numbers of the surfaces on screen in the last frames of the prompt

    @property
    def prompt(self) -> Prompt:
        """What has been played."""
        return self.play.prompt(len(self.play.frames))


@dataclass
class Truth:
    """Several plays side by side; what lies behind an episode's `length` is padding."""

    seeds: tuple[int, ...]
    prompt: int
    frames: Tensor  # uint8 (E, P+N, H, W, 3)
    actions: Tensor  # float32 (E, P+N-1, A)
    rewards: np.ndarray  # float32 (E, N)
    terminated: np.ndarray  # bool (E, N)
    length: np.ndarray  # int (E,): frames after the prompt that exist
    seen: dict[int, Tensor]  # horizon -> bool (E, H, W); empty where the game has no surfaces
    poses: Tensor | None = None  # float32 (E, P, 3); None where the game tells none

    def at(self, horizon: int) -> Tensor:
        """The real frames (E, H, W, 3) that many steps after the prompt."""
        return self.frames[:, self.prompt - 1 + horizon]

    @property
    def after(self) -> Tensor:
        """The real frames after the prompt, (E, N, H, W, 3)."""
        return self.frames[:, self.prompt :]

    @property
    def medians(self) -> Tensor:
        """The median picture of each play, uint8 (E, H, W, 3)."""
        lengths = self.prompt + self.length
        rows = [median_picture(frames[:n].numpy()) for frames, n in zip(self.frames, lengths, strict=True)]
        return torch.from_numpy(np.stack(rows))


def stack(plays: Sequence[Play], prompt: int, frames: int) -> Truth:
    """Plays side by side, the shorter ones padded with zeros."""
    count, total = len(plays), prompt + frames
    first = plays[0]
    frames_out = np.zeros((count, total, *first.frames[0].shape), np.uint8)
    actions = np.zeros((count, total - 1, len(first.actions[0])), np.float32)
    rewards, terminated = np.zeros((count, frames), np.float32), np.zeros((count, frames), bool)
    for i, play in enumerate(plays):
        frames_out[i, : len(play.frames)] = play.frames
        actions[i, : len(play.actions)] = play.actions
        rewards[i, : len(play.rewards)] = play.rewards
        terminated[i, len(play.rewards) - 1] = play.terminated
    blank = np.zeros(first.frames[0].shape[:2], bool)
    horizons = sorted({h for play in plays for h in play.seen})
    seen = {h: torch.from_numpy(np.stack([play.seen.get(h, blank) for play in plays])) for h in horizons}
    length = np.array([len(play.rewards) for play in plays])
    seeds = tuple(play.seed for play in plays)
    poses = torch.from_numpy(np.stack([play.poses for play in plays])) if first.poses else None
    made = torch.from_numpy(frames_out), torch.from_numpy(actions)
    return Truth(seeds, prompt, *made, rewards, terminated, length, seen, poses)
