"""A recording whose game fails, or that cannot be made or continued: play is kept, and one sentence says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from recorded import make, run, same
from rude_game import rude
from tiny_game import GAME, LONG

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording.record import record
from data_collect.recording.recorder import seeds
from data_collect.schema import ActionSchema
from data_collect.shards.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_sync")]


@pytest.mark.parametrize("deed", ["raise", "kill", "nan"])
def test_an_episode_in_which_the_game_fails_is_kept_and_recording_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], deed: str
) -> None:
    game = rude(deed, at=5, seeds=3)
    one = record(tmp_path / "one", game, "random", 200, seed=2)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("episode ")]
    lengths = {number: len(one.episode(number).actions) for number in one.by_episode}
    failed = [number for number in one.by_episode if seeds(2, number)[0] % 3 == 0 and lengths[number] < 5]
    assert len(failed) > 2 and all(lengths[number] == (4 if number in failed else 20) for number in list(lengths)[:-1])
    assert [(row["episode"], row["seed"], row["steps"]) for row in one.card["faults"]] == [
        (number, seeds(2, number)[0], 4) for number in failed
    ]
    assert len(told) == len(failed) and all("step 5" in row["why"] for row in one.card["faults"])
    assert f"episode {failed[0]} (seed {seeds(2, failed[0])[0]}) ends after 4 steps: " in told[0]
    assert all(one.episode(number).truncated[-1] for number in failed)
    summary = verify(tmp_path / "one", "all")
    assert f"{len(lengths)} episodes replayed exactly" in summary and f"{len(failed)} episodes end where" in summary

    # With other workers, and in two runs, the first of which ends with a whole episode.
    record(tmp_path / "two", game, "random", 110, seed=2, workers=2)
    record(tmp_path / "two", game, "random", 200, workers=2)
    assert same(tmp_path / "one", tmp_path / "two")
    assert Dataset(tmp_path / "two").card["faults"] == one.card["faults"]


def test_episodes_of_which_nothing_is_kept_are_known_from_the_card(tmp_path: Path) -> None:
    """Those whose reset fails; told once, tried again when the recording is continued."""
    game = rude("raise", at=0, seeds=3)
    record(tmp_path, game, "random", 100, seed=2)
    dataset = record(tmp_path, game, "random", 200)
    known = [(row["episode"], row["steps"]) for row in json.loads((tmp_path / "dataset.json").read_text())["faults"]]
    last = max(dataset.by_episode)
    assert known == [(number, 0) for number in range(last) if seeds(2, number)[0] % 3 == 0] and len(known) > 2
    assert not {number for number, _ in known} & set(dataset.by_episode)
    assert "replayed exactly" in verify(tmp_path, "all")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_game_that_fails_too_often_is_given_up(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UserError, match=r"failed in 5 of 5 episodes, the last time in episode 4: .*rare bug"):
        record(tmp_path / "always", rude("raise", at=5), "random", 1000, workers=workers)
    assert "sound" in verify(tmp_path / "always") and Dataset(tmp_path / "always").card["frames"] >= 25
    with pytest.raises(UserError, match=r"rare bug.*; nothing could be recorded"):
        record(tmp_path / "never", rude("raise", at=1), "random", 1000, workers=workers)


def test_a_folder_takes_one_recording_only(tmp_path: Path) -> None:
    make(tmp_path, frames=50, seed=1)
    assert make(tmp_path, frames=50).settings["recording_seed"] == 1  # not given: the folder's
    for change in (
        {"seed": 2},
        {"game": f"{GAME}&longest=9"},
        {"player": "policy:tiny_game:steady"},
        {"episode_frames": 9},
    ):
        with pytest.raises(UserError, match="choose another --out"):
            make(tmp_path, frames=50, **change)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--game chess --player random --frames 9", "unknown game 'chess'"),
        (f"--game {GAME} --player nobody --frames 9", "unknown player 'nobody'"),
        (f"--game {GAME} --player explorer --frames 9", "use --player random"),
        (f"--game {GAME} --player random --frames 0", "--frames 0 is too small"),
        (f"--game {GAME} --player random --frames 9 --workers 0", "--workers 0 is too small"),
        (f"--game {GAME} --player random --frames 9 --seed -1", "--seed -1 is too small"),
        (f"--game {GAME} --player policy:tiny_game:nothing --frames 9", "cannot be imported"),
    ],
)
def test_wrong_flags_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, sentence: str
) -> None:
    assert run("record", *words.split(), "--out", str(tmp_path / "out")) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and sentence in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("nan", "gave the reward nan in step 5"),
        ("large", r"gave the reward 1e\+39"),
        ("no pose", "gave the pose None"),
        ("short", r"gave the pose \(1, 2\)"),
        ("infinite", "gave the pose"),
        ("word", "gave the pose 'abc'"),
    ],
)
def test_what_no_shard_can_hold_ends_its_episode(tmp_path: Path, wrong: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"failed in 5 of 5 episodes.*{sentence}"):
        record(tmp_path, f"{LONG}&wrong={wrong}", "random", 300)
    assert [len(episode.actions) for episode in Dataset(tmp_path).episodes()] == [4] * 5


def test_play_that_no_shard_can_hold_ends_its_recording(tmp_path: Path) -> None:
    from game_wm.play.files.recording import ShardRecording

    data = ShardRecording(tmp_path / "data", GAME, ActionSchema("discrete", ("noop", "left"), fps=10), seed=0)
    picture, action = np.zeros((16, 16, 3), np.uint8), np.zeros(1, np.int64)
    data.begin(picture, {})
    with pytest.raises(UserError, match="reward nan"):
        data.step(action, float("nan"), False, picture, {})
    assert data.broken and not data.playing


def test_out_must_be_a_folder_for_recordings(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="choose an empty folder"):
        make(tmp_path, frames=9)
    with pytest.raises(UserError, match="choose another --out"):
        make(tmp_path / "thesis.txt", frames=9)
