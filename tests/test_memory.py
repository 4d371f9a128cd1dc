"""Episodic memory: what is written is found again and bounded, views are drawn where they belong, training recalls what
play recalls."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import assert_goes_on_as_cut, tiny_config, tiny_world

from data_collect.errors import UserError
from data_collect.games import make
from data_collect.lock import folder_lock
from data_collect.recording.record import record
from game_wm.memory.first_person import episodic
from game_wm.memory.first_person.camera import Sources, align, carry, draw, draw_pair, rays, surround
from game_wm.memory.first_person.episodic import WAYS, EpisodicMemory, Places
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig, Motion
from game_wm.memory.first_person.pose import move, relative
from game_wm.memory.first_person.recent import KEPT, RecentFrames
from game_wm.memory.first_person.system import FirstPersonStep
from game_wm.memory.first_person.views import SMALL_CHANGE, keep_still, keep_view
from game_wm.memory.protocol import Frame
from game_wm.model.dynamics import Dynamics
from game_wm.objectives.flow import FlowMatching
from game_wm.world import WorldModel
from train.checkpoints import grown
from train.data import encode
from train.data.windows import LatentStore, Span
from train.first_person import draw_views as drawing
from train.first_person.depth import fit as fit_depth
from train.first_person.depth import known_disparity, off_by
from train.first_person.motion import Recorded, fit, fit_heads
from train.stages.dynamics import DynamicsModule

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
    off = PLACES.key(pose) - PLACES.key(pose + torch.tensor([0.0, 0.0, 3 * math.tau]))
    assert (off == 0).float().mean() > 0.9 and torch.isin(off % 12, torch.tensor([0, 1, 11])).all()


def remember(memory: EpisodicMemory, poses: torch.Tensor, places: Places = PLACES) -> None:
    """Frame t of all players is a picture of value t."""
    players = len(memory.keys)
    for t, pose in enumerate(poses):
        picture = torch.full((players, 3, 2, 2), t, dtype=torch.uint8)
        times = torch.full((players,), t)
        memory.write(places, picture, torch.full((players, 2, 2), 0.5), pose.expand(players, 3), times)


def empty(players: int = 1, slots: int = 64) -> EpisodicMemory:
    return EpisodicMemory.start(players, slots, (3, 2, 2), (2, 2), "cpu")


def test_a_place_keeps_its_first_and_its_newest_frame() -> None:
    memory = empty(2)
    here, there = torch.tensor([0.3, 0.3, 0.1]), torch.tensor([9.3, 0.3, 0.1])
    remember(memory, torch.stack((here, here, there, here)))
    slot = (memory.keys[0] == PLACES.key(here)).nonzero()[0, 0]
    assert (
        memory.times[:, slot].tolist() == [[0, 3]] * 2 and memory.pictures[:, slot, :, 0, 0, 0].tolist() == [[0, 3]] * 2
    )
    which, sources, found = memory.choose(PLACES, here.expand(2, 3), torch.tensor([40, 40]), 4, 1.0)
    assert found.tolist() == [[True, False, False, False]] * 2  # the newest shows nothing that the first does not
    assert sources[:, 0].abs().max() < 1e-6
    which, _, found = memory.choose(PLACES, here.expand(2, 3), torch.tensor([34, 34]), 1, 1.0)
    assert memory.frames(which)[0][:, 0, 0, 0, 0].tolist() == [0, 0]  # the newest is too fresh to be trusted as much


def test_frames_are_chosen_for_what_others_do_not_show() -> None:
    """In the middle of a round room, those frames that share the view, and none that looks elsewhere."""
    memory, places = EpisodicMemory.start(1, 256, (3, 2, 2), (8, 64), "cpu"), Places(0.75, 36)
    aside = ((torch.arange(64) + 0.5) / 32 - 1).atan()
    wall = (1 / (2 * aside.cos())).expand(1, 8, 64)
    for t, turn in enumerate((0.0, 0.2, -0.2, 0.7, -0.7, 1.4, -1.4, 3.0)):
        picture = torch.full((1, 3, 2, 2), t, dtype=torch.uint8)
        memory.write(places, picture, wall, torch.tensor([[0.3, 0.3, turn]]), torch.tensor([t]))
    for turn, expected, useless in ((0.0, {0}, {5, 6, 7}), (1.05, {3, 5}, {4, 6, 7}), (-1.05, {4, 6}, {3, 5, 7})):
        here = torch.tensor([[0.3, 0.3, turn]])
        which, _, found = memory.choose(places, here, torch.tensor([90]), 4, 1.0)
        shown = set(memory.frames(which)[0][0, found[0], 0, 0, 0].tolist())
        assert expected <= shown and not shown & useless


def test_what_is_young_is_not_recalled() -> None:
    memory, here = empty(), torch.tensor([0.3, 0.3, 0.1])
    remember(memory, here.expand(8, 3))
    found = [memory.choose(PLACES, here[None], torch.tensor([t]), 2, 1.0)[2].sum().item() for t in (4, 5, 11)]
    assert found == [0, 1, 1]


def test_a_full_store_forgets_what_was_visited_longest_ago() -> None:
    memory = empty(slots=WAYS)
    remember(memory, torch.tensor([[10.0 * i, 0.1, 0.1] for i in range(WAYS + 1)]))
    assert set(memory.times[0, :, 0].tolist()) == set(range(1, WAYS + 1))
    assert memory.keys.shape == (1, WAYS)


@pytest.mark.parametrize("players", [1, 3])
def test_players_remember_each_for_themselves(players: int) -> None:
    memory = empty(players)
    for t in range(5):
        poses = torch.stack([torch.tensor([10.0 * p, 0.3, 0.1]) for p in range(players)])
        pictures = torch.stack([torch.full((3, 2, 2), 50 * p + t, dtype=torch.uint8) for p in range(players)])
        memory.write(PLACES, pictures, torch.ones(players, 2, 2), poses, torch.full((players,), t))
    which, _, _ = memory.choose(PLACES, poses, torch.full((players,), 9), 1, 1.0)
    assert (memory.frames(which)[0][:, 0, 0, 0, 0] // 50).tolist() == list(range(players))


def test_a_growing_bank_keeps_every_frame() -> None:
    memory, places = empty(2, slots=4), Places(0.75, 12, growing=True)
    poses = walk(40)
    remember(memory, poses, places)
    kept = memory.keys[0] >= 0
    assert kept.sum() == 40 and torch.equal(memory.times[0, kept, 0], torch.arange(40))
    assert torch.equal(memory.poses[1, :40, 0], poses)
    which, _, there = memory.choose(places, poses[7].expand(2, 3), torch.tensor([40, 9]), 1, 1.0, young=3)
    assert there.tolist() == [[True], [True]] and which[0, 0] == 2 * 7 and memory.times.flatten(1)[1, which[1, 0]] < 6


# --- drawing ----------------------------------------------------------------------------------------------------


def maze_frames(turns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures uint8 (T, 3, H, W) and poses (T, 3) of somebody who turns on the spot."""
    env = make("maze?size=7")
    frame, info = env.reset(seed=1)
    frames, poses = [frame], [info["pose"]]
    for _ in range(turns):
        frame, *_, info = env.step(np.array([0, 0, 1, 0]))
        frames.append(frame)
        poses.append(info["pose"])
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), torch.tensor(np.array(poses), dtype=torch.float32)


FOCAL = -1 / math.tan(math.radians(75 / 2))  # the maze's; left is positive in its poses


def test_a_turned_view_is_drawn_from_the_frames_around_it() -> None:
    pictures, poses = maze_frames(8)
    sources = relative(poses[4:5].expand(2, 3), poses[[0, 8]])[None]
    far = torch.full((1, 2, 32, 32), 0.002)  # a turn moves all depths alike
    both = torch.ones(1, 2, dtype=torch.bool)
    ((view, known),) = draw([Sources(pictures[None, [0, 8]], far, sources, both)], FOCAL)
    pictures = pictures.float() / 127.5 - 1
    apart = (view - pictures[4]).abs().mean(1)[known]
    assert known.float().mean() > 0.95 and apart.mean() < 0.03
    assert (pictures[0] - pictures[4]).abs().mean() > 5 * apart.mean()


def test_what_is_nearer_hides_what_is_behind_it() -> None:
    disparity = torch.full((1, 1, 16, 16), 0.1)
    disparity[..., 6:10] = 1.0  # a pillar one unit away in front of a wall ten units away
    aside = torch.tensor([[[0.0, -0.4, 0.0]]])
    view = carry(disparity, aside, -1.0)
    assert (view > 0.5).float().mean() >= 0.2  # the pillar is seen whole, shifted
    assert view[0, :, 8].max() < 0.5
    assert view.min() >= 0


def test_what_play_has_kept_of_a_size_serves_training() -> None:
    rays.cache_clear()
    with torch.inference_mode():
        rays(3, 5, torch.device("cpu"))
    scale = torch.ones((), requires_grad=True)
    (rays(3, 5, torch.device("cpu"))[0] * scale).sum().backward()
    assert scale.grad is not None


def test_sources_that_are_not_there_draw_nothing() -> None:
    pictures, depth = torch.randint(256, (1, 2, 3, 16, 16), dtype=torch.uint8), torch.full((1, 2, 8, 8), 0.5)
    there = torch.tensor([[False, True]])
    nothing = Sources(pictures, depth, torch.zeros(1, 2, 3), there & False)
    ((view, known),) = draw([nothing], 1.0)
    assert not known.any() and not view.any()
    # Views that are drawn together do not know of each other, whatever their sources and their ways.
    other = Sources(pictures[:, :1], depth[:, :1], torch.zeros(1, 1, 3), there[:, 1:], 2.0, 1.0)
    (view, known), (seen, all_of_it) = draw([nothing, other], 1.0)
    assert not known.any() and not view.any()
    assert all_of_it.all() and torch.allclose(seen, pictures[:, 0].float() / 127.5 - 1, atol=1e-5)


def test_what_has_gone_since_is_not_drawn_from_an_old_picture() -> None:
    empty = torch.full((1, 1, 3, 64, 64), 128, dtype=torch.uint8)
    with_gem, depth, pose = empty.clone(), torch.full((1, 1, 32, 32), 0.5), torch.zeros(1, 1, 3)
    with_gem[..., 20:30, 20:30] = torch.tensor([255, 40, 132], dtype=torch.uint8)[:, None, None]
    with_gem[..., 50:, :] += 20  # a little darker then
    there = torch.ones(1, 1, dtype=torch.bool)
    half = depth.clone()
    half[..., 16:] = 0  # the last frame shows the left half only
    in_front = depth.clone()
    in_front[..., 10:15, 10:15] = 0.7
    step = pose + torch.tensor([2e-3, 0.0, 0.0])
    old, new = Sources(with_gem, in_front, pose, there), Sources(empty, depth, step, there)
    assert torch.equal(draw_pair(old, new._replace(poses=pose), 1.0)[0][1], draw_pair(old, None, 1.0)[0][1])
    ((picture, known), _) = draw_pair(old, new, 1.0)
    ((alone, all_of_it),) = draw_pair(old, None, 1.0)
    assert torch.equal(draw_pair(None, new, 1.0)[0][0], draw([new], 1.0)[0][0])
    gone = torch.zeros(64, 64, dtype=torch.bool)
    gone[22:28, 22:28] = True
    assert all_of_it[0, gone].all() and (alone - picture)[0, :, gone].abs().amax(0).min() > 0.5
    assert not known[0, gone].any() and picture[0, :, gone].abs().max() < 0.1  # as what surrounds it
    assert known[0, 36:].all() and torch.equal(picture[..., 36:, :], alone[..., 36:, :])
    # What differs and is not nearer is a dream that went wrong, which memory puts right.
    assert draw_pair(old._replace(disparity=depth), new, 1.0)[0][1].all()
    # Where the last frame shows nothing, memory is all there is.
    ((picture, known), (_, seen)) = draw_pair(old, new._replace(disparity=half), 1.0)
    assert torch.equal(known[~seen], all_of_it[~seen]) and not seen.all()


def test_holes_take_their_surroundings() -> None:
    picture = torch.rand(2, 3, 12, 16)
    known = torch.rand(2, 12, 16) > 0.5
    filled = surround(picture, known)
    assert torch.allclose(filled.permute(0, 2, 3, 1)[known], picture.permute(0, 2, 3, 1)[known], atol=1e-6)
    one = torch.zeros(1, 8, 8, dtype=torch.bool)
    one[0, 3, 5] = True
    assert torch.allclose(surround(picture[:1, :, :8, :8], one), picture[:1, :, 3:4, 5:6].expand(1, 3, 8, 8), atol=1e-6)


# --- training and play ------------------------------------------------------------------------------------------


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


def test_who_stays_sees_the_same_and_who_turns_sees_it_shifted() -> None:
    """The last frame, warped: a wall at one depth, then a turn by an eighth of the picture's width."""
    geometry = tiny_world(recall=True).memory.geometry
    geometry.focal.fill_(1.0)
    ramp = torch.linspace(0, 255, 64).to(torch.uint8).expand(1, 3, 64, 64)
    shape = (1, KEPT, 3, 64, 64)
    there = torch.arange(KEPT)[None] == KEPT - 1
    last = RecentFrames(
        ramp.expand(shape),
        torch.full((1, KEPT, 32, 32), 1e-3),
        torch.zeros(1, KEPT, 3),
        torch.zeros(1, KEPT, 4),
        torch.zeros(1, KEPT, 3),
        torch.zeros(1, KEPT, 192),
        there,
    )
    u = (torch.arange(64) + 0.5) / 32 - 1
    for tangent in (0.0, 0.25):
        step = torch.tensor([[0.0, 0.0, math.atan(tangent)]])
        ((view, known),) = draw([last.sources(geometry, step)], geometry.focal)
        there = known[0, 32]
        was = ((u + tangent) / (1 - u * tangent) * 32 + 31.5) / 63 * 2 - 1  # in grey levels, along the ramp
        assert there.float().mean() > 0.75 and torch.allclose(view[0, 0, 32][there], was[there], atol=0.02)


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
        told = module.dynamics.read(latents, actions, targets, noise, latents).predict
        turned = module.dynamics.read(latents, actions, targets[order], noise, latents).predict
        everything = slice(0, 3)
        first = told(noisy, level, stride, everything)[:, order]
        second = turned(noisy[:, order], level[:, order], stride, everything)
    assert first.std() > 0.01 and torch.allclose(first, second, atol=1e-4)


def test_frame_by_frame_is_remembered_as_a_prompt_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But that positions are put right in a prompt alone."""
    monkeypatch.setattr(episodic, "MENDED", 0.0)
    world = tiny_world(recall=True)
    latents, actions = torch.randn(2, 80, 4, 8, 8), torch.rand(2, 80, 4).round()
    state = world.start_latents(latents[:, :70], actions[:, :69], torch.tensor([0, 1]))
    made = [world.step_latents(state, actions[:, t])[0] for t in range(69, 79)]
    whole = world.start_latents(torch.cat((latents[:, :70], torch.stack(made, 1)), 1), actions[:, :79], torch.arange(2))
    for name in ("keys", "times"):
        assert torch.equal(getattr(whole.memory.episodic, name), getattr(state.memory.episodic, name))
    for part, names in {
        "episodic": ("pictures", "disparity", "poses", "pose"),
        "recent": ("pictures", "disparity", "pairs", "there"),
    }.items():
        for name in names:
            a, b = (getattr(getattr(x.memory, part), name).float() for x in (whole, state))
            assert (a - b).abs().max() < (1.5 if name.startswith("picture") else 1e-3)


def test_a_dream_is_where_its_steps_have_led() -> None:
    """Nothing puts positions right in a dream: who takes every step back is where he was."""
    world = tiny_world(recall=True)
    state = world.start_latents(torch.randn(2, 20, 4, 8, 8), torch.rand(2, 19, 4).round(), torch.arange(2))
    episodic, recent = state.memory.episodic, state.memory.recent
    led, was = episodic.pose.clone(), episodic.pose.clone()
    for _ in range(30):
        world.step_latents(state, torch.rand(2, 4).round())
        led = move(led, recent.steps[:, -1])
    assert torch.allclose(led, episodic.pose, atol=1e-5) and not torch.allclose(led, was, atol=1e-3)


def test_where_the_player_has_been_nothing_is_in_the_way() -> None:
    memory = EpisodicMemory.start(1, 64, (3, 2, 2), (2, 2), "cpu", trail=4)
    ahead = torch.tensor([[0.1, 0.0, 0.0]])
    stopped, back = torch.zeros(1, 3), -ahead
    came, sure = memory.predict_step(PLACES, stopped, ahead)
    assert torch.equal(came, stopped) and not sure.any()  # nobody has been anywhere
    for t in range(6):
        memory.pose = torch.tensor([[0.1 * t, 0.0, 0.0]])
        memory.write(
            PLACES, torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.ones(1, 2, 2), memory.pose, torch.tensor([t])
        )
    assert torch.equal(memory.predict_step(PLACES, stopped, ahead)[0], stopped)
    came, sure = memory.predict_step(PLACES, stopped, back)
    assert torch.allclose(came, back) and sure.all()
    # The way that he came leads to just where he was, and to and fro as often as one likes.
    unlike = torch.tensor([[-0.09, 0.02, 0.0]])
    for expected in (0.4, 0.5) * 5:
        memory.pose = move(memory.pose, memory.predict_step(PLACES, stopped, unlike if expected < 0.5 else -unlike)[0])
        assert torch.allclose(memory.pose, torch.tensor([[expected, 0.0, 0.0]]), atol=1e-6)
    # Who faces elsewhere goes elsewhere; who only turns stays, and whatever it looks like, that is sure.
    memory.pose = torch.tensor([[0.4, 0.0, 0.5]])
    came, sure = memory.predict_step(PLACES, stopped, back)
    assert torch.equal(came, stopped) and not sure.any()
    came, sure = memory.predict_step(PLACES, stopped + 0.01, torch.tensor([[0.0, 0.0, 0.1]]))
    assert torch.equal(came, torch.tensor([[0.0, 0.0, 0.1]])) and sure.all()
    # Turned back he faces just as he did; turned on, however little, he does not.
    for turned, by in ((0.1, 0.101), (0.02, 0.018)):
        memory.trail[0, :2, :3] = torch.tensor([[0.4, 0.0, 0.5], [0.4, 0.0, 0.5 + turned]])
        memory.pose, turn = memory.trail[:, 1, :3], torch.tensor([[0.0, 0.0, by]])
        assert torch.allclose(
            memory.predict_step(PLACES, stopped, -turn)[0], torch.tensor([[0.0, 0.0, -turned]]), atol=1e-6
        )
        assert torch.equal(memory.predict_step(PLACES, stopped, turn)[0], turn)
        assert torch.equal(memory.predict_step(PLACES, stopped, stopped)[0], stopped)
    memory.pose = torch.tensor([[0.1, 0.0, math.pi]])  # turned round, before a position that is forgotten
    assert torch.equal(memory.predict_step(PLACES, stopped, ahead)[0], stopped)
    came, sure = memory.predict_step(PLACES, stopped, back)
    assert torch.equal(came, back) and not sure.any()


def test_a_step_is_what_the_picture_shows_unless_another_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(recall=True)
    memory = world.memory
    seen, predicted = torch.tensor([[0.2, 0.0, 0.0], [0.3, 0.0, 0.0]]), torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.1, 0.1]])
    monkeypatch.setattr(memory.geometry.motion, "estimate_step", lambda *_: seen)
    latent, picture = torch.randn(2, 4, 8, 8), torch.zeros(2, world.height, world.width, 3, dtype=torch.uint8)
    state = world.start_latents(latent[:, None], torch.rand(2, 0, 4), torch.arange(2)).memory
    for sure, came in (([True, False], (predicted[0], seen[1])), ([False, False], seen)):
        step = FirstPersonStep(predicted, torch.tensor(sure)[:, None])
        memory.commit(state, step, Frame(latent, picture, torch.rand(2, 4)))
        assert torch.equal(state.recent.steps[:, -1], torch.stack(tuple(came)))


def drifting(steps: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps (B, L, 3) of somebody who is pushed ahead by the first action, turned by the second, and slides to a halt,
    and his actions (B, L, 2)."""
    generator = torch.Generator().manual_seed(seed)
    actions = (torch.rand(64, steps, 2, generator=generator) < 0.5).float()
    angle, speed, found = torch.zeros(64), torch.zeros(64, 2), []
    for t in range(steps):
        speed = 0.8 * speed + 0.1 * actions[:, t, :1] * torch.stack((angle.cos(), angle.sin()), 1)
        cos, sin, (x, y) = angle.cos(), angle.sin(), speed.unbind(1)
        along = torch.stack((cos * x + sin * y, cos * y - sin * x, 0.1 * actions[:, t, 1]), 1)
        found.append(along)
        angle = angle + along[:, 2]
    return torch.stack(found, 1), actions


def test_the_past_is_told_as_the_player_stands() -> None:
    """Who slides on while he turns goes on as before, but no longer ahead."""
    motion = Motion(MemoryConfig(actions=2, inertia=True, exact=True, place=1.0))
    steps = torch.tensor([[[0.2, 0.0, 0.0], [0.2, 0.0, math.pi / 2]]])
    actions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    past = motion.past(steps, actions) * torch.cat((motion.unit, torch.ones(2))).repeat(2)
    assert torch.allclose(past, torch.tensor([[0.0, -0.2, math.pi / 2, 0.0, 1.0, 0.0, -0.2, 0.0, 1.0, 0.0]]), atol=1e-6)
    assert torch.equal(motion.past(steps[:, :0], actions[:, :0]), torch.zeros(1, 10))


def test_who_slides_to_a_halt_is_foreseen_from_poses_alone() -> None:
    motion = Motion(MemoryConfig(actions=2, inertia=True, exact=True, place=1.0))

    def recorded(steps: torch.Tensor, actions: torch.Tensor) -> Recorded:
        found = [
            (steps[:, t - 2 : t], actions[:, t - 2 : t], actions[:, t], steps[:, t]) for t in range(2, steps.shape[1])
        ]
        return Recorded(*(torch.cat(part) for part in zip(*found, strict=True)))

    fit(motion, recorded(*drifting(20, seed=0)), steps=1000)
    before, led, actions, goals = recorded(*drifting(12, seed=1))
    pasts = motion.past(before, led)
    found = motion.unhindered(actions, pasts)
    assert (found - goals)[:, :2].norm(dim=1).median() < 0.02 * goals[:, :2].norm(dim=1).median()
    # What reads pictures begins with that, and knows of no hindrance yet; then it learns of one that is seen.
    seen = motion.predict_step(torch.randn(len(goals), 192), actions, pasts)
    assert torch.equal(seen, found)
    torch.manual_seed(0)
    features = torch.randn(len(goals), 192).half()
    stopped = features[:, 0] > 0.8
    goals[stopped, :2] = 0
    fit_heads(motion, Recorded(before, led, actions, goals), (features, features), steps=400)
    came = motion.eval().predict_step(features, actions, pasts)
    assert (came - goals)[stopped, :2].norm(dim=1).median() < 0.2 * found[stopped, :2].norm(dim=1).median()
    assert (came == found)[~stopped].all(1).float().mean() > 0.8


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


def test_a_position_is_put_right_by_what_is_known() -> None:
    """Somebody who walks up to a wall; where he stands is mistaken by a few hundredths."""
    v, u = torch.meshgrid(*(((torch.arange(32) + 0.5) / 16 - 1),) * 2, indexing="ij")

    def seen(depth: float, aside: float) -> torch.Tensor:
        x, y = u * depth + aside, v * depth
        return torch.stack([(3 * x).sin() * (2 * y).cos(), (2 * x + y).sin(), (4 * y).cos()])[None]

    now, then = seen(1.9, 0.05), seen(2.0, 0.0)
    near, far = torch.full((1, 32, 32), 1 / 1.9), torch.full((1, 1, 32, 32), 1 / 2.0)
    there, believed = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 2)
    for _ in range(8):
        source = torch.cat((-believed, torch.zeros(1, 1)), 1)[:, None]
        believed = believed + align(now, near, then[:, None], far, source, there, 1.0)
    assert torch.allclose(believed, torch.tensor([[0.1, 0.05]]), atol=0.02)
    assert not align(now, near, then[:, None], far, source, ~there, 1.0).any()


def test_who_stands_still_is_shown_the_last_latent_itself() -> None:
    views, last = torch.randn(2, 16, 8, 8), torch.randn(2, 4, 8, 8)
    shown = keep_view(views, last, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]]))
    assert torch.equal(shown[0, 8:12], last[0]) and bool((shown[0, 12:] == 1).all())
    assert torch.equal(shown[0, :8], views[0, :8]) and torch.equal(shown[1], views[1])


@pytest.mark.parametrize("trail", [0, 8])
def test_a_player_with_inertia_dreams_on_with_and_without_a_trail(trail: int) -> None:
    """The prompt's steps are measured, and dreams that were cut in two go on as one that was not."""
    config = tiny_world(recall=True).config
    assert config.memory is not None
    torch.manual_seed(0)
    memory, dynamics = (
        replace(config.memory, inertia=True, exact=True, trail=trail),
        replace(config.dynamics, warp=True, aligned=True),
    )
    world = WorldModel(replace(config, memory=memory, dynamics=dynamics)).eval()
    torch.nn.init.normal_(world.memory.geometry.motion.free.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    frames, actions = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8), torch.rand(2, 9, 4).round()
    state = world.start(frames, actions[:, :5], torch.arange(2))
    whole = assert_goes_on_as_cut(world, state, actions[:, 5:])
    assert float(whole.memory.recent.steps.abs().max()) > 0


# --- depth that a game knows ------------------------------------------------------------------------------------------


def test_who_stands_still_sees_only_what_happens() -> None:
    """Of a frame for which no step was taken, cells that hardly change are the last frame's; of others none is."""
    last, made = torch.randn(2, 4, 2, 4), torch.randn(2, 4, 2, 4)
    made[:, :, 0] = last[:, :, 0] + 0.9 * SMALL_CHANGE**0.5
    shown = keep_still(made, last, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]]))
    assert torch.equal(shown[0, :, 0], last[0, :, 0]) and torch.equal(shown[0, :, 1], made[0, :, 1])
    assert torch.equal(shown[1], made[1])


def test_depth_is_learnt_from_what_a_game_knows() -> None:
    """Pictures of walls whose first channel tells how near they are."""
    torch.manual_seed(0)

    class Walls:
        def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
            near = torch.rand(size, 1, 1) * 3 - 2
            latents = torch.cat((near[:, None].expand(-1, 1, 4, 4), torch.randn(size, 3, 4, 4)), 1)
            return latents, near.exp().expand(-1, 16, 16)

    geometry = Geometry(MemoryConfig(channels=4, height=4, width=4, place=48.0, hidden=16))
    before = off_by(geometry.depth, Walls())  # type: ignore[arg-type]
    after = off_by(fit_depth(geometry.depth, Walls(), 300), Walls())  # type: ignore[arg-type]
    assert after[0] < 0.2 < 0.4 < before[0] and after == sorted(after)


def test_a_game_tells_depths_in_its_own_units() -> None:
    game = SimpleNamespace(depth=lambda poses, h, w: np.full((len(poses), h, w), 96.0, np.float32))
    assert torch.equal(known_disparity(game, 48.0, 2, 3)(np.zeros((5, 3))), torch.full((5, 8, 12), 0.5))
    with pytest.raises(UserError, match="does not know how deep"):
        known_disparity(object(), 1.0, 2, 2)
