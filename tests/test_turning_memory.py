"""Memory of worlds that turn below the screen, as below a car: what was seen comes back, at any angle."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_world
from torch import Tensor

from game_wm.memory.protocol import Frame, Prompt
from game_wm.memory.scroll.alignment import align, observe_turns
from game_wm.memory.scroll.motion import TurningConfig, TurningMotion
from game_wm.memory.scroll.plane import Grid, moved, seen_from, step_between
from game_wm.memory.scroll.turning import TurningMemory, TurningState
from game_wm.state import WorldState
from train.scroll.fixed import corners, fixed_pixels
from train.scroll.motion import learn_motion, recorded_steps, share_right

SIZE, EDGE, ASPECT = (48, 64), 512, 1.25
SCREEN = Grid(*SIZE, ASPECT)
BAR, PLAYER = (slice(44, 48), slice(None)), (slice(28, 34), slice(30, 34))


def ground(seed: int) -> Tensor:
    """A smooth ground with patches of clear colours, float (1, 3, EDGE, EDGE)."""
    random = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(1, 3, 64, 64, generator=random) * 120, size=EDGE, mode="bicubic")
    patches = F.interpolate(torch.rand(1, 3, 32, 32, generator=random) * 130, size=EDGE, mode="nearest")
    return (smooth + patches).clamp(0, 255)


class Drive(NamedTuple):
    """Pictures uint8 (T, H, W, 3), the `steps` (T - 1, 3) between them, and the `places` (T, 3)."""

    frames: Tensor
    steps: Tensor
    places: Tensor


def drive(steps: list[tuple[float, float, float]], seed: int = 0, sprites: bool = True) -> Drive:
    """Over a ground; the player stands on the screen, and below him is a bar that counts."""
    world, places = ground(seed), [torch.zeros(1, 3)]
    for step in steps:
        places.append(moved(places[-1], torch.tensor([step])))
    frames = []
    for t, place in enumerate(places):
        seen = seen_from(world, place, Grid(EDGE, EDGE), SCREEN)[0].round().byte().movedim(0, 2).clone()
        if sprites:
            seen[PLAYER] = torch.tensor([250, 20, 20], dtype=torch.uint8)
            seen[BAR] = 0
            seen[45:47, 2 : 2 + t % 20] = 255
        frames.append(seen)
    return Drive(torch.stack(frames), torch.tensor(steps).view(-1, 3), torch.cat(places))


def a_round(frames: int = 60) -> list[tuple[float, float, float]]:
    """A circle that ends where it began."""
    return [(-2.5, 0.5, 360 / frames)] * frames


def own_parts() -> Tensor:
    fixed = torch.zeros(SIZE, dtype=torch.bool)
    fixed[BAR] = fixed[PLAYER] = True
    return fixed


def remembering() -> TurningMemory:
    memory = TurningMemory(TurningConfig(*SIZE, actions=2, slots=2048, hidden=16, aspect=ASPECT)).requires_grad_(False)
    memory.fixed.copy_(own_parts())
    return memory


def prompt(frames: Tensor) -> Prompt:
    count = len(frames)
    return Prompt(torch.zeros(1, count, 4, 6, 8), torch.zeros(1, count - 1, 2), frames[None])


def watch(memory: TurningMemory, frames: Tensor) -> TurningState:
    return memory.start(prompt(frames), None)  # type: ignore[arg-type,return-value]


def psnr(one: Tensor, other: Tensor, where: Tensor) -> float:
    return float(-10 * torch.log10(((one.float() - other.float()) / 255)[where].square().mean()))


def dream(memory: TurningMemory, state: TurningState, picture: Tensor, step: Tensor) -> None:
    taken = memory.step_to(state, step[None])
    memory.commit(state, taken, Frame(torch.zeros(1, 4, 6, 8), picture[None], torch.zeros(1, 2)))
    memory.store(state, taken)


def test_a_step_leads_from_one_place_to_the_other() -> None:
    places = torch.tensor([[3.0, -4.0, 170.0], [0.5, 9.0, -20.0]])
    step = torch.tensor([[-2.0, 1.0, 30.0], [4.0, 0.0, -3.0]])
    there = moved(places, step)
    assert there[0, 2] == -160 and torch.allclose(step_between(places, there), step, atol=1e-5)


def test_steps_are_read_off_pictures_to_a_fraction_of_a_pixel_and_of_a_degree() -> None:
    random = torch.Generator().manual_seed(1)
    steps = ((torch.rand(24, 3, generator=random) - 0.5) * torch.tensor([12.0, 8.0, 30.0])).tolist()
    seen = drive([(a, b, c) for a, b, c in steps])
    found = observe_turns(seen.frames[:-1], seen.frames[1:], own_parts(), ASPECT)
    off = (found.places - seen.steps).abs()
    assert (off < torch.tensor([0.25, 0.25, 0.5])).all() and off.mean() < 0.06 and (found.agreement > 0.9).all()
    other = observe_turns(seen.frames[:-1], seen.frames[1:], own_parts(), 1.0)
    assert found.off.sum() < 0.8 * other.off.sum()  # pixels that are not square turn otherwise


def test_a_place_is_put_right_by_what_is_known() -> None:
    seen, square = drive([(3.0, 2.0, 5.0)]), Grid(EDGE, EDGE)
    source = F.pad(ground(0), (0, 0, 0, 0, 0, 1), value=1.0)
    start = seen.places[1:] + torch.tensor([[0.8, -0.6, 1.0]])
    found = align(source, seen.frames[1:], own_parts(), start, square, SCREEN, blurred=0)
    assert torch.allclose(found.places, seen.places[1:], atol=0.05)
    unknown = align(source * 0, seen.frames[1:], own_parts(), start, square, SCREEN)
    assert torch.equal(unknown.places, start)


def test_after_a_round_the_view_is_what_was_seen_and_the_player_leaves_no_ghosts() -> None:
    memory, seen = remembering(), drive(a_round() + a_round()[:30])
    state = watch(memory, seen.frames)
    assert (state.corner - seen.places[-1]).abs().max() < 0.6
    ahead = drive(a_round() + a_round()[:31])
    step = memory.step_to(state, ahead.steps[-1:])
    picture, known = memory.shown(step)
    assert known.float().mean() > 0.97 and psnr(picture[0], ahead.frames[-1], ~own_parts()) > 27
    bare, still = drive(a_round() + a_round()[:31], sprites=False), ~own_parts()
    assert psnr(picture[0], bare.frames[-1], still) > 27 and (step.known[0][still] != 0).float().mean() > 0.9
    assert torch.equal(picture[0][own_parts()], state.picture[0][own_parts()])


def test_in_a_dream_what_agrees_changes_nothing() -> None:
    """Round and round on what is shown: a copy of a copy is no worse."""
    memory, seen = remembering(), drive(a_round() + a_round()[:10])
    state = watch(memory, seen.frames)
    place, before = state.corner.clone(), state.mosaic.pixels.clone()
    for _ in range(3):
        for step in torch.tensor(a_round(30)):
            half = step * torch.tensor([0.5, 0.5, 1.0])
            picture, _ = memory.shown(memory.step_to(state, half[None]))
            dream(memory, state, picture[0], half)
        for step in torch.tensor(a_round(30)).flip(0):
            half = step * torch.tensor([0.5, 0.5, 1.0])
            back = step_between(half[None], torch.zeros(1, 3))[0]
            picture, _ = memory.shown(memory.step_to(state, back[None]))
            dream(memory, state, picture[0], back)
    assert (state.corner - place).abs().max() < 0.01
    there = before != 0
    assert (state.mosaic.pixels[there] == before[there]).float().mean() > 0.99


def test_two_players_remember_as_each_alone_and_a_state_is_saved_and_split() -> None:
    memory = remembering()
    seen = [drive(a_round()[:12], 0), drive([(-1.0, 0.0, -4.0)] * 12, 1)]
    apart = [prompt(each.frames) for each in seen]
    both = memory.start(Prompt(*(torch.cat(x) for x in zip(*(each[:3] for each in apart), strict=True))), None)  # type: ignore
    for player, each in enumerate(apart):
        alone = memory.start(each, None)  # type: ignore[arg-type]
        one, other = (WorldState(None, x.count, x).to_dict() for x in (alone, both))  # type: ignore[arg-type]
        assert "memory.turning.corner" in one
        assert all(torch.allclose(value[0].float(), other[name][player].float(), atol=2) for name, value in one.items())
        assert torch.allclose(one["memory.turning.corner"][0], other["memory.turning.corner"][player], atol=1e-3)


def test_it_plays_and_goes_on_from_a_saved_state() -> None:
    world = tiny_world(turning=True)
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 20, 4).round()
    state = world.start_latents(latents, actions[:, :11], torch.arange(2))
    again, size = WorldState.from_dict({k: v.clone() for k, v in state.to_dict().items()}), state.nbytes
    for t in range(11, 20):
        frames = [world.step(each, actions[:, t])[0].frames for each in (state, again)]
        assert torch.equal(*frames)
    assert isinstance(world.memory, TurningMemory) and state.memory.corner[:, 2].any() and state.nbytes == size
    looked = world.inspect(state, actions[:, -1], player=1)
    assert looked is not None and looked.view.shape == (64, 64, 3) and looked.pictures.shape[1:] == (64, 64, 3)


@pytest.mark.slow
def test_the_screens_own_parts_are_found_while_the_world_turns() -> None:
    seen = drive([(-1.5, 0.0, 4.0 * (-1) ** (t // 25)) for t in range(200)])
    found = fixed_pixels([seen.frames], [corners(seen.steps)], ASPECT)
    own = own_parts()
    assert found[PLAYER].float().mean() > 0.9 and found[44].all() and found[~own].float().mean() < 0.03


@pytest.mark.slow
def test_how_a_car_drives_is_learnt() -> None:
    """From the actions and the steps before: a fraction of a pixel and of a degree, and who stands stays standing."""
    random, steps, actions = torch.Generator().manual_seed(0), [torch.zeros(3)], list[Tensor]()
    for t in range(600):
        if t % 12 == 0:
            action = torch.randint(0, 2, (2,), generator=random).float()
        actions.append(action)
        speed = 0.9 * steps[-1][0] - 0.4 * action[0]
        steps.append(torch.stack((speed, torch.zeros(()), speed * (action[1] - 0.5) * 2)))
    taken = torch.stack(steps[1:])
    pictures = torch.zeros(len(taken), *SIZE, 3, dtype=torch.uint8)
    recorded = recorded_steps(pictures, torch.stack(actions), taken)
    motion = TurningMotion(TurningConfig(*SIZE, actions=2, hidden=16))
    learn_motion(motion, recorded, 300)
    found = motion.predict_step(*recorded.seen(torch.arange(len(recorded.steps))))
    assert share_right(motion, recorded) > 0.93 and (found - recorded.steps).abs().mean() < 0.12
    assert torch.equal((found * 16).round(), found * 16) and math.isfinite(float(found.sum()))
