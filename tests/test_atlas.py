"""What is known of a level before play: made from recordings, recalled behind what was seen, kept in a file."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import recorded
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import assert_goes_on_as_cut, tiny_checkpoint, tiny_world

from data_collect import games
from data_collect.errors import UserError
from game_wm.checkpoint import load, save
from game_wm.deadline import Deadline
from game_wm.memory.first_person.atlas import ASTRAY, NAMES, Atlas
from game_wm.memory.first_person.episodic import EpisodicMemory, Places
from game_wm.memory.protocol import NEVER
from game_wm.world import WorldModel
from train.__main__ import main as train
from train.data.spans import Span
from train.first_person.atlas import candidates, check_level, chosen, most_shown, stops, thinned

PLACES = Places(side=2.0, headings=8)


def rooms(count: int = 5, side: int = 64, grid: int = 8) -> Atlas:
    """Smooth pictures along a corridor, three sides of a place apart, and a wall across it behind each."""
    generator = torch.Generator().manual_seed(0)
    small = 255 * torch.rand(count, 3, 4, 4, generator=generator)
    pictures = F.interpolate(small, (side, side), mode="bilinear").to(torch.uint8)
    disparity = 0.2 + 0.3 * torch.rand(count, 4 * grid, 4 * grid, generator=generator)
    x = 6.0 * torch.arange(count)
    ends = torch.stack((x + 1, 0 * x, 0 * x - 0.5, 0 * x), 1)
    return Atlas(pictures, disparity, torch.stack((x, 0 * x, 0 * x), 1), ends)


def world_with(atlas: Atlas | None) -> WorldModel:
    """An aligned world with inertia and obstacles, as Doom's; the same weights with an atlas and without."""
    config = tiny_world(recall=True).config
    assert config.memory is not None
    torch.manual_seed(0)
    memory = replace(config.memory, place=2.0, inertia=True, two_step_inertia=True, trail=8, obstacles=True)
    memory = replace(memory, atlas=atlas is not None)
    world = WorldModel(replace(config, memory=memory, dynamics=replace(config.dynamics, warp=True, aligned=True)))
    for p in world.parameters():
        if not p.detach().abs().sum():
            torch.nn.init.normal_(p, std=0.05)
    if atlas is not None:
        world.memory.geometry.atlas = atlas
    return world.eval().requires_grad_(False)


def prompt(players: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, actions (more than lie between them) and poses, near the third room."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (players, 6, 64, 64, 3), dtype=torch.uint8, generator=generator)
    actions = torch.randint(0, 2, (players, 9, 4), generator=generator).float()
    steps = torch.tensor([0.2, 0.0, 0.1]) * torch.arange(6)[:, None]
    return frames, actions, (torch.tensor([11.0, 0.3, -0.2]) + steps).expand(players, -1, -1).contiguous()


def test_an_atlas_is_recalled_behind_what_was_seen() -> None:
    atlas, memory = rooms(grid=2, side=4), EpisodicMemory.start(2, 64, (3, 4, 4), (8, 8), "cpu", trail=4)
    known = replace(PLACES, atlas=atlas)
    here, now = torch.tensor([[12.0, 0.0, 0.1], [0.0, 0.0, 0.0]]), torch.tensor([50, 50])
    assert not memory.choose(PLACES, here, now, 2)[2].any()
    which, away, there = memory.choose(known, here, now, 2)
    assert there[:, 0].all() and (which[:, 0] - 128).tolist() == [2, 0]
    assert torch.allclose(away[0, 0], torch.tensor([0.0, 0.0, -0.1]), atol=1e-6)
    assert (memory.ages(which, now, atlas) >= NEVER).all()
    pictures, disparity = memory.frames(which, atlas)
    assert torch.equal(pictures[0, 0], atlas.pictures[2]) and torch.equal(disparity[1, 0], atlas.disparity[0].float())
    # What the player himself has seen from nearer comes first.
    shown = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8), atlas.disparity[[2, 0]].float()
    memory.write(PLACES, *shown, here, torch.tensor([10, 10]))
    which, _, _ = memory.choose(known, here, now, 2)
    assert (which[0, 0] < 128) and (memory.frames(which, atlas)[0][0, 0] == 7).all()
    assert memory.ages(which, now, atlas)[0, 0] == 40
    # Surfaces and lines of both.
    memory.pose = here
    assert memory.surfaces(known)[1].sum() > memory.surfaces(PLACES)[1].sum() > 0
    ends, lost = (x[1, 4:] for x in memory.stops(known))
    assert torch.allclose(ends, atlas.stops[:, :2] / 2) and torch.allclose(lost, atlas.stops[:, 2:] / 2)
    turned = EpisodicMemory.start(1, 64, (3, 4, 4), (8, 8), "cpu", trail=4)
    turned.pose = torch.tensor([[12.0, 0.0, math.pi / 2]])
    ends, lost = (x[0, 4 + 2] for x in turned.stops(known))
    assert torch.allclose(ends, torch.tensor([0.0, -0.5]), atol=1e-6)
    assert torch.allclose(lost, torch.tensor([0.0, 0.25]), atol=1e-6)


def test_who_was_there_knows_the_level_and_nobody_else() -> None:
    frames, actions, poses = prompt()
    known, plain = world_with(rooms()), world_with(None)
    told = [world.start(frames, actions[:, :5], torch.arange(2), poses) for world in (known, plain)]
    placed = told[0].memory.episodic
    assert placed is not None and torch.allclose(placed.pose, poses[:, -1], atol=1e-4)
    found = known.inspect(told[0], actions[:, 5])
    assert found is not None and (found.ages >= NEVER).any()
    # Who begins with no pose begins where it shows nothing, and dreams as if there were none.
    lost = [world.start(frames, actions[:, :5], torch.arange(2)) for world in (known, plain)]
    astray = lost[0].memory.episodic
    assert astray is not None and (astray.pose[:, 0] > ASTRAY).all()
    for t in range(5, 9):
        (a, _), (b, _) = (world.step(state, actions[:, t]) for world, state in zip((known, plain), lost, strict=True))
        assert (a.frames.float() - b.frames.float()).abs().max() <= 1
    (a, _), (b, _) = (world.step(state, actions[:, 5]) for world, state in zip((known, plain), told, strict=True))
    assert not torch.equal(a.frames, b.frames)


def test_a_dream_with_an_atlas_goes_on_as_it_was_cut() -> None:
    frames, actions, poses = prompt()
    world = world_with(rooms())
    assert_goes_on_as_cut(world, world.start(frames, actions[:, :5], torch.arange(2), poses), actions[:, 5:])


def test_an_atlas_is_kept_in_the_file(tmp_path: Path) -> None:
    """Poses and lines exactly, pictures and depth as coded; a damaged one is one sentence."""
    atlas, path = rooms(), tmp_path / "known.safetensors"
    made = load(tiny_checkpoint(tmp_path / "tiny.safetensors", recall=True))
    save(path, replace(made, model=world_with(atlas)))
    model = load(path).model
    found = model.memory.geometry.atlas
    assert torch.equal(found.poses, atlas.poses) and torch.equal(found.stops, atlas.stops)
    assert (found.disparity.float() / atlas.disparity.float()).log().abs().max() < 0.02
    assert (found.pictures.float() - atlas.pictures.float()).square().mean() < 5**2
    save(path, replace(made, model=model))  # coded again it is as large
    again = load(path).model.memory.geometry.atlas
    assert torch.equal(again.disparity, found.disparity)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["sha256"]
    for name, value in (
        ("atlas.poses", tensors["atlas.poses"][1:]),
        ("atlas.stops", tensors["atlas.stops"][:, :3]),
        ("atlas.frames", tensors["atlas.frames"][:-9]),
        ("atlas.depths", tensors["atlas.depths"][9:]),
        ("atlas.sizes", tensors["atlas.sizes"][:0]),
    ):
        save_file(tensors | {name: value.contiguous()}, path, metadata)
        with pytest.raises(UserError, match="not a whole game_wm checkpoint"):
            load(path)
    del tensors["atlas.depths"]
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match="not a whole game_wm checkpoint"):
        load(path)


def test_atlas_of_another_size_is_refused() -> None:
    atlas = rooms()
    wrong = {name: getattr(atlas, name) for name in NAMES} | {"poses": atlas.poses[:3]}
    with pytest.raises(ValueError, match="do not fit each other"):
        Atlas.empty().load_state_dict(wrong)
    own = Atlas.empty()
    own.load_state_dict(atlas.state_dict())
    assert torch.equal(own.disparity, atlas.disparity) and torch.equal(own.poses, atlas.poses)
    left = atlas.without(torch.tensor([[6.0, 0.0, 0.0], [13.0, 0.0, 2.0]]))
    assert left.poses[:, 0].tolist() == [0, 12, 18, 24] and left.stops[:, 0].tolist() == [1, 7, 19, 25]
    assert len(left.pictures) == len(left.disparity) == 4


def test_one_after_another_what_shows_most_is_kept() -> None:
    """As by trying all that are left, every time."""
    random = np.random.default_rng(0)
    among, shown = random.integers(12, size=(40, 5)), random.random((40, 5, 3)).astype(np.float32)
    among = np.stack([random.permutation(12)[:5] for _ in range(40)])

    def seen(kept: tuple[int, ...]) -> float:
        best = np.zeros((40, 3))
        for view, row in itertools.product(range(40), range(5)):
            if among[view, row] in kept:
                best[view] = np.maximum(best[view], shown[view, row])
        return float(best.sum())

    kept = most_shown(among, shown, 6)
    for i in range(6):
        gains = {frame: seen((*kept[:i], frame)) for frame in range(12)}
        assert gains[kept[i]] == pytest.approx(max(gains.values()), abs=1e-3)
    assert most_shown(among[:1], shown[:1] * [[[1], [0], [0], [0], [0]]], 6) == [among[0, 0]]  # others show nothing


def test_what_views_show_is_compared_view_by_view() -> None:
    """The choice is that of all views at once."""
    chance = torch.Generator().manual_seed(0)
    disparity, poses, views = (
        torch.rand(n, *shape, generator=chance) for n, shape in ((40, (8, 8)), (40, (3,)), (30, (3,)))
    )
    poses, views = (x * torch.tensor([12.0, 12.0, math.tau]) for x in (poses, views))
    geometry = SimpleNamespace(
        config=SimpleNamespace(place=PLACES.side, headings=PLACES.headings), focal=torch.tensor(1.0)
    )
    memory = EpisodicMemory.start(1, 4, (3, 1, 1), (8, 8), "cpu")
    every = Atlas(torch.zeros(40, 3, 1, 1, dtype=torch.uint8), disparity, poses, torch.zeros(0, 4))
    parts = [memory.shown(replace(PLACES, atlas=every), view[None], torch.zeros(1).long(), 0, 768) for view in views]
    among, shown = (torch.cat([part[i] for part in parts]) for i in (0, 2))
    at_once = most_shown(among.numpy() - memory.times.numel(), shown.half().numpy(), 6)
    assert chosen(disparity, poses, views, geometry, 6, Deadline()) == at_once  # type: ignore[arg-type]
    assert len(at_once) == 6


def test_a_place_gives_the_frame_at_its_middle_and_a_wall_one_step() -> None:
    """Somebody who walks along a corridor of three places and three times on into the wall at its end."""
    x = torch.cat((0.5 * torch.arange(12), torch.full((3,), 5.5)))
    poses = F.pad(x[:, None], (0, 2))
    told = {"actions": torch.zeros(15, 1), "pose": poses}
    store = recorded(told)
    span = Span(0, 0, 15)
    assert [row.start for row in candidates(store, [span], 2.0, 4)] == [2, 6, 10]
    ahead = lambda actions, past: F.pad(torch.full((len(past), 1), 0.5), (0, 2))  # noqa: E731
    motion = SimpleNamespace(unhindered=ahead, pasts=lambda steps, actions: F.pad(steps, (0, 0, 1, 0)))
    geometry = SimpleNamespace(motion=motion, config=SimpleNamespace(place=2.0))
    found = stops(store, [span, Span(0, 0, 3)], geometry)  # type: ignore[arg-type]
    assert torch.allclose(found, torch.tensor([[5.5, 0.0, -0.5, 0.0]]))
    # Another stretch of that wall, and another wall, are others; the same a little aside is not.
    more = torch.tensor([[5.5, 3.0, -0.5, 0.0], [5.5, 0.1, -0.4, 0.01], [5.5, 0.0, 0.5, 0.0]])
    assert torch.equal(thinned(torch.cat((found, more)), 2.0), torch.cat((found, more[[0, 2]])))
    with pytest.raises(UserError, match="every episode of this game has another level"):
        check_level(games.make("maze"))
    always = SimpleNamespace(reset=lambda seed: (None, {"map": np.zeros((2, 2))}))
    check_level(always)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--pictures: must be at least 1"):
        train(["atlas", "--latents", "x", "--geometry", "y", "--out", "z", "--pictures", "0"])
