"""Devices that are not here: no tensor of 64 bits is made where Apple's MPS would have to make it.

The CPU stands for the device. 64 bits are for NumPy, which has them everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import MAZE_BUTTONS, tiny_checkpoint  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from game_wm.attention import FINE, rotate, turns  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.evaluation import metrics  # noqa: E402
from game_wm.ui.session import Session  # noqa: E402


class NoFloat64(TorchDispatchMode):
    """As MPS: a tensor of 64 bits that is made raises."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"{func} makes {value.dtype}, which MPS has not")
        return out


def test_the_stand_in_raises() -> None:
    with NoFloat64(), pytest.raises(TypeError, match="MPS"):
        torch.zeros(1).double()


@pytest.mark.parametrize("recall", [False, True])
def test_play_makes_none(tmp_path: Path, recall: bool) -> None:
    """A prompt, frames, a rewind, a saved state, another place to begin in."""
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", recall=recall, endless=True)
    turns.cache_clear()
    with NoFloat64():
        session = Session(load(path, "cpu"), seed=0, context=0, fps=0)
        for _ in range(4):
            session.step(session.schema.from_keys({"up"}))
        assert session.rewind()
        session.step(session.schema.from_keys({"left"}))
        dream = session.dream()
        session.move(1)
        session.restore(dream)
        session.step(session.schema.from_keys({"down"}))
    assert session.schema.names == MAZE_BUTTONS


def test_every_stage_trains_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "LOSSES", 2)
    with NoFloat64():
        losses = golden.train(tmp_path)
    assert len(losses) == 5 and all(np.isfinite(values).all() and len(values) == 2 for values in losses.values())


def test_what_is_measured_is_measured_in_numpy() -> None:
    frames = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    with NoFloat64():
        pairs = metrics.squared_error(frames, frames.roll(1, 2), frames[..., 0] > 9)
        values = metrics.psnr(frames, frames.roll(1, 2)), metrics.ssim(frames, frames), metrics.gradient(frames)
    assert pairs.dtype == np.float64 and all(len(value) == 3 for value in values)


@pytest.mark.parametrize("half", [8, 12, 16, 32])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_angles_are_those_of_double_precision(half: int, kind: Any) -> None:
    """Bit by bit up to frame 8192, in both types that models play in; near it after a million."""
    rates = 1000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    one, nothing = torch.eye(2, dtype=kind).repeat_interleave(half, 1)
    times = torch.arange(FINE)
    angles = times[:, None].double() * rates
    assert torch.equal(rotate(one, times), torch.cat((angles.cos(), angles.sin()), -1).to(kind))
    far = times + 1_000_000
    angles = far[:, None].double() * rates
    slack = 1e-6 if kind == torch.float32 else 4e-3
    assert (rotate(one, far).double() - torch.cat((angles.cos(), angles.sin()), -1)).abs().max() < slack
    cos, sin = rotate(one, times).chunk(2, -1)
    assert torch.equal(rotate(nothing, times), torch.cat((-sin, cos), -1))
