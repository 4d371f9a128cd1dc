"""How a frame is generated: every objective samples what is known in closed form, and trains on what is not."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import tiny_config
from torch import Tensor, nn

from game_wm.model.config import COVER
from game_wm.model.denoiser import embed_level
from game_wm.objectives import (
    Diffusion,
    FlowMatching,
    Objective,
    make_objective,
    objective_entries,
)
from game_wm.objectives.diffusion import SAMPLERS
from game_wm.objectives.samplers import dpmpp_2m, euler, heun, intervals, karras_sigmas
from game_wm.world import WorldConfig
from train.stages.distill import DistillModule, distribution_loss

MEANS, DEVIATION, SHARES = (-1.5, 1.0), 0.3, (0.25, 0.75)
WALKS = [FlowMatching(), *(Diffusion(sampler, sigma_max=80.0) for sampler in SAMPLERS)]


def names(objective: Objective) -> str:
    return "-".join([objective.kind, *filter(None, [getattr(objective, "sampler", None)])])


def expected_clean(noisy: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """Mean of y given scale · y + noise · n, where y is drawn from a mixture of two Gaussians and n is standard."""
    means, share = torch.tensor(MEANS, dtype=noisy.dtype), torch.tensor(SHARES, dtype=noisy.dtype)
    x, scale, noise = noisy[..., None], scale[..., None], noise[..., None]
    variance = (scale * DEVIATION) ** 2 + noise**2
    weight = (share.log() - (x - scale * means) ** 2 / (2 * variance)).softmax(-1)
    return (weight * (means + scale * DEVIATION**2 / variance * (x - scale * means))).sum(-1)


def analytic(objective: Objective) -> Any:
    """The network's own function, were it perfect on the mixture."""

    def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        level = level[:, :, None, None, None]
        if not isinstance(objective, Diffusion):
            return expected_clean(x, level, 1 - level)
        sigma = objective.sigma_max * (objective.sigma_min / objective.sigma_max) ** level
        skip, out, scale = objective.scales(sigma)
        return (expected_clean(x / scale, torch.ones_like(sigma), sigma) - skip * x / scale) / out

    return predict


@pytest.mark.slow
@pytest.mark.parametrize("objective", WALKS, ids=names)
def test_a_gaussian_mixture_is_sampled_with_the_right_moments(objective: Objective) -> None:
    torch.manual_seed(0)
    # Even quantiles instead of random noise: what is left is the sampler's own error.
    noise = torch.special.ndtri((torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000).view(-1, 1, 1, 1, 1)
    made = objective.sample(analytic(objective), noise, 255)
    mean = sum(share * m for share, m in zip(SHARES, MEANS))
    spread = [m - mean for m in MEANS]
    moments = [mean, *(sum(s * w for s, w in zip(SHARES, values)) for values in (
        [d**2 + DEVIATION**2 for d in spread], [d**3 + 3 * d * DEVIATION**2 for d in spread]))]  # fmt: skip
    found = [float(made.mean()), *(float((made - made.mean()).pow(n).mean()) for n in (2, 3))]
    assert found == pytest.approx(moments, abs=0.03)
    assert float((made < -0.5).double().mean()) == pytest.approx(SHARES[0], abs=0.01)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("objective", WALKS, ids=names)
def test_steps_are_calls_and_the_last_one_gives_what_is_known(objective: Objective, steps: int) -> None:
    clean, calls = torch.randn(2, 3, 3, 4, 4), 0

    def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        nonlocal calls
        calls += 1
        if not isinstance(objective, Diffusion):
            return clean
        sigma = objective.sigma_max * (objective.sigma_min / objective.sigma_max) ** level[:, :, None, None, None]
        skip, out, scale = objective.scales(sigma)
        return (clean - skip * x / scale) / out

    made = objective.sample(predict, torch.randn_like(clean), steps)
    assert calls == steps
    assert torch.allclose(made, clean, atol=1e-4)


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_samplers_are_of_their_order(sampler: Any, order: int) -> None:
    """For Gaussian data of deviation s the equation's own solution is known: x shrinks as sqrt(s² + σ²)."""
    start, end, s = 5.0, 0.05, 0.5
    x = torch.tensor([3.0, -1.0], dtype=torch.float64)
    exact = x * math.sqrt((s**2 + end**2) / (s**2 + start**2))

    def error(count: int) -> float:
        sigmas = karras_sigmas(count + 1, end, start, 7.0)[:-1]
        return float((sampler(lambda x, sigma: x * s**2 / (s**2 + sigma**2), x, sigmas) - exact).abs().max())

    assert error(64) < 0.05
    assert error(64) / error(128) == pytest.approx(2**order, rel=0.2)


def test_the_levels_fall_from_noise_to_nothing() -> None:
    sigmas = karras_sigmas(5, 0.01, 10.0, 7.0)
    assert sigmas[0] == pytest.approx(10) and sigmas[-2] == pytest.approx(0.01) and sigmas[-1] == 0
    assert sigmas == sorted(sigmas, reverse=True) and karras_sigmas(1, 0.01, 10.0, 7.0) == pytest.approx([10, 0])
    assert [intervals("heun", calls) for calls in (1, 2, 3, 4, 9)] == [1, 2, 2, 3, 5]


def test_what_the_trunk_sees_and_tells_has_unit_variance() -> None:
    torch.manual_seed(0)
    objective, inputs = Diffusion(sigma_data=0.5), []

    def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        assert level.min() >= 0 and level.max() <= 1 + 1e-6
        inputs.append(x)
        return torch.zeros_like(x)

    errors, _ = objective.loss(predict, 0.5 * torch.randn(64, 64, 1, 4, 4))
    assert float(inputs[0].std()) == pytest.approx(1, abs=0.02)
    assert float(errors.mean()) == pytest.approx(1, abs=0.03)  # nothing told: the whole variance of the target


@pytest.mark.parametrize("entries", [{}, {"kind": "flow", "finest": 4}, {"kind": "diffusion", "sampler": "heun"}])
def test_an_objective_comes_back_from_a_file(entries: dict[str, Any]) -> None:
    objective = make_objective(entries)
    config = replace(tiny_config(), objective=objective)
    assert make_objective(objective_entries(objective)) == objective
    assert WorldConfig.from_dict(config.to_dict()) == config
    assert objective_entries(objective) == {**objective_entries(make_objective({"kind": objective.kind})), **entries}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"kind": "paint"}, "unknown objective paint: the kinds are flow, diffusion"),
        ({"kind": "diffusion", "finest": 4}, "diffusion has no option finest"),
        ({"kind": "diffusion", "sampler": "midpoint"}, "sampler must be one of euler, heun, dpmpp_2m"),
        ({"kind": "diffusion", "sigma_min": 20}, "must lie between 0 and sigma_max"),
        ({"kind": "diffusion", "steps": 0}, "at least 1"),
        ({"finest": "many"}, "finest of flow must be of type int"),
        ({"finest": 6}, "power of two"),
    ],
)
def test_an_objective_that_there_is_not(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_objective(entries)


def gaussian_shortcut(mean: float, deviation: float) -> Any:
    """The perfect shortcut for data of this Gaussian: the flow keeps x at its quantile, so that every jump is known."""

    def spread(level: Tensor) -> Tensor:
        return ((1 - level) ** 2 + (level * deviation) ** 2).sqrt()

    def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        level, stride = (value[:, :, None, None, None].double() for value in (level, stride))
        then = level + stride
        jumped = then * mean + spread(then) / spread(level) * (x - level * mean)
        return x + (jumped - x) * (1 - level) / stride

    return predict


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16, 32, 64])
def test_the_perfect_shortcut_draws_the_same_in_1_to_64_steps(steps: int) -> None:
    noise = torch.randn(2, 50, 1, 4, 4, dtype=torch.float64)
    made = FlowMatching(64, 0.0, 0.25).sample(gaussian_shortcut(1.5, 0.4), noise, steps)
    assert torch.allclose(made, 1.5 + 0.4 * noise, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_bound_holds_what_runs_away_and_nothing_else(steps: int) -> None:
    noise = torch.randn(500, 1, 1, 1, 1, dtype=torch.float64)
    free, held = (FlowMatching(64, 0.0, 0.25, bound=bound) for bound in (0.0, 4.0))
    near, far = gaussian_shortcut(1.5, 0.4), gaussian_shortcut(6.0, 0.4)
    assert torch.equal(held.sample(near, noise, steps), free.sample(near, noise, steps))
    assert free.sample(far, noise, steps).min() > 4 >= held.sample(far, noise, steps).max()
    with pytest.raises(ValueError, match="bound"):
        FlowMatching(bound=-1.0)


@pytest.mark.parametrize(("one_call", "coarsest"), [(0.0, 1.0), (0.25, 0.5)])
def test_half_steps_teach_every_stride_that_nothing_else_does(one_call: float, coarsest: float) -> None:
    torch.manual_seed(0)
    told = []

    def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        told.append(stride)
        return shortcut(x, level, stride, part)

    shortcut = gaussian_shortcut(0.5, 0.3)
    objective = FlowMatching(finest=64, one_call=one_call, bootstrap=0.5)
    clean = torch.randn(64, 8, 1, 1, 1, dtype=torch.float64)
    errors, _ = objective.loss(predict, clean)
    assert errors[:, :4].max() < 1e-9  # two half steps of the perfect shortcut are one whole one
    whole = told[-1][:, :4]
    assert float(whole.max()) == coarsest and float(whole.min()) == 2 / 64 and (told[0] == whole / 2).all()
    assert (told[-1][:, 4:].unique() == (torch.tensor([1 / 64, 1]) if one_call else torch.tensor([1 / 64]))).all()


@pytest.mark.slow
@pytest.mark.parametrize("bootstrap", [0.25, 0.0], ids=["half steps", "one call on the data"])
def test_one_trained_network_serves_1_to_64_steps(bootstrap: float) -> None:
    """Taught by half steps, it draws the same Gaussian in any number of calls; on the data alone, one is the mean."""
    torch.manual_seed(0)
    objective = FlowMatching(64, 0.0 if bootstrap else 0.5, bootstrap, ramp=0.0)
    network = nn.Sequential(nn.Linear(33, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    average = copy.deepcopy(network)

    def predictor(network: nn.Module) -> Any:
        def predict(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
            told = [embed_level(value.flatten(), 16).unflatten(0, value.shape) for value in (level, stride)]
            return network(torch.cat((x[..., 0, 0], *told), -1))[..., None, None]

        return predict

    optimiser = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.95))
    for step in range(600):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, step / 50) * (1 - step / 600)
        optimiser.zero_grad()
        clean = 0.5 + 0.5 * torch.randn(32, 32, 1, 1, 1)
        objective.loss(predictor(network), clean, predictor(average))[0].mean().backward()
        optimiser.step()
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.05)
    with torch.no_grad():
        noise = torch.special.ndtri((torch.arange(1000) + 0.5) / 1000).view(-1, 1, 1, 1, 1)
        made = {steps: objective.sample(predictor(network), noise, steps) for steps in (1, 2, 4, 8, 16, 32, 64)}
    drawn = {steps: float(x.std()) for steps, x in made.items() if bootstrap or steps >= 32}
    assert all(abs(float(x.mean()) - 0.5) < 0.1 for x in made.values())
    assert all(abs(spread - 0.5) < 0.13 for spread in drawn.values())
    assert bootstrap or float(made[1].std()) < 0.1


def test_distribution_matching_moves_a_student_of_one_call_to_the_teachers_distribution() -> None:
    torch.manual_seed(0)
    mean, deviation = 0.5, 0.4

    def teach(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        level = level[:, :, None, None, None]
        gain = level * deviation**2 / ((1 - level) ** 2 + (level * deviation) ** 2)
        return mean + gain * (x - level * mean)

    network = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 2))

    def fake(x: Tensor, level: Tensor, stride: Tensor, part: slice) -> Tensor:
        told = network(embed_level(level.flatten(), 16)).unflatten(0, level.shape)[..., None, None]
        return told[:, :, :1] + told[:, :, 1:] * x

    student = nn.Parameter(torch.tensor([-0.5, 0.9]))
    optimiser = torch.optim.Adam([{"params": [student], "lr": 0.01}, {"params": network.parameters(), "lr": 0.01}])
    for _ in range(400):
        made = student[0] + student[1] * torch.randn(64, 8, 1, 1, 1)
        optimiser.zero_grad()
        sum(distribution_loss(made, teach, fake, 8)).backward()
        optimiser.step()
    assert abs(float(student[0].detach()) - mean) < 0.1
    assert abs(float(student[1].detach()) - deviation) < 0.1


def test_a_cell_is_hidden_as_far_as_no_view_shows_it() -> None:
    made = torch.zeros(1, 1, 3, 1, 2)
    drawn = torch.zeros(1, 1, 2 * (3 + COVER), 1, 2)
    drawn[:, :, 3 : 3 + COVER, :, 0] = 0.5  # the first view shows half of the first cell, the second view all of it
    drawn[:, :, 2 * 3 + COVER :, :, 0] = 1
    assert DistillModule.uncovered(made, drawn).flatten().tolist() == [0, 1]
    assert DistillModule.uncovered(made, None).flatten().tolist() == [1, 1]
