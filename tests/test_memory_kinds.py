"""Any kind of memory: a toy one plays and trains through the registry, and the rest of the program does not ask."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import assert_goes_on_as_cut, tiny_checkpoint, tiny_config, tiny_world
from torch import Tensor

from data_collect.recording.record import record
from game_wm import checkpoint
from game_wm.memory import registry
from game_wm.memory.protocol import Frame, Memory, Prompt
from game_wm.model.config import COVER, DynamicsConfig
from game_wm.state import WorldState, from_first_format
from game_wm.world import WorldConfig, WorldModel
from train.checkpoints import load_dynamics, load_memory
from train.data.encode import encode
from train.data.latents import LatentStore
from train.data.spans import Span
from train.first_person.draw_views import draw_views
from train.stages.cli import run_stage

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
# What only some memories have. A condition on one of these asks which memory there is.
KIND = {"geometry", "episodic", "recall", "warp", "aligned", "atlas", "obstacles", "recent", "trail", "placed", "grows",
        "informed", "growing", "unbounded", "reaches_back", "needs_pictures", "first_person"}  # fmt: skip


@dataclass(frozen=True)
class EchoConfig:
    """`frames`: how many frames ago."""

    frames: int = 8


@dataclass
class EchoState:
    """The last latents (B, T, C, h, w), oldest first."""

    latents: Tensor


class Echo(Memory):
    """Shows the frame so many frames ago."""

    Config, State, needs_pictures = EchoConfig, EchoState, False

    def __init__(self, config: EchoConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def build(cls, config: EchoConfig, dynamics: DynamicsConfig) -> Echo:
        return cls(config)

    def start(self, prompt: Prompt, tokenizer: Any) -> EchoState:
        first = prompt.latents[:, :1].expand(-1, self.config.frames, -1, -1, -1)
        return EchoState(torch.cat((first, prompt.latents), 1)[:, -self.config.frames :].clone())

    def foresee(self, state: EchoState, action_BA: Tensor) -> None:
        return None

    def views(self, state: EchoState, step: None, tokenizer: Any) -> Tensor:
        then = state.latents[:, 0]
        return torch.cat((then, torch.ones_like(then[:, :COVER])), 1)

    def commit(self, state: EchoState, step: None, frame: Frame) -> None:
        state.latents = torch.cat((state.latents[:, 1:], frame.latent[:, None]), 1)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> WorldConfig:
    """Of a small world with this memory, which is now one of the kinds."""
    monkeypatch.setitem(registry.KINDS, "echo", Echo)
    sizes = tiny_config()
    return replace(sizes, dynamics=replace(sizes.dynamics, recall=True), memory=EchoConfig())


def world_of(config: WorldConfig) -> WorldModel:
    torch.manual_seed(0)
    world = WorldModel(config)
    for p in world.parameters():
        if not p.detach().abs().sum():
            torch.nn.init.normal_(p, std=0.05)
    return world.eval().requires_grad_(False)


def saved(folder: Path, world: WorldModel) -> Path:
    made = checkpoint.load(tiny_checkpoint(folder / "tiny.safetensors"))
    checkpoint.save(folder / "echo.safetensors", replace(made, model=world))
    return folder / "echo.safetensors"


def test_another_kind_of_memory_plays(tmp_path: Path, config: WorldConfig) -> None:
    """From a file, together and apart, from a saved state; and what it shows is what the network reads."""
    world = checkpoint.load(saved(tmp_path, world_of(config))).model
    assert isinstance(world.memory, Echo) and world.config == config
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 20, 4).round()
    state = world.start_latents(latents, actions[:, :11], torch.arange(2))
    _, views = world.render_views(state, actions[:, 11])
    assert views is not None and torch.equal(views[:, :4], latents[:, 4])
    other = state.clone()
    other.memory.latents += 1
    assert not torch.equal(
        world.step(state.clone(), actions[:, 11])[0].frames, world.step(other, actions[:, 11])[0].frames
    )
    assert_goes_on_as_cut(world, state, actions[:, 11:])
    save_file(state.to_dict(), tmp_path / "state.safetensors")
    again = WorldState.from_dict(load_file(tmp_path / "state.safetensors"))
    frames = [world.step(each, actions[:, 11])[0].frames for each in (state, again)]
    assert torch.equal(*frames)
    with pytest.raises(ValueError, match="unknown kind of memory other"):
        WorldConfig.from_dict(config.to_dict() | {"memory": {"kind": "other"}})


def test_another_kind_of_memory_trains(tmp_path: Path, config: WorldConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views are drawn over whole episodes, read in training, rendered in own rollouts; what it trained plays."""
    monkeypatch.chdir(tmp_path)
    world = world_of(config)
    path = str(saved(tmp_path, world))
    record(tmp_path / "data", "maze?size=7", "random", 120, seed=3, episode_frames=60)
    encode([str(tmp_path / "data")], world.tokenizer, tmp_path / "latents")
    assert draw_views(tmp_path / "latents", load_memory(path), world.tokenizer)
    store = LatentStore(tmp_path / "latents")
    assert store.open_views()
    views, latents = (np.array(store.read(name, Span(0, 0, 30)), np.float32) for name in ("views", "latents"))
    assert np.array_equal(views[20, :4], latents[12]) and not views[0].any() and views.shape[1] == 4 + COVER
    flags = ["--config", str(ROOT / "configs/maze/dynamics.yaml"), "--data.latents", str(store.directory)]
    flags += ["--model.tokenizer", path, "--model.geometry", path, "--model.dynamics.recall", "true"]
    flags += ["--model.dynamics.widths", "[16,32]", "--model.dynamics.blocks", "[1,1]", "--model.dynamics.heads", "2"]
    flags += ["--model.dynamics.context_width", "32", "--model.dynamics.window", "8", "--model.targets", "4"]
    flags += ["--model.rollout", "3", "--model.rollout_from", "0", "--model.rollout_share", "1", "--data.length", "16"]
    flags += ["--data.batch_size", "2", "--data.game", "null", "--data.validation_windows", "2", "--warmup", "1"]
    assert run_stage("dynamics", [*flags, "--name", "echo", "--wandb", "off", "--minutes", "null", "--steps", "3"]) == 0
    network, objective = load_dynamics(tmp_path / "runs/echo/dynamics/last.ckpt")
    trained = WorldModel(WorldConfig(config.tokenizer, network.config, objective, 1, EchoConfig())).eval()
    trained.dynamics.load_state_dict(network.state_dict())
    state = trained.start_latents(torch.randn(1, 9, 4, 8, 8), torch.zeros(1, 8, 4), torch.tensor([0]))
    assert trained.step(state, torch.zeros(1, 4))[0].frames.shape == (1, 64, 64, 3)


def test_states_and_configurations_from_before_there_were_kinds_still_load() -> None:
    world = tiny_world(recall=True)
    entries = world.config.to_dict()
    assert entries["memory"].pop("kind") == "first_person" and WorldConfig.from_dict(entries) == world.config
    state = world.start_latents(torch.randn(2, 12, 4, 8, 8), torch.rand(2, 11, 4).round(), torch.arange(2))
    kind, now = "memory.first_person.", state.to_dict()
    old = {k.removeprefix(kind): v for k, v in now.items() if k not in (f"{kind}latent", f"{kind}count")}
    assert {"episodic.keys", "recent.steps"} <= old.keys()
    again = from_first_format(old)
    assert again.keys() == now.keys() and all(torch.equal(again[name], now[name]) for name in now)
    assert from_first_format(now) == now


def asked(path: Path) -> list[int]:
    """The lines with conditions on what only some memories have."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        tests: list[ast.expr] = []
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            tests = [node.test]
        elif isinstance(node, ast.comprehension):
            tests = node.ifs
        lines += [test.lineno for test in tests if KIND & set(names(test))]
    return lines


def names(test: ast.AST) -> Iterator[str]:
    """What a condition asks; what a function that it calls is given is not asked."""
    if isinstance(test, ast.Attribute | ast.Name):
        yield test.attr if isinstance(test, ast.Attribute) else test.id
    parts = [test.func] if isinstance(test, ast.Call) else ast.iter_child_nodes(test)
    for part in parts:
        yield from names(part)


def test_few_conditions_ask_which_memory_there_is() -> None:
    inside = [ROOT / folder / kind for folder in ("game_wm/memory", "train") for kind in ("first_person", "scroll")]
    paths = [ROOT / "play.py", *(ROOT / "game_wm").rglob("*.py"), *(ROOT / "train").rglob("*.py")]
    found = {
        str(p.relative_to(ROOT)): asked(p) for p in paths if not any(p.is_relative_to(folder) for folder in inside)
    }
    found = {path: lines for path, lines in found.items() if lines}
    assert sum(len(lines) for lines in found.values()) <= 15, found
