"""The camera of a recording is named: of games as they are recorded, and of pictures that stand in for others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.memory.scroll.registration import shifted
from train.__main__ import main
from train.camera.evidence import evidence, look

pytestmark = pytest.mark.slow

SMALL = "width=64&height=64"
GAMES = {
    "maze": ("maze", "explorer", "first person"),
    "doom": (f"doom?scenario=deathmatch&{SMALL}", "explorer", "first person"),
    "isles": ("isles", "explorer", "scrolls"),
    "scroll": ("scroll", "random", "scrolls"),
    "side": ("scroll?view=side", "random", "scrolls"),
    "car": (f"gym:CarRacing-v3?{SMALL}", "random", "rotates"),
    "pong": (f"gym:ALE/Pong-v5?{SMALL}", "random", "static"),
    "breakout": (f"gym:ALE/Breakout-v5?{SMALL}", "random", "static"),
    "enduro": (f"gym:ALE/Enduro-v5?{SMALL}", "random", "static"),  # it drives too slowly for more
}


@pytest.mark.parametrize("name", GAMES)
def test_a_game_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    game, player, kind = GAMES[name]
    record(tmp_path, game, player, 320, seed=1, episode_frames=160)
    assert main(["camera", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{kind}: ")


def tiles(count: int, side: int, random: torch.Generator) -> Tensor:
    """Uint8 (count * side, count * side, 3): a plane of tiles of four kinds, each with a texture of its own."""
    kinds = torch.randint(0, 256, (4, side, side, 3), generator=random, dtype=torch.uint8) // 4
    kinds += torch.randint(0, 192, (4, 1, 1, 3), generator=random, dtype=torch.uint8)
    rows = kinds[torch.randint(0, 4, (count, count), generator=random)]
    return rows.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)


def test_tiles_that_scroll_by_a_whole_tile_now_and_then_are_named() -> None:
    """As of a survival game that is seen from above: most steps change nothing but noise."""
    random = torch.Generator().manual_seed(0)
    world, episodes = tiles(40, 7, random), []
    for _ in range(2):
        corner, frames = torch.tensor([[105, 105]]), []
        for _ in range(120):
            frame = shifted(world[None], corner)[0][0, :64, :64].clone()
            frame[49:] = 40  # an inventory
            frames.append(frame + torch.randint(0, 12, (64, 64, 1), generator=random, dtype=torch.uint8))
            way = int(torch.randint(0, 16, (1,), generator=random))
            step = torch.tensor([[[0, 7], [0, -7], [7, 0], [-7, 0]][way] if way < 4 else [0, 0]])
            corner = (corner + step).clamp(0, 200)
        episodes.append(torch.stack(frames))
    assert evidence(episodes[:1], episodes[1:]).kind == "scrolls"


def test_an_agent_who_turns_by_a_quarter_is_none_of_these() -> None:
    """As MiniGrid's: a step forward scrolls, but no turn does."""
    random = torch.Generator().manual_seed(0)
    world, episodes = tiles(31, 9, random), []
    for _ in range(2):
        row, column, turns, frames = 15, 15, 0, []
        for _ in range(120):
            way = int(torch.randint(0, 3, (1,), generator=random))
            turns += (1, -1, 0)[way]
            if way == 2:
                down, right = [(-1, 0), (0, 1), (1, 0), (0, -1)][turns % 4]
                row, column = min(max(row + down, 6), 24), min(max(column + right, 6), 24)
            around = world[9 * (row - 6) : 9 * (row + 7), 9 * (column - 6) : 9 * (column + 7)]
            frames.append(torch.rot90(around, turns % 4)[:63, 27:90])
        episodes.append(torch.stack(frames))
    found = evidence(episodes[:1], episodes[1:])
    assert found.kind == "none of these" and found.moving > 0.1


def test_a_recording_without_pictures_enough_is_refused(tmp_path: Path) -> None:
    record(tmp_path, "maze", "random", 4, episode_frames=4)
    with pytest.raises(UserError, match="too few frames to tell a camera from: record more"):
        look([tmp_path])
