"""Memory of worlds that scroll knows where it is: rooms that flip, worlds that one can go round, layers, poses."""

from __future__ import annotations

import torch
from test_scroll_memory import SIZE, dream, prompt, shown
from torch import Tensor

from game_wm.memory.protocol import Prompt
from game_wm.memory.scroll.motion import ScrollConfig
from game_wm.memory.scroll.system import ScrollMemory

HEIGHT, WIDTH = SIZE
WALK = 3  # pixels a frame, of the player in the rooms


def remembering() -> ScrollMemory:
    return ScrollMemory(ScrollConfig(*SIZE, actions=4, slots=512)).requires_grad_(False)


def patches(down: int, across: int, seed: int, side: int = 4) -> Tensor:
    """A ground of coarse patches, uint8 (down, across, 3)."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 256, (down // side, across // side, 3), generator=random)
    return drawn.repeat_interleave(side, 0).repeat_interleave(side, 1).byte()


class Rooms:
    """Three rooms by three, one of which fills the screen, all with the same floor in their middles."""

    def __init__(self) -> None:
        self.rooms = patches(9 * HEIGHT, WIDTH, 0).unflatten(0, (3, 3, HEIGHT)).clone()
        self.rooms[:, :, 8:24, 8:40] = torch.tensor([200, 180, 90], dtype=torch.uint8)
        self.place, self.frames = torch.tensor([HEIGHT + HEIGHT // 2, WIDTH + WIDTH // 2]), list[Tensor]()
        self.show()

    def show(self) -> None:
        row, column = (self.place // torch.tensor(SIZE)).tolist()
        frame, (top, left) = self.rooms[row, column].clone(), (self.place % torch.tensor(SIZE)).tolist()
        frame[max(top - 2, 0) : top + 3, max(left - 2, 0) : left + 3] = torch.tensor([255, 0, 0], dtype=torch.uint8)
        self.frames.append(frame)

    def walk(self, down: int, right: int, frames: int) -> None:
        for _ in range(frames):
            self.place = self.place + torch.tensor([down, right]) * WALK
            self.show()


def test_rooms_that_flip_lie_side_by_side_and_come_back_as_they_were() -> None:
    game = Rooms()
    for down, right, frames in ((0, 1, 16), (1, 0, 11), (0, -1, 16), (-1, 0, 11)):  # round through four rooms
        game.walk(-down, -right, 4)
        game.walk(down, right, frames + 4)
    memory = remembering()
    state = memory.start(prompt(game.frames), None)  # type: ignore[arg-type]
    assert not state.corner.any()
    for step, room in (((0, WIDTH), (1, 2)), ((HEIGHT, 0), (2, 2)), ((0, -WIDTH), (2, 1)), ((-HEIGHT, 0), (1, 1))):
        picture, known = shown(memory, state, step)
        assert known.float().mean() > 0.9 and torch.equal(picture[known], game.rooms[room][known])
        dream(memory, state, picture, step)
    assert not state.corner.any()


def test_a_room_is_known_by_its_looks_however_the_player_came_there() -> None:
    game = Rooms()
    game.walk(0, 0, 10)
    game.walk(0, 1, 16)
    game.walk(0, 0, 5)
    game.place = torch.tensor([HEIGHT + HEIGHT // 2, WIDTH + WIDTH // 2])  # caught: where he began
    game.walk(0, 0, 5)
    memory = remembering()
    assert not memory.start(prompt(game.frames), None).corner.any()  # type: ignore[arg-type]


def test_a_way_back_that_leads_elsewhere_leaves_what_was_there() -> None:
    game = Rooms()
    game.walk(0, -1, 4)
    game.walk(0, 1, 20)
    game.walk(0, -1, 7)
    game.place = game.place - torch.tensor([HEIGHT, WIDTH])  # over the edge, and into another room than he came from
    game.walk(0, -1, 12)
    memory = remembering()
    state = memory.start(prompt(game.frames), None)  # type: ignore[arg-type]
    state.corner = torch.zeros(1, 2)
    picture, known = shown(memory, state)
    assert known.float().mean() > 0.9 and torch.equal(picture[known], game.rooms[1, 1][known])


def test_a_world_that_one_can_go_round_is_known_after_one_round() -> None:
    length = 160
    world = patches(HEIGHT, length, 3).repeat(1, 3, 1)
    memory = remembering()
    frames = [world[:, 2 * t % length :][:, :WIDTH] for t in range((length + 2 * WIDTH) // 2)]
    state = memory.start(prompt(frames), None)  # type: ignore[arg-type]
    assert state.circle[0, 1, 1] == length and state.corner[0, 1] == 2 * (len(frames) - 1) % length
    for t in range(len(frames), len(frames) + length):
        truth = world[:, 2 * t % length :][:, :WIDTH]
        seen, _ = memory.shown(memory.step_to(state, torch.tensor([[0.0, 2.0]])))
        assert torch.equal(seen[0], truth)
        dream(memory, state, seen[0], (0, 2))
    once = [patches(HEIGHT, 600, 4)[:, 2 * t :][:, :WIDTH] for t in range(200)]
    assert memory.start(prompt(once), None).corner.tolist() == [[0, 398]]  # type: ignore[arg-type]


def test_the_same_pattern_again_is_no_round() -> None:
    """A fence, of which one part looks as any other."""
    memory = remembering()
    world = patches(HEIGHT, 24, 5).repeat(1, 25, 1)
    world[:, 300:340], world[:, 500:560] = patches(HEIGHT, 40, 6), patches(HEIGHT, 60, 7)
    frames = [world[:, 2 * t :][:, :WIDTH] for t in range(250)]
    assert memory.start(prompt(frames), None).corner.tolist() == [[0, 498]]  # type: ignore[arg-type]


def test_layers_that_move_at_their_own_speeds_do_no_harm() -> None:
    """What is shown is not further from the next frame than the last frame is."""
    far, near = patches(HEIGHT, 400, 8), patches(HEIGHT, 800, 9)
    gaps = patches(HEIGHT, 800, 10)[..., :1] < 128
    gaps[24:] = False  # the ground; above it, pillars
    places = [2 * t for t in range(90)] + [2 * t for t in range(90, 20, -1)]
    frames = torch.stack(
        [
            torch.where(gaps[:, at : at + WIDTH], far[:, at // 2 : at // 2 + WIDTH], near[:, at : at + WIDTH])
            for at in places
        ]
    )
    memory, off = remembering(), list[Tensor]()
    window = prompt([*frames])
    for t, (_, step) in enumerate(memory.walk(window, frames[None])):
        truth = frames[t + 1].float()
        off.append(torch.stack([(x.float() - truth).square().mean() for x in (memory.shown(step)[0][0], frames[t])]))
    of_view, of_last = torch.stack(off).mean(0)
    assert of_view < of_last


def test_poses_place_a_prompt_where_their_axes_are_known() -> None:
    """Also where pictures do not tell: the sea looks the same everywhere."""
    sizes = ScrollConfig(*SIZE, actions=4, slots=512, axes=(0.0, 1.0, 8.0, 0.0))
    memory, sea = ScrollMemory(sizes), torch.full((1, 5, *SIZE, 3), 90, dtype=torch.uint8)
    poses = torch.tensor([[[5.0, 7.0, 0.0], [5.25, 7, 0], [5.5, 7, 0], [5.5, 4, 0], [9.5, 4, 0]]])
    window = Prompt(torch.zeros(1, 5, 4, 4, 6), torch.zeros(1, 4, 4), sea, poses)
    steps = [step.motion[0].tolist() for _, step in memory.walk(window, sea)]
    assert memory.placed and steps == [[0, 2], [0, 2], [-3, 0], [0, 32]]
    assert memory.start(window, None).corner.tolist() == [[-3, 36]]  # type: ignore[arg-type]
    assert not remembering().placed
