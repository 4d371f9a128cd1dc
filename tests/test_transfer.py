"""From many games to one: what a network of other actions and another size takes over, and the base it begins with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config, tiny_world

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.checkpoint import load
from game_wm.library import playable
from game_wm.model.dynamics import Dynamics
from game_wm.objectives import Masked
from train.checkpoints import load_dynamics, load_tokenizer
from train.data.encode import encode
from train.export import Source, export
from train.pipeline.flags import parse
from train.stages.cli import run_stage
from train.stages.configuration import read_stage
from train.transfer import transferred

READS_ACTIONS = ("context.action.weight", "denoiser.condition.0.weight")
POSITIONS = ("context.positions", "denoiser.positions")
SMALL = {"model.tokenizer.encoder_widths": [16] * 3, "model.tokenizer.decoder_widths": [16] * 3, "model.perceptual": 0}
TINY = {f"model.dynamics.{name}": value for name, value in (
    ("widths", [16, 32]), ("blocks", [1, 1]), ("heads", 2), ("context_width", 32), ("window", 8), ("condition", 32)
)}  # fmt: skip


@pytest.mark.parametrize("codes", [False, True])
def test_what_reads_the_action_is_new_and_all_else_is_taken_over(codes: bool) -> None:
    options: dict[str, Any] = {"objective": Masked(), "levels": (5, 5)} if codes else {}
    before = tiny_world(**options).dynamics
    network = Dynamics(replace(tiny_config(**options).dynamics, actions=7))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    weights, said = transferred(before.state_dict(), before.config, network, same_actions=False)
    network.load_state_dict(weights)
    assert "reads the action" in said and "positions" not in said
    known = 4 * 7  # columns of the actions; behind them the levels of the noise
    for name, value in network.state_dict().items():
        if name == READS_ACTIONS[0]:
            assert torch.equal(value, fresh[name])
        elif name == READS_ACTIONS[1]:
            assert torch.equal(value[:, :known], fresh[name][:, :known])
            assert torch.equal(value[:, known:], before.state_dict()[name][:, 4 * 4 :])
        else:
            assert torch.equal(value, before.state_dict()[name]), name
    assert transferred(before.state_dict(), before.config, before, same_actions=True)[1] == ""


@pytest.mark.parametrize("codes", [False, True])
def test_positions_are_those_of_the_larger_grid(codes: bool) -> None:
    options: dict[str, Any] = {"objective": Masked(), "levels": (5, 5)} if codes else {}
    before = tiny_world(**options).dynamics
    for name in POSITIONS:  # the same everywhere, and so they stay
        before.state_dict()[name].copy_(torch.full_like(before.state_dict()[name], 0.5))
    network = Dynamics(replace(tiny_config(**options).dynamics, height=12, width=10))
    weights, said = transferred(before.state_dict(), before.config, network, same_actions=True)
    network.load_state_dict(weights)
    assert said == "positions are resized from 4x4 to 5x6 cells"
    for name, value in network.state_dict().items():
        alike = torch.full_like(value, 0.5) if name in POSITIONS else before.state_dict()[name]
        assert torch.allclose(value, alike), name


def test_training_may_begin_with_nothing_whatever_its_file_says() -> None:
    assert read_stage("dynamics", config="configs/own/dynamics.yaml", values={"init": "none"}).init is None
    words = ["--config", "configs/own/quick.yaml", "--init"]
    assert [parse([*words, init]).init for init in ("none", "checkpoints/base.safetensors")] == [
        None, "checkpoints/base.safetensors",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_base_of_many_games_begins_the_training_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    games = {"a": "maze?size=7", "b": "scroll?view=top", "own": "scroll?view=side&width=96"}
    for name, game in games.items():
        record(tmp_path / name, game, "random", 80, episode_frames=40)
    run, many, own = tmp_path / "base", [str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "own")
    shared = {"runs": str(tmp_path), "wandb": "off", "minutes": None, "steps": 2, "data.batch_size": 4}
    base = shared | {"name": "base"}
    run_stage("tokenizer", config="configs/base/tokenizer.yaml", values=base | SMALL | {"data.data": many})
    encode(many, load_tokenizer(run / "tokenizer" / "last.ckpt"), run / "latents", mixed=True)
    given = {"data.latents": str(run / "latents"), "model.tokenizer": str(run / "tokenizer" / "last.ckpt")}
    run_stage("dynamics", config="configs/base/dynamics.yaml", values=base | TINY | given)
    path, figures = export(Source(run), "base", tmp_path / "out", 8, 32)

    assert figures is None and playable(tmp_path / "out") == []
    with pytest.raises(UserError, match=r"base\.safetensors: a beginning for training, not for play; .*--init"):
        load(path)
    found = load(path, contexts=False)
    assert found.trained["games"] == [games["a"], games["b"]] and found.trained["frames"] == 2 * 4 * 32
    learnt = load_dynamics(run / "dynamics" / "last.ckpt")[0].state_dict()
    for name, value in found.model.dynamics.state_dict().items():
        assert name in READS_ACTIONS or torch.allclose(value, learnt[name], atol=1e-3), name

    card = json.loads(path.with_suffix(".json").read_text())
    assert len(card["trained"]["games"]) == 2 and set(card["held_out"]) == {"tokenizer", "dynamics"}

    mine = shared | {"name": "mine", "init": str(path), "model.lr": 1e-9}
    run = tmp_path / "mine"
    run_stage("tokenizer", config="configs/own/tokenizer.yaml", values=mine | {"data.data": [own]})
    tokenizer = load_tokenizer(run / "tokenizer" / "last.ckpt")
    assert (tokenizer.config.width, tokenizer.config.height) == (96, 64)
    encode([own], tokenizer, run / "latents")
    given = {"data.latents": str(run / "latents"), "model.tokenizer": str(run / "tokenizer" / "last.ckpt")}
    capsys.readouterr()
    run_stage("dynamics", config="configs/own/dynamics.yaml", values=mine | given)
    assert f"dynamics begins with {path}: what reads the action is new" in capsys.readouterr().out.replace("\n", " ")
    started = load_dynamics(run / "dynamics" / "last.ckpt")[0].state_dict()
    for name, value in found.model.dynamics.state_dict().items():
        assert name in (*READS_ACTIONS, *POSITIONS) or torch.allclose(value, started[name], atol=1e-4), name
