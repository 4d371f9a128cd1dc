"""A pipeline's minutes: where they go, and what is told before they are spent."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.checkpoint import load
from tests.test_pipeline import CONFIGS, own
from tests.tiny_game import PLACELESS
from train.__main__ import main
from train.data.recordings import open_recordings
from train.pipeline.clock import Clock
from train.pipeline.flags import parse
from train.pipeline.outlook import Judged, longer_episodes
from train.pipeline.shares import Shares
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


class Trial:
    """Stages that train by a fake clock: `start` minutes pass before each training, and a step takes `slow` minutes."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, *flags: str) -> None:
        self.now, self.had, self.trained = 0.0, dict[str, float](), list[tuple[str, float]]()
        self.start, self.slow, self.dB, self.left_out = 0.1, 0.01, list[float](), False
        monkeypatch.setattr("train.pipeline.clock.time.monotonic", lambda: self.now)
        config = str(CONFIGS.parent / "own" / "quick.yaml")
        self.plan = parse(["--config", config, "--record.game", "maze", "--minutes", str(minutes), *flags])
        self.clock = Clock(minutes, tmp_path / "pipeline.json")
        settings = {name: SimpleNamespace(warmup=50) for name in self.plan.trained}
        self.shares = Shares(self.plan, self.clock, settings, self.work, self.judge, self.rehearse, self.leave_out)
        self.stages = [self.stage(name) for name in self.plan.trained]

    def stage(self, name: str) -> Stage:
        trial = self

        class Trained(Stage):
            def had(self) -> float:
                return trial.had.get(self.name, 0.0)

            def rate(self) -> float:
                return 1 / trial.slow if self.had() else 0.0

        budget = Budget(self.plan.training(name).minutes, None, shared=True)
        return Trained(name, Path(), lambda budget: 0, budget=budget)

    def work(self, stage: Stage, budget: Budget) -> int:
        assert budget.minutes is not None
        more = budget.minutes - stage.had()
        self.now += 60 * (self.start + more)
        self.trained.append((stage.name, more))
        self.had[stage.name] = budget.minutes
        return 0

    def judge(self) -> Judged:
        return Judged([self.dB.pop(0)], [28.0])

    def rehearse(self) -> None:
        self.now += 30
        self.clock.exported(0.5)

    def leave_out(self) -> None:
        self.left_out = True

    def run(self) -> list[float]:
        """Minutes of each training, one after another."""
        for i, stage in enumerate(self.stages):
            if not (stage.name == "distill" and self.left_out):
                assert self.shares.train(stage, self.stages[i + 1 :], None) == 0
        return [minutes for _, minutes in self.trained]


def test_minutes_go_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokenizer goes on while it is the larger part and gains; distillation has enough steps or is left out."""
    trial = Trial(tmp_path, monkeypatch, 20)
    trial.dB[:] = [30.0, 33.0, 33.2]  # the third round gains too little
    rounds = trial.run()
    assert [name for name, _ in trial.trained] == ["tokenizer"] * 3 + ["dynamics"] * 2
    assert rounds[:4] == pytest.approx([2, 2, 2, 1])
    assert trial.clock.spent == pytest.approx(20 - 0.5)  # half a minute is left for the export
    told = capsys.readouterr()
    assert "distill: left out: 2.1 minutes are about 52 steps, 50 of them warm-up, and less than 250 is no" in told.out
    assert not told.err
    trial.clock.keep()
    again = Clock(30, trial.clock.path)
    assert again.measured and again.spent == pytest.approx(19.5) and again.left == pytest.approx(10)

    trial = Trial(tmp_path / "good", monkeypatch, 120)
    trial.dB[:] = [38.5]  # ten dB better than repeating: dynamics has the rest, and distillation what is worth while
    assert trial.run()[0] == pytest.approx(12)
    assert [name for name, _ in trial.trained] == ["tokenizer", "dynamics", "dynamics", "distill"]
    assert trial.had["distill"] * 5 == pytest.approx(trial.had["dynamics"], abs=0.1)
    assert trial.clock.spent == pytest.approx(120 - 0.75)  # with the teacher's, an export takes half as long again

    trial = Trial(tmp_path / "most", monkeypatch, 20)
    trial.dB[:] = [float(x) for x in range(20, 30)]  # it gains without end, and has half of the minutes
    trial.run()
    assert 9 < trial.had["tokenizer"] < 10 and trial.had["dynamics"] > 8


def test_minutes_that_are_given_are_obeyed_and_too_few_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(tmp_path, monkeypatch, 20, "--tokenizer.minutes", "3", "--distill.config", "")
    trial.run()
    assert trial.had["tokenizer"] == pytest.approx(3) and trial.clock.spent == pytest.approx(19.5)
    shares = ["--tokenizer.minutes", "5", "--dynamics.minutes", "10", "--distill.minutes", "5"]
    trial = Trial(tmp_path / "shares", monkeypatch, 80, *shares)
    trial.run()
    assert trial.had["tokenizer"] == pytest.approx(trial.had["distill"], rel=0.05)
    assert trial.had["dynamics"] == pytest.approx(2 * trial.had["distill"], rel=0.05)
    capsys.readouterr()
    # A machine that takes two seconds for a step is told at once how many minutes it takes.
    trial = Trial(tmp_path / "slow", monkeypatch, 6, "--distill.config", "")
    trial.slow, trial.dB[:] = 1 / 30, [40.0]
    trial.run()
    told = capsys.readouterr().err
    assert "tokenizer: " in told and "steps, and less than 250 is no training: give --minutes " in told
    assert "dynamics: " in told and trial.clock.spent == pytest.approx(5.5)


def test_a_slow_recording_leaves_minutes_for_the_rest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.chdir(Path(__file__).parent)
    timed = ["--record.game", PLACELESS, "--record.frames", "10000000", "--minutes", "0.1", "--distill.config", ""]
    assert main(own(tmp_path, "timed", *timed)) == 0
    told = capfd.readouterr().out
    frames = re.search(r"record: (\d+) of 10000000 frames of ", told)
    assert frames and int(frames[1]) < 1_000_000 and "since more would take too long to encode" in told
    assert main(own(tmp_path, "timed", *timed)) == 0
    again = capfd.readouterr().out
    assert "record:" not in again and again.count("complete, skipped") == 3
    assert told.splitlines()[-4:] == again.splitlines()[-4:]


def test_minutes_alone_end_in_a_model_that_plays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few for distillation: the dynamics plays by one call. A second run finds nothing to do."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    record(tmp_path / "data", PLACELESS, "random", 500)
    flags = own(tmp_path, "alone", "--data", str(tmp_path / "data"), "--minutes", "0.3")
    for stage in ("tokenizer", "dynamics", "distill"):
        flags += [f"--{stage}.steps", "null"]
    (tmp_path / "alone" / "distill").mkdir(parents=True)  # an older one is not exported
    assert main(flags) == 0
    told = capfd.readouterr()
    assert "distill: left out: " in told.out
    assert "dynamics: " in told.err and "give --minutes " in told.err
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert "distill" not in names and "distill-old-1" in names and "alone-teacher.safetensors" not in names
    assert load(tmp_path / "alone" / "alone.safetensors").model.steps == 1
    assert main(flags) == 0
    again = capfd.readouterr().out
    assert again.count("complete, skipped") == 3 and told.out.splitlines()[-4:] == again.splitlines()[-4:]
