"""The isles: the same seed is the same world, the picture scrolls as the pose says, what was taken or pushed stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_collect import players
from data_collect.errors import UserError
from data_collect.games import make
from data_collect.games.isles.env import CRATE_MARK, CRATE_TILE, GEM_MARK, GEM_TILE, HALF, MOVING, RUN, Isles
from data_collect.games.isles.sprites import BAR
from data_collect.games.isles.world import TILE
from data_collect.recording.record import record
from data_collect.shards.verify import verify

LEFT, RIGHT, UP, DOWN, NONE = (1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 0)


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((count // 6, 5)) < 0.4).repeat(6, 0)


def walk(game: Isles, name: str, seed: int, frames: int) -> list[dict[str, Any]]:
    """A player's steps: action, frame, reward and info of each."""
    frame, info = game.reset(seed=seed)
    player = players.make(name, game, seed)
    player.reset(game, frame, info)
    steps = []
    for _ in range(frames):
        action = player.act(frame, info)
        frame, reward, terminated, _, info = game.step(action)
        steps.append({"action": action, "frame": frame, "reward": reward, **info})
        if terminated:
            break
    return steps


def put(game: Isles, x: int, y: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Place the player and look."""
    game.x, game.y = x, y
    return game.step(NONE)


def ways_to(game: Isles, x: int, y: int) -> list[tuple[int, int]]:
    """Steps across and along, by which a free square of three tiles leads to the tile of this pixel."""
    tiles = game.plan.solid
    found = []
    for across, along in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        cells = [(y // TILE - i * along, x // TILE - i * across) for i in (1, 2, 3)]
        found += [(across, along)] if not any(tiles[cell] for cell in cells) else []
    return found


def test_same_seed_and_actions_give_the_same_frames() -> None:
    def play(game: Isles) -> list[Any]:
        first, info = game.reset(seed=7)
        steps = [game.step(action) for action in random_actions(150)]
        return [first, *(s[0] for s in steps)], [s[1:3] for s in steps], [info["pose"], *(s[4]["pose"] for s in steps)]

    other = Isles()
    other.reset(seed=3)
    for action in random_actions(30, 1):  # what was played before leaves no trace
        other.step(action)
    one, two = play(Isles()), play(other)
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:] == two[1:]
    assert one[0][0].shape == (64, 64, 3) and one[0][0].dtype == np.uint8


def test_frames_given_are_not_written_to_again() -> None:
    game = Isles(surface=True)
    frame, info = game.reset(seed=1)
    kept = frame.copy(), info["surface"].copy(), info["map"].copy()
    for action in random_actions(60):
        game.step(action)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (frame, info["surface"], info["map"])))


def test_the_picture_scrolls_by_whole_pixels_as_the_pose_says_and_pixels_keep_their_numbers() -> None:
    game = Isles(surface=True)
    seen = np.full((1024, 1024, 4), -1)
    before, again = None, 0
    for step in walk(game, "explorer", 4, 500):
        x, y, angle = step["pose"]
        assert angle == 0 and x == int(x) and y == int(y)
        assert before is None or max(abs(x - before[0]), abs(y - before[1])) <= RUN
        before = x, y
        top, left = int(y) - (64 - BAR) // 2, int(x) - 32
        there, surface = seen[top : top + 64 - BAR, left : left + 64], step["surface"][BAR:]
        now = np.concatenate((step["frame"][BAR:], surface[..., None]), -1)
        known = (there[..., 0] >= 0) & (surface >= 0)
        assert (there[known] == now[known]).all()
        again += int(known.sum())
        there[surface >= 0] = now[surface >= 0]
    rows, columns = np.nonzero(seen[..., 3] >= 0)
    assert again > 10**6 and len(rows) > 4 * 64 * 56
    assert len(np.unique(seen[rows, columns, 3])) == len(rows)  # each pixel of the world has its own


def test_the_world_is_larger_than_forty_pictures_and_all_of_it_is_joined() -> None:
    for seed in range(6):
        game = Isles()
        game.reset(seed=seed)
        rows, columns = np.nonzero(game.plan.land)
        assert np.ptp(rows) * np.ptp(columns) * TILE**2 > 40 * 64 * 64
        assert game.plan.reached.sum() > 0.9 * (~game.plan.solid).sum()


def test_no_two_landmarks_or_worlds_are_alike() -> None:
    pictures = []
    for seed in range(4):
        game = Isles()
        game.reset(seed=seed)
        pictures += [
            game.world[m.top * TILE : (m.top + m.rows) * TILE, m.left * TILE : (m.left + m.columns) * TILE].tobytes()
            for m in game.plan.landmarks
        ]
    assert len(pictures) > 600 and len(set(pictures)) > 0.99 * len(pictures)


def test_water_and_walls_stop_the_player() -> None:
    game = Isles(width=16, height=16, crates=0)
    game.reset(seed=2)
    held_up = 0
    for action in random_actions(3000):
        before = game.x, game.y
        game.step(action)
        square = game.plan.solid[
            (game.y - HALF) // TILE : (game.y + HALF - 1) // TILE + 1,
            (game.x - HALF) // TILE : (game.x + HALF - 1) // TILE + 1,
        ]
        assert not square.any()
        held_up += (game.x, game.y) == before and action[0] != action[1]
    assert held_up > 20


def test_buttons_walk_run_and_cancel() -> None:
    game = Isles()
    _, info = game.reset(seed=1)
    x, y, _ = info["pose"]
    moves = {LEFT: (-2, 0), DOWN: (0, 2), (1, 0, 1, 0, 1): (-4, -4), (1, 1, 1, 1, 1): (0, 0), (0, 0, 0, 0, 1): (0, 0)}
    for action, (across, along) in moves.items():
        put(game, int(x), int(y))
        assert game.step(action)[4]["pose"] == (x + across, y + along, 0)


def test_a_gem_is_taken_once_counted_and_gone_for_good() -> None:
    game = Isles(surface=True, creatures=0, crates=0)
    frame, info = game.reset(seed=3)
    bar, count = frame[:BAR].copy(), int((info["map"] == GEM_TILE).sum())
    assert count == game.items > 40
    x, y = (int(n) for n in game.gems[0])
    across, along = ways_to(game, x, y)[0]
    frame, _, _, _, info = put(game, x - 12 * across, y - 12 * along)
    assert (info["surface"] == GEM_MARK).sum() > 20 and (frame[info["surface"] == GEM_MARK] == (255, 40, 132)).any()
    assert np.array_equal(frame[:BAR], bar) and (info["surface"][:BAR] == MOVING).all()
    frame, reward, terminated, _, info = put(game, x, y)
    assert reward == 1 and not terminated and (info["map"] == GEM_TILE).sum() == count - 1
    assert not np.array_equal(frame[:BAR], bar)
    assert game.step(NONE)[1] == 0
    put(game, *(n * TILE + 4 for n in game.plan.start[::-1]))
    frame, _, _, _, info = put(game, x - 12 * across, y - 12 * along)
    assert (info["surface"][BAR + 24 : BAR + 32, 28:36] != GEM_MARK).all()
    assert info["map"][y // TILE, x // TILE] == 0


def test_the_last_gem_ends_the_episode() -> None:
    game = Isles(items=2)
    game.reset(seed=3)
    ends = [put(game, *(int(n) for n in game.gems[0]))[2] for _ in range(2)]
    assert ends == [False, True]


def test_a_crate_is_pushed_stays_and_cannot_be_pulled_or_pushed_through_a_wall() -> None:
    game = Isles(surface=True, creatures=0)
    _, info = game.reset(seed=5)
    assert (info["map"] == CRATE_TILE).sum() == len(game.crates) == 24
    x, y = game.crates[0]
    put(game, x - HALF, y + 4)  # to the left of it, touching
    assert game.crates[0] == (x, y)
    *_, info = game.step(RIGHT)
    assert game.crates[0] == (x + 2, y) and info["pose"][0] == x - HALF + 2
    assert (info["surface"] == CRATE_MARK).sum() > 48
    game.step(LEFT)
    assert game.crates[0] == (x + 2, y)
    for _ in range(400):
        game.step(RIGHT)
    far, _ = game.crates[0]
    assert far > x + 2 and not game.plan.solid[y // TILE, far // TILE]
    others = {i: crate for i, crate in enumerate(game.crates) if i}
    beside = (far + TILE) // TILE
    stopped = game.plan.solid[y // TILE : (y + TILE - 1) // TILE + 1, beside].any()
    assert stopped or any(game._meets(far + 1, y, TILE) != [0] for _ in others)
    put(game, *(n * TILE + 4 for n in game.plan.start[::-1]))
    assert put(game, far - TILE, y + 4)[4]["map"][y // TILE, far // TILE] == CRATE_TILE


def test_creatures_move_by_themselves_on_land_and_do_no_harm() -> None:
    game = Isles(surface=True)
    game.reset(seed=1)
    first = game.creatures.copy()
    for _ in range(300):
        _, reward, terminated, _, _ = game.step(NONE)
        assert reward == 0 and not terminated
    assert (game.creatures != first).any(1).mean() > 0.8
    assert not game.plan.solid[game.creatures[:, 1] // TILE, game.creatures[:, 0] // TILE].any()
    x, y = (int(n) for n in game.creatures[0])
    assert (put(game, x + 16, y + 4)[4]["surface"][BAR:] == MOVING).sum() > 60


def test_sizes_and_options() -> None:
    frame, info = make("isles?width=96&height=80&size=40&surface=1&crates=0").reset(seed=0)
    assert frame.shape == (80, 96, 3) and info["surface"].shape == (80, 96)
    assert info["surface"][BAR + 36, 48] == MOVING  # the player, in the middle below the bar
    assert (info["map"] == CRATE_TILE).sum() == 0
    row, column = (int(n) for n in info["map_pose"][1::-1])
    assert info["map"][row, column] != 1
    assert "surface" not in make("isles").reset(seed=0)[1]


@pytest.mark.parametrize("options", [{"size": 8}, {"items": 0}, {"crates": -1}, {"width": 4}, {"height": "big"}])
def test_senseless_options_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"isles: {next(iter(options))}"):
        Isles(**options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_explorer_goes_far_comes_back_takes_and_pushes(seed: int) -> None:
    game = Isles(width=16, height=16)
    steps = walk(game, "explorer", seed, 4000)
    first = walk(game, "explorer", seed, 1)[0]["map"] == CRATE_TILE
    assert len(steps) == 4000
    last: dict[tuple[int, int], int] = {}
    ages = []
    for t, step in enumerate(steps):
        place = int(step["pose"][0]) // 16, int(step["pose"][1]) // 16
        if t - last.get(place, t) > 16:
            ages.append(t - last[place])
        last[place] = t
    assert len(last) > 100
    for low, high in ((17, 64), (65, 256), (257, 1024), (1025, 4000)):
        assert sum(low <= age <= high for age in ages) > 5
    assert sum(step["reward"] for step in steps) > 8
    assert (first != (steps[-1]["map"] == CRATE_TILE)).sum() > 4
    actions = np.array([step["action"] for step in steps])
    assert (actions.mean(0) > 0.1).all() and 0.01 < (actions.sum(1) == 0).mean() < 0.3


@pytest.mark.slow
def test_the_wanderer_tries_every_button_and_still_gets_about() -> None:
    steps = walk(Isles(width=16, height=16), "wanderer", 0, 3000)
    actions = np.array([step["action"] for step in steps])
    assert (actions.mean(0) > 0.1).all() and 0.1 < (actions.sum(1) == 0).mean() < 0.5
    assert len(np.unique(actions, axis=0)) >= 24
    assert len({(int(s["pose"][0]) // 16, int(s["pose"][1]) // 16) for s in steps}) > 60


def test_the_explorer_plays_the_same_way_again_and_says_what_it_needs() -> None:
    one, two = (walk(Isles(width=16, height=16), "explorer", 5, 400) for _ in range(2))
    assert all(np.array_equal(a["action"], b["action"]) and a["pose"] == b["pose"] for a, b in zip(one, two))
    game = Isles()
    frame, info = game.reset(seed=0)
    with pytest.raises(UserError, match="random"):
        players.make("explorer", game).reset(game, frame, {"pose": info["pose"]})


@pytest.mark.slow
def test_a_recording_is_played_again_frame_by_frame(tmp_path: Path) -> None:
    record(tmp_path / "isles", "isles?size=32", "explorer", 300)
    assert "1 episodes replayed exactly" in verify(tmp_path / "isles")
