"""Codes and the two objectives that draw them: one token after another, and all of a frame in passes."""

from typing import Any

import pytest
import torch
from tiny import tiny_config
from torch import Tensor

from game_wm.model.dynamics import Dynamics
from game_wm.model.fsq import Codebook
from game_wm.objectives import (
    Autoregressive,
    Masked,
    Objective,
)


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
    likely = -3 * Autoregressive().loss(table, made[:1])[0]
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
    likely = -4 * Autoregressive().loss(reading.predict, reading.goals)[0]
    assert float(likely.exp().sum()) == pytest.approx(1, abs=1e-4)
    assert float(likely.exp().max()) > 2 / 81  # and they are not all alike


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
    before = torch.nn.functional.pad(reading.predict.codebook.ids(reading.goals), (1, 0), value=12)[..., :-1]
    whole = reading.predict(before, slice(0, 1), causal=True)
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
