"""Memory of worlds that scroll: what was seen comes back pixel by pixel, and only the world is remembered."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny import tiny_world
from torch import Tensor

from game_wm.memory.protocol import Frame, Prompt
from game_wm.memory.scroll.mosaic import BLOCK, WAYS, Mosaic, tile_side, unpacked
from game_wm.memory.scroll.motion import ScrollConfig
from game_wm.memory.scroll.registration import observe_steps
from game_wm.memory.scroll.system import ScrollMemory, ScrollState, pixel
from game_wm.state import WorldState

SIZE, EDGE = (32, 48), 400
BOX = torch.tensor([16, 16])
RIGHT, LEFT, UP, DOWN, STAND = (0, 2), (0, -2), (-2, 0), (2, 0), (0, 0)


class Game:
    """A world of coarse patches, a score at the top of the screen, a player in its middle and a beast that runs."""

    def __init__(self, seed: int = 0, sprites: bool = True) -> None:
        self.random = torch.Generator().manual_seed(seed)
        patches = torch.randint(0, 256, (EDGE // 4, EDGE // 4, 3), generator=self.random)
        self.world = patches.repeat_interleave(4, 0).repeat_interleave(4, 1).byte()
        self.corner, self.beast, self.sprites = torch.tensor([180, 180]), torch.tensor([190, 190]), sprites
        self.fixed = torch.zeros(SIZE, dtype=torch.bool)
        self.fixed[:4] = sprites

    def move(self, step: tuple[int, int]) -> Tensor:
        self.corner = self.corner + torch.tensor(step)
        self.beast = self.beast + torch.tensor([0, 3])
        return self.frame()

    def still(self) -> Tensor:
        """The world where the screen is."""
        (row, column), (height, width) = self.corner.tolist(), SIZE
        return self.world[row : row + height, column : column + width].clone()

    def frame(self) -> Tensor:
        frame = self.still()
        if self.sprites:
            row, column = (self.beast - self.corner).clamp_min(0).tolist()
            frame[row : row + 5, column : column + 5] = torch.randint(0, 256, (3,), generator=self.random).byte()
            frame[14:19, 22:27] = torch.tensor([255, 0, 0])
            frame[:4] = torch.arange(SIZE[1])[:, None].byte() * 5
        return frame


def remembering(game: Game, slots: int = 512) -> ScrollMemory:
    config = ScrollConfig(*SIZE, actions=4, slots=slots)
    memory = ScrollMemory(config).requires_grad_(False)
    memory.fixed.copy_(game.fixed)
    return memory


def prompt(frames: list[Tensor]) -> Prompt:
    count = len(frames)
    return Prompt(torch.zeros(1, count, 4, 4, 6), torch.zeros(1, count - 1, 4), torch.stack(frames)[None])


def watch(memory: ScrollMemory, game: Game, steps: list[tuple[int, int]]) -> ScrollState:
    """The state after a prompt in which the screen went these steps."""
    return memory.start(prompt([game.frame(), *(game.move(step) for step in steps)]), None)  # type: ignore[arg-type]


def shown(memory: ScrollMemory, state: ScrollState, step: tuple[int, int] = STAND) -> tuple[Tensor, Tensor]:
    """What memory knows of the screen (H, W, 3) after a step, and where (H, W)."""
    found = unpacked(state.mosaic.read(pixel(state.corner + torch.tensor(step)), SIZE)[0])
    return found[..., :3], found[..., 3] > 0


def dream(memory: ScrollMemory, state: ScrollState, picture: Tensor, step: tuple[int, int]) -> None:
    frame = Frame(torch.zeros(1, 4, 4, 6), picture[None], torch.zeros(1, 4))
    memory.commit(state, taken := memory.step_to(state, torch.tensor([step]).float()), frame)
    memory.store(state, taken)


def test_steps_are_read_off_pictures_with_sprites_and_a_score() -> None:
    game, random = Game(), torch.Generator().manual_seed(1)
    steps = torch.randint(-5, 6, (40, 2), generator=random)
    steps[10], steps[20] = torch.tensor([13, 0]), torch.tensor([-3, -20])  # farther than all steps that are tried
    frames = torch.stack([game.frame(), *(game.move(tuple(step)) for step in steps.tolist())])
    found = observe_steps(frames[:-1], frames[1:], game.fixed)
    assert torch.equal(found.steps, steps) and (found.agreement > 0.5).all()
    larger = frames.repeat_interleave(4, 1).repeat_interleave(4, 2)  # of which not all pixels are compared
    found = observe_steps(larger[:8], larger[1:9], game.fixed.repeat_interleave(4, 0).repeat_interleave(4, 1))
    assert torch.equal(found.steps, 4 * steps[:8])


def test_fractions_of_pixels_do_not_add_up() -> None:
    """A picture of a third of the size, whose screen goes 4/3 of a pixel a frame: there and back is where it began."""
    game, frames = Game(sprites=False), []
    world = game.world.repeat_interleave(3, 0).repeat_interleave(3, 1)
    for t in [*range(60), *range(60, -1, -1)]:
        large = world[30:126, 10 + 4 * t : 154 + 4 * t].float()
        frames.append(large.unflatten(0, (32, 3)).unflatten(2, (48, 3)).mean((1, 3)).round().byte())
    memory = remembering(game)
    half = memory.start(prompt(frames[:61]), None)  # type: ignore[arg-type]
    whole = memory.start(prompt(frames), None)  # type: ignore[arg-type]
    assert abs(half.corner[0, 1] - 80) <= 1 and whole.corner.abs().max() <= 1


def test_what_was_seen_comes_back_as_it_was_and_only_the_world() -> None:
    """The beast leaves no ghosts, the player no trail, and the score is not of the world."""
    game = Game()
    memory = remembering(game)
    state = watch(
        memory, game, [UP] * 2 + [LEFT] * 2 + [RIGHT] * 42 + [DOWN] * 22 + [LEFT] * 40 + [UP] * 20 + [RIGHT] * 4
    )
    picture, known = shown(memory, state)
    assert known[8:].float().mean() > 0.97
    known[14:27, 14:27] = False  # the player, and where it has been just now
    assert torch.equal(picture[known], game.still()[known])
    assert state.corner.tolist() == [[0, 8]] and torch.equal(state.picture[0], game.frame())


def test_in_a_dream_there_and_back_is_the_same_pixels() -> None:
    """Whatever the dream drew on the way: what looks alike keeps its first value."""
    game = Game(sprites=False)
    memory = remembering(game)
    state = watch(memory, game, [LEFT] * 2 + [RIGHT] * 30 + [LEFT] * 28)
    before, known = shown(memory, state)
    noise = torch.Generator().manual_seed(0)
    for step in [RIGHT] * 25 + [STAND] * 5 + [LEFT] * 25:
        drawn = game.move(step).short() + torch.randint(-9, 10, (*SIZE, 3), generator=noise)
        dream(memory, state, drawn.clamp(0, 255).byte(), step)
    after, still = shown(memory, state)
    assert known.all() and still.all() and torch.equal(before, after)


def test_what_has_changed_is_remembered_as_it_is_now() -> None:
    game = Game(sprites=False)
    memory = remembering(game)
    state = watch(memory, game, [LEFT] * 4 + [RIGHT] * 10 + [LEFT] * 6)
    row, column = (game.corner + BOX).tolist()
    game.world[row : row + 6, column : column + 6] = torch.tensor([9, 200, 9], dtype=torch.uint8)
    for step in [RIGHT] * 4 + [LEFT] * 4:  # it must be seen for some steps
        dream(memory, state, game.move(step), step)
    picture, known = shown(memory, state)
    assert known.all() and torch.equal(picture, game.still())


def test_where_the_screen_stands_still_a_room_is_learnt_slowly() -> None:
    game = Game(sprites=False)
    memory = remembering(game)
    assert not shown(memory, watch(memory, game, [STAND] * 4))[1].any()
    assert shown(memory, watch(memory, game, [STAND] * 12))[1].all()


def test_another_place_does_not_write_over_this_one() -> None:
    game, other = Game(0, sprites=False), Game(1, sprites=False)
    memory = remembering(game)
    frames = [game.frame(), *(game.move(RIGHT) for _ in range(10)), *(other.move(RIGHT) for _ in range(10))]
    state = memory.start(prompt(frames), None)  # type: ignore[arg-type]
    first = replace(state, corner=torch.tensor([[0.0, 20.0]]))
    for each, seen in ((game, first), (other, state)):
        picture, known = shown(memory, seen)
        assert known[:, :40].all() and torch.equal(picture[known], each.still()[known])


def test_the_mosaic_is_bounded_and_forgets_the_tiles_visited_longest_ago() -> None:
    size, now = (64, 64), torch.zeros(2, dtype=torch.long)
    mosaic = Mosaic.start(2, WAYS * BLOCK**2, size, torch.device("cpu"))
    screens = torch.randint(1, 256, (6, 2, *size), dtype=torch.int32)
    places = [torch.tensor([[7, 1000 * i], [-500 * i, 3]]) for i in range(6)]
    nbytes = mosaic.pixels.nbytes
    for i, (place, screen) in enumerate(zip(places, screens, strict=True)):
        mosaic.write(mosaic.find(place, size), screen, now + i)
        assert torch.equal(mosaic.read(place, size), screen)  # tiles of one screen never take each other's slots
    assert mosaic.pixels.nbytes == nbytes
    assert torch.equal(mosaic.read(places[5], size), screens[5]) and mosaic.last_visit(places[5], size).tolist() == [
        5,
        5,
    ]
    assert not torch.equal(mosaic.read(places[0], size), screens[0])
    assert tile_side(64, 64) == 16 and tile_side(160, 210) == 32


def test_two_players_remember_as_each_alone() -> None:
    games = Game(0), Game(1)
    memory = remembering(games[0])
    paths = [RIGHT] * 12 + [LEFT] * 6, [LEFT, RIGHT, RIGHT] * 6
    apart = [
        prompt([game.frame(), *(game.move(step) for step in path)]) for game, path in zip(games, paths, strict=True)
    ]
    both = memory.start(Prompt(*(torch.cat(x) for x in zip(*(each[:3] for each in apart)))), None)  # type: ignore
    for player, each in enumerate(apart):
        alone = memory.start(each, None)  # type: ignore[arg-type]
        one, other = (WorldState(None, x.count, x).to_dict() for x in (alone, both))  # type: ignore[arg-type]
        assert all(torch.equal(value[0], other[name][player]) for name, value in one.items())


def test_it_plays_and_goes_on_from_a_saved_state() -> None:
    world = tiny_world(scroll=True)
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 20, 4).round()
    state = world.start_latents(latents, actions[:, :11], torch.arange(2))
    again, size = WorldState.from_dict({k: v.clone() for k, v in state.to_dict().items()}), state.nbytes
    for t in range(11, 20):
        frames = [world.step(each, actions[:, t])[0].frames for each in (state, again)]
        assert torch.equal(*frames)
    assert state.memory.corner.any() and state.nbytes == size and state.memory.count.tolist() == [21, 21]
    looked = world.inspect(state, actions[:, -1], player=1)
    assert looked is not None and looked.view.shape == (64, 64, 3)
    assert len(looked.pictures) == len(looked.ages) == len(looked.trail)


def test_the_view_is_the_mosaic_over_the_last_frame_and_the_screen_keeps_its_own_parts() -> None:
    game = Game(sprites=False)
    memory = remembering(game)
    state = watch(memory, game, [RIGHT] * 8 + [LEFT] * 3)
    picture, known = memory.shown(memory.step_to(state, torch.tensor([[0.0, -2.0]])))
    game.move(LEFT)
    assert known.all() and torch.equal(picture[0], game.frame())
    empty = watch(memory, game, [])
    picture, known = memory.shown(memory.step_to(empty, torch.tensor([[0.0, 2.0]])))
    assert torch.equal(picture[0, :, :-2][~game.fixed[:, :-2]], game.frame()[:, 2:][~game.fixed[:, :-2]])
    assert torch.equal(picture[0][game.fixed], game.frame()[game.fixed]) and not known[0, -1, -2:].any()


def test_the_score_is_not_covered_by_the_world_that_was_seen_there() -> None:
    game = Game()
    memory = remembering(game)
    state = watch(memory, game, [UP] * 8 + [DOWN] * 8)
    picture, _ = memory.shown(memory.step_to(state, torch.tensor([[-2.0, 0.0]])))
    last = state.picture[0]
    assert shown(memory, state, UP)[1][:4].all() and torch.equal(picture[0][game.fixed], last[game.fixed])
    picture, _ = memory.shown(memory.step_to(state, torch.tensor([[0.0, 0.0]])))
    assert torch.equal(picture[0], last)  # with the sprites


def test_a_recording_renews_what_is_remembered_and_a_dream_does_not() -> None:
    game = Game(sprites=False)
    memory, frames = remembering(game), [game.frame(), *(game.move(RIGHT) for _ in range(8))]
    darker = [(frame.float() * (1 - 0.02 * i)).byte() for i, frame in enumerate(frames)]
    state = memory.start(prompt(darker), None)  # type: ignore[arg-type]
    picture, known = shown(memory, state)
    assert torch.equal(picture[known], darker[-1][known])
    dream(memory, state, (darker[-1].float() * 0.98).byte(), STAND)
    assert torch.equal(shown(memory, state)[0][known], darker[-1][known])


def test_a_picture_has_the_pixels_that_are_remembered_where_its_latent_is_the_views() -> None:
    world, game = tiny_world(scroll=True), Game(sprites=False)
    frames = torch.stack([game.frame(), *(game.move(step) for step in [RIGHT] * 8 + [LEFT] * 3)])[None]
    sized = torch.nn.functional.pad(frames, (0, 0, 0, 16, 0, 32))
    memory, tokenizer = world.memory, world.tokenizer
    state = memory.start(Prompt(tokenizer.encode(sized[0])[None], torch.zeros(1, 11, 4), sized), tokenizer)
    step = memory.step_to(state, torch.tensor([[0.0, -2.0]]))
    views, (shown, known) = memory.views(state, step, tokenizer), memory.shown(step)
    latent, drawn = views[:, :4].clone(), torch.zeros_like(shown)
    latent[0, :, 0, 0] += 1  # something else is there
    restored = memory.restore(state, step, views, latent, drawn)
    cell = 64 // latent.shape[-1]
    whole = known.unfold(1, cell, cell).unfold(2, cell, cell).all(-1).all(-1)
    whole[0, 0, 0] = False
    at = whole.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    assert at.float().mean() > 0.5
    assert torch.equal(restored[at], shown[at]) and not restored[~at].any()
