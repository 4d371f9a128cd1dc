"""Where an action leads the screen: the steps that a recording knows, and the choice among them, learnt without labels.

The steps are read off the pictures. The network learns which one comes next: the free one, or none where a wall is in
the way; it sees the pictures as the tokenizer shows them, as in play.

Legend: E episodes, T frames of one, N steps, K candidates, A action vector, H, W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from game_wm.deadline import NEVER, Deadline
from game_wm.memory.scroll.motion import BEFORE, Motion, TurningMotion
from game_wm.training import affordable, descend

BATCH, RATE, DECAY = 128, 2e-3, 0.05
NOISE = 12.0  # grey levels, of half of the pictures
LEAST_SHARE = 1e-4  # of the steps, that a candidate is taken for
WAY = 16  # steps, after which fractions of pixels have added up


class Recorded(NamedTuple):
    """Pictures uint8 (N, H, W, 3) with the actions done on seeing them (N, A), the steps before (N, BEFORE, 2) and
    their actions (N, BEFORE, A), and the step that followed (N, 2)."""

    pictures: Tensor
    actions: Tensor
    steps_before: Tensor
    actions_before: Tensor
    steps: Tensor

    def seen(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network reads for these steps."""
        return self.pictures[rows], self.actions[rows], self.steps_before[rows], self.actions_before[rows]


def recorded_steps(pictures_THWC: Tensor, actions_TA: Tensor, steps_T2: Tensor) -> Recorded:
    """Of one episode: all steps with `BEFORE` before them. `steps[t]` leads from frame t to t + 1."""
    at = torch.arange(BEFORE, len(steps_T2))
    rows = at[:, None] + torch.arange(-BEFORE, 0)
    return Recorded(pictures_THWC[at], actions_TA[at], steps_T2[rows], actions_TA[rows], steps_T2[at])


def candidate_steps(steps_N2: Tensor, candidates: int) -> Tensor:
    """The most frequent steps (K or fewer, 2), the likeliest first."""
    steps, counts = steps_N2.unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True)[:candidates]
    return steps[order[counts[order] >= max(2, LEAST_SHARE * len(steps_N2))]]


def learn_motion(motion: Motion, recorded: Recorded, steps: int, deadline: Deadline = NEVER) -> None:
    """Find the candidates and train the choice among them, in place, for so many steps or until the deadline; of a
    picture that turns, the change of its steps."""
    turns = isinstance(motion, TurningMotion)
    if turns:
        goals = recorded.steps - recorded.steps_before[:, -1]
    else:
        found = candidate_steps(recorded.steps, len(motion.steps))
        motion.steps.zero_()[: len(found)] = found.to(motion.steps)
        goals = nearest(found, recorded.steps)
    measure = F.smooth_l1_loss if turns else F.cross_entropy
    generator = torch.Generator().manual_seed(0)

    def loss(i: int) -> Tensor:
        rows = torch.randint(len(goals), (BATCH,), generator=generator)
        pictures, *others = recorded.seen(rows)
        return measure(motion(worn(pictures, generator), *others), goals[rows])

    with torch.enable_grad():
        optimizer = torch.optim.AdamW(motion.requires_grad_(True).parameters(), RATE, weight_decay=DECAY)
        count = affordable("scroll", steps, loss, deadline)
        rate = lambda i: RATE * min(1.0, (i + 1) / 50, 2 * (1 - i / count))  # noqa: E731
        descend("scroll", optimizer, count, loss, rate, clip=1.0)
    motion.requires_grad_(False)


def worn(pictures_BHWC: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures with other brightness, noise and a part of another one: a dream's are not as clean as
    recorded ones, and what is wrong in them must not stop the player."""
    half, (height, width) = len(pictures_BHWC) // 2, pictures_BHWC.shape[1:3]
    drawn = torch.rand(5, generator=generator)
    top, left = int(drawn[0] * height), int(drawn[1] * width)
    part = slice(top, top + int(drawn[2] * height / 2)), slice(left, left + int(drawn[3] * width / 2))
    made = pictures_BHWC[:half].float() * (0.75 + 0.5 * drawn[4])
    made[:, part[0], part[1]] = pictures_BHWC[-half:, part[0], part[1]].float()
    made += NOISE * torch.randn(made.shape, generator=generator)
    return torch.cat((made.clamp(0, 255).byte(), pictures_BHWC[half:]))


def nearest(candidates_K2: Tensor, steps_N2: Tensor) -> Tensor:
    """The number (N,) of the candidate nearest to each step."""
    return torch.cat([(part[:, None] - candidates_K2).abs().sum(2).argmin(1) for part in steps_N2.split(4096)])


@torch.no_grad()
def errors(motion: Motion, recorded: Recorded) -> Tensor:
    """By how much each predicted step is off (N, 2), or (N, 3)."""
    parts = [motion.predict_step(*recorded.seen(rows)) for rows in torch.arange(len(recorded.steps)).split(256)]
    return torch.cat(parts) - recorded.steps


def share_right(motion: Motion, recorded: Recorded) -> float:
    """Of the steps, how many are predicted exactly; where the picture turns, to half a pixel and half a degree."""
    slack = 0.5 if isinstance(motion, TurningMotion) else 0.0
    return float((errors(motion, recorded).abs() <= slack).all(1).float().mean())


def goes_fractions(motion: Motion, recorded: Recorded) -> bool:
    """Whether the screen goes fractions of a pixel: after `WAY` steps, means of steps are more often in place than the
    likeliest ones are. Sets it in the network."""
    there = []
    for motion.fractions in (False, True):
        away = errors(motion, recorded)
        there.append(int((away[: len(away) // WAY * WAY].view(-1, WAY, 2).sum(1).abs() <= 0.5).all(1).sum()))
    motion.fractions = there[1] > there[0]
    return motion.fractions
