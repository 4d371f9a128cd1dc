"""A pipeline gives its model the memory that fits the camera of its recording, unless it is told otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_pipeline import CONFIGS, SMALL, own

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.checkpoint import load
from game_wm.memory.first_person.system import FirstPersonMemory
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.memory.scroll.turning import TurningMemory
from tests.tiny_game import PLACELESS
from train.__main__ import main
from train.pipeline.flags import parse

pytestmark = pytest.mark.slow

KINDS = {
    "scroll": ("random", 100, "scroll", ScrollMemory),
    "maze": ("explorer", 100, "first_person", FirstPersonMemory),
    "gym:CarRacing-v3?width=64&height=64": ("random", 200, "scroll", TurningMemory),  # it zooms at first
}


@pytest.mark.parametrize("game", KINDS)
def test_the_memory_fits_the_camera(
    game: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said which and why; a second run finds nothing to do."""
    monkeypatch.chdir(CONFIGS.parent.parent)
    monkeypatch.setattr("train.pipeline.memory.STEPS", 5)
    player, length, memory, kind = KINDS[game]
    record(tmp_path / "data", game, player, 400, episode_frames=length)
    small = [*SMALL["geometry"], "--sample_minutes", "100"]
    flags = own(tmp_path, "mine", "--data", str(tmp_path / "data"), "--geometry.flags", json.dumps(small))
    flags += ["--geometry.steps", "2"]
    assert main(flags) == 0
    told = capfd.readouterr().out
    assert f"memory: {memory} (camera: " in told and "--memory none leaves it out" in told
    playable = load(tmp_path / "mine" / "mine.safetensors")
    assert isinstance(playable.model.memory, kind)
    assert main(flags) == 0
    again = capfd.readouterr().out
    assert f"memory: {memory} (camera: " in again and again.count(": complete, skipped") == 5


def test_a_game_that_stands_still_gets_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a first-person one that is asked for."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    record(tmp_path / "data", PLACELESS, "random", 500)
    data = ["--data", str(tmp_path / "data"), "--distill.config", ""]
    words = r"\(static: .*train it all the same with --geometry\.model\.any_camera true"
    with pytest.raises(UserError, match=words):
        main(own(tmp_path, "wrong", *data, "--memory", "first_person", "--geometry.steps", "2"))
    assert not (tmp_path / "wrong" / "tokenizer").exists()  # before anything is trained
    assert main(own(tmp_path, "mine", *data)) == 0
    told = capfd.readouterr().out
    assert "memory: none (camera: static: " in told and "--memory scroll or first_person gives it one" in told
    assert load(tmp_path / "mine" / "mine.safetensors").model.config.memory is None


def test_what_is_said_of_a_memory_goes_first() -> None:
    config = ["--config", str(CONFIGS.parent / "own" / "quick.yaml")]
    assert parse(config).memory == "auto"
    assert parse([*config, "--scroll", "5"]).scroll == parse([*config, "--memory", "none", "--scroll", "5"]).scroll == 5
    assert parse([*config, "--memory", "scroll"]).scroll == 3000
    assert "geometry" in parse([*config, "--memory", "first_person"]).trained
    with pytest.raises(UserError, match="memory"):
        parse([*config, "--memory", "mosaic"])
