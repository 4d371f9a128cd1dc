"""A dream of the tiny model to go on with."""

import torch

from game_wm.world import WorldModel, WorldState


def prompted(model: WorldModel, players: int = 1) -> tuple[WorldState, torch.Tensor]:
    """A state after six frames of noise, and actions (T, B, A) to go on with."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (players, 6, 64, 64, 3), dtype=torch.uint8, generator=generator)
    actions = torch.rand(8, players, 4, generator=generator).round()
    return model.start(frames, actions[:5].transpose(0, 1), torch.arange(players)), actions
