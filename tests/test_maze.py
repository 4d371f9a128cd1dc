"""The maze: the same seed is the same game, walls are solid, gems stay taken, surfaces keep their numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_collect.errors import UserError
from data_collect.games.maze import CREATURE_CELL, GEM_CELL, HEADINGS, RADIUS, WALL_CELL, Maze
from data_collect.players.explorer import Explorer


def play(game, seed, actions):
    """Frames, rewards, terminations and poses of an episode."""
    frame, info = game.reset(seed=seed)
    frames, rewards, ends, poses = [frame], [], [], [info["pose"]]
    for action in actions:
        frame, reward, terminated, truncated, info = game.step(action)
        assert not truncated
        frames.append(frame)
        rewards.append(reward)
        ends.append(terminated)
        poses.append(info["pose"])
    return np.stack(frames), np.array(rewards), np.array(ends), np.array(poses)


def random_actions(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (count // 5, 4), dtype=np.uint8).repeat(5, axis=0)


def put(game, x, y, degrees):
    """Place the player and look."""
    game.x, game.y, game.heading = x, y, round(degrees / 360 * HEADINGS) % HEADINGS
    return game.step([0, 0, 0, 0])


def free_cells(game):
    return [(int(x), int(y)) for y, x in np.argwhere(~game.walls)]


def test_same_seed_and_actions_give_the_same_frames():
    actions = random_actions(150)
    first = play(Maze(), 7, actions)
    again = Maze()
    play(again, 3, actions[:20])  # another episode before must not matter
    second = play(again, 7, actions)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[0].shape == (151, 64, 64, 3) and first[0].dtype == np.uint8


def test_seeds_differ_in_plan_and_look():
    one, other = Maze(), Maze()
    one.reset(seed=1)
    other.reset(seed=2)
    assert (one.walls != other.walls).any()
    assert (one.view.hue != other.view.hue).any()


def test_frames_given_are_not_written_to_again():
    game = Maze()
    frame, _ = game.reset(seed=1)
    copy = frame.copy()
    game.step([0, 0, 1, 0])
    np.testing.assert_array_equal(frame, copy)


def test_buttons_turn_walk_and_cancel():
    game = Maze(creatures=0)
    _, info = game.reset(seed=4)
    x, y, angle = info["pose"]
    (x2, y2, turned) = game.step([0, 0, 1, 0])[4]["pose"]
    assert (x2, y2) == (x, y) and math.remainder(turned - angle, 2 * math.pi) == pytest.approx(math.radians(5))
    assert game.step([1, 1, 1, 1])[4]["pose"] == (x, y, turned)
    game.step([0, 0, 0, 1])
    x3, y3, _ = game.step([1, 0, 0, 0])[4]["pose"]
    assert math.hypot(x3 - x, y3 - y) == pytest.approx(0.07)
    assert math.atan2(y3 - y, x3 - x) == pytest.approx(angle, abs=1e-6)
    assert game.step([0, 1, 0, 0])[4]["pose"] == pytest.approx((x, y, angle))


def test_turning_left_moves_the_picture_to_the_right():
    game = Maze(creatures=0, gems=0)
    before, _ = game.reset(seed=4)
    after = game.step([0, 0, 1, 0])[0]
    sky = slice(0, 6)
    shifts = {
        s: np.abs(np.roll(before[sky], s, axis=1)[:, 12:52].astype(int) - after[sky, 12:52]).mean() for s in (-4, 4)
    }
    assert shifts[4] < shifts[-4]


def test_a_full_turn_gives_the_first_frame():
    game = Maze(creatures=0)
    first, _ = game.reset(seed=5)
    for _ in range(HEADINGS):
        last = game.step([0, 0, 1, 0])[0]
    np.testing.assert_array_equal(first, last)


@pytest.mark.parametrize("size", [5, 11, 21])
def test_every_free_cell_can_be_reached_and_the_rim_is_closed(size):
    from data_collect.games.maze import distances

    for seed in range(5):
        game = Maze(size=size, width=16, height=16)
        game.reset(seed=seed)
        walls = game.walls
        assert walls[0].all() and walls[-1].all() and walls[:, 0].all() and walls[:, -1].all()
        far = distances(walls, free_cells(game)[0])
        assert (far[~walls] >= 0).all()
        open_sides = sum(np.roll(~walls, shift, axis) for shift in (-1, 1) for axis in (0, 1))
        assert (open_sides[~walls] >= 2).all()  # braided: no dead ends


@pytest.mark.slow
def test_the_player_never_enters_a_wall():
    game = Maze(creatures=0, width=16, height=16)
    rng = np.random.default_rng(0)
    for seed in range(3):
        game.reset(seed=seed)
        for _ in range(250):
            action = rng.random(4) < (0.8, 0.15, 0.3, 0.3)
            for _ in range(int(rng.integers(1, 12))):
                x, y, _ = game.step(action)[4]["pose"]
                for cy in (int(y) - 1, int(y), int(y) + 1):
                    for cx in (int(x) - 1, int(x), int(x) + 1):
                        if game.walls[cy, cx]:
                            gap = math.hypot(x - min(max(x, cx), cx + 1), y - min(max(y, cy), cy + 1))
                            assert gap > RADIUS - 1e-6


def test_a_gem_is_taken_once():
    game = Maze(creatures=0)
    _, info = game.reset(seed=3)
    gems = int((info["map"] == GEM_CELL).sum())
    assert gems == len(game.gems) >= 5
    x, y = sorted(game.gems)[0]
    _, reward, terminated, _, info = put(game, x + 0.5, y + 0.5, 0)
    assert reward == 1 and not terminated
    assert (info["map"] == GEM_CELL).sum() == gems - 1
    assert game.step([0, 0, 0, 0])[1] == 0


def test_a_gem_is_seen_until_it_is_taken():
    game = Maze(creatures=0, surface=True)
    game.reset(seed=3)
    for x, y in sorted(game.gems):
        for degrees, dx, dy in ((0, -1, 0), (180, 1, 0), (90, 0, -1), (270, 0, 1)):
            if not game.walls[y + dy, x + dx]:
                others = game.gems
                game.put_gems({(x, y)})
                frame, *_, info = put(game, x + 0.5 + dx, y + 0.5 + dy, degrees)
                where = info["surface"] == -1
                assert 20 < where.sum() < 1500
                red, green, _ = frame[where].mean(0)
                assert red > 1.6 * green  # gems are the colour that nothing else has
                game.put_gems(set())
                assert (put(game, x + 0.5 + dx, y + 0.5 + dy, degrees)[4]["surface"] >= 0).all()
                game.put_gems(others)
                break


def test_touching_the_creature_ends_the_episode():
    game = Maze()
    _, info = game.reset(seed=1)
    assert (info["map"] == CREATURE_CELL).sum() == 1
    game.put_gems(set())
    _, reward, terminated, _, _ = put(game, *game.creatures[0].place, 0)
    assert reward == -1 and terminated


@pytest.mark.slow
def test_the_creature_wanders_on_free_cells_and_not_into_a_player_at_rest():
    game = Maze(width=16, height=16)
    for seed in range(3):
        game.reset(seed=seed)
        visited = set()
        for _ in range(1500):
            _, _, terminated, _, _ = game.step([0, 0, 0, 0])
            x, y = game.creatures[0].place
            assert not game.walls[int(y), int(x)]
            visited.add((int(x), int(y)))
            if terminated:
                break
        assert len(visited) > 8 or terminated


def test_map_and_options():
    game = Maze(size=9, creatures=0, gems=2)
    _, info = game.reset(seed=0)
    assert info["map"].shape == (9, 9) and info["map"].dtype == np.uint8
    assert (info["map"] == GEM_CELL).sum() == 2 and (info["map"] == CREATURE_CELL).sum() == 0
    x, y, _ = info["pose"]
    assert info["map"][int(y), int(x)] != WALL_CELL
    assert "surface" not in info
    assert game.render().shape == (64, 64, 3)
    wide = Maze(width=96, height=72, surface=True)
    frame, info = wide.reset(seed=0)
    assert frame.shape == (72, 96, 3) and info["surface"].shape == (72, 96)


@pytest.mark.parametrize("options", [{"size": 10}, {"size": 3}, {"braid": 2.0}, {"creatures": -1}, {"width": 4}])
def test_senseless_options_are_told(options):
    with pytest.raises(UserError, match="maze"):
        Maze(**options)


def test_options_in_the_id():
    from data_collect.games import make

    game = make("maze?size=9&creatures=0&surface=1").unwrapped
    assert (game.size, game.creature_count, game.with_surface) == (9, 0, True)
    with pytest.raises(UserError):
        make("maze?size=big")


def test_surfaces_keep_their_number_and_colour():
    """One patch seen from two near places has one colour; from anywhere, its number means the same face."""
    game = Maze(creatures=0, gems=0, surface=True)
    game.reset(seed=6)
    rng = np.random.default_rng(1)
    difference, chance = [], []
    for x, y in free_cells(game)[::3]:
        degrees = int(rng.integers(72)) * 5
        one, *_, info = put(game, x + 0.5, y + 0.5, degrees)
        ids = info["surface"]
        two, *_, info = put(game, x + 0.42, y + 0.56, degrees + 10)
        means = [
            {i: frame[seen == i].mean(0) for i in np.unique(seen) if (seen == i).sum() >= 24}
            for frame, seen in ((one, ids), (two, info["surface"]))
        ]
        common = sorted(means[0].keys() & means[1].keys())
        assert common
        shuffled = common[1:] + common[:1]
        difference += [np.abs(means[0][i] - means[1][i]).mean() for i in common]
        chance += [np.abs(means[0][i] - means[1][j]).mean() for i, j in zip(common, shuffled, strict=True)]
    assert np.mean(difference) < 8 and np.mean(difference) < 0.35 * np.mean(chance)


def test_walls_in_the_middle_of_the_picture_are_numbered_as_walls():
    game = Maze(creatures=0, gems=0, surface=True)
    game.reset(seed=2)
    faces = game.size**2 * 4 * 8
    for x, y in free_cells(game)[::5]:
        surface = put(game, x + 0.5, y + 0.5, 45)[4]["surface"]
        assert (surface[32] < faces).all() and (surface[32] >= 0).all()
        cells = np.unique(surface[32] // 32)
        assert game.walls.reshape(-1)[cells].mean() > 0.9  # a ray through a corner may name the neighbour
        assert (surface[0] >= 0).all()


def test_stepping_changes_the_picture_smoothly():
    """No shimmer: a frame shifted by nothing is equal, and one small step changes little."""
    game = Maze(creatures=0, gems=0)
    game.reset(seed=8)
    for x, y in free_cells(game)[::6]:
        still = put(game, x + 0.5, y + 0.5, 30)[0].astype(int)
        moved = put(game, x + 0.5004, y + 0.5, 30)[0].astype(int)
        assert np.abs(moved - still).max() < 48 and np.abs(moved - still).mean() < 1.0


def walk(game, seed, frames, wander=False):
    """An explorer's actions, the cell it was in at each frame, and how many gems it took."""
    frame, info = game.reset(seed=seed)
    player = Explorer(game, seed, wander)
    player.reset(game, frame, info)
    actions, cells, taken = [], [], 0
    for _ in range(frames):
        action = player.act(frame, info)
        frame, reward, terminated, _, info = game.step(action)
        actions.append(action)
        cells.append((int(info["pose"][0]), int(info["pose"][1])))
        taken += reward > 0
        if terminated:
            break
    return np.array(actions), cells, taken


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_explorer_covers_the_maze_and_comes_back(seed):
    game = Maze(creatures=0, width=16, height=16)
    actions, cells, taken = walk(game, seed, 3000)
    assert len(set(cells)) >= 0.8 * len(free_cells(game))
    assert taken >= 4
    last: dict[tuple[int, int], int] = {}
    ages = []
    for t, cell in enumerate(cells):
        if cell in last and t - last[cell] > 16:
            ages.append(t - last[cell])
        last[cell] = t
    ages = np.array(ages)
    for low, high in ((17, 64), (65, 256), (257, 1024), (1025, 3000)):
        assert ((ages >= low) & (ages <= high)).any()
    means = actions.mean(0)
    assert 0.5 < means[0] < 0.9 and means[1] > 0.005 and (means[2:] > 0.1).all()
    assert 0.01 < (actions.sum(1) == 0).mean() < 0.3
    assert actions.dtype == np.uint8 and len(np.unique(actions, axis=0)) >= 7


@pytest.mark.slow
def test_the_wanderer_tries_every_button_and_still_gets_about():
    game = Maze(creatures=0, width=16, height=16)
    actions, cells, _ = walk(game, 0, 3000, wander=True)
    assert (actions.mean(0) > 0.1).all() and 0.1 < (actions.sum(1) == 0).mean() < 0.4
    assert len(np.unique(actions, axis=0)) >= 12
    assert len(set(cells)) >= 0.4 * len(free_cells(game))


@pytest.mark.slow
def test_the_explorer_keeps_out_of_the_creatures_way():
    survived = sum(len(walk(Maze(width=16, height=16), seed, 700)[0]) for seed in range(4))
    assert survived > 0.6 * 4 * 700


def test_the_explorer_plays_the_same_way_again():
    first = walk(Maze(width=16, height=16), 5, 400)
    second = walk(Maze(width=16, height=16), 5, 400)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_the_explorer_learns_which_way_left_is():
    class Mirrored(Maze):
        def step(self, action):
            forward, back, left, right = action
            frame, reward, terminated, truncated, info = super().step([forward, back, right, left])
            return frame, reward, terminated, truncated, info

    game = Mirrored(creatures=0, width=16, height=16)
    _, cells, _ = walk(game, 2, 1500)
    assert len(set(cells)) >= 0.4 * len(free_cells(game))


def test_the_explorer_says_what_it_needs():
    game = Maze()
    frame, info = game.reset(seed=0)
    player = Explorer(game, 0)
    with pytest.raises(UserError, match="random"):
        player.reset(game, frame, {"pose": info["pose"]})
