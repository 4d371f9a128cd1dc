"""Token merging: as many tokens fewer as stated, equal ones at no cost, and frames that are close."""

import pytest
import torch
from tiny import tiny_world
from torch import Tensor

from data_collect.errors import UserError
from game_wm.model.denoiser import RingReader
from game_wm.objectives import Autoregressive, Masked
from game_wm.state import WorldState
from game_wm.world import WorldModel
from train.lab.acceleration.merging import MergingTransformer, groups, means, merge

CODE_LEVELS = (4, 3, 3, 3)


def world() -> WorldModel:
    return tiny_world(objective=Masked(steps=2, temperature=0.0, choice=0.0), levels=CODE_LEVELS)


def prompted(model: WorldModel) -> WorldState:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8, generator=generator)
    return model.start(frames, torch.ones(2, 5, 4), torch.arange(2))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75])
def test_the_blocks_see_fewer_tokens_by_the_stated_share(share: float) -> None:
    model = merge(world(), share)
    seen: list[tuple[int, ...]] = []
    for block in model.dynamics.denoiser.blocks:  # type: ignore[union-attr]
        block.feed_forward.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    outcome, _ = model.step(prompted(model), torch.ones(2, 4))
    assert set(seen) == {(2, 64 - round(64 * share), 32)} and outcome.frames.shape == (2, 64, 64, 3)


@torch.no_grad()
def test_to_merge_equal_tokens_changes_nothing() -> None:
    model = world()
    trunk, reader = model.dynamics.denoiser, RingReader(prompted(model).dynamics.bottleneck)
    cells = torch.randn(2, 32, 4, 4)
    x = cells.repeat_interleave(2, -1).repeat_interleave(2, -2).flatten(2).transpose(1, 2)
    whole = trunk.through(x, reader, False, None)
    assert (whole - x).abs().mean() > 0.01
    assert torch.allclose(MergingTransformer(trunk, 0.75).through(x, reader), whole, atol=1e-5)
    other = torch.randn(2, 64, 32)
    assert torch.allclose(
        MergingTransformer(trunk, 0.0).through(other, reader), trunk.through(other, reader, False, None), atol=1e-5
    )


def test_those_most_alike_are_merged_and_the_rest_are_not() -> None:
    stays = torch.tensor([True, False, True, False])
    x = torch.tensor([[[1.0, 0], [0.1, 1], [0, 1], [0.6, -0.8]]])
    group = groups(x, stays, 1)
    assert group[0, 1] == group[0, 2] and len(set(group[0].tolist())) == 3
    merged, sizes = means(x, group)
    assert sorted(sizes[0].tolist()) == [1, 1, 2]
    assert torch.allclose(merged[0, group[0, 1]], torch.tensor([0.05, 1.0]))


@pytest.mark.parametrize(("share", "bound"), [(0.25, 0.2), (0.5, 0.4)])
def test_frames_stay_close(share: float, bound: float) -> None:
    """What the blocks add is off by so much at most (relative, mean square), and few codes are others."""
    plain, merged = world(), merge(world(), share)
    logits: list[Tensor] = []
    for model in (plain, merged):
        state = prompted(model)
        history, actions = state.dynamics.latents[:, None], state.dynamics.actions[:, None]
        reader = RingReader(state.dynamics.bottleneck)
        predict = model.dynamics.denoiser.predictor(history, actions, torch.zeros(2, 1), reader)
        with torch.no_grad():
            logits.append(predict(torch.full((2, 1, 64), 108), slice(0, 1)))
    assert 0 < (logits[1] - logits[0]).square().mean().sqrt() < bound * logits[0].std()
    pictures = [model.step(prompted(model), torch.ones(2, 4))[0].frames.float() for model in (plain, merged)]
    assert (pictures[1] - pictures[0]).abs().mean() < bound * pictures[0].std()


def test_what_cannot_be_merged() -> None:
    with pytest.raises(UserError, match="take one from 0 to"):
        merge(world(), 0.8)
    for other in (tiny_world(), tiny_world(objective=Autoregressive(), levels=CODE_LEVELS)):
        with pytest.raises(UserError, match="all tokens of a frame at once"):
            merge(other, 0.5)
