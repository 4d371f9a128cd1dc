"""A world model small enough for tests, and a checkpoint around it."""

from pathlib import Path
from typing import Any

import torch

from data_collect.schema import ActionSchema
from game_wm.checkpoint import Checkpoint, save
from game_wm.memory.first_person.geometry import MemoryConfig
from game_wm.memory.scroll.motion import ScrollConfig, TurningConfig
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.model.config import DynamicsConfig
from game_wm.model.tokenizer import TokenizerConfig
from game_wm.objectives import FlowMatching, Objective
from game_wm.state import WorldState
from game_wm.world import WorldConfig, WorldModel

MAZE_BUTTONS = ("forward", "back", "turn_left", "turn_right")


def tiny_config(
    actions: int = 4,
    side: int = 64,
    recall: bool = False,
    scroll: bool = False,
    turning: bool = False,
    objective: Objective = FlowMatching(),
    levels: tuple[int, ...] = (),
) -> WorldConfig:
    """Frames of `side` x `side`, latents of 4 channels or codes of so many levels; `recall`: with episodic memory of 64
    places, and warping; `scroll`, `turning`: with a mosaic, and warping."""
    channels = len(levels) or 4
    tokenizer = TokenizerConfig(side, side, channels, (16, 16, 16), (16, 16, 16), decoder_blocks=1, levels=levels)
    height, width = tokenizer.grid
    dynamics = DynamicsConfig(
        channels=channels, height=height, width=width, actions=actions, window=8, widths=(16, 32), blocks=(1, 1),
        condition=32, context_width=32, context_blocks=1, heads=2, registers=1, recall=recall,
        warp=recall or scroll or turning, trunk=objective.trunks[0], levels=levels,
    )  # fmt: skip
    memory: Any = MemoryConfig(channels, height, width, actions, slots=64, hidden=16) if recall else None
    if scroll or turning:
        memory = (TurningConfig if turning else ScrollConfig)(side, side, actions, 256, candidates=9, hidden=16)
    return WorldConfig(tokenizer, dynamics, objective, objective.calls(height * width), memory)


def tiny_world(actions: int = 4, side: int = 64, seed: int = 0, **options: Any) -> WorldModel:
    """Random weights; the layers that begin at zero do not, so that dreams move. `options`: those of `tiny_config`."""
    torch.manual_seed(seed)
    model = WorldModel(tiny_config(actions, side, **options))
    for p in model.parameters():
        if not p.detach().abs().sum():
            torch.nn.init.normal_(p, std=0.05)
    if isinstance(model.memory, ScrollMemory):
        model.memory.motion.steps.copy_(torch.randint(-4, 5, (9, 2)))
    return model.eval().requires_grad_(False)


def tiny_checkpoint(
    path: Path, contexts: int = 3, prompt: int = 5, side: int = 64, endless: bool = False, **options: Any
) -> Path:
    """Write a playable checkpoint of the tiny model with random seed contexts; `endless`: no episode of it ends."""
    keys = dict(zip(("up", "down", "left", "right"), MAZE_BUTTONS))
    schema = ActionSchema("multibinary", MAZE_BUTTONS, keys=keys, fps=20)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (contexts, prompt, side, side, 3), dtype=torch.uint8, generator=generator)
    actions = torch.randint(0, 2, (contexts, prompt - 1, 4), generator=generator).float()
    world = tiny_world(side=side, **options)
    if endless:
        world.dynamics.context.outcome.bias[0] = -50
    save(path, Checkpoint(world, schema, "maze", frames, actions, {"frames": 0}, "tiny"))
    return path


def assert_goes_on_as_cut(world: WorldModel, state: WorldState, actions_2TA: torch.Tensor) -> WorldState:
    """Two players dream the same together and apart, each saved and read again at every frame; where they get to."""
    whole, parts = state.clone(), [state[:1], state[1:]]
    for t in range(actions_2TA.shape[1]):
        outcome, whole = world.step(whole, actions_2TA[:, t])
        halves = [world.step(part, actions_2TA[i : i + 1, t]) for i, part in enumerate(parts)]
        parts = [WorldState.from_dict(part.to_dict()) for _, part in halves]
        together = torch.cat([half.frames for half, _ in halves])
        assert (together.float() - outcome.frames.float()).abs().max() <= 1
    return whole
