"""What a frame asks of a GPU, counted on one that is not there: the host waits for nothing that depends on data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import tiny_world  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

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
