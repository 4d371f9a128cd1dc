"""The rungs of the ladder, `configs/sizes/*.yaml`: each is built on the meta device, and what it costs is counted.

rung = read_rung(Path("configs/sizes/15m.yaml"))
costs = count(rung, (64, 64))
costs.training["dynamics"].frames_per_second(MACHINES["H200"])

Memory of places or of a world that scrolls comes on top: views are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.model.config import DynamicsConfig, build
from game_wm.model.tokenizer import TokenizerConfig
from game_wm.state import WorldState
from train import locate
from train.lab.sizes.roofline import Cost, Machine, saved_bytes
from train.report.machine import parameter_bytes
from train.stages.callbacks import Budget
from train.stages.configuration import STAGES, quiet, read_stage, read_yaml
from train.stages.module import StageModule

FRAMES = {(64, 64): 2, (128, 96): 2, (256, 144): 4, (640, 360): 4}  # the tokenizer's patch by (width, height)
TRAINED = ("tokenizer", "dynamics", "distill")
ACTIONS = 8
UPDATE = 64  # bytes a weight and step: gradient, clipping, AdamW, averaging and the cast to 16 bits


@dataclass(frozen=True)
class Rung:
    """A size: its name and the configuration of each stage."""

    name: str
    stages: dict[str, Any]


@dataclass(frozen=True)
class Training:
    """A step of a stage: its `frames`, what forward and backward `cost`, the `weights` that it updates, and bytes of
    memory."""

    frames: int
    cost: Cost
    weights: int
    memory: int

    def frames_per_second(self, machine: Machine) -> float:
        update = max(UPDATE * self.weights / machine.stream, machine.kernel)
        return self.frames / (self.cost.seconds(machine) + update)


@dataclass(frozen=True)
class Costs:
    """Of a rung at one size of frames: `frame`, a frame of play of one player; `state`: bytes of a player's state."""

    parameters: int
    frame: Cost
    state: int
    training: dict[str, Training]


def read_rung(path: Path) -> Rung:
    """`UserError` for a file that is no pipeline's configuration."""
    content = read_yaml(str(path))
    try:
        stages = {name: (locate(content[name]["config"]), content[name].get("values", {})) for name in TRAINED}
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: no size: it must name a config of {', '.join(TRAINED)}, as those in configs/sizes do"
        ) from None
    found = {name: read_stage(name, config=config, values=values) for name, (config, values) in stages.items()}
    return Rung(path.stem, found)


def module_of(rung: Rung, stage: str, frame: tuple[int, int]) -> StageModule:
    """A stage's module for frames of this (width, height), without data; on the default device."""
    sizes = rung.stages["tokenizer"].model.tokenizer.as_dict()
    sizes |= {"width": frame[0], "height": frame[1], "patch": FRAMES.get(frame, sizes["patch"])}
    tokenizer = build(TokenizerConfig, sizes)
    values = rung.stages[stage].model.as_dict()
    if stage == "tokenizer":
        return STAGES[stage][0](**values | {"tokenizer": tokenizer})  # type: ignore[return-value]
    network = build(DynamicsConfig, rung.stages["dynamics"].model.dynamics.as_dict())
    shape = tokenizer.channels, *tokenizer.grid
    given = {"latent_shape": shape, "actions": ACTIONS, "tokenizer": None, "geometry": None, "dynamics": network}
    module: Any = STAGES[stage][0](**values | given)
    if stage == "distill":
        module.freeze_teacher()
    return module


def batch_of(module: Any, data: Any) -> tuple[Any, int]:
    """A batch without contents on the default device, and its frames."""
    size = data.batch_size
    if not hasattr(module, "dynamics"):
        config, row = module.tokenizer.config, 1 + max(2, module.read) if module.moving else module.read
        return torch.zeros(size, row, config.height, config.width, 3, dtype=torch.uint8), size
    config, time = module.config, data.length
    shape = config.channels, config.height, config.width
    batch = {"latents": torch.zeros(size, time, *shape), "actions": torch.zeros(size, time, config.actions)}
    batch |= {"median": torch.zeros(size, *shape)}
    return batch | {name: torch.zeros(size, time) for name in ("rewards", "terminated")}, size * time


def step_of(module: Any) -> Callable[[Any], Tensor]:
    """The module's training step, on recorded frames or, of distillation, on its own; it logs nothing."""
    quiet()
    module.trainer = pl.Trainer(
        accelerator="cpu", devices=1, callbacks=[Budget(steps=1)], logger=False, enable_checkpointing=False
    )
    module.log = module.log_dict = lambda *_, **__: None
    module.decided = getattr(module, "own_share", 0) == 1
    return lambda batch: module.training_step(batch, 0)


def count_training(rung: Rung, stage: str, frame: tuple[int, int]) -> Training:
    with torch.device("meta"):
        module = module_of(rung, stage, frame)
        batch, frames = batch_of(module, rung.stages[stage].data)
        step = step_of(module)
        with Cost() as cost:
            step(batch).backward()
        own = {x.untyped_storage()._cdata for x in [*module.parameters(), *module.buffers()]}
        with Cost():
            activations = saved_bytes(lambda: step(batch), own)
    trained, held = parameter_bytes(module, ema=True)
    return Training(frames, cost, trained, held + activations)


@torch.no_grad()
def count_frame(rung: Rung, frame: tuple[int, int], players: int = 1) -> tuple[int, Cost, int]:
    """Parameters, the cost of a frame of play, and bytes of a player's state."""
    with torch.device("meta"):
        coder: Any = module_of(rung, "tokenizer", frame)
        module: Any = module_of(rung, "dynamics", frame)
        tokenizer, network = coder.tokenizer, module.dynamics
        latents = torch.zeros(players, 2, *(module.config.channels, module.config.height, module.config.width))
        action = torch.zeros(players, module.config.actions)
        state = network.start(latents, action[:, None])
        with Cost() as cost:
            latent = network.generate(state, action, latents[:, 0], 1, module.objective)
            tokenizer.decode(latent, latents[:, 0])
            network.encode_context(state, latent, action)
    parameters = sum(x.numel() for part in (tokenizer, network) for x in part.parameters())
    return parameters, cost, WorldState(state, torch.zeros(players)).nbytes // players


def count(rung: Rung, frame: tuple[int, int]) -> Costs:
    parameters, cost, state = count_frame(rung, frame)
    return Costs(parameters, cost, state, {stage: count_training(rung, stage, frame) for stage in TRAINED})
