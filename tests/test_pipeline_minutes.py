"""A pipeline's minutes: where they go, and what is told before they are spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_collect.errors import UserError
from data_collect.recording.record import record
from tests.test_pipeline import own
from tests.tiny_game import PLACELESS
from train.__main__ import main
from train.data.frames import open_recordings
from train.pipeline.flags import parse
from train.pipeline.outlook import longer_episodes
from train.pipeline.run import Runner
from train.pipeline.stage import Budget, Stage

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("game", "episode_frames", "remedy"),
    [
        ("maze?size=9", 20, "--record.episode_frames"),
        ("gym:odd_games:Timed-v0", 200, "--record.game 'ID?skip=1'"),
        ("gym:odd_games:Brief-v0", 200, "--record.game 'ID?skip=1' or --record.player with one that lasts longer"),
    ],
)
def test_what_makes_episodes_longer_depends_on_what_ends_them(
    game: str, episode_frames: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    record(tmp_path, game, "random", 100, episode_frames=episode_frames)
    assert longer_episodes(open_recordings([str(tmp_path)])) == remedy


def test_what_cannot_be_learnt_is_told_before_minutes_are_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pipeline's own words, and nothing is trained."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.chdir(Path(__file__).parent)
    still = ["--record.game", "gym:tiny_game:Still-v0", "--record.frames", "200"]
    with pytest.raises(UserError, match=r"still/data: every picture is the same.*inspect .* --sheet"):
        main(own(tmp_path, "still", *still))
    few = ["--record.game", PLACELESS, "--record.frames", "20"]
    with pytest.raises(UserError, match=r"20 frames are too few .*: record more --record\.frames"):
        main(own(tmp_path, "few", *few))
    for minutes in ([], ["--minutes", "9"]):  # what was recorded is not taken for something else
        with pytest.raises(UserError, match=r"a recording of recording seed 0, not 1: choose another --name"):
            main(own(tmp_path, "few", *few, "--record.seed", "1", *minutes))
    with pytest.raises(UserError, match=r"^unknown player 'nobody'"):
        main(own(tmp_path, "nobody", *few, "--record.player", "nobody"))
    with pytest.raises(UserError, match=r"^--record\.frames 1 is too small"):
        main(own(tmp_path, "one", *few, "--record.frames", "1"))
    for flag, value, words in [
        ("--dynamics.model.colour", "1", r"there is no flag --dynamics\.model\.colour"),
        ("--tokenizer.minuts", "1", r"there is no flag --tokenizer\.minuts; did you mean --tokenizer\.minutes"),
        ("--dynamics.warmup", "-5", r"--dynamics\.warmup must be at least 0"),
        ("--distill.name", "x", "the pipeline gives it that itself"),
    ]:
        with pytest.raises(UserError, match=words):
            main(own(tmp_path, "never", *few, flag, value))
    assert not (tmp_path / "never").exists() and not list(tmp_path.glob("*/tokenizer"))


def test_minutes_of_all_go_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokenizer takes rounds until it is better than repeating, or has had its most; the rest is shared."""
    now, had, alone, start = [0.0], dict[str, float](), [25.0, 28.0, 33.0], [0.0]
    monkeypatch.setattr("train.pipeline.clock.time.monotonic", lambda: now[0])
    plan = parse(own(tmp_path, "shared", "--minutes", "18", "--record.game", "maze")[1:])
    runner, rounds = Runner(plan, ["--minutes", "18"]), list[tuple[str, float]]()

    class Trained(Stage):
        def had(self) -> float:
            return had.get(self.name, 0.0)

    def stage(name: str, minutes: float) -> Stage:
        def run(budget: Budget) -> int:
            assert budget.minutes is not None
            more = budget.minutes - had.get(name, 0.0)
            now[0] += 60 * (more + start[0])
            rounds.append((name, more))
            had[name] = budget.minutes
            return 0

        return Trained(name, tmp_path, run, budget=Budget(minutes))

    plan.tokenizer.minutes = 5
    tokenizer, dynamics, distill = stage("tokenizer", 5), stage("dynamics", 10), stage("distill", 2)
    runner.stages = [tokenizer, dynamics, distill]
    monkeypatch.setattr(runner, "good_enough", lambda stage: alone.pop(0) > 30)
    for each in runner.stages:
        assert runner.share_out(each, None) == 0
    assert [name for name, _ in rounds] == ["tokenizer"] * 3 + ["dynamics", "distill"]
    # A part of 17 minutes, half as much again, what is left of 55 %; then what is left.
    assert [minutes for _, minutes in rounds] == pytest.approx([5, 2.5, 1.85, 7.65 * 10 / 12, 7.65 * 2 / 12])
    assert runner.clock.spent == pytest.approx(17)  # a minute is left for the export
    (tmp_path / "shared").mkdir()
    runner.clock.keep()
    assert Runner(plan).clock.spent == pytest.approx(17)
    assert runner.longer("tokenizer") == "python -m train pipeline --minutes 36"
    # Three minutes more do not make up for a dynamics that begins anew on another tokenizer; eighteen do.
    runner.clock.total = 21
    assert runner.room(tokenizer) < 0 < runner.room(dynamics)
    runner.clock.total = 36
    assert runner.room(tokenizer) == pytest.approx(18 - 7.65)
    alone[:] = [20.0] * 9
    assert runner.share_out(tokenizer, runner.room(tokenizer)) == 0
    assert had["tokenizer"] == pytest.approx(0.55 * (18 + 9.35)) and runner.clock.left > 7.65
    # Rounds that take long to begin count as minutes, too.
    had.clear()
    start[0], runner.clock.total = 3.0, runner.clock.spent + 19
    assert runner.share_out(tokenizer, None) == 0 and had["tokenizer"] == pytest.approx(1.5 * 18 * 5 / 17)


def test_a_slow_recording_leaves_minutes_for_the_rest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.chdir(Path(__file__).parent)
    timed = ["--record.game", PLACELESS, "--record.frames", "10000000", "--minutes", "0.1", "--distill.config", ""]
    assert main(own(tmp_path, "timed", *timed)) == 0
    told = capfd.readouterr().out
    assert "minutes were over before the 10,000,000 frames" in told
    assert main(own(tmp_path, "timed", *timed)) == 0
    again = capfd.readouterr().out
    assert "record:" not in again and again.count("complete, skipped") == 3
    assert told.splitlines()[-4:] == again.splitlines()[-4:]
