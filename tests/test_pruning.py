"""Pruning: a smaller model that plays and trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_checkpoint, tiny_config

from data_collect.errors import UserError
from game_wm.acceleration import pruning
from game_wm.checkpoint import load, save
from game_wm.world import WorldModel
from train.lab.acceleration import caching


def test_pruning_gives_a_smaller_model_that_plays_and_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config()
    wide = replace(config, dynamics=replace(config.dynamics, widths=(64, 64), heads=2))
    model = WorldModel(wide).eval().requires_grad_(False)
    for p in model.parameters():
        if not p.abs().sum():
            torch.nn.init.normal_(p, std=0.05)
    for _, block in pruning.blocks(model).values():  # as after training, some channels matter more than others
        scales = torch.tensor([1.0, 0.1, 0.7, 0.2]).repeat_interleave(pruning.GROUP)
        block.conv2.weight *= scales[None, :, None, None]
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 11, 4).round()
    found = pruning.importance(model, latents, actions)
    assert all(x[0] > x[2] > x[3] and x[2] > x[1] for x in found.values())
    smaller = pruning.prune(model, 0.5, found)
    assert smaller.config.dynamics.hidden == (32, 32)

    def weights(model: WorldModel) -> int:
        return sum(b.conv1.weight.numel() + b.conv2.weight.numel() for _, b in pruning.blocks(model).values())

    assert weights(smaller) == weights(model) / 2

    worse = pruning.prune(model, 0.5, {name: -x for name, x in found.items()})
    state = model.start_latents(latents, actions, torch.arange(2))
    dreams = [m.step_latents(state.clone(), actions[:, 0])[0] for m in (model, smaller, worse)]
    assert caching.change(dreams[1], dreams[0]) < 0.5 * caching.change(dreams[2], dreams[0])

    saved = tiny_checkpoint(tmp_path / "tiny.safetensors")
    loaded = load(saved)
    loaded.model = smaller
    save(saved, loaded)
    again = load(saved).model
    assert again.config == smaller.config
    trained = again.dynamics.requires_grad_(True)
    reading = trained(latents, F.pad(actions, (0, 0, 0, 1)), torch.tensor([9, 11]), torch.zeros(2), latents)
    loss = again.config.objective.loss(reading.predict, reading.goals)[0].mean()
    loss.backward()
    assert all(block.conv1.weight.grad.abs().sum() > 0 for _, block in pruning.blocks(again).values())


def test_the_prune_command(tmp_path: Path) -> None:
    given, out = tmp_path / "tiny.safetensors", tmp_path / "small.safetensors"
    checkpoint = load(tiny_checkpoint(given, prompt=12))
    with pytest.raises(UserError, match="nothing goes"):
        pruning.main([str(given), "--share", "0.1", "--out", str(out)])
    config = checkpoint.model.config
    checkpoint.model = WorldModel(replace(config, dynamics=replace(config.dynamics, hidden=(32, 32))))
    save(given, checkpoint)
    assert pruning.main([str(given), "--share", "0.5", "--out", str(out)]) == 0
    assert load(out).model.config.dynamics.hidden == (16, 16)
