"""What verify and inspect find in a recording."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import make, run
from tiny_game import GAME

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording.record import record
from data_collect.shards.chunk import pack
from data_collect.shards.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_sync")]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def shift_actions(path: Path) -> None:
    """Whole and consistent, but off by one: only a replay can tell."""
    dataset = Dataset(path.parent)
    with path.open("wb") as file:
        for ref in [ref for ref in dataset.index if ref.shard == path.name]:
            chunk = next(make_again(dataset, ref.episode))
            chunk.actions = (chunk.actions + 1) % 3
            file.write(pack(chunk))
        file.write(bytes(1024))
    (path.parent / "index.jsonl").unlink()


def make_again(dataset: Dataset, number: int) -> Any:
    """Chunks of an episode of the random player, before they were packed."""
    from data_collect import games
    from data_collect.recording.recorder import EpisodeRecorder

    chunks: list[Any] = []
    EpisodeRecorder(games.make(dataset.game), dataset.settings, chunks.append).record(number, (100, True))
    return iter(chunks)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(flip, "is damaged"), (shift_actions, "and its replay differ"), (Path.unlink, "is missing")],
)
def test_verify_names_the_damaged_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], sentence: str
) -> None:
    make(tmp_path, frames=200, episode_frames=100)
    assert run("verify", str(tmp_path)) == 0
    assert "sound" in capsys.readouterr().out
    damage(next(tmp_path.glob("shard-*")))
    assert run("verify", str(tmp_path)) == 2
    message = capsys.readouterr().err
    assert "shard-000000-0000.tar" in message and sentence in message and message.count("\n") == 1


def test_verify_says_what_it_could_not_replay(tmp_path: Path) -> None:
    record(tmp_path, f"{GAME}&noisy=true&replayable=false", "random", 50)
    assert "does not repeat itself" in verify(tmp_path)


def test_verify_says_that_a_game_may_not_repeat_itself(tmp_path: Path) -> None:
    record(tmp_path, f"{GAME}&noisy=true", "random", 50)
    with pytest.raises(UserError, match=r"tiny_game:Tiny-v0 with replayable=false"):
        verify(tmp_path)


def test_names_of_actions_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, f"{GAME}&names=[/noop],[red]left,:snake:", "random", 400)
    assert run("inspect", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("[/noop]", "[red]left", ":snake:"))


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, frames=400)
    capsys.readouterr()
    assert run("inspect", str(tmp_path), "--json", "--sheet", str(tmp_path / "sheet.png")) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["game"] == GAME and card["frames"] == 400 and card["shards"] == 1
    assert card["hours"] == pytest.approx(400 / card["fps"] / 3600, abs=1e-4)
    assert list(card["actions"]) == ["noop", "left", "right"] and sum(card["actions"].values()) == card["steps"]
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert run("inspect", str(tmp_path)) == 0
    assert "by random" not in (out := capsys.readouterr().out) and "400" in out and "left" in out
    assert run("inspect", str(tmp_path / "nothing")) == 2
    assert run("inspect", str(tmp_path), "--sheet", str(tmp_path / "no" / "sheet.png")) == 2


def test_recording_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'timm', 'lightning', 'wandb'])); "
        "from data_collect.__main__ import main; "
        f"main('record --game maze?size=5 --player random --frames 20 --out {tmp_path}'.split()); "
        f"main(['verify', '{tmp_path}'])"
    )
    assert b"sound" in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
