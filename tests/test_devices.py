"""Devices that are not here: no tensor of 64 bits is made where Apple's MPS would have to make it.

The CPU stands for the device. 64 bits are for NumPy, which has them everywhere.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import golden
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import MAZE_BUTTONS, tiny_checkpoint  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.device import usable  # noqa: E402
from game_wm.env import DreamEnv  # noqa: E402
from game_wm.evaluation import metrics  # noqa: E402
from game_wm.evaluation.evaluate import main as evaluate  # noqa: E402
from game_wm.model.attention import FINE, rotate, turns  # noqa: E402
from game_wm.play.app import main as play  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from train.__main__ import main as train  # noqa: E402
from train.stages import configuration as stage  # noqa: E402


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
        dream = session.snapshot()
        session.scene.restart(1)
        session.restore(dream)
        session.step(session.schema.from_keys({"down"}))
    assert session.schema.names == MAZE_BUTTONS


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "meta", "cud", "cpu:x", ""])
@pytest.mark.parametrize("takes", ["play", "evaluate", "DreamEnv", "encode", "views", "train", "bench", "pipeline"])
def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path, takes: str, name: str) -> None:
    path, options = tmp_path / "tiny.safetensors", ["--device", name]
    if not path.exists():
        tiny_checkpoint(path)
    commands: dict[str, Any] = {
        "play": lambda: play([str(path), "--headless", "--frames", "1", *options]),
        "evaluate": lambda: evaluate([str(path), *options]),
        "DreamEnv": lambda: DreamEnv(path, device=name),
        "encode": lambda: train(["encode", "--data", "d", "--tokenizer", "t", "--out", "o", *options]),
        "views": lambda: train(["views", "--latents", "l", "--geometry", "g", "--tokenizer", "t", *options]),
        "train": lambda: train(["tokenizer", "--steps", "1", "--data.data", "d", *options]),
        "bench": lambda: train(["bench", "tokenizer", "--data.data", "d", *options]),
        "pipeline": lambda: train(["pipeline", "--config", "configs/own/quick.yaml", "--name", "x",
                                   "--record.game", "maze", *options]),
    }  # fmt: skip
    with pytest.raises(UserError, match="cannot be used") as error:
        commands[takes]()
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


def test_a_device_near_to_one_is_named() -> None:
    assert usable("cpu") == "cpu" and usable("auto") in ("cpu", "cuda")
    with pytest.raises(UserError, match="did you mean cuda"):
        usable("cudaa")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("cpu", {"accelerator": "cpu", "devices": 2}), ("mps", {"accelerator": "mps", "devices": 1}),
     ("cuda:1", {"accelerator": "cuda", "devices": [1]}), ("auto", {"accelerator": "cpu", "devices": 2})],
)  # fmt: skip
def test_a_stage_trains_where_it_is_told(name: str, arguments: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(stage, "usable", lambda device: device)
    monkeypatch.setattr(stage.pl, "Trainer", lambda **options: given.update(options))
    cli = SimpleNamespace(config=SimpleNamespace(steps=1, device=name), config_init=None)
    cli._get = lambda *_: {"accelerator": "cpu", "devices": 2, "callbacks": None}
    stage.StageCLI.make_trainer(cli, [])  # type: ignore[arg-type]
    assert {key: given[key] for key in arguments} == arguments
