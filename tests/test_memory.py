"""First-person memory: what is written is found again and bounded, and a dream is where its steps have led."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny import assert_goes_on_as_cut, tiny_world

from game_wm.memory.first_person import episodic
from game_wm.memory.first_person.episodic import WAYS, EpisodicMemory, Places
from game_wm.memory.first_person.pose import move, relative
from game_wm.memory.first_person.system import FirstPersonStep
from game_wm.memory.protocol import Frame
from game_wm.memory.views import SMALL_CHANGE, keep_still, keep_view
from game_wm.world import WorldModel

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
    which, sources, found = memory.choose(PLACES, here.expand(2, 3), torch.tensor([40, 40]), 4)
    assert found.tolist() == [[True, False, False, False]] * 2  # the newest shows nothing that the first does not
    assert sources[:, 0].abs().max() < 1e-6
    which, _, found = memory.choose(PLACES, here.expand(2, 3), torch.tensor([34, 34]), 1)
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
        which, _, found = memory.choose(places, here, torch.tensor([90]), 4)
        shown = set(memory.frames(which)[0][0, found[0], 0, 0, 0].tolist())
        assert expected <= shown and not shown & useless


def test_what_is_young_is_not_recalled() -> None:
    memory, here = empty(), torch.tensor([0.3, 0.3, 0.1])
    remember(memory, here.expand(8, 3))
    found = [memory.choose(PLACES, here[None], torch.tensor([t]), 2)[2].sum().item() for t in (4, 5, 11)]
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
    which, _, _ = memory.choose(PLACES, poses, torch.full((players,), 9), 1)
    assert (memory.frames(which)[0][:, 0, 0, 0, 0] // 50).tolist() == list(range(players))


def test_a_growing_bank_keeps_every_frame() -> None:
    memory, places = empty(2, slots=4), Places(0.75, 12, unbounded=True)
    poses = walk(40)
    remember(memory, poses, places)
    kept = memory.keys[0] >= 0
    assert kept.sum() == 40 and torch.equal(memory.times[0, kept, 0], torch.arange(40))
    assert torch.equal(memory.poses[1, :40, 0], poses)
    which, _, there = memory.choose(places, poses[7].expand(2, 3), torch.tensor([40, 9]), 1, young=3)
    assert there.tolist() == [[True], [True]] and which[0, 0] == 2 * 7 and memory.times.flatten(1)[1, which[1, 0]] < 6


def test_frame_by_frame_is_remembered_as_a_prompt_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But that positions are put right in a prompt alone."""
    monkeypatch.setattr(episodic, "CORRECTED", 0.0)
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
        replace(config.memory, inertia=True, two_step_inertia=True, trail=trail),
        replace(config.dynamics, warp=True, aligned=True),
    )
    world = WorldModel(replace(config, memory=memory, dynamics=dynamics)).eval()
    torch.nn.init.normal_(world.memory.geometry.motion.free.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    frames, actions = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8), torch.rand(2, 9, 4).round()
    state = world.start(frames, actions[:, :5], torch.arange(2))
    whole = assert_goes_on_as_cut(world, state, actions[:, 5:])
    assert float(whole.memory.recent.steps.abs().max()) > 0


def test_who_stands_still_sees_only_what_happens() -> None:
    """Of a frame for which no step was taken, cells that hardly change are the last frame's; of others none is."""
    last, made = torch.randn(2, 4, 2, 4), torch.randn(2, 4, 2, 4)
    made[:, :, 0] = last[:, :, 0] + 0.9 * SMALL_CHANGE**0.5
    shown = keep_still(made, last, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]]))
    assert torch.equal(shown[0, :, 0], last[0, :, 0]) and torch.equal(shown[0, :, 1], made[0, :, 1])
    assert torch.equal(shown[1], made[1])
