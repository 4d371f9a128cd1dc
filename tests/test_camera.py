"""Drawing a remembered view: it is drawn where it belongs, what hides and what has gone, and holes are filled."""

from __future__ import annotations

import math

import numpy as np
import torch
from tiny import tiny_world

from data_collect.games import make
from game_wm.memory.first_person.camera import Sources, align, carry, draw, draw_pair, rays, surround
from game_wm.memory.first_person.pose import relative
from game_wm.memory.first_person.recent import KEPT, RecentFrames

FOCAL = -1 / math.tan(math.radians(75 / 2))  # the maze's; left is positive in its poses


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


def test_a_turned_view_is_drawn_from_the_frames_around_it() -> None:
    pictures, poses = maze_frames(8)
    sources = relative(poses[4:5].expand(2, 3), poses[[0, 8]])[None]
    far = torch.full((1, 2, 32, 32), 0.002)  # a turn moves all depths alike
    both = torch.ones(1, 2, dtype=torch.bool)
    ((view, known, _),) = draw([Sources(pictures[None, [0, 8]], far, sources, both)], FOCAL)
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
    ((view, known, _),) = draw([nothing], 1.0)
    assert not known.any() and not view.any()
    # Views that are drawn together do not know of each other, whatever their sources and their ways.
    other = Sources(pictures[:, :1], depth[:, :1], torch.zeros(1, 1, 3), there[:, 1:], 2.0, 1.0)
    (view, known, _), (seen, all_of_it, _) = draw([nothing, other], 1.0)
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
        ((view, known, _),) = draw([last.sources(geometry, step)], geometry.focal)
        there = known[0, 32]
        was = ((u + tangent) / (1 - u * tangent) * 32 + 31.5) / 63 * 2 - 1  # in grey levels, along the ramp
        assert there.float().mean() > 0.75 and torch.allclose(view[0, 0, 32][there], was[there], atol=0.02)


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
        believed = believed + align(now, near, Sources(then[:, None], far, source, there), 1.0)
    assert torch.allclose(believed, torch.tensor([[0.1, 0.05]]), atol=0.02)
    assert not align(now, near, Sources(then[:, None], far, source, ~there), 1.0).any()
