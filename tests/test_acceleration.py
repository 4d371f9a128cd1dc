"""Sixteen bits, eight bits, packed weights and batches play the same model."""

import pytest
import torch
from prompted import prompted
from tiny import tiny_world

from data_collect.errors import UserError
from game_wm.acceleration import pack, precision, quantisation
from game_wm.acceleration.batching import Batch


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


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_eight_bits_stay_within_their_error(recall: bool) -> None:
    plain, quantised = tiny_world(recall=recall), precision.choose(tiny_world(recall=recall), "8")
    pack(quantised)
    layers = [m for m in quantised.modules() if isinstance(m, quantisation.Quantised)]
    assert {type(m) for m in layers} == {quantisation.QuantisedConvolution, quantisation.QuantisedLinear}
    assert all(m.weight.dtype == torch.int8 for m in layers) and quantised.quantised
    assert sum(p.numel() for p in quantised.parameters()) == sum(p.numel() for p in plain.parameters())
    state, actions = prompted(plain, players=2)
    dreams = [model.step(state.clone(), actions[5])[0].frames.float() for model in (plain, quantised)]
    assert 0 < (dreams[0] - dreams[1]).abs().mean() < 0.05 * dreams[0].std()


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_a_layer_in_eight_bits_is_off_by_half_a_step_at_most(kind: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(32, 16, 3, padding=1) if kind == "convolution" else torch.nn.Linear(32, 16)
    x = torch.randn(2, 32, 8, 8) if kind == "convolution" else torch.randn(5, 3, 32)
    made = (quantisation.QuantisedConvolution if kind == "convolution" else quantisation.QuantisedLinear)(layer)  # type: ignore[arg-type]
    weight = layer.weight.abs().flatten(1)
    steps = weight.amax(1) / quantisation.WEIGHT_STEPS, (x.max() - x.min()) / 255
    # Every product is off by half a step of either factor, and what is rounded is as large as it gets at most.
    bound = (weight.sum(1).max() * steps[1] + weight.shape[1] * x.abs().max() * steps[0].max()) / 2
    with torch.inference_mode():
        assert 0 < (made(x) - layer(x)).abs().max() < bound * 1.1


def test_eight_bits_on_a_gpu_say_what_to_take() -> None:
    with pytest.raises(UserError, match="--precision 16"):
        quantisation.quantise(tiny_world().to("meta"))


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


def test_players_join_and_leave_a_batch() -> None:
    model = tiny_world(recall=True)
    states, actions = prompted(model, players=3)
    alone = [states[i : i + 1] for i in range(3)]
    batch, names = Batch(model), {}

    def everybody_plays(action: torch.Tensor, there: list[int]) -> None:
        outcomes = batch.step({names[i]: action[i] for i in there})
        for i in there:
            own, alone[i] = model.step(alone[i], action[i : i + 1])
            assert (outcomes[names[i]].frames.int() - own.frames[0].int()).abs().max() <= 1

    assert batch.step({}) == {}
    names = {i: batch.join(alone[i]) for i in (0, 1)}
    everybody_plays(actions[5], [0, 1])
    left = batch.leave(names[0])
    assert torch.equal(left.dynamics.context.working.count, alone[0].dynamics.context.working.count)
    names[2] = batch.join(alone[2])
    everybody_plays(actions[6], [1, 2])
    names[0] = batch.join(left)
    assert len(set(names.values())) == 3 and batch.players == [names[1], names[2], names[0]]
    everybody_plays(actions[7], [0, 1, 2])
    with pytest.raises(KeyError, match="not in the batch"):
        batch.step({99: actions[7][0]})
    with pytest.raises(ValueError, match="one player"):
        batch.join(states)
