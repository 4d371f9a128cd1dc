"""The cascade: coarse first, fine after, and the coarse frame alone is the frame at half its resolution."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_tokenizer import config as tokenizer_config
from test_tokenizer import pictures
from tiny import tiny_config, tiny_world
from torch import Tensor

from data_collect.errors import UserError
from game_wm.acceleration import compilation, export
from game_wm.model.dynamics import Dynamics
from game_wm.model.tokenizer import Tokenizer
from game_wm.objectives.cascade import COARSE, Cascade, double, halve
from train.lab.acceleration import caching
from train.stages.tokenizer import TokenizerModule


@pytest.mark.parametrize(("coarse", "fine"), [(1, 1), (3, 2), (2, 0)])
def test_the_coarse_stage_gives_the_means_of_what_the_fine_one_gives(coarse: int, fine: int) -> None:
    clean, seen = torch.randn(2, 3, 4, 6, 8), list[tuple[int, ...]]()

    def predict(x: Tensor, level: Tensor, stage: Tensor, part: slice) -> Tensor:
        seen.append(tuple(x.shape[3:]))
        assert (stage == COARSE).all() == (x.shape[3:] == (3, 4))
        return halve(clean) if x.shape[3:] == (3, 4) else clean

    objective = Cascade(coarse, fine)
    made = objective.sample(predict, torch.randn_like(clean), objective.calls(48))
    assert seen == [(3, 4)] * coarse + [(6, 8)] * fine
    assert torch.allclose(made, clean if fine else halve(clean), atol=1e-6)
    assert objective.loss(predict, clean)[0].max() == 0
    with pytest.raises(ValueError, match="calls a frame, not 9"):
        objective.sample(predict, torch.randn_like(clean), 9)


def test_both_stages_draw_what_is_known_in_closed_form() -> None:
    """Gaussian data, whose means of two by two cells and what they leave open are independent."""
    torch.manual_seed(0)
    mean, wide, narrow = 0.7, 0.5, 0.3

    def shrunk(x: Tensor, level: Tensor, mean: float, deviation: float) -> Tensor:
        """The expected clean value, of noise at level 0."""
        t = level[:, :, None, None, None]
        return mean + t * deviation**2 / ((1 - t) ** 2 + (t * deviation) ** 2) * (x - t * mean)

    def predict(x: Tensor, level: Tensor, stage: Tensor, part: slice) -> Tensor:
        if (stage == COARSE).all():
            return shrunk(x, level, mean, wide)
        return double(halve(x)) + shrunk(x - double(halve(x)), level, 0.0, narrow)

    made = Cascade(64, 64).sample(predict, torch.randn(4000, 1, 1, 4, 4, dtype=torch.float64), 128)
    rest = made - double(halve(made))
    assert abs(float(made.mean()) - mean) < 0.02 and abs(float(halve(made).std()) - wide) < 0.02
    assert abs(float(rest.std()) - narrow * 0.75**0.5) < 0.02  # of four numbers, three differences


@pytest.mark.slow
def test_a_tiny_network_previews_the_frame_that_it_then_draws() -> None:
    """Trained on pictures that the action turns; at half the grid the next frame's means, then the frame."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    objective, config = Cascade(), tiny_config(side=32).dynamics
    dynamics = Dynamics(config)
    optimiser = torch.optim.AdamW(dynamics.parameters(), 3e-3)

    def game(batch: int, time: int) -> tuple[Tensor, Tensor]:
        first = torch.randn(batch, config.channels, 4, 4, generator=generator)
        actions = torch.randint(0, 2, (batch, time, config.actions), generator=generator) * 2.0 - 1
        at = torch.cat((torch.zeros(batch, 1), actions[:, :-1, 0].cumsum(1)), 1)
        moved = [torch.stack([x.roll(int(s), -1) for x, s in zip(first, column)]) for column in at.unbind(1)]
        return torch.stack(moved, 1), actions

    for _ in range(120):
        latents, actions = game(8, 6)
        reading = dynamics(latents, actions, torch.arange(1, 6), torch.zeros(8), latents)
        loss = objective.loss(reading.predict, reading.goals)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    dynamics.eval().requires_grad_(False)
    latents, actions = game(64, 5)
    state, noise = dynamics.start(latents[:, :4], actions[:, :3]), torch.randn(latents[:, 4].shape)
    made = dynamics.generate(state, actions[:, 3], noise, 2, objective)
    preview = dynamics.generate(state, actions[:, 3], noise, 1, replace(objective, fine=0))
    for x, goal, last in ((preview, halve(latents[:, 4]), halve(latents[:, 3])), (made, latents[:, 4], latents[:, 3])):
        assert (x - goal).square().mean() < 0.75 * (last - goal).square().mean()
    assert (halve(made) - preview).square().mean() < 0.5 * preview.square().mean()


def test_a_preview_decodes_to_the_frame_at_half_its_resolution() -> None:
    torch.manual_seed(0)
    module = TokenizerModule(tokenizer_config("8", side=32), perceptual=0.0, edges=0.0, halved=1.0)
    module.log_dict = module.log = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    frames = pictures(8, side=32)[:, -1]
    optimiser = torch.optim.AdamW(module.parameters(), 1e-2)
    for step in range(40):
        optimiser.param_groups[0]["lr"] = 1e-2 * min(1, step / 10) * (1 - step / 40)
        optimiser.zero_grad()
        module.training_step(frames, step).backward()
        optimiser.step()
    tokenizer = module.tokenizer.eval()
    with torch.no_grad():
        shown = tokenizer.decode_images(halve(tokenizer.encode(frames)))
    small = halve(Tokenizer.to_unit(frames))
    assert shown.shape == small.shape == (8, 3, 16, 16)
    assert (shown - small).square().mean() < 0.95 * (small.mean((2, 3), keepdim=True) - small).square().mean()


def test_a_cascade_plays_with_all_that_its_denoiser_reads_and_says_what_it_does_without() -> None:
    world = tiny_world(recall=True, objective=Cascade(2, 1))
    frames = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8)
    state = world.start(frames, torch.rand(2, 5, 4).round(), torch.tensor([1, 2]))
    outcome, _ = world.step(state, torch.zeros(2, 4))
    assert outcome.frames.shape == (2, 64, 64, 3) and world.steps == 3
    said: list[str] = []
    assert compilation.compile(world, tell=said.append).compiling is None and "two" in said[0]
    for refused in (lambda: caching.cache(world, 0.1), lambda: export.parts(world, 1)):
        with pytest.raises(UserError, match="cascade"):
            refused()
    with pytest.raises(ValueError, match="one coarse call at least"):
        Cascade(0, 1)


def test_cells_are_halved_and_doubled() -> None:
    x: Any = torch.arange(16.0).view(1, 1, 1, 4, 4)
    assert halve(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(halve(double(x)), x) and torch.equal(double(x)[..., 1::2, ::2], x)
