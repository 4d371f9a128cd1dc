"""What episodic memory would give for each frame of a window, found in the whole past of its episode.

    recall = Recall(store, places, count=2, history=4)
    recall(span, number)         # {"recalled": (L, R, C, h, w), "about": (L, R, 6)}

The places are those that play looks at, chosen by the same `choose`, from poses that drift as dead reckoning does. For
half of the windows the last 5 to 512 frames are hidden, since most frames have been seen a moment ago and the long way
back is what is to be learnt; now and then nothing is found, or something wrong.

Legend: L frames of a window, M places looked at, F = 2 (first, newest), R = 2 * count frames recalled, C, h, w latent.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from game_wm.memory.episodic import Places
from train.windows import LatentStore, Span

FRAMES = 2**20  # more than an episode has
# Largest drift of dead reckoning over a frame: of a place's side, and in radians; it grows with the root of the age.
DRIFT, TURN = 0.01, math.radians(0.2)
MISSING, WRONG = 0.1, 0.05
HIDDEN, LONGEST = 0.5, 512


class Recall:
    """Looks up every frame of a window in its episode.

    Args:
        store: encoded episodes with poses.
        places, count: how poses are divided, and places recalled a frame.
        history: a frame can be recalled when it is more than so many frames old.
        rollout: frames at a window's end whose own past must not be recalled, since the model will dream them.
        seed: of drift, of what is hidden and of what goes wrong; None for none of them.
    """

    def __init__(
        self, store: LatentStore, places: Places, count: int, history: int, rollout: int = 0, seed: int | None = None
    ) -> None:
        self.store, self.places, self.count, self.history = store, places, count, history
        self.rollout, self.seed = rollout, seed
        self.known: dict[int, tuple[Tensor, np.ndarray]] = {}

    def episode(self, number: int) -> tuple[Tensor, np.ndarray]:
        """Poses (T, 3) of an episode, and its frames sorted by place and then by time, as key * FRAMES + frame."""
        if number not in self.known:
            span = Span(number, 0, self.store.lengths[number])
            pose = torch.from_numpy(np.array(self.store.read("pose", span), np.float32))
            keys = self.places.key(self.places.of(pose)).numpy()
            self.known[number] = pose, np.sort(keys * FRAMES + np.arange(len(keys)))
        return self.known[number]

    def __call__(self, span: Span, number: int) -> dict[str, Tensor]:
        """For window `number`, which lies at `span`. See above."""
        pose, ordered = self.episode(span.episode)
        now = np.arange(span.start, span.start + span.frames)
        young, random = self.history, None
        if self.seed is not None:
            random = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
            hidden, length = torch.rand(2, generator=random).tolist()
            if hidden < HIDDEN:
                young = round(math.exp(math.log(young + 1) + length * math.log(LONGEST / (young + 1))))
        last = np.minimum(now - young - 1, span.start + span.frames - self.rollout - 1)[:, None]
        here = pose[now]
        keys = self.places.neighbours(here).numpy()
        ends = [np.searchsorted(ordered, keys * FRAMES), np.searchsorted(ordered, keys * FRAMES + last, "right") - 1]
        found = np.stack([ordered[e.clip(0, len(ordered) - 1)] for e in ends], -1)  # (L, M, F)
        there = torch.from_numpy((found // FRAMES == keys[..., None]) & (found % FRAMES <= last[..., None]))
        frames = torch.from_numpy(found % FRAMES)
        age = torch.from_numpy(now)[:, None, None] - frames
        poses = pose[frames]
        if random is not None:
            size = torch.tensor([DRIFT * self.places.side, DRIFT * self.places.side, TURN])
            size = size * torch.rand((), generator=random) * age.clamp_min(0).sqrt()[..., None]
            poses = poses + size * torch.randn(poses.shape, generator=random)
        best = self.places.choose(here, poses, there, self.count)[..., None].expand(-1, -1, 2)  # (L, count, F)
        frames, poses, there, age = (
            x.gather(1, best if x.dim() == 3 else best[..., None].expand(-1, -1, -1, 3)).flip(2).flatten(1, 2)
            for x in (frames, poses, there, age)
        )
        if random is not None:
            there = there & (torch.rand(len(there), 1, generator=random) >= MISSING)
            wrong = torch.rand(frames.shape, generator=random) < WRONG
            other = (torch.rand(frames.shape, generator=random) * torch.from_numpy(last).clamp_min(1)).long()
            frames = torch.where(wrong, other, frames)
        about = self.places.about(here[:, None], poses, age.float(), there)
        whole = self.store.read("latents", Span(span.episode, 0, self.store.lengths[span.episode]))
        latents = torch.from_numpy(whole[frames.clamp_min(0).numpy()]).float()
        return {"recalled": latents * there[..., None, None, None], "about": about}
