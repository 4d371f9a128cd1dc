"""How a frame is generated: every objective samples what is known in closed form, and trains on what is not."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_checkpoint, tiny_config
from torch import Tensor, nn

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.checkpoint import load
from game_wm.model.config import COVER
from game_wm.model.denoiser import embed_level
from game_wm.model.dynamics import Dynamics
from game_wm.model.fsq import Codebook
from game_wm.objectives import (
    Autoregressive,
    Diffusion,
    FlowMatching,
    Masked,
    Objective,
    make_objective,
    objective_entries,
)
from game_wm.objectives.diffusion import SAMPLERS
from game_wm.objectives.samplers import dpmpp_2m, euler, heun, intervals, karras_sigmas
from game_wm.play.app import main
from game_wm.world import WorldConfig
from train.__main__ import main as run_command
from train.data import encode
from train.stages.distill import DistillModule, distribution_loss

MEANS, DEVIATION, SHARES = (-1.5, 1.0), 0.3, (0.25, 0.75)
LEVELS = (4, 3, 3, 3)
CONFIGS = Path(__file__).parent.parent / "configs" / "lab"
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


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(3,), (4, 3), (8, 5, 5, 5), (7, 5, 5, 5, 5)], ids=str)
def test_every_code_has_a_number_and_is_its_own_nearest(levels: tuple[int, ...]) -> None:
    codebook = Codebook(levels)
    ids = torch.arange(codebook.size)[:, None]
    codes = codebook.codes(ids, 1, 1)
    assert codes.shape == (codebook.size, len(levels), 1, 1) and codes.abs().max() == 1
    assert len(codes.flatten(1).unique(dim=0)) == codebook.size
    assert torch.equal(codebook.ids(codes), ids) and torch.equal(codebook.ids(codes.half()), ids)


def test_quantising_rounds_and_lets_the_gradient_through() -> None:
    codebook = Codebook((7, 4))
    raw = torch.linspace(-4, 4, 801)[:, None, None, None].expand(-1, 2, 1, 1).clone().requires_grad_()
    codes = codebook.quantise(raw)
    assert [len(channel.unique()) for channel in codes.detach().flatten(1).unbind(1)] == [7, 4]
    assert torch.equal(codebook.codes(codebook.ids(codes.detach()), 1, 1), codes.detach())
    assert (codes[400] == 0).all() and (codes.diff(dim=0) >= 0).all()
    codes.sum().backward()
    assert raw.grad is not None and (raw.grad > 0).all()
    with pytest.raises(ValueError, match="three levels or more"):
        Codebook((5, 2))


class Table:
    """Tokens that depend on the one before: row `i` of `logits` (V + 1, V) is what follows code `i`, row V begins."""

    def __init__(self, levels: tuple[int, ...], logits: Tensor) -> None:
        self.codebook, self.logits, self.seen = Codebook(levels), logits, list[Tensor]()

    def cache(self) -> None:
        return None

    def __call__(self, ids: Tensor, part: slice, causal: bool = False, cache: Any = None) -> Tensor:
        self.seen.append(ids)
        return self.logits[ids]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(0)
    table = Table((3,), torch.tensor([[0.0, 1, 2], [3, 0, 0], [1, 1, 1], [0, 0, 1]]))
    made = Autoregressive().sample(table, torch.randn(20_000, 1, 1, 1, 3), 3)
    ids = table.codebook.ids(made)[:, 0]
    for first, second in ((0, 1), (1, 2)):
        for code in range(3):
            found = ids[ids[:, first] == code, second].bincount(minlength=3) / (ids[:, first] == code).sum()
            assert (found - table.logits[code].softmax(-1)).abs().max() < 0.03
    likely = Autoregressive().log_likelihood(table, made[:1])
    steps = table.logits.log_softmax(-1)[[3, *ids[0, :2].tolist()], ids[0].tolist()]
    assert float(likely) == pytest.approx(float(steps.sum()), abs=1e-5)
    with pytest.raises(ValueError, match="one call a token, 3 a frame, not 2"):
        Autoregressive().sample(table, torch.randn(1, 1, 1, 1, 3), 2)


@pytest.mark.parametrize(("steps", "calls"), [(1, 1), (8, 8), (64, 12)])
def test_masked_decoding_knows_all_tokens_after_its_passes(steps: int, calls: int) -> None:
    torch.manual_seed(0)
    share = torch.tensor([0.1, 0.2, 0.7])
    table = Table((3, 3), (share[:, None] * share).flatten().log().expand(10, 9))
    made = Masked(choice=0.0 if steps == 1 else 1.0).sample(table, torch.randn(3000, 1, 2, 3, 4), steps)
    assert len(table.seen) == calls and made.shape == (3000, 1, 2, 3, 4)
    for before, after in zip(table.seen, [*table.seen[1:], table.codebook.ids(made)]):
        assert torch.equal(torch.where(before < 9, after, before), before)  # what is known stays
        assert ((after < 9).sum(-1) > (before < 9).sum(-1)).all()
    digits = table.codebook.digits(table.codebook.ids(made)).flatten(0, -2)
    if steps == 1:  # then no token is chosen for being sure
        for channel in digits.unbind(-1):
            assert (channel.bincount() / len(channel) - share).abs().max() < 0.02


def test_the_passes_know_more_and_more() -> None:
    assert Masked.known(64, 8) == [2, 5, 11, 19, 29, 40, 52, 64]
    assert Masked.known(4, 4) == [1, 2, 3, 4] and Masked.known(64, 1) == [64]
    assert all(Masked.known(n, n)[-1] == n and len(Masked.known(n, n)) == n for n in range(1, 70))


def tiny_transformer(objective: Objective, levels: tuple[int, ...], side: int = 16) -> Dynamics:
    config = tiny_config(side=side, objective=objective, levels=levels).dynamics
    torch.manual_seed(0)
    dynamics = Dynamics(config)
    for p in dynamics.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return dynamics.eval().requires_grad_(False)


def some_codes(config: Any, batch: int, time: int) -> Tensor:
    codebook = Codebook(config.levels)
    ids = torch.randint(codebook.size, (batch, time, config.height * config.width))
    return codebook.codes(ids, config.height, config.width)


def test_the_likelihoods_of_all_frames_sum_to_one() -> None:
    dynamics = tiny_transformer(Autoregressive(), (3,))
    past, actions = some_codes(dynamics.config, 1, 4), torch.randn(1, 4, 4)
    every = dynamics.denoiser.codebook.codes(torch.cartesian_prod(*[torch.arange(3)] * 4), 2, 2)  # 81 frames
    windows = torch.cat((past[:, :3].expand(81, -1, -1, -1, -1), every[:, None]), 1)
    reading = dynamics(windows, actions.expand(81, -1, -1), torch.tensor([3]), torch.zeros(81), windows)
    likely = Autoregressive().log_likelihood(reading.predict, reading.goals)
    assert float(likely.exp().sum()) == pytest.approx(1, abs=1e-4)
    assert float(likely.exp().max()) > 2 / 81  # and they are not all alike
    errors, _ = Autoregressive().loss(reading.predict, reading.goals)
    assert torch.allclose(errors, -likely / 4, atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 3, 12])
def test_cached_tokens_equal_uncached_ones(prompt: int) -> None:
    """In play the past comes from the ring and the frame's tokens from their cache; in training from neither."""
    dynamics = tiny_transformer(Autoregressive(), (4, 3), side=32)
    latents, actions = some_codes(dynamics.config, 2, prompt + 1), torch.randn(2, prompt + 1, 4)
    state = dynamics.start(latents[:, :prompt], actions[:, : prompt - 1])
    seen: list[Tensor] = []

    class Watched(Autoregressive):
        def sample(self, predict: Any, noise: Tensor, steps: int) -> Tensor:
            cache = predict.cache()
            ids = torch.nn.functional.pad(predict.codebook.ids(latents[:, prompt:]), (1, 0), value=12)
            for n in range(16):
                seen.append(predict(ids[..., n : n + 1], slice(0, 1), causal=True, cache=cache))
            return super().sample(predict, noise, steps)

    noise = torch.randn_like(latents[:, 0])
    made = dynamics.generate(state, actions[:, prompt - 1], noise, 16, Watched())
    reading = dynamics(latents, actions, torch.tensor([prompt]), torch.zeros(2), latents)
    whole = Autoregressive._logits(reading.predict, reading.predict.codebook.ids(reading.goals))
    assert (torch.cat(seen, 2) - whole).abs().max() < 1e-4
    again = Autoregressive().sample(reading.predict, noise[:, None], 16)[:, 0]
    assert torch.equal(made, again)


def test_a_hidden_token_is_told_from_all_others_and_a_causal_one_from_those_before() -> None:
    dynamics = tiny_transformer(Masked(), (4, 3), side=32)
    latents, actions = some_codes(dynamics.config, 1, 3), torch.randn(1, 3, 4)
    predict = dynamics(latents, actions, torch.tensor([2]), torch.zeros(1), latents).predict
    ids = predict.codebook.ids(latents[:, 2:])
    other = ids.clone()
    other[..., 9] = (ids[..., 9] + 1) % 12
    changed = []
    for causal in (False, True):
        told = [predict(given, slice(0, 1), causal)[0, 0] for given in (ids, other)]
        changed.append((told[0] - told[1]).abs().amax(-1))
    assert (changed[0] > 1e-4).all()
    assert (changed[1][:9] == 0).all() and (changed[1][9:] > 1e-4).all()


# --- with the network -------------------------------------------------------------------------------------------------


def game(config: Any, batch: int, time: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A picture that the action turns: latents (B, T, C, h, w), and actions (B, T, A) whose first number says whether
    the next frame is the last one moved to the right by a cell, or moved to the left."""
    first = torch.randn(batch, config.channels, config.height, config.width, generator=generator)
    first = Codebook(config.levels).quantise(first) if config.levels else first
    actions = torch.zeros(batch, time, config.actions)
    actions[:, :, 0] = torch.randint(0, 2, (batch, time), generator=generator) * 2.0 - 1
    at = torch.cat((torch.zeros(batch, 1), actions[:, :-1, 0].cumsum(1)), 1)
    moved = [torch.stack([frame.roll(int(s), -1) for frame, s in zip(first, column)]) for column in at.unbind(1)]
    return torch.stack(moved, 1), actions


def trained(objective: Objective, steps: int) -> tuple[Dynamics, list[float]]:
    """A tiny network after so many steps on `game`, and its losses."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    dynamics = Dynamics(tiny_config(side=32, objective=objective, levels=LEVELS).dynamics)
    optimiser = torch.optim.AdamW(dynamics.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        latents, actions = game(dynamics.config, 8, 6, generator)
        reading = dynamics(latents, actions, torch.arange(1, 6), torch.zeros(8), latents)
        loss = objective.loss(reading.predict, reading.goals)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return dynamics.eval().requires_grad_(False), losses


@pytest.mark.parametrize(
    "objective", [FlowMatching(finest=4), Diffusion(steps=4), Autoregressive(), Masked(steps=4)], ids=names
)
def test_a_tiny_network_learns_what_the_action_does(objective: Objective) -> None:
    dynamics, losses = trained(objective, 320 if "transformer" in objective.trunks else 150)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    latents, actions = game(dynamics.config, 64, 5, torch.Generator().manual_seed(9))
    state = dynamics.start(latents[:, :4], actions[:, :3])
    noise = torch.randn(latents[:, 4].shape, generator=torch.Generator().manual_seed(9))
    calls = objective.calls(dynamics.config.height * dynamics.config.width)
    made = dynamics.generate(state, actions[:, 3], noise, calls, objective)
    error, repeat = ((x - latents[:, 4]).square().mean() for x in (made, latents[:, 3]))
    assert error < 0.5 * repeat


@pytest.mark.parametrize(
    "objective", [FlowMatching(finest=4), Diffusion("heun", 3), Autoregressive(), Masked()], ids=names
)
def test_a_file_plays_as_its_objective_says(objective: Objective, tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", objective=objective, levels=LEVELS)
    checkpoint = load(path)
    world = checkpoint.model
    assert (world.config.objective, world.steps) == (objective, objective.calls(64))
    shown, actions = checkpoint.contexts_frames[:2], checkpoint.contexts_actions[:2]
    made = []
    for seeds in ([1, 2], [1, 3]):
        state = world.start(shown, actions, torch.tensor(seeds))
        made.append(world.step(state, actions[:, 0])[0].frames)
    assert torch.equal(made[0][0], made[1][0])
    assert not torch.equal(made[0][1], made[1][1])
    assert main(["--headless", "--frames", "2", str(path)]) == 0


def test_a_trunk_that_the_objective_does_not_take() -> None:
    config = tiny_config()
    with pytest.raises(ValueError, match="diffusion takes the trunk unet, not transformer"):
        replace(tiny_config(objective=Masked(), levels=LEVELS), objective=Diffusion())
    with pytest.raises(ValueError, match="latents of another tokenizer"):
        replace(config, dynamics=replace(config.dynamics, levels=LEVELS))
    with pytest.raises(ValueError, match="needs codes, of a tokenizer with levels"):
        tiny_config(objective=Masked())
    with pytest.raises(ValueError, match="shown no views"):
        tiny_config(objective=Masked(), levels=LEVELS, recall=True)


# --- from a recording to play -----------------------------------------------------------------------------------------

SMALL = {
    "tokenizer": ["--model.tokenizer.encoder_widths", "[16,16,16]", "--model.tokenizer.decoder_widths", "[16,16,16]",
                  "--model.tokenizer.decoder_blocks", "1", "--model.perceptual", "0", "--data.batch_size", "8"],
    "dynamics": ["--model.dynamics.widths", "[16,32]", "--model.dynamics.blocks", "[1,1]", "--data.batch_size", "2",
                 "--model.dynamics.context_width", "32", "--model.dynamics.window", "8", "--model.dynamics.heads", "2",
                 "--model.targets", "2", "--data.length", "8", "--data.validation_windows", "1",
                 "--trainer.val_check_interval", "1"],
}  # fmt: skip


def train(stage: str, config: str, runs: Path, *flags: str) -> None:
    given = ["--config", str(CONFIGS / f"{config}.yaml"), "--runs", str(runs), "--minutes", "null", "--steps", "2"]
    assert run_command([stage, *given, "--wandb", "off", *SMALL[stage], *flags]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, and its codes."""
    folder = tmp_path_factory.mktemp("runs")
    record(folder / "data", "maze?size=7", "random", 160, seed=3, episode_frames=40)
    train("tokenizer", "tokenizer-codes", folder, "--data.data", f"[{folder / 'data'}]")
    tokenizer = str(folder / "codes" / "tokenizer" / "last.ckpt")
    encoding = ["--tokenizer", tokenizer, "--out", str(folder / "codes" / "latents")]
    assert run_command(["encode", "--data", str(folder / "data"), *encoding]) == 0
    return folder


@pytest.mark.parametrize("name", ["diffusion", "shortcut", "cascade", "autoregressive", "masked"])
def test_a_lab_configuration_trains_and_its_file_plays(
    name: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = runs / "codes"
    tokenizer, latents = str(codes / "tokenizer" / "last.ckpt"), str(codes / "latents")
    train("dynamics", name, runs, "--data.latents", latents, "--model.tokenizer", tokenizer)
    places = ["--tokenizer", tokenizer, "--latents", latents, "--out", str(tmp_path)]
    assert run_command(["export", "--run", str(runs / name), "--prompt", "4", "--contexts", "2", *places]) == 0
    path = tmp_path / f"{name}.safetensors"
    checkpoint = load(path)
    wanted = {"diffusion": 3, "shortcut": 1, "cascade": 2, "autoregressive": 64, "masked": 8}
    assert checkpoint.model.steps == wanted[name]
    assert checkpoint.model.config.tokenizer.levels == checkpoint.model.config.dynamics.levels == (7, 5, 5, 5, 5)
    assert main([str(path), "--headless", "--frames", "3"]) == 0
    capsys.readouterr()
    if name == "autoregressive":
        with pytest.raises(UserError, match="takes 64 calls a frame: leave --steps out"):
            main([str(path), "--headless", "--frames", "3", "--steps", "8"])
    else:
        assert main([str(path), "--headless", "--frames", "3", "--steps", "2"]) == 0


def test_what_a_discrete_model_refuses(runs: Path, tmp_path: Path) -> None:
    encode.write_synthetic(tmp_path / "latents", (4, 4, 4), actions=3, episodes=4, frames=40)
    flags = ["--config", str(CONFIGS / "masked.yaml"), "--data.game", "null", "--steps", "1", "--runs", str(tmp_path)]
    tokenizer = ["--model.tokenizer", str(runs / "codes" / "tokenizer" / "last.ckpt")]
    codes = str(runs / "codes" / "latents")
    for more, words in [
        (["--data.latents", str(tmp_path / "latents")], "masked: a transformer trunk needs codes"),
        (["--data.latents", codes, "--model.pixels", "1"], "flow matching's alone"),
        (["--data.latents", codes, "--model.objective.steps", "0"], "steps must be at least 1"),
    ]:
        with pytest.raises(UserError, match=words):
            run_command(["dynamics", *flags, *tokenizer, *more, "--data.length", "16"])
    flags = ["--config", str(CONFIGS / "tokenizer-codes.yaml"), "--data.data", f"[{runs / 'data'}]", "--steps", "1"]
    with pytest.raises(UserError, match="no codes"):
        run_command(["tokenizer", *flags, "--model.equivariance", "0.5", "--model.perceptual", "0"])


def test_a_cell_is_hidden_as_far_as_no_view_shows_it() -> None:
    made = torch.zeros(1, 1, 3, 1, 2)
    drawn = torch.zeros(1, 1, 2 * (3 + COVER), 1, 2)
    drawn[:, :, 3 : 3 + COVER, :, 0] = 0.5  # the first view shows half of the first cell, the second view all of it
    drawn[:, :, 2 * 3 + COVER :, :, 0] = 1
    assert DistillModule.hidden(made, drawn).flatten().tolist() == [0, 1]
    assert DistillModule.hidden(made, None).flatten().tolist() == [1, 1]
