"""What `inspect` prints, and what `check` finds odd in a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_collect import __main__ as cli
from data_collect.dataset import Dataset
from data_collect.errors import main_guard
from data_collect.recording.record import record
from data_collect.shards.check import findings, measure
from data_collect.shards.inspect import duration, number, size


def look(folder: Path, game: str, frames: int = 600, **settings: Any) -> dict[str, Any]:
    """Findings by kind, of a recording of random play."""
    return {found.kind: found for found in findings(measure(record(folder, game, "random", frames, **settings)))}


def test_a_sound_recording_has_nothing_odd(tmp_path: Path) -> None:
    assert look(tmp_path / "dot", "gym:odd_games:Dot-v0") == {}
    figures = measure(Dataset(tmp_path / "dot"))
    assert (figures.width, figures.height) == (64, 64) and figures.changing and not figures.same_as
    assert figures.lengths.tolist() == [40] * 14 + [len(range(574, 599))]
    assert figures.effective == ("action0", "action2") and figures.unused == figures.untold == ()


def test_the_maze_has_nothing_odd(tmp_path: Path) -> None:
    assert look(tmp_path, "maze?size=9", 1500) == {}


def test_an_action_without_effect_is_named(tmp_path: Path) -> None:
    found = look(tmp_path, "gym:odd_games:HalfDeaf-v0")
    assert list(found) == ["still", "without_effect"]  # two of three actions leave the dot where it is
    assert found["without_effect"].figures["same_as"] == {"fire": "noop"}
    assert found["without_effect"].sentence.endswith("takes fire")


def test_a_game_that_ignores_its_actions_is_told(tmp_path: Path) -> None:
    found = look(tmp_path, "gym:odd_games:Deaf-v0")
    assert list(found) == ["without_effect"] and "no action changes" in found["without_effect"].sentence


def test_pictures_that_show_nothing_are_told(tmp_path: Path) -> None:
    found = look(tmp_path / "black", "gym:odd_games:Black-v0")
    assert list(found) == ["constant", "plain"]
    assert next(iter(look(tmp_path / "tiny", "gym:odd_games:Dot-v0?width=16&height=16"))) == "tiny"


def test_short_episodes_and_actions_that_nobody_took_are_told(tmp_path: Path) -> None:
    found = look(tmp_path / "brief", "gym:odd_games:Brief-v0")
    assert found["short"].figures == {"window": 32, "episodes": 86, "steps": 1.0}
    assert not list(findings(measure(Dataset(tmp_path / "brief")), window=6))
    record(tmp_path / "steady", "gym:odd_games:Dot-v0", "policy:tiny_game:steady", 200)
    (still, unused) = findings(measure(Dataset(tmp_path / "steady")))
    assert still.kind == "constant" or still.figures["repeated"] == 1.0
    assert unused.figures == {"actions": ["action0", "action2"]}


def test_axes_are_looked_at_as_well(tmp_path: Path) -> None:
    found = look(tmp_path, "gym:odd_games:Acts-v0?space=axes", 300)
    assert list(found) == ["without_effect"]  # the dot moves by itself
    assert measure(Dataset(tmp_path)).unused == ()


def test_findings_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, "gym:odd_games:Black-v0", "random", 100)
    capsys.readouterr()
    assert main_guard(lambda: cli.main(["inspect", str(tmp_path)])) == 0
    out = capsys.readouterr().out
    assert "look: every picture is the same" in out and "0 in all, 0 an episode" in out
    assert "0.0" not in out.replace("0.0.", "")
    assert main_guard(lambda: cli.main(["inspect", str(tmp_path), "--json"])) == 0
    assert [found["kind"] for found in json.loads(capsys.readouterr().out)["findings"]] == [
        "constant",
        "plain",
        "short",
    ]


def test_figures_are_printed_as_people_say_them() -> None:
    told = [(0.0042, "0.0042"), (-12.5, "-12.5"), (1204.4, "1,204"), (1.0, "1"), (99.99, "100"), (1e6, "1,000,000")]
    assert [number(value) for value, _ in told] == [text for _, text in told]
    assert number(0) == number(0.0) == number(-0.0) == "0"
    assert number(np.float32(0.5)) == "0.5"
    assert [size(count) for count in (0, 740, 12_345, 5e9)] == ["0 bytes", "740 bytes", "12.3 kB", "5,000 MB"]
    assert [duration(s) for s in (0, 1.5, 90, 5400)] == ["0 seconds", "1.5 seconds", "1.5 minutes", "1.5 hours"]
