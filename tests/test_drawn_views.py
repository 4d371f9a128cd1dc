"""Training reads what play renders: the views of whole episodes, and a network that gains a memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_world

from data_collect.errors import UserError
from data_collect.lock import folder_lock
from data_collect.recording.record import record
from game_wm.deadline import Deadline
from game_wm.model.dynamics import Dynamics
from game_wm.objectives.flow import FlowMatching
from train.checkpoints import grown
from train.data import encode
from train.data.latents import LatentStore
from train.data.modules import LatentDataModule
from train.data.spans import Span
from train.first_person import draw_views as drawing
from train.stages.dynamics import DynamicsModule


@pytest.mark.slow
def test_training_is_shown_what_play_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The views written for an episode are those that the world draws as it goes along."""
    for name in ("HIDDEN", "MISSING", "WRONG"):
        monkeypatch.setattr(drawing, name, 0.0)
    record(tmp_path / "maze", "maze?size=7", "wanderer", 120, seed=3, episode_frames=120)
    world = tiny_world(recall=True)
    world.low_precision = True  # as views are drawn for training
    encode.encode([str(tmp_path / "maze")], world.tokenizer, tmp_path / "latents")
    monkeypatch.setattr("data_collect.lock.LOCK_SECONDS", 0.1)
    with folder_lock(tmp_path / "latents"), pytest.raises(UserError, match="another process is writing"):
        drawing.draw_views(tmp_path / "latents", world.memory, world.tokenizer)
    assert drawing.draw_views(tmp_path / "latents", world.memory, world.tokenizer)
    assert not drawing.draw_views(tmp_path / "latents", world.memory, world.tokenizer)
    store = LatentStore(tmp_path / "latents")
    assert store.open_views()
    written = (tmp_path / "latents" / "views.json").read_text()
    for wrong in ({"shards": 0}, {"key": "another-1"}, "no"):  # another geometry's were begun
        told = json.dumps(json.loads(written) | wrong) if isinstance(wrong, dict) else wrong
        (tmp_path / "latents" / "views.json").write_text(told)
        assert not store.open_views()
    assert drawing.draw_views(tmp_path / "latents", world.memory, world.tokenizer)  # for what was there is damaged
    assert (tmp_path / "latents" / "views.json").read_text() == written
    span = Span(0, 0, store.lengths[0])
    views = torch.from_numpy(np.array(store.read("views", span), np.float32))
    latents = torch.from_numpy(np.array(store.read("latents", span), np.float32))
    actions = torch.from_numpy(np.array(store.read("actions", span), np.float32))
    same, others = 0.0, 0.0
    for t in (20, 40, 60, 80, 100):
        state = world.start_latents(latents[None, :t], actions[None, : t - 1], torch.tensor([0]))
        _, drawn = world.render_views(state, actions[None, t - 1])
        assert drawn is not None and drawn.abs().max() > 0
        recalled, warped = drawn[0].chunk(2)
        assert (warped - views[t].chunk(2)[1]).abs().mean() < 0.03  # both rounded to 16 bits, in other places
        apart = (recalled - views.chunk(2, 1)[0]).abs().mean((1, 2, 3))
        same, others = same + float(apart[t]), others + float(apart[[t - 5, t + 5]].mean())
    assert same < 0.5 * others  # small pictures are rounded, and untrained depths are rough


@pytest.mark.slow
def test_episodes_whose_views_do_not_fit_into_the_time_are_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "maze", "maze?size=7", "wanderer", 200, seed=3, episode_frames=20)
    world, latents = tiny_world(recall=True), tmp_path / "latents"
    encode.encode([str(tmp_path / "maze")], world.tokenizer, latents)
    assert drawing.draw_views(latents, world.memory, world.tokenizer, deadline=Deadline(0))
    assert "views: 40 of 200 frames, for more there is no time" in capsys.readouterr().out
    assert not drawing.draw_views(latents, world.memory, world.tokenizer, deadline=Deadline(0))
    data = LatentDataModule(str(latents), length=8, batch_size=64, held_out=0.1, views=True)
    assert set(data.batch(0, 64)["episode"].tolist()) == {1} and data.batch(0, 64)["views"].any()
    assert {int(i) for batch in data.val_dataloader() for i in batch["episode"]} == {9}
    assert drawing.draw_views(latents, world.memory, world.tokenizer)  # all of them
    data = LatentDataModule(str(latents), length=8, batch_size=64, held_out=0.1, views=True)
    assert set(data.batch(0, 640)["episode"].tolist()) == set(range(9))


@pytest.mark.slow
def test_episodes_are_drawn_together_as_each_alone(tmp_path: Path) -> None:
    record(tmp_path / "maze", "maze?size=7", "wanderer", 130, seed=3, episode_frames=70)
    world = tiny_world(recall=True)
    encode.encode([str(tmp_path / "maze")], world.tokenizer, tmp_path / "latents")
    store = LatentStore(tmp_path / "latents")
    assert len(set(store.lengths)) > 1
    numbers = list(range(len(store.lengths)))
    memory = world.memory.for_recordings(aligned=False)
    together = drawing.draw_episodes(memory, store, numbers, world.tokenizer)
    for number, each in zip(numbers, together, strict=True):
        (alone,) = drawing.draw_episodes(memory, store, [number], world.tokenizer)
        assert alone.shape == each.shape and np.abs(alone - each).mean() < 1e-2 and np.abs(alone).mean() > 0.05


def test_targets_come_in_any_order() -> None:
    """So that the single call and the decoder, which the first of them teach, see late frames as well as early ones."""
    torch.manual_seed(0)
    module = DynamicsModule((4, 8, 8), (), 4, dynamics=tiny_config().dynamics, targets=3)
    assert {int(module.sample_targets(6)[0]) for _ in range(100)} == set(range(6))
    latents, actions, noise = torch.randn(2, 14, 4, 8, 8), torch.rand(2, 14, 4).round(), torch.zeros(2)
    targets, order = torch.tensor([8, 10, 13]), torch.tensor([2, 0, 1])
    noisy, level, stride = torch.randn(2, 3, 4, 8, 8), torch.rand(2, 3), torch.full((2, 3), 0.25)
    with torch.no_grad():
        for p in module.dynamics.denoiser.parameters():  # begins as one that tells nothing
            p.add_(0.02 * torch.randn_like(p))
        told = module.dynamics(latents, actions, targets, noise, latents).predict
        turned = module.dynamics(latents, actions, targets[order], noise, latents).predict
        everything = slice(0, 3)
        first = told(noisy, level, stride, everything)[:, order]
        second = turned(noisy[:, order], level[:, order], stride, everything)
    assert first.std() > 0.01 and torch.allclose(first, second, atol=1e-4)


def test_a_network_that_gains_a_memory_begins_as_it_was() -> None:
    old, new = tiny_world(seed=1).dynamics, Dynamics(tiny_config(recall=True).dynamics).eval().requires_grad_(False)
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 12, 4).round()
    states = [dynamics.start(latents, actions[:, :-1]) for dynamics in (old, new)]
    noise, seen = torch.randn(2, 4, 8, 8), torch.randn(2, 16, 8, 8)
    found = [None, seen]
    a, b = (
        d.generate(s, actions[:, -1], noise, 1, FlowMatching(), r)
        for d, s, r in zip((old, new), states, found, strict=True)
    )
    assert (a - b).abs().max() < 1e-5
