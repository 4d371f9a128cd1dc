"""Objectives with a network: each learns what an action does, and its file plays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_checkpoint, tiny_config
from torch import Tensor

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.checkpoint import load
from game_wm.model.dynamics import Dynamics
from game_wm.model.fsq import Codebook
from game_wm.objectives import (
    Autoregressive,
    Diffusion,
    FlowMatching,
    Masked,
    Objective,
)
from game_wm.play.app import main
from train.__main__ import main as run_command
from train.data import encode

pytestmark = pytest.mark.slow

CODE_LEVELS = (4, 3, 3, 3)
CONFIGS = Path(__file__).parent.parent / "configs" / "lab"


def names(objective: Objective) -> str:
    return "-".join([objective.kind, *filter(None, [getattr(objective, "sampler", None)])])


def game(config: Any, batch: int, time: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A picture that the action turns: latents (B, T, C, h, w), and actions (B, T, A) whose first number says whether
    the next frame is the last one moved to the right by a cell, or moved to the left."""
    first = torch.randn(batch, config.channels, config.height, config.width, generator=generator)
    first = Codebook(config.levels).quantise(first) if config.levels else first
    actions = torch.zeros(batch, time, config.actions)
    actions[:, :, 0] = torch.randint(0, 2, (batch, time), generator=generator) * 2.0 - 1
    at = torch.cat((torch.zeros(batch, 1), actions[:, :-1, 0].cumsum(1)), 1)
    moved = [torch.stack([frame.roll(int(s), -1) for frame, s in zip(first, column)]) for column in at.unbind(1)]
    return torch.stack(moved, 1), actions


def trained(objective: Objective, steps: int) -> tuple[Dynamics, list[float]]:
    """A tiny network after so many steps on `game`, and its losses."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    dynamics = Dynamics(tiny_config(side=32, objective=objective, levels=CODE_LEVELS).dynamics)
    optimiser = torch.optim.AdamW(dynamics.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        latents, actions = game(dynamics.config, 8, 6, generator)
        reading = dynamics(latents, actions, torch.arange(1, 6), torch.zeros(8), latents)
        loss = objective.loss(reading.predict, reading.goals)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return dynamics.eval().requires_grad_(False), losses


@pytest.mark.parametrize(
    "objective", [FlowMatching(finest=4), Diffusion(steps=4), Autoregressive(), Masked(steps=4)], ids=names
)
def test_a_tiny_network_learns_what_the_action_does(objective: Objective) -> None:
    dynamics, losses = trained(objective, 320 if "transformer" in objective.trunks else 150)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    latents, actions = game(dynamics.config, 64, 5, torch.Generator().manual_seed(9))
    state = dynamics.start(latents[:, :4], actions[:, :3])
    noise = torch.randn(latents[:, 4].shape, generator=torch.Generator().manual_seed(9))
    calls = objective.calls(dynamics.config.height * dynamics.config.width)
    made = dynamics.generate(state, actions[:, 3], noise, calls, objective)
    error, repeat = ((x - latents[:, 4]).square().mean() for x in (made, latents[:, 3]))
    assert error < 0.5 * repeat


@pytest.mark.parametrize(
    "objective", [FlowMatching(finest=4), Diffusion("heun", 3), Autoregressive(), Masked()], ids=names
)
def test_a_file_plays_as_its_objective_says(objective: Objective, tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", objective=objective, levels=CODE_LEVELS)
    checkpoint = load(path)
    world = checkpoint.model
    assert (world.config.objective, world.steps) == (objective, objective.calls(64))
    shown, actions = checkpoint.contexts_frames[:2], checkpoint.contexts_actions[:2]
    made = []
    for seeds in ([1, 2], [1, 3]):
        state = world.start(shown, actions, torch.tensor(seeds))
        made.append(world.step(state, actions[:, 0])[0].frames)
    assert torch.equal(made[0][0], made[1][0])
    assert not torch.equal(made[0][1], made[1][1])
    assert main(["--headless", "--frames", "2", str(path)]) == 0


def test_a_trunk_that_the_objective_does_not_take() -> None:
    config = tiny_config()
    with pytest.raises(ValueError, match="diffusion takes the trunk unet, not transformer"):
        replace(tiny_config(objective=Masked(), levels=CODE_LEVELS), objective=Diffusion())
    with pytest.raises(ValueError, match="latents of another tokenizer"):
        replace(config, dynamics=replace(config.dynamics, levels=CODE_LEVELS))
    with pytest.raises(ValueError, match="needs codes, of a tokenizer with levels"):
        tiny_config(objective=Masked())
    with pytest.raises(ValueError, match="reads no views"):
        tiny_config(objective=Masked(), levels=CODE_LEVELS, recall=True)


SMALL = {
    "tokenizer": ["--model.tokenizer.encoder_widths", "[16,16,16]", "--model.tokenizer.decoder_widths", "[16,16,16]",
                  "--model.tokenizer.decoder_blocks", "1", "--model.perceptual", "0", "--data.batch_size", "8"],
    "dynamics": ["--model.dynamics.widths", "[16,32]", "--model.dynamics.blocks", "[1,1]", "--data.batch_size", "2",
                 "--model.dynamics.context_width", "32", "--model.dynamics.window", "8", "--model.dynamics.heads", "2",
                 "--model.targets", "2", "--data.length", "8", "--data.validation_windows", "1",
                 "--trainer.val_check_interval", "1"],
}  # fmt: skip


def train(stage: str, config: str, runs: Path, *flags: str) -> None:
    given = ["--config", str(CONFIGS / f"{config}.yaml"), "--runs", str(runs), "--minutes", "null", "--steps", "2"]
    assert run_command([stage, *given, "--wandb", "off", *SMALL[stage], *flags]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, and its codes."""
    folder = tmp_path_factory.mktemp("runs")
    record(folder / "data", "maze?size=7", "random", 160, seed=3, episode_frames=40)
    train("tokenizer", "tokenizer-codes", folder, "--data.data", f"[{folder / 'data'}]")
    tokenizer = str(folder / "codes" / "tokenizer" / "last.ckpt")
    encoding = ["--tokenizer", tokenizer, "--out", str(folder / "codes" / "latents")]
    assert run_command(["encode", "--data", str(folder / "data"), *encoding]) == 0
    return folder


@pytest.mark.parametrize("name", ["diffusion", "shortcut", "cascade", "autoregressive", "masked"])
def test_a_lab_configuration_trains_and_its_file_plays(
    name: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = runs / "codes"
    tokenizer, latents = str(codes / "tokenizer" / "last.ckpt"), str(codes / "latents")
    train("dynamics", name, runs, "--data.latents", latents, "--model.tokenizer", tokenizer)
    places = ["--tokenizer", tokenizer, "--latents", latents, "--out", str(tmp_path)]
    assert run_command(["export", "--run", str(runs / name), "--prompt", "4", "--contexts", "2", *places]) == 0
    path = tmp_path / f"{name}.safetensors"
    checkpoint = load(path)
    wanted = {"diffusion": 3, "shortcut": 1, "cascade": 2, "autoregressive": 64, "masked": 8}
    assert checkpoint.model.steps == wanted[name]
    assert checkpoint.model.config.tokenizer.levels == checkpoint.model.config.dynamics.levels == (7, 5, 5, 5, 5)
    assert main([str(path), "--headless", "--frames", "3"]) == 0
    capsys.readouterr()
    if name == "autoregressive":
        with pytest.raises(UserError, match="takes 64 calls a frame: leave --steps out"):
            main([str(path), "--headless", "--frames", "3", "--steps", "8"])
    else:
        assert main([str(path), "--headless", "--frames", "3", "--steps", "2"]) == 0


def test_what_a_discrete_model_refuses(runs: Path, tmp_path: Path) -> None:
    encode.write_synthetic(tmp_path / "latents", (4, 4, 4), actions=3, episodes=4, frames=40)
    flags = ["--config", str(CONFIGS / "masked.yaml"), "--data.game", "null", "--steps", "1", "--runs", str(tmp_path)]
    tokenizer = ["--model.tokenizer", str(runs / "codes" / "tokenizer" / "last.ckpt")]
    codes = str(runs / "codes" / "latents")
    for more, words in [
        (["--data.latents", str(tmp_path / "latents")], "masked: a transformer trunk needs codes"),
        (["--data.latents", codes, "--model.pixels", "1"], "flow matching's alone"),
        (["--data.latents", codes, "--model.objective.steps", "0"], "steps must be at least 1"),
    ]:
        with pytest.raises(UserError, match=words):
            run_command(["dynamics", *flags, *tokenizer, *more, "--data.length", "16"])
    flags = ["--config", str(CONFIGS / "tokenizer-codes.yaml"), "--data.data", f"[{runs / 'data'}]", "--steps", "1"]
    with pytest.raises(UserError, match="codes cannot be shifted"):
        run_command(["tokenizer", *flags, "--model.equivariance", "0.5", "--model.perceptual", "0"])
