"""Each acceleration plays the same model."""

import pytest
import torch
from tiny import tiny_world

from game_wm.acceleration import pack, precision


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_sixteen_bits_dream_the_same_but_for_rounding(recall: bool) -> None:
    world, halved = tiny_world(recall=recall), precision.half(tiny_world(recall=recall))
    assert halved.low_precision and not world.low_precision
    frames = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    actions, seeds = torch.rand(2, 5, 4).round(), torch.tensor([1, 2])
    pictures = []
    for model in (world, halved):
        state = model.start(frames, actions, seeds)
        outcome, state = model.step(state, actions[:, 0])
        assert all(x.dtype != torch.bfloat16 for x in state.to_dict().values())
        pictures.append(outcome.frames.float())
    assert (pictures[0] - pictures[1]).abs().mean() < 0.05 * pictures[0].std() + 1


def test_precision_is_chosen_as_asked() -> None:
    assert precision.choose(tiny_world(), "16").low_precision
    assert not precision.choose(tiny_world(), "32").low_precision
    assert precision.choose(tiny_world(), "auto").low_precision == precision.supported("cpu")


@pytest.mark.parametrize("precision_", ["16", "32"])
def test_packed_convolutions_dream_the_same(precision_: str) -> None:
    plain, packed = (precision.choose(tiny_world(recall=True), precision_) for _ in range(2))
    pack(packed)
    assert plain.state_dict().keys() == packed.state_dict().keys()
    frames = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    actions, seeds = torch.rand(2, 5, 4).round(), torch.tensor([1, 2])
    pictures = []
    for model in (plain, packed):
        state = model.start(frames, actions, seeds)
        pictures.append(model.step(state, actions[:, 0])[0].frames.float())
    assert (pictures[0] - pictures[1]).abs().max() <= 1
