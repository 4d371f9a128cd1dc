"""Motion learnt without poses: found in a scene whose truth is known, nothing where nothing moves, and played with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_world
from tiny_game import PLACELESS

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig
from game_wm.memory.first_person.odometry import measured
from game_wm.memory.first_person.pose import move, trace
from game_wm.model.tokenizer import TokenizerConfig
from train.checkpoints import load_memory
from train.data import encode
from train.data.latents import LatentStore
from train.data.spans import Span
from train.first_person import geometry as training
from train.first_person.draw_views import draw_views
from train.first_person.geometry import GeometryModule
from train.first_person.odometry import compare, measure
from train.first_person.unposed import best_steps, pair_features
from train.stages import cuda_graphs as graphs
from train.stages.cli import run_stage

CONFIG = Path(__file__).parent.parent / "configs" / "own" / "geometry.yaml"

SIDE, FOCAL, RADIUS = 16, 1.2, 3.0
TURN, STEP = 0.1, 0.12
STEPS = 150


class Eye:
    """A tokenizer whose latents are the pictures, four pixels a cell."""

    config = TokenizerConfig()

    def to(self, device: object) -> Eye:
        return self

    def decode_images(self, latents: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(latents, 2)


def looked(pose: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
    """Rows (side, side) of a picture of a round room, and from poses (...) where its pixels look and how deep it is."""
    u = ((torch.arange(side) + 0.5) / (side / 2) - 1).expand(side, -1)
    x, y, angle = (part[..., None, None] for part in pose.unbind(-1))
    to_x, to_y = angle.cos() - angle.sin() * u / FOCAL, angle.sin() + angle.cos() * u / FOCAL
    a, b, c = to_x**2 + to_y**2, x * to_x + y * to_y, x**2 + y**2 - RADIUS**2
    return u.T, x, y, to_x, to_y, (-b + (b * b - a * c).sqrt()) / a


def seen(pose: torch.Tensor) -> torch.Tensor:
    """Pictures (..., 3, SIDE, SIDE) of its painted walls, from poses (..., 3)."""
    v, x, y, to_x, to_y, depth = looked(pose, SIDE)
    around, up = torch.atan2(y + depth * to_y, x + depth * to_x), v * depth
    paint = ((5 * around).sin() * up.cos(), (8 * around + up).sin(), (3 * around).cos() * (1.5 * up).sin())
    return 0.7 * torch.stack(torch.broadcast_tensors(*paint), -3)


def walks(batch: int, frames: int, seed: int, stopped: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Latents, actions (forward, left, right), true steps and poses of walks that begin near the middle of the room.
    A share of the steps is stopped by what nobody sees."""
    generator = torch.Generator().manual_seed(seed)
    actions = F.one_hot(torch.randint(4, (batch, frames), generator=generator), 4)[..., :3].float()
    ahead, turn = STEP * actions[..., 0], TURN * (actions[..., 1] - actions[..., 2])
    ahead = ahead * (torch.rand(ahead.shape, generator=generator) >= stopped)
    steps = torch.stack((ahead, torch.zeros_like(ahead), turn), -1)[:, :-1]
    begin = torch.randn(batch, 1, 3, generator=generator) * torch.tensor([0.5, 0.5, 3.0])
    poses = move(begin, trace(steps))
    return F.pixel_unshuffle(seen(poses), 2), actions, steps, poses


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> GeometryModule:
    monkeypatch.setattr(training, "load_tokenizer", lambda path: Eye())
    torch.manual_seed(0)
    config = MemoryConfig(place=1.0, hidden=16, trail=16)
    return GeometryModule("", (12, SIDE // 2, SIDE // 2), 3, config, lr=5e-3, distant=1, poses=False)


def test_steps_add_up_to_where_they_lead() -> None:
    steps = torch.randn(3, 20, 3)
    pose, expected = torch.zeros(3, 3), [torch.zeros(3, 3)]
    for t in range(20):
        pose = move(pose, steps[:, t])
        expected.append(pose)
    found = trace(steps)
    assert torch.allclose(found[..., :2], torch.stack(expected, 1)[..., :2], atol=1e-4)
    assert torch.allclose(found[..., 2].cos(), torch.stack(expected, 1)[..., 2].cos(), atol=1e-4)


def test_reckoning_is_compared_in_its_own_scale() -> None:
    truth = torch.randn(2, 300, 3) * torch.tensor([0.1, 0.02, 0.2])
    figures = compare(truth * torch.tensor([4.0, -4.0, -1.0]), truth)
    assert figures["scale"] == pytest.approx(0.25) and figures["handed"] == -1
    assert figures["turn"] == pytest.approx(1) and set(figures["drift"]) == {"100", "300"}
    assert max(*figures["drift"].values(), *figures["heading"].values(), figures["step_error"]) < 1e-4
    figures = compare(truth * torch.tensor([1.0, 1.0, 1.01]), truth)
    assert figures["turn"] == pytest.approx(1.01) and figures["drift"]["300"] > 0


def test_motion_is_found_without_labels(module: GeometryModule) -> None:
    optimizer = module.configure_optimizers()
    for number in range(STEPS):
        latents, actions, *_ = walks(8, 7, number)
        loss, _ = module.losses({"latents": latents, "actions": actions})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    latents, actions, truth, _ = walks(64, 8, seed=10_000)
    with torch.no_grad():
        pair = pair_features(module.geometry.motion, latents, torch.zeros(64, 1).long(), module.steps)
        led = actions[:, :-1].flatten(0, 1)
        found = module.geometry.motion.estimate_step(pair.flatten(0, 1), led, torch.zeros(448, 3))
    found, actions = found.view_as(truth), actions[:, :-1]
    forward, left, right = (found[actions[..., i] > 0].mean(0) for i in range(3))
    idle = found[actions.sum(-1) == 0].mean(0)
    assert float(module.geometry.focal.detach()) == pytest.approx(FOCAL, rel=0.05)
    assert left[2] == pytest.approx(TURN, rel=0.06) and right[2] == pytest.approx(-TURN, rel=0.06)
    # How large the world is, is free.
    assert 0.3 * STEP < forward[0] < 3 * STEP and forward[1:].abs().max() < 0.1 * forward[0]
    assert max(float(step[:2].norm()) for step in (left, right, idle)) < 0.1 * forward[0] and abs(idle[2]) < 0.01


def test_steps_that_are_stopped_are_found_by_trying(module: GeometryModule, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, actions, truth, poses = walks(16, 9, seed=1, stopped=0.4)
    geometry = module.geometry
    geometry.focal.data.fill_(FOCAL)
    disparity = 1 / looked(poses[:, 1:].flatten(0, 1), 2 * SIDE)[-1]
    monkeypatch.setattr(geometry.depth, "forward", lambda latents: disparity)
    usual = torch.stack((STEP * actions[..., 0], 0 * actions[..., 0], TURN * (actions[..., 1] - actions[..., 2])), -1)
    found = best_steps(module.geometry, module.tokenizer, latents, usual[:, :-1].flatten(0, 1)).view_as(truth)
    walked = actions[:, :-1, 0] > 0
    right = (found - truth).abs().amax(-1)[walked] < 0.2 * STEP
    assert 0.2 < (truth[walked][:, 0] == 0).float().mean() < 0.6 and right.float().mean() > 0.9
    assert torch.equal(found[..., 2], usual[:, :-1, 2])


def test_steps_are_put_right_by_what_the_pictures_give() -> None:
    """In the painted room, whose depth is known: steps that are off by most of their length."""
    torch.manual_seed(0)
    config = MemoryConfig(
        channels=12, height=8, width=8, actions=3, place=1.0, hidden=16, trail=16, inertia=True, two_step_inertia=True
    )
    geometry = Geometry(config)
    geometry.focal.data.fill_(FOCAL)
    _, actions, truth, poses = walks(1, 24, seed=3)
    pictures = ((seen(poses[0]) + 1) * 127.5).round().to(torch.uint8)
    disparity = 1 / looked(poses[0], 2 * SIDE)[-1]
    read = truth[0] + STEP * torch.randn(23, 3) * torch.tensor([0.7, 0.7, 0.0])
    found = measured(geometry, pictures, disparity, torch.randn(23, 192), read, actions[0, :-1])
    off, was = ((x - truth[0])[:, :2].norm(dim=1) for x in (found, read))
    assert off.median() < 0.15 * was.median() and off.max() < 0.2 * STEP


def test_a_step_that_changes_on_the_way_is_no_graph(module: GeometryModule) -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")), world_size=1)
    with pytest.raises(UserError, match="leave --graphs out"):
        graphs.fit(module, None, trainer, Path(), {}, None)  # type: ignore[arg-type]


def test_a_game_without_poses_is_trained_on_drawn_and_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "data", PLACELESS, "random", 240, seed=3, episode_frames=60)
    world = tiny_world(actions=3, recall=True)
    monkeypatch.setattr(training, "load_tokenizer", lambda path: world.tokenizer)
    encode.encode([str(tmp_path / "data")], world.tokenizer, tmp_path / "latents")
    store = LatentStore(tmp_path / "latents")
    assert not store.index["pose"]
    with pytest.raises(UserError, match="no poses to compare with"):
        measure(store, world.memory.geometry)
    flags = ["--config", str(CONFIG), "--data.latents", str(store.directory), "--wandb", "off", "--warmup", "1"]
    flags += ["--model.geometry.hidden", "16", "--model.geometry.slots", "64", "--data.batch_size", "4"]
    flags += ["--data.length", "16", "--data.validation_windows", "4", "--steps", "4"]
    with pytest.raises(UserError, match=r"--model\.poses false"):
        run_stage("geometry", [*flags, "--name", "told", "--model.poses", "true", "--model.any_camera", "true"])
    with pytest.raises(UserError, match=r"--model\.geometry\.trail"):
        run_stage("geometry", [*flags, "--name", "no-trail", "--model.geometry.trail", "0"])
    with pytest.raises(UserError, match=r"--data\.length"):
        run_stage("geometry", [*flags, "--name", "short", "--data.length", "2"])
    with pytest.raises(UserError, match=r"\(static: no camera .* train it all the same with --model\.any_camera true"):
        run_stage("geometry", [*flags, "--name", "mine"])
    assert run_stage("geometry", [*flags, "--name", "mine", "--model.any_camera", "true"]) == 0
    memory = load_memory(tmp_path / "runs" / "mine" / "geometry" / "last.ckpt")
    assert draw_views(store.directory, memory, world.tokenizer)
    assert store.open_views() and store.read("views", Span(0, 20, 1))[:, 4:8].any()  # memory has drawn something

    world.memory = memory
    latents = torch.from_numpy(np.array(store.read("latents", Span(0, 0, 20)), np.float32))[None]
    actions = torch.from_numpy(np.array(store.read("actions", Span(0, 0, 19)), np.float32))[None]
    state = world.start_latents(latents, actions, torch.tensor([0]))
    for _ in range(8):
        outcome, state = world.step(state, actions[:, -1])
    assert outcome.frames.shape == (1, 64, 64, 3) and state.memory.episodic is not None
    assert state.memory.episodic.pose.abs().max() < 1  # a picture that stays takes nobody anywhere
