"""What a frame asks of a GPU, counted on one that is not there: the host waits for nothing that depends on data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import tiny_world  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from game_wm.acceleration import precision  # noqa: E402
from game_wm.acceleration.graphs import GraphPlayer  # noqa: E402
from game_wm.dream.moment import Moment  # noqa: E402
from game_wm.dream.rewind import Undo  # noqa: E402
from game_wm.state import WorldState  # noqa: E402
from game_wm.world import WorldModel  # noqa: E402
from train.lab.bench.launches import Launches  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {"working": {}, "episodic": {"recall": True}, "scroll": {"scroll": True}}


def begun(model: WorldModel, players: int = 1) -> WorldState:
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (players, 3, 64, 64, 3), dtype=torch.uint8)
    return model.start(frames, torch.rand(players, 2, 4).round(), torch.arange(players))


@pytest.mark.parametrize("kind", KINDS)
def test_rewinding_waits_for_nothing(kind: str) -> None:
    """A fake device has no values: an operation whose result depends on them raises."""
    state, moment = begun(tiny_world(**KINDS[kind])), Moment(np.zeros(1), np.zeros(1))
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        there = WorldState.from_dict({k: fake.from_tensor(x).to("cuda") for k, x in state.to_dict().items()})
        undo = Undo(there)
        with Launches() as asked:
            record = undo.record(there)
        assert record.device.type == "cuda" and asked.waits == []
        undo.keep(record, moment)
        with Launches() as asked:
            assert undo.back(there) is moment
        assert asked.waits == []


class Whole(torch.nn.Module):
    """A frame as a function of tensors alone."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tensors: dict[str, Any], action: Any, noise: Any) -> Any:
        state = WorldState.from_dict(dict(tensors))
        return self.model.frame(state, action, noise), state.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_frame_is_exported(kind: str) -> None:
    """What depends on data cannot be."""
    model = tiny_world(**KINDS[kind])
    state = begun(model)
    action, noise = torch.rand(1, 4).round(), torch.randn(1, *model.latent_shape)
    tensors = {name: x.clone() for name, x in state.to_dict().items()}  # no longer of inference
    model.step(state, action)  # fills what layers keep from call to call
    with torch.no_grad():
        program = torch.export.export(Whole(model), (tensors, action, noise), strict=False)
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    named = {str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"}
    assert len(named) > 20 and not {name for name in named if "nonzero" in name or "_local_scalar" in name}


@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_in_the_shape_of_a_graph_is_the_plain_one(kind: str, players: int) -> None:
    model = tiny_world(**KINDS[kind])
    state, actions = begun(model, players), torch.rand(6, players, 4).round()
    before, undo, moment = state.clone().to_dict(), Undo(state), Moment(np.zeros(1), np.zeros(1))
    player = GraphPlayer(model, state, undo.record)
    for action in actions:
        plain, state = model.step(state, action)
        outcome = player.step(action)
        for name in outcome._fields:
            assert torch.equal(getattr(outcome, name), getattr(plain, name)), name
        undo.keep(player.recorded.clone(), moment)
    now = player.state.to_dict()
    assert all(torch.equal(now[name], x) for name, x in state.to_dict().items())
    while undo:
        undo.back(player.state)
    assert all(torch.equal(now[name], x) for name, x in before.items())  # in place, back to the beginning
    player._runs.clear()  # what is left is launched beside the graphs
    with Launches() as asked:
        player.step(actions[0])
        undo.keep(player.recorded.clone(), moment)
    assert asked.operations <= 25 and not asked.waits


def test_a_card_that_only_emulates_bfloat16_plays_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "usable", lambda device: device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not precision.supported.__wrapped__("cuda")
