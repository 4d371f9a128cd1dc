"""What is in the way: surfaces around a player as a map, what is left of a step, and that play keeps to it."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fakes import recorded
from tiny import assert_goes_on_as_cut, tiny_world

from data_collect.errors import UserError
from game_wm.memory.first_person.atlas import Atlas
from game_wm.memory.first_person.episodic import EpisodicMemory, Places
from game_wm.memory.first_person.obstacles import (
    CLOSEST,
    DIRECTIONS,
    GAPS,
    REACH,
    RINGS,
    SIDES,
    WIDEST,
    Obstacles,
    around,
    horizon,
    seen_from,
    stopped,
    turned,
)
from game_wm.memory.first_person.recent import steady
from game_wm.memory.first_person.system import FirstPersonMemory
from game_wm.world import WorldModel
from train.__main__ import main as train
from train.data.spans import Span
from train.first_person.obstacles import Hindered, fit, hindered_steps, off_by, perturbed_end

pytestmark = pytest.mark.slow

PLACES = Places(side=2.0, headings=8)
RADIUS = 0.3  # of the player, in places


def ring_of(distance: float) -> float:
    return distance * RINGS / REACH - 0.5


def line_at(gap: float) -> float:
    return (gap - CLOSEST) * GAPS / (WIDEST - CLOSEST)


def middle(rings: torch.Tensor) -> float:
    """Where, in rings, what a map (D, R) knows is on average."""
    return float((rings.sum(0) * torch.arange(RINGS)).sum() / rings.sum())


def test_a_wall_is_where_it_was_seen() -> None:
    """A flat wall one place ahead, seen from the front; from a pose aside and turned it is where it must be."""
    points, weights = horizon(torch.full((1, 6, 8), 1.0), 1.0)
    assert torch.allclose(points[0, :, 0], torch.ones(8)) and torch.allclose(weights, torch.ones(1, 8))
    assert torch.allclose(points[0, :, 1], torch.linspace(-0.875, 0.875, 8))
    edge = torch.cat((torch.full((1, 6, 4), 1.0), torch.full((1, 6, 4), 0.5)), 2)
    assert (horizon(edge, 1.0)[1] > 0).tolist() == [[True] * 3 + [False] * 2 + [True] * 3]  # misjudged at the edge
    # He now stands half a place nearer and has turned a quarter to the right: the wall is to his left.
    away = torch.tensor([[0.0, -0.5, -math.pi / 2]])
    moved = seen_from(points, away)
    assert torch.allclose(moved[0, :, 1], torch.full((8,), -1.5), atol=1e-5)
    near = moved[:, 3:5] * 0.3
    found = around(near, torch.ones(1, 2), torch.zeros(1))[0]
    left = (found.sum(1) > 0).nonzero()[:, 0].float().mean()
    assert abs(float(found.sum()) - 2) < 1e-5
    assert abs(left / DIRECTIONS - 0.25) < 0.02  # a half turn lies before the middle
    away_by = float(near.norm(dim=-1).mean())
    assert abs(middle(found) - ring_of(away_by)) < 1e-3  # finer than the rings are
    assert not around(near * (REACH + 0.1) / away_by, torch.ones(1, 2), torch.zeros(1)).any()
    aside = around(near, torch.ones(1, 2), torch.tensor([-math.pi / 2]))[0]
    assert torch.allclose(aside.sum(0), found.sum(0)) and not torch.allclose(aside, found)


def test_memory_tells_what_is_around_where_the_player_stands() -> None:
    memory = EpisodicMemory.start(2, 64, (3, 4, 4), (6, 8), "cpu")
    assert not memory.surfaces(PLACES)[1].any()
    memory.pose = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, math.pi]])
    wall = torch.full((2, 6, 8), 0.5)
    memory.write(PLACES, torch.zeros(2, 3, 4, 4), wall, memory.pose, torch.zeros(2, dtype=torch.long))
    memory.pose = torch.tensor([[6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # one place ahead; turned round
    points, weights = memory.surfaces(PLACES)
    shown = [points[i][weights[i] > 0] for i in range(2)]
    assert torch.allclose(shown[0][:, 0], torch.ones(1)) and torch.allclose(shown[1][:, 0], -torch.full((1,), 2.0))
    assert len(shown[0]) == 16  # first and newest frame of the place


def test_where_he_was_stopped_is_a_line() -> None:
    """A wall a tenth of a place ahead of him, which runs from left to right: he ran into it once, and once was free."""
    ends, lost = torch.tensor([[[0.1, 0.2], [0.1, -0.1]]]), torch.tensor([[[-0.3, 0.0], [0.0, 0.001]]])
    found = stopped(ends, lost, torch.zeros(1))[0]
    assert 0.7 < float(found.sum()) < 1  # not exactly there, but along the line
    at = (found.sum(0) * (torch.arange(GAPS) + 0.5)).sum() / found.sum()
    assert abs(float(at) - line_at(0.1)) < 1e-3
    side = found.sum(1).argmax() / SIDES
    assert min(side, 1 - side) < 0.05  # what was lost points back
    aside = stopped(ends, lost, torch.full((1,), math.pi / 2))[0]
    assert abs(float(aside.sum(1).argmax()) / SIDES - 0.75) < 0.05
    assert not stopped(ends + torch.tensor([1.0, 0.0]), lost, torch.zeros(1)).any()  # too far in front of it


def test_the_trail_knows_what_was_lost_where() -> None:
    memory = EpisodicMemory.start(1, 64, (3, 4, 4), (6, 8), "cpu", trail=4)
    shown = torch.zeros(1, 3, 4, 4), torch.full((1, 6, 8), 0.5)
    for t, (pose, lost) in enumerate(((0.0, 0.0), (2.0, -1.0))):
        pose = torch.tensor([[pose, 0.0, math.pi / 2]])
        memory.write(PLACES, *shown, pose, torch.tensor([t]), torch.tensor([[0.0, lost]]))
    memory.pose = torch.tensor([[2.0, 2.0, 0.0]])
    ends, lost = (x[0, :2] for x in memory.stops(PLACES))
    assert torch.allclose(ends, torch.tensor([[-1.0, -1.0], [0.0, -1.0]]))
    assert torch.allclose(lost, torch.tensor([[0.0, 0.0], [0.5, 0.0]]), atol=1e-6)
    assert not memory.stops(PLACES)[1][0, 2:].any()


def walls(count: int, seed: int) -> Hindered:
    """A wall ahead or none within reach: what would lead into it ends in front of it."""
    generator = torch.Generator().manual_seed(seed)
    distance = 0.2 + torch.rand(count, generator=generator)
    lengths = 0.05 + 0.3 * torch.rand(count, generator=generator)
    aside = torch.linspace(-2, 2, 80).expand(count, -1)
    points = torch.stack((distance[:, None].expand_as(aside), aside), -1)
    maps = around(points, torch.ones_like(aside), torch.zeros(count)).half()
    ends = torch.minimum(lengths, (distance - RADIUS).clamp_min(0))
    lasts, lines = torch.zeros(count, 2, 2), torch.zeros(count, SIDES, GAPS)
    return Hindered(maps, lines, lengths, lasts, F.pad(ends[:, None], (0, 1)), torch.ones(count, dtype=torch.bool))


def test_what_is_left_of_a_step_is_learnt() -> None:
    torch.manual_seed(0)
    network, held_out = Obstacles(), walls(1000, seed=1)
    before = off_by(network, held_out)
    assert before[0] == before[1] > 0.05 and before[2] < 0.02  # it begins with nothing in the way
    fit(network, walls(4000, seed=0), steps=600)
    before, after, free = off_by(network, held_out)
    assert after < 0.3 * before and free < 0.02


def test_recorded_steps_are_told_with_what_was_around() -> None:
    """Somebody who walks up to a wall, in steps of 0.3 places (of 2 units), and is stopped in front of it."""
    x = torch.cat((0.3 * torch.arange(6), torch.full((4,), 1.7)))
    poses = F.pad(2 * x[:, None], (0, 2))
    near = (1 / (2.0 - x))[:, None, None, None].expand(-1, 1, 6, 8)
    told = {"latents": near, "actions": torch.zeros(10, 1), "pose": poses}
    store = recorded(told)
    ahead = lambda actions, past: F.pad(torch.full((len(past), 1), 0.6), (0, 2))  # noqa: E731
    motion = SimpleNamespace(unhindered=ahead, pasts=lambda steps, actions: F.pad(steps, (0, 0, 1, 0)))
    geometry = SimpleNamespace(
        depth=lambda latents: latents[:, 0], focal=1.0, motion=motion, config=SimpleNamespace(place=2.0), atlas=None
    )
    found = hindered_steps(store, [Span(0, 0, 10)], geometry)  # type: ignore[arg-type]
    assert torch.allclose(found.lengths, torch.full((9,), 0.3)) and found.exact.tolist() == [
        t % 2 == 0 for t in range(9)
    ]
    assert torch.allclose(found.ends[found.exact], F.pad((x[1:] - x[:-1])[::2, None], (0, 1)), atol=1e-5)
    off = found.ends[:, 0] - (x[1:] - x[:-1])
    # From where he nearly was he gets as far as ever, or to the wall that stopped him.
    assert torch.allclose(found.ends[[1, 3]], F.pad(torch.full((2, 1), 0.3), (0, 1)), atol=1e-5)
    assert (found.ends[[5, 7], 0] <= 0.3 + 1e-5).all() and off[[5, 7]].abs().max() > 0.001
    assert abs(middle(found.maps[8].float()[DIRECTIONS // 2 - 1 : DIRECTIONS // 2 + 1]) - ring_of(0.3)) < 0.5
    assert torch.allclose(found.lasts[8, :, 0], torch.tensor([0.0, -0.3]), atol=1e-5)  # all of the last step was lost
    assert torch.equal(found.lasts[0], torch.zeros(2, 2))
    # Once he was stopped, at frame 7, the map of lines has one on the side ahead, at which he stands.
    line = found.lines[8].float().sum(0)
    assert not found.lines[:6].any()
    assert abs(float((line * (torch.arange(GAPS) + 0.5)).sum() / line.sum()) - line_at(0.0)) < 1e-2
    # An atlas adds the wall that others ran into, but nothing that is of this very episode.
    ends, lost = torch.tensor([[3.25, 0.0], [3.4, 0.0]]), torch.tensor([[-0.5, 0.0], [-0.5, 0.0]])
    nothing = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 6, 8), 0.001), torch.full((1, 3), 90.0)
    for stops, known in ((ends[:1], True), (ends[1:], False)):
        geometry.atlas = Atlas(*nothing, torch.cat((stops, lost[:1]), 1))
        again = hindered_steps(store, [Span(0, 0, 10)], geometry)  # type: ignore[arg-type]
        assert torch.equal(again.maps, found.maps) and torch.equal(again.ends, found.ends)
        assert torch.equal(again.lines, found.lines) != known and again.lines[5].any() == known
    with pytest.raises(UserError, match="--steps: must be at least 1"):
        train(["obstacles", "--latents", "x", "--geometry", "y", "--out", "z", "--steps", "0"])


def test_a_perturbed_start_is_stopped_by_the_same_wall() -> None:
    free, end = torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.1])  # a wall across, 0.2 ahead
    for aside, to in (((0.0, 0.5), (0.2, 0.1)), ((0.05, 0.0), (0.15, 0.1)), ((-0.5, 0.0), (0.3, 0.1))):
        assert torch.allclose(perturbed_end(free, end, torch.tensor(aside)), torch.tensor(to), atol=1e-6)


def test_a_step_is_hindered_wherever_it_leads() -> None:
    """The map is turned to where the step leads, and what is left of the step is turned back; turns are untouched."""
    torch.manual_seed(0)
    network = Obstacles()
    fit(network, walls(4000, seed=0), steps=600)
    aside = torch.linspace(-2, 2, 80)
    wall = torch.stack((torch.full_like(aside, 0.35), aside), -1)
    for angle in (0.0, 1.0, -2.5):
        cos, sin = math.cos(angle), math.sin(angle)
        around_him = torch.stack((cos * wall[:, 0] - sin * wall[:, 1], sin * wall[:, 0] + cos * wall[:, 1]), -1)[None]
        wanted, last = torch.tensor([[0.6 * cos, 0.6 * sin, 0.4]]), torch.zeros(1, 2, 2)
        stops = torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)
        came = network.hindered(wanted, last, (around_him, torch.ones(1, 80)), stops, place=2.0)
        assert came[0, 2] == wanted[0, 2] and came[0, :2].norm() < 0.25 < wanted[0, :2].norm()
        assert torch.equal(
            network.hindered(-wanted, last, (around_him, torch.ones(1, 80)), stops, place=2.0)[0, 2], -wanted[0, 2]
        )
        alone = network.hindered(wanted, last, (around_him, torch.zeros(1, 80)), stops, place=2.0)
        assert torch.allclose(alone[0, :2].norm(), wanted[0, :2].norm(), atol=0.15)


def test_a_dream_with_obstacles_goes_on_as_it_was_cut() -> None:
    """Two players together and apart; a dream that was saved; and a network that knows of nothing hinders nobody."""
    config = tiny_world(recall=True).config
    assert config.memory is not None
    torch.manual_seed(0)
    sizes = replace(config.memory, inertia=True, two_step_inertia=True, trail=8, obstacles=True)
    dynamics = replace(config.dynamics, warp=True, aligned=True)
    world = WorldModel(replace(config, memory=sizes, dynamics=dynamics)).eval().requires_grad_(False)
    memory = world.memory
    assert isinstance(memory, FirstPersonMemory)
    geometry = memory.geometry
    assert geometry.obstacles is not None and geometry.motion.free is not None
    torch.nn.init.normal_(geometry.motion.free.weight, std=0.3)  # type: ignore[arg-type]
    frames, actions = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8), torch.rand(2, 9, 4).round()
    start = world.start(frames, actions[:, :5], torch.arange(2))
    recent, episodic = start.memory.recent, start.memory.episodic
    free = steady(geometry, geometry.motion.unhindered(actions[:, 5], recent.past(geometry)))
    lost, steps = recent.blocked_motion(geometry), recent.steps[:, -1]
    assert torch.allclose(lost[:, 0].norm(dim=1), steps[:, :2].norm(dim=1), atol=1e-5)
    # The prompt, read at once, and play, frame by frame, keep the same of a step.
    assert lost[:, 1].any()
    kept, heading = episodic.trail[:, 5, 3:], episodic.pose[:, 2]
    assert torch.allclose(kept, turned(lost[:, 1], -heading), atol=1e-5)
    assert torch.equal(memory.foresee(start.memory, actions[:, 5]).motion, free)
    torch.nn.init.constant_(geometry.obstacles.net[-1].bias, -0.5)  # type: ignore[arg-type]
    assert not torch.equal(memory.foresee(start.memory, actions[:, 5]).motion, free)
    assert_goes_on_as_cut(world, start, actions[:, 5:])


def test_a_prompt_is_placed_by_its_poses() -> None:
    """An aligned network's memory is where the frames were taken; another's is where pictures say."""
    config = tiny_world(recall=True).config
    poses = torch.cumsum(torch.randn(2, 6, 3) * torch.tensor([0.3, 0.3, 0.2]), 1)
    frames, actions = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8), torch.rand(2, 5, 4).round()
    for aligned in (True, False):
        torch.manual_seed(0)
        world = WorldModel(replace(config, dynamics=replace(config.dynamics, aligned=aligned))).eval()
        told, read = (world.start(frames, actions, torch.arange(2), x).memory.episodic for x in (poses, None))
        assert told is not None and read is not None
        assert torch.equal(told.pose, read.pose) != aligned
        if aligned:
            away = poses[:, -1, :2] - poses[:, 0, :2]
            assert torch.allclose(told.pose[:, :2].norm(dim=1), away.norm(dim=1), atol=1e-4)
