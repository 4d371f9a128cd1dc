"""Qualities: what each does to a model, how one is chosen by the rate, and changing them while playing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["SDL_VIDEODRIVER"] = "dummy"

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from tiny import tiny_checkpoint, tiny_world  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm import acceleration  # noqa: E402
from game_wm.acceleration import precision  # noqa: E402
from game_wm.acceleration.controller import MOST_PATIENCE, PATIENCE, SETTLING, WINDOW, Controller  # noqa: E402
from game_wm.acceleration.quality import QUALITY_LEVELS, Quality  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.play import app, flags  # noqa: E402
from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import window  # noqa: E402

ONE = WINDOW + SETTLING  # frames after which a rung that does not hold has been left


def rungs(control: Controller, costs: list[float], frames: int, noise: float = 0.0, seed: int = 0) -> list[int]:
    """Plays so many frames on a machine where a frame takes `costs` of a period, by rung: which rung each was on."""
    generator, played = np.random.default_rng(seed), []
    for _ in range(frames):
        played.append(control.at)
        control.record_frame_time(costs[control.at] * control.period * (1 + noise * generator.standard_normal()))
    return played


def changes(played: list[int]) -> int:
    return int(np.abs(np.diff(played)).sum())


def test_a_machine_that_keeps_up_is_left_alone() -> None:
    assert set(rungs(Controller(3, 0.05, 2), [0.3, 0.5, 0.8], 2000, noise=0.1)) == {2}


def test_quality_goes_down_to_what_holds_and_stays_there() -> None:
    played = rungs(Controller(4, 0.05, 3), [0.4, 0.7, 1.2, 2.0], 5000)
    assert played[ONE] == 2 and played[2 * ONE] == 1
    assert set(played[2 * ONE :]) == {1} and changes(played) == 2


def test_nothing_is_lower_than_the_lowest() -> None:
    played = rungs(Controller(2, 0.05, 1), [1.5, 3.0], 2000)
    assert set(played[ONE:]) == {0}


@pytest.mark.parametrize("costs", [[0.6, 0.99, 1.3], [0.8, 1.05, 1.1], [0.5, 0.85, 1.0]])
def test_a_machine_on_the_edge_does_not_swing(costs: list[float]) -> None:
    for seed in range(5):
        played = rungs(Controller(3, 0.05, 2), costs, 20_000, noise=0.1, seed=seed)
        assert changes(played) <= 6 and changes(played[-15_000:]) <= 2


def test_a_load_that_goes_is_forgotten() -> None:
    control = Controller(3, 0.05, 2)
    assert rungs(control, [0.8, 1.5, 2.0], 500)[-1] == 0
    played = rungs(control, [0.3, 0.4, 0.5], 1000)
    assert played[-1] == 2 and changes(played) == 2
    assert played[: PATIENCE * WINDOW].count(0) == PATIENCE * WINDOW  # not at the first quick frame


def test_a_rung_that_does_not_hold_is_left_alone_for_longer_each_time() -> None:
    control, raised = Controller(2, 0.05, 0), []
    for frame in range(300_000):  # three times the cost of the lower rung would fit
        if control.record_frame_time((0.2, 1.5)[control.at] * control.period) == 1:
            raised.append(frame)
    waits = np.diff(raised)
    assert len(waits) > 5 and (waits[1:] >= waits[:-1]).all() and waits[-1] >= MOST_PATIENCE * WINDOW


def test_one_slow_frame_changes_nothing() -> None:
    control = Controller(2, 0.05, 1)
    assert all(control.record_frame_time(5.0 if i % WINDOW == 0 else 0.01) is None for i in range(500))


# --- levels -----------------------------------------------------------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Nothing is compiled: which models would have been."""
    asked: list[Any] = []
    monkeypatch.setattr(acceleration, "compile", lambda model: asked.append(model) or model)
    return asked


def test_each_level_does_what_the_table_says(uncompiled: list[Any]) -> None:
    for name, level in QUALITY_LEVELS.items():
        play = Quality(tiny_world(), name)
        assert play.calls == 1 and play.name == name
        assert play.model.low_precision == (level.precision == "auto" and precision.supported())
        assert (play.model in uncompiled) == level.compiled
    assert [level.compiled for level in QUALITY_LEVELS.values()] == [True, False, False]


def test_what_is_asked_for_holds_at_every_level(uncompiled: list[Any]) -> None:
    play = Quality(tiny_world(), "best", 20, steps=3, precision="16")
    for _ in range(4):
        assert play.calls == 3 and play.model.low_precision
        play.next()
    assert play.wanted == "best" and play.rungs == [("fast", 3), ("balanced", 3)]
    assert not uncompiled or len(set(map(id, uncompiled))) == 1  # "fast" was made once


def test_a_level_is_made_once_and_the_model_itself_is_kept(uncompiled: list[Any]) -> None:
    plain = tiny_world()
    play = Quality(plain, "balanced")
    first = play.model
    play.set("best")
    play.set("balanced")
    assert play.model is first and not plain.low_precision
    assert Quality(plain, "balanced", only=True).model is plain


@pytest.mark.slow
def test_auto_lowers_calls_too_and_says_so(uncompiled: list[Any]) -> None:
    model = tiny_world()
    model.steps = 4
    play = Quality(model, "auto", 20)
    assert play.rungs == [("fast", 1), ("fast", 2), ("fast", 4), ("balanced", 4)] and play.label == "auto: balanced"
    cost = {("balanced", 4): 0.2, ("fast", 4): 0.15, ("fast", 2): 0.08, ("fast", 1): 0.04}
    said = [words for _ in range(10 * ONE) if (words := play.record_frame_time(cost[play.name, play.calls]))]
    assert [words.split(":")[0] for words in said] == [
        "quality lowered to fast (4 calls)", "quality lowered to fast (2 calls)", "quality lowered to fast (1 call)",
    ]  # fmt: skip
    assert all(words.endswith("20 frames/s") for words in said)
    assert not any(
        Quality(model, name, fps).record_frame_time(9.0) for name, fps in (("auto", 0), ("best", 20)) for _ in range(99)
    )


def test_frames_beside_a_compiler_do_not_count(uncompiled: list[Any]) -> None:
    play = Quality(tiny_world(), "auto", 20)

    class Compiler:
        is_alive = staticmethod(lambda: True)

    play.model.compiling = Compiler()  # type: ignore[assignment]
    assert play.label == "auto: balanced, compiling" and not any(play.record_frame_time(1.0) for _ in range(10 * ONE))


# --- in play ----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny.safetensors", side=16, endless=True)


def test_a_dream_goes_on_at_another_quality(path: Path, uncompiled: list[Any]) -> None:
    checkpoint = load(path)
    sessions = [Session(checkpoint, quality=Quality(checkpoint.model, "balanced", precision="32")) for _ in range(2)]
    for session in sessions:
        session.tick()
        session.tick()
    changed, kept = sessions
    changed.change_quality()
    assert changed.quality is not None and changed.quality.name == "best" and len(changed.dream.log) == 2
    assert np.array_equal(changed.tick().picture, kept.tick().picture)  # of the same bits
    assert changed.snapshot().about.executable == kept.snapshot().about.executable


@pytest.mark.skipif(not precision.supported(), reason="the processor has no bfloat16")
def test_a_saved_dream_names_all_that_it_ran_on(path: Path, uncompiled: list[Any]) -> None:
    checkpoint = load(path)
    session = Session(checkpoint, quality=Quality(checkpoint.model, "balanced"))
    for _ in range(2):
        session.tick()
        session.change_quality()
    dream = session.snapshot()
    assert dream.about.executable.count("torch") == 2 and "bfloat16" in dream.about.executable.split(", then")[0]
    other = Session(checkpoint, beginning=dream, quality=Quality(checkpoint.model, "balanced"))
    other.tick()
    assert other.snapshot().about.executable.count(", then torch") == 2


def test_a_key_changes_the_quality_in_the_window(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uncompiled: list[Any]
) -> None:
    monkeypatch.setattr(folder, "FOLDER", tmp_path / "recordings")
    checkpoint = load(path)
    shown = window.Window("tiny", lambda report: Session(checkpoint, quality=Quality(checkpoint.model, "auto", 20)))
    assert shown.load()
    shown.begin()
    shown.advance()
    found = []
    for _ in range(4):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q, mod=0))
        shown.pump()
        found.append((shown.session.quality.wanted, shown.hint))  # type: ignore[union-attr]
        shown.advance()
    assert found == [(name, f"quality: {name}") for name in ("fast", "balanced", "best")] + [
        ("auto", "quality: auto: balanced")
    ]
    # Late frames: the window says what becomes of them.
    monkeypatch.setattr(Quality, "record_frame_time", lambda self, _: self.set("fast") or "quality lowered")
    shown.advance()
    assert shown.hint == "quality lowered" and shown.session.scene.model is shown.session.quality.model  # type: ignore
    pygame.display.quit()


def test_the_real_game_costs_no_quality(path: Path) -> None:
    checkpoint = load(path)
    session = Session(checkpoint, quality=Quality(checkpoint.model, "auto", 20))
    session.scene.view = "real"
    assert not any(session.adapt_quality(1.0) for _ in range(10 * ONE))


def test_players_in_browsers_share_one_quality(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from game_wm.play.web.dreams import Begin, Dreams

    checkpoint = load(path)
    play = Quality(checkpoint.model, "auto", 20)
    dreams = Dreams(checkpoint, None, play)
    dreams.turn({player: Begin(0, player) for player in (0, 1)})
    first, idle = play.model, checkpoint.schema.raw(checkpoint.schema.noop())
    assert dreams.batch.model is first
    monkeypatch.setattr(Quality, "record_frame_time", lambda self, _: self.set("best") or "quality changed")
    for _ in range(2):
        assert len(dreams.turn({0: idle, 1: idle})) == 2
    assert dreams.batch.model is play.model is not first
    assert "quality changed" in capsys.readouterr().err


def test_a_replay_is_left_as_it_is(path: Path) -> None:
    checkpoint = load(path)
    session = Session(checkpoint, quality=Quality(checkpoint.model, "auto", 20))
    session.tick()
    session.replay(session.snapshot())
    assert not any(session.adapt_quality(1.0) for _ in range(10 * ONE))


@pytest.mark.parametrize("name", ["balanced", "best"])
def test_the_cost_object_says_which_quality_ran(
    path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    assert app.main([str(path), "--headless", "--json", "--frames", "2", "--quality", name]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["device"].split(", ")[-1] == name and cost["frames"] == 2


def test_the_table_is_what_the_command_line_offers() -> None:
    assert tuple(QUALITY_LEVELS) == flags.QUALITIES
    with pytest.raises(UserError, match="superb"):
        flags.parser().parse_args(["--quality", "superb"])
