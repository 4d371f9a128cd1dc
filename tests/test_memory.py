"""Episodic memory: what is written is found again, bounded, and training looks up what play would."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_world

from data_collect.record import record
from game_wm.dynamics import Dynamics
from game_wm.memory.episodic import WAYS, EpisodicMemory, Places, move, relative
from game_wm.objectives.flow import FlowMatching
from train import encode
from train.checkpoints import grown
from train.recall import Recall
from train.windows import LatentStore, Span

PLACES = Places(0.75, 12)


def walk(steps: int, seed: int = 0) -> torch.Tensor:
    """Poses (steps, 3) of somebody who wanders about."""
    generator = torch.Generator().manual_seed(seed)
    pose, poses = torch.tensor([3.0, 3.0, 0.0]), []
    for _ in range(steps):
        turn = torch.randn((), generator=generator) * 0.3
        pose = move(pose, torch.stack((torch.tensor(0.07), torch.tensor(0.0), turn)))
        poses.append(pose)
    return torch.stack(poses)


def test_steps_lead_where_they_say() -> None:
    a, b = walk(20), walk(20, seed=1)
    assert torch.allclose(relative(a, move(a, b))[:, :2], b[:, :2], atol=1e-5)
    back = move(a, relative(a, b))
    assert torch.allclose(back[:, :2], b[:, :2], atol=1e-5)
    assert torch.allclose(back[:, 2].cos(), b[:, 2].cos(), atol=1e-5)


def test_places_do_not_depend_on_full_turns() -> None:
    pose = walk(50)
    turned = pose + torch.tensor([0.0, 0.0, 3 * math.tau])
    assert torch.equal(PLACES.of(pose)[:, :2], PLACES.of(turned)[:, :2])
    assert torch.isin((PLACES.of(pose) - PLACES.of(turned))[:, 2] % 12, torch.tensor([0, 1, 11])).all()
    assert len(PLACES.neighbours(pose)[0].unique()) == 45


def remember(memory: EpisodicMemory, poses: torch.Tensor, places: Places = PLACES) -> None:
    """Frame t of all players has latents of value t."""
    for t, pose in enumerate(poses):
        latent = torch.full((len(memory.keys), 2, 2, 2), float(t))
        memory.write(places, latent, pose.expand(len(memory.keys), 3), torch.full((len(memory.keys),), t))


def test_a_place_keeps_its_first_and_its_newest_frame() -> None:
    memory = EpisodicMemory.start(2, 64, 4, 8, torch.zeros(2, 2, 2))
    here, there = torch.tensor([0.3, 0.3, 0.1]), torch.tensor([9.3, 0.3, 0.1])
    remember(memory, torch.stack((here, here, there, here)))
    latents, about = memory.read(PLACES, here.expand(2, 3), torch.tensor([10, 10]), 2)
    assert latents[:, :, 0, 0, 0].tolist() == [[3.0, 0.0, 0.0, 0.0]] * 2  # newest, first, nothing near besides
    assert about[:, :, -1].tolist() == [[1.0, 1.0, 0.0, 0.0]] * 2
    assert torch.allclose(about[:, :2, 4], torch.tensor([7.0, 10.0]).log1p() / 8)
    assert not about[:, 2:].any()


def test_frames_before_the_first_are_none() -> None:
    memory = EpisodicMemory.start(1, 64, 4, 8, torch.zeros(2, 2, 2))
    memory.write(PLACES, torch.ones(1, 2, 2, 2), torch.zeros(1, 3), torch.tensor([-1]))
    assert (memory.keys == -1).all() and not memory.latents.any()


def test_a_full_store_forgets_what_was_visited_longest_ago() -> None:
    memory = EpisodicMemory.start(1, WAYS, 4, 8, torch.zeros(2, 2, 2))
    far = torch.tensor([[10.0 * i, 0.1, 0.1] for i in range(WAYS + 1)])
    remember(memory, far)
    values = {float(x) for x in memory.latents[0, :, 0, 0, 0, 0]}
    assert values == {float(t) for t in range(1, WAYS + 1)}
    assert memory.keys.shape == (1, WAYS)


def test_training_recalls_what_play_recalls(tmp_path: Path) -> None:
    """Along a recorded episode, the loader's look-up equals a store that was written frame by frame."""
    record(tmp_path / "maze", "maze?size=7", "wanderer", 300, seed=3, episode_frames=300)
    torch.manual_seed(0)
    from game_wm.tokenizer import Tokenizer, TokenizerConfig

    tokenizer = Tokenizer(TokenizerConfig(64, 64, 4, (16, 16, 16), (16, 16, 16), decoder_blocks=1)).eval()
    encode.encode([str(tmp_path / "maze")], tokenizer, tmp_path / "latents")
    store, history, length = LatentStore(tmp_path / "latents"), 4, 200
    span = Span(0, 0, length)
    found = Recall(store, PLACES, 2, history)(span, 0)
    latents = torch.from_numpy(np.array(store.read("latents", span), np.float32))
    poses = torch.from_numpy(np.array(store.read("pose", span), np.float32))
    memory = EpisodicMemory.start(1, 4096, history, 8, latents)
    for t in range(length):
        if t > history:
            old = t - history - 1
            memory.write(PLACES, latents[old : old + 1], poses[old : old + 1], torch.tensor([old]))
        recalled, about = memory.read(PLACES, poses[t : t + 1], torch.tensor([t]), 2)
        assert torch.allclose(about[0], found["about"][t], atol=1e-4), t
        assert torch.equal(recalled[0], found["recalled"][t]), t
    assert found["about"][..., -1].mean() > 0.5


def test_what_training_recalls_drifts_fails_and_errs(tmp_path: Path) -> None:
    encode.write_synthetic(tmp_path, (4, 4, 4), actions=3, episodes=2, frames=200)
    store = LatentStore(tmp_path)
    for shard in store.shards:
        shard["pose"] = np.zeros((400, 3), np.float32)  # somebody who never moves
    exact, rough = Recall(store, PLACES, 1, 4), Recall(store, PLACES, 1, 4, rollout=16, seed=0)
    span = Span(1, 100, 64)
    a, b = exact(span, 7), rough(span, 7)
    assert all(torch.equal(x, y) for x, y in zip(b.values(), rough(span, 7).values(), strict=True))
    assert a["about"][..., -1].all() and 0.02 < 1 - b["about"][..., -1].mean() < 0.3
    assert torch.allclose(a["about"][..., :2], torch.zeros(())) and b["about"][..., :2].abs().max() > 0
    rows = torch.from_numpy(np.array(store.read("latents", Span(1, 0, 200)), np.float32))
    newest = [int((rows - x).flatten(1).abs().sum(1).argmin()) for x in a["recalled"][:, 0]]
    assert newest == [100 + t - 5 for t in range(64)]
    kept = b["about"][:, 0, -1] > 0
    late = [int((rows - x).flatten(1).abs().sum(1).argmin()) for x in b["recalled"][:, 0]]
    assert (
        max(x for x, k in zip(late, kept, strict=True) if k) <= 100 + 64 - 16 - 1
    )  # nothing out of what the model will dream itself
    wrong = np.mean([got != min(want, 147) for got, want, k in zip(late, newest, kept, strict=True) if k])
    assert 0 < wrong < 0.3


def test_a_network_that_gains_a_memory_begins_as_it_was() -> None:
    old, new = tiny_world(seed=1).dynamics, Dynamics(tiny_config(recall=2).dynamics).eval().requires_grad_(False)
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 12, 4).round()
    states = [dynamics.start(latents, actions[:, :-1]) for dynamics in (old, new)]
    noise = torch.randn(2, 4, 8, 8)
    a, b = (d.generate(s, actions[:, -1], noise, 1, FlowMatching()) for d, s in zip((old, new), states, strict=True))
    assert (a - b).abs().max() < 1e-5
    found = new.recall(states[1], actions[:, -1])
    assert found is not None and found[1].any()


@pytest.mark.parametrize("players", [1, 3])
def test_players_remember_each_for_themselves(players: int) -> None:
    memory = EpisodicMemory.start(players, 64, 4, 8, torch.zeros(2, 2, 2))
    for t in range(5):
        poses = torch.stack([torch.tensor([10.0 * p, 0.3, 0.1]) for p in range(players)])
        latents = torch.stack([torch.full((2, 2, 2), 100.0 * p + t) for p in range(players)])
        memory.write(PLACES, latents, poses, torch.full((players,), t))
    latents, _ = memory.read(PLACES, poses, torch.full((players,), 9), 1)
    assert latents[:, :, 0, 0, 0].tolist() == [[100.0 * p + 4, 100.0 * p] for p in range(players)]
