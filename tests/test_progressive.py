"""Progressive distillation: one step of the student is two of its teacher's, and a tiny model learns it."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from game_wm.model.denoiser import embed_level
from game_wm.objectives.flow import FlowMatching, advance
from train.stages.distill import progressive_loss

pytestmark = pytest.mark.slow

MEAN, DEVIATION = 0.5, 0.4


def gaussian(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
    """The expected clean value of Gaussian data: the perfect teacher of small steps."""
    level = level[:, :, None, None, None]
    gain = level * DEVIATION**2 / ((1 - level) ** 2 + (level * DEVIATION) ** 2)
    return MEAN + gain * (x - level * MEAN)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_two_of_the_teachers_steps_are_one_towards_the_students_goal(steps: int) -> None:
    torch.manual_seed(0)
    flow, goals, seen = FlowMatching(finest=8), list[Tensor](), list[tuple[Tensor, Tensor]]()
    clean = torch.randn(2, 6, 3, 2, 2, dtype=torch.float64)

    def teach(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        assert (stride == flow.conditioned_stride(2 * steps)).all()
        return torch.tanh(1.7 * x.flip(-1) + level[:, :, None, None, None])  # any function at all

    def student(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        assert (stride == flow.conditioned_stride(steps)).all() and ((level * steps) % 1 == 0).all()
        seen.append((x, level))
        goals.append(torch.zeros_like(x, requires_grad=True))
        return goals[-1]

    progressive_loss(clean, student, teach, flow, steps).backward()
    (x, level), size = seen[0], 1 / steps
    # The gradient at a guess of zero points away from the goal.
    weight = (1 - flow.ramp * (1 - level))[:, :, None, None, None]
    assert goals[0].grad is not None
    goal = -goals[0].grad / weight * clean[0, 0].numel() * clean[:, :, 0, 0, 0].numel() / 2
    told, half = torch.full_like(level, flow.conditioned_stride(2 * steps)), torch.full_like(level, size / 2)
    middle = advance(x, teach(x, level, told, slice(0, 6)), level, half)
    end = advance(middle, teach(middle, level + half, told, slice(0, 6)), level + half, half)
    assert torch.allclose(advance(x, goal, level, 2 * half), end, atol=1e-12)


def test_a_tiny_model_learns_to_do_in_one_step_what_its_teacher_does_in_eight() -> None:
    torch.manual_seed(0)
    flow = FlowMatching(finest=8)
    network = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    def predictor(network: nn.Module) -> Any:
        def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            features = [embed_level(value.flatten(), 16) for value in (level, stride)]
            told = network(torch.cat(features, -1)).unflatten(0, level.shape)[..., None, None]
            return told[:, :, :1] + told[:, :, 1:] * x

        return predict

    teach: Any = gaussian
    for steps in (4, 2, 1):
        optimiser = torch.optim.Adam(network.parameters(), 1e-2)
        for step in range(200):
            optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 200)
            clean = MEAN + DEVIATION * torch.randn(64, 8, 1, 1, 1)
            optimiser.zero_grad()
            progressive_loss(clean, predictor(network), teach, flow, steps).backward()
            optimiser.step()
        teach = predictor(copy.deepcopy(network).requires_grad_(False))
    noise = torch.special.ndtri((torch.arange(1000) + 0.5) / 1000).view(-1, 1, 1, 1, 1)
    taught, alone, made = (flow.sample(f, noise, n) for f, n in ((gaussian, 8), (gaussian, 1), (teach, 1)))
    assert (made - taught).abs().mean() < 0.05
    assert alone.std() < 0.01 and made.std() > 0.8 * taught.std()  # in one step, the teacher itself draws but the mean
