"""Motion and depth of first-person games: steps from pictures, actions and the past; what a game knows of depth."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_collect.errors import UserError
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig, Motion
from train.first_person.depth import fit as fit_depth
from train.first_person.depth import known_disparity, off_by
from train.first_person.motion import Recorded, fit, fit_heads


def drifting(steps: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps (B, L, 3) of somebody who is pushed ahead by the first action, turned by the second, and slides to a halt,
    and his actions (B, L, 2)."""
    generator = torch.Generator().manual_seed(seed)
    actions = (torch.rand(64, steps, 2, generator=generator) < 0.5).float()
    angle, speed, found = torch.zeros(64), torch.zeros(64, 2), []
    for t in range(steps):
        speed = 0.8 * speed + 0.1 * actions[:, t, :1] * torch.stack((angle.cos(), angle.sin()), 1)
        cos, sin, (x, y) = angle.cos(), angle.sin(), speed.unbind(1)
        along = torch.stack((cos * x + sin * y, cos * y - sin * x, 0.1 * actions[:, t, 1]), 1)
        found.append(along)
        angle = angle + along[:, 2]
    return torch.stack(found, 1), actions


def test_the_past_is_told_as_the_player_stands() -> None:
    """Who slides on while he turns goes on as before, but no longer ahead."""
    motion = Motion(MemoryConfig(actions=2, inertia=True, two_step_inertia=True, place=1.0))
    steps = torch.tensor([[[0.2, 0.0, 0.0], [0.2, 0.0, math.pi / 2]]])
    actions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    past = motion.past(steps, actions) * torch.cat((motion.unit, torch.ones(2))).repeat(2)
    assert torch.allclose(past, torch.tensor([[0.0, -0.2, math.pi / 2, 0.0, 1.0, 0.0, -0.2, 0.0, 1.0, 0.0]]), atol=1e-6)
    assert torch.equal(motion.past(steps[:, :0], actions[:, :0]), torch.zeros(1, 10))


@pytest.mark.slow
def test_who_slides_to_a_halt_is_foreseen_from_poses_alone() -> None:
    motion = Motion(MemoryConfig(actions=2, inertia=True, two_step_inertia=True, place=1.0))

    def recorded(steps: torch.Tensor, actions: torch.Tensor) -> Recorded:
        found = [
            (steps[:, t - 2 : t], actions[:, t - 2 : t], actions[:, t], steps[:, t]) for t in range(2, steps.shape[1])
        ]
        return Recorded(*(torch.cat(part) for part in zip(*found, strict=True)))

    fit(motion, recorded(*drifting(20, seed=0)), steps=1000)
    before, led, actions, goals = recorded(*drifting(12, seed=1))
    pasts = motion.past(before, led)
    found = motion.unhindered(actions, pasts)
    assert (found - goals)[:, :2].norm(dim=1).median() < 0.02 * goals[:, :2].norm(dim=1).median()
    # What reads pictures begins with that, and knows of no hindrance yet; then it learns of one that is seen.
    seen = motion.predict_step(torch.randn(len(goals), 192), actions, pasts)
    assert torch.equal(seen, found)
    torch.manual_seed(0)
    features = torch.randn(len(goals), 192).half()
    stopped = features[:, 0] > 0.8
    goals[stopped, :2] = 0
    fit_heads(motion, Recorded(before, led, actions, goals), (features, features), steps=400)
    came = motion.eval().predict_step(features, actions, pasts)
    assert (came - goals)[stopped, :2].norm(dim=1).median() < 0.2 * found[stopped, :2].norm(dim=1).median()
    assert (came == found)[~stopped].all(1).float().mean() > 0.8


@pytest.mark.slow
def test_depth_is_learnt_from_what_a_game_knows() -> None:
    """Pictures of walls whose first channel tells how near they are."""
    torch.manual_seed(0)

    class Walls:
        def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
            near = torch.rand(size, 1, 1) * 3 - 2
            latents = torch.cat((near[:, None].expand(-1, 1, 4, 4), torch.randn(size, 3, 4, 4)), 1)
            return latents, near.exp().expand(-1, 16, 16)

    geometry = Geometry(MemoryConfig(channels=4, height=4, width=4, place=48.0, hidden=16))
    before = off_by(geometry.depth, Walls())  # type: ignore[arg-type]
    after = off_by(fit_depth(geometry.depth, Walls(), 300), Walls())  # type: ignore[arg-type]
    assert after[0] < 0.2 < 0.4 < before[0] and after == sorted(after)


def test_a_game_tells_depths_in_its_own_units() -> None:
    game = SimpleNamespace(depth=lambda poses, h, w: np.full((len(poses), h, w), 96.0, np.float32))
    assert torch.equal(known_disparity(game, 48.0, 2, 3)(np.zeros((5, 3))), torch.full((5, 8, 12), 0.5))
    with pytest.raises(UserError, match="does not know how deep"):
        known_disparity(object(), 1.0, 2, 2)
