"""The memory of worlds that scroll is made from pictures alone: the screen's own parts, and where an action leads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_scroll_memory import SIZE, Game, prompt
from tiny import tiny_checkpoint

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm import checkpoint
from game_wm.memory.protocol import Frame
from game_wm.memory.scroll.motion import Motion, ScrollConfig
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.world import WorldConfig, WorldModel
from train.__main__ import main
from train.checkpoints import load_geometry, load_memory
from train.data.encode import encode
from train.data.latents import LatentStore
from train.data.spans import Span
from train.scroll.fixed import fixed_pixels
from train.scroll.motion import candidate_steps, goes_fractions, learn_motion, recorded_steps, share_right
from train.scroll.poses import fit_axes

pytestmark = pytest.mark.slow


def test_the_screens_own_parts_are_what_does_not_move_with_the_world() -> None:
    """The score and the player in the middle; not the world, not what runs in it."""
    game, random = Game(), torch.Generator().manual_seed(2)
    steps = torch.randint(-1, 2, (25, 2), generator=random).repeat_interleave(8, 0) * 2
    frames = torch.stack([game.frame(), *(game.move(tuple(step)) for step in steps.tolist())])
    found = fixed_pixels([frames], [torch.cat((steps[:1] * 0, steps.cumsum(0)))])
    own = game.fixed.clone()
    own[14:19, 22:27] = True
    assert torch.equal(found, own)
    assert not fixed_pixels([frames], [torch.zeros(len(frames), 2, dtype=torch.long)]).any()  # nothing ever moved


def test_a_step_is_learnt_that_a_wall_stops() -> None:
    """From the picture, the action and the steps before: to the pixel, or not at all."""
    random = torch.Generator().manual_seed(0)
    pictures = torch.zeros(400, *SIZE, 3, dtype=torch.uint8)
    walls = torch.rand(400, generator=random) < 0.3
    pictures[walls, 12:20, 26:30] = 255
    right = torch.rand(400, generator=random) < 0.5
    actions = torch.nn.functional.one_hot(right.long(), 4).float()
    steps = torch.tensor([[0, -4], [0, 4]])[right.long()]
    steps[right & walls] = 0
    recorded = recorded_steps(pictures, actions, steps)
    motion = Motion(ScrollConfig(*SIZE, candidates=8, hidden=16))
    assert share_right(motion, recorded) < 0.5
    learn_motion(motion, recorded, 150)
    assert share_right(motion, recorded) > 0.99
    motion.steps[:2] = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    motion.choose[-1].weight.zero_()  # type: ignore[union-attr,operator]
    motion.choose[-1].bias.copy_(torch.tensor([2.0, 1.0] + [-9.0] * 6).log_softmax(0))  # type: ignore[union-attr]
    mean = motion.predict_step(*recorded.seen(torch.arange(1)))[0]
    assert mean[0] == 0 and 1 < mean[1] < 1.5 and mean[1] * 16 % 1 == 0  # now one pixel, now two
    ones, count = torch.tensor([0, 1]), len(recorded.steps)
    now_and_then = ones + ones * (torch.arange(count) % 4 == 0)[:, None]
    assert goes_fractions(motion, recorded._replace(steps=now_and_then))
    at_times = ones + ones * (torch.rand(count, 1, generator=random) < 0.02)  # 1 frame in 50: no fraction
    assert not goes_fractions(motion, recorded._replace(steps=at_times))
    assert motion.predict_step(*recorded.seen(torch.arange(1))).tolist() == [[0, 1]]
    rare = torch.cat((steps, torch.tensor([[7, 7]])))  # seen once: no candidate
    assert {tuple(step) for step in candidate_steps(rare, 8).tolist()} == {(0, -4), (0, 4), (0, 0)}


def test_that_a_screen_flips_is_learnt() -> None:
    """A step of a whole screen, where the player is at its edge and goes on; back again it is the same pixels."""
    random = torch.Generator().manual_seed(0)
    rooms = torch.randint(0, 200, (2, *SIZE, 3), generator=random).byte()
    places, which = torch.randint(0, 44, (400,), generator=random), torch.randint(0, 2, (400,), generator=random)
    places[::2] = torch.where(which[::2] == 0, 44, 0)
    pictures = rooms[which]
    for picture, at in zip(pictures, places.tolist(), strict=True):
        picture[14:18, at : at + 4] = 255
    right = torch.rand(400, generator=random) < 0.5
    actions = torch.nn.functional.one_hot(right.long(), 4).float()
    steps = torch.zeros(400, 2)
    steps[(places == 44) & right & (which == 0)] = torch.tensor([0.0, SIZE[1]])
    steps[(places == 0) & ~right & (which == 1)] = torch.tensor([0.0, -SIZE[1]])
    memory = ScrollMemory(ScrollConfig(*SIZE, slots=512, candidates=8, hidden=16))
    learn_motion(memory.motion, recorded_steps(pictures, actions, steps), 200)
    across = [*range(0, 48, 4)]
    way = [*((0, at) for at in across + across[::-1] + across), *((1, at) for at in 2 * (across + across[::-1]))]
    frames = [rooms[room].clone() for room, _ in [*way, (0, 44), (0, 40)]]
    for frame, (_, at) in zip(frames, [*way, (0, 44), (0, 40)], strict=True):
        frame[14:18, at : at + 4] = 255
    state = memory.requires_grad_(False).start(prompt(frames), None)  # type: ignore[arg-type]
    assert not state.corner.any()
    corners = list[float]()
    for room, at, action in ((0, 20, 1), (0, 44, 1), (1, 0, 0), (0, 44, 1), (1, 20, 1)):
        state.picture[0] = rooms[room]
        state.picture[0, 14:18, at : at + 4] = 255
        done = torch.nn.functional.one_hot(torch.tensor([action]), 4).float()
        step = memory.foresee(state, done)
        corners.append(float(step.motion[0, 1]))
        seen = memory.shown(step)[0]
        memory.commit(state, step, Frame(torch.zeros(1, 4, 4, 6), seen, done))
        memory.store(state, step)
        assert not step.motion.any() or torch.equal(seen[0], rooms[int(state.corner[0, 1] > 0)])
    assert corners == [0, SIZE[1], -SIZE[1], SIZE[1], 0]


def test_poses_are_used_where_they_explain_the_steps() -> None:
    """Whatever their unit and axes; not where the screen goes its own way."""
    random = torch.Generator().manual_seed(0)
    poses = torch.cat((torch.randn(200, 2, generator=random).cumsum(0), torch.zeros(200, 1)), 1)
    places = torch.stack((8 * poses[:, 1], -16 * poses[:, 0]), 1).round().long()
    steps = places.diff(dim=0)
    steps[::100] += 5  # read off wrongly
    axes, share = fit_axes([poses, poses], [steps, steps])
    assert axes == (0, 8, -16, 0) and share > 0.9
    stopped = torch.where(places.diff(dim=0) > 0, places.diff(dim=0), 0)
    axes, share = fit_axes([poses], [stopped])
    assert not axes and share < 0.9
    assert fit_axes([poses[:9]], [steps[:8]]) == ((), 0)


def test_a_recording_becomes_a_memory_that_draws_views_and_plays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = checkpoint.load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    record(tmp_path / "data", "scroll", "random", 160, seed=3, episode_frames=80)
    encode([str(tmp_path / "data")], made.model.tokenizer, tmp_path / "latents")
    tokenizer, out = ["--tokenizer", str(tmp_path / "tiny.safetensors")], str(tmp_path / "scroll/last.ckpt")
    latents = ["--latents", str(tmp_path / "latents")]
    assert main(["scroll", *latents, *tokenizer, "--out", out, "--steps", "5"]) == 0
    assert "held-out steps are predicted" in capfd.readouterr().out
    memory = load_memory(out)
    assert isinstance(memory, ScrollMemory) and replace(memory.config, fractions=True) == ScrollConfig(64, 64, 4)
    with pytest.raises(UserError, match="has no geometry"):
        load_geometry(out)
    assert main(["views", *latents, *tokenizer, "--geometry", out]) == 0
    store = LatentStore(tmp_path / "latents")
    assert store.open_views()
    views = np.array(store.read("views", Span(0, 0, 40)), np.float32)
    assert views.shape[1] == 4 + 4 and views[39, -4:].max() == 1 and not views[0].any()
    sizes = made.model.config
    dynamics = replace(sizes.dynamics, recall=False, warp=True)
    world = WorldModel(WorldConfig(sizes.tokenizer, dynamics, sizes.objective, 1, memory.config)).eval()
    world.memory.load_state_dict(memory.state_dict())
    checkpoint.save(tmp_path / "scroll.safetensors", replace(made, model=world))
    again = load_memory(tmp_path / "scroll.safetensors")
    assert isinstance(again, ScrollMemory)
    assert torch.equal(again.fixed, memory.fixed) and torch.equal(again.motion.steps, memory.motion.steps)
