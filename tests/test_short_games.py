"""Evaluating games that are odd: short ones, ones that end at once or never, with one action, with one picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import Repeats
from toy import measured

from data_collect import games
from data_collect.errors import UserError
from game_wm.evaluation import suites
from game_wm.evaluation.options import Options
from game_wm.evaluation.report import card as cards
from game_wm.evaluation.report import page as pages
from game_wm.evaluation.truth.game import Pace

pytestmark = pytest.mark.slow


def evaluate(game: str, names: tuple[str, ...], episodes: int = 3, **options: Any) -> dict[str, Any]:
    """The figures of a model of this game that repeats the last frame, and a page of them."""
    env = games.make(game)
    checkpoint = SimpleNamespace(
        model=Repeats(16), schema=env.get_wrapper_attr("action_schema"), game=game, name="odd", path=None,
        contexts_frames=torch.zeros(1, 5, 16, 16, 3),
    )  # fmt: skip
    env.close()
    made = Options(names, episodes, cache=None, inverse_plays=12, inverse_updates=12, **options)
    card = cards.tidy(measured(checkpoint, made)[0])
    for suite in names:
        page = pages.section(card, suite) if suite in card else []
        card.setdefault("pages", {})[suite] = "\n".join(page)
    return card


def tiny(**options: Any) -> str:
    return "gym:tiny_game:Tiny-v0?width=16&height=16" + "".join(f"&{key}={value}" for key, value in options.items())


@pytest.mark.parametrize("steps", [2, 3, 6, 20, 40, 60])
def test_a_short_game_is_measured_with_a_shorter_lead(steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    game = tiny(shortest=steps, longest=steps)
    card = evaluate(game, ("fidelity", "control", "stability"), frames=40)
    lead, figures = card["fidelity"]["lead"], card["fidelity"]
    least, most = lead["warm_up"]
    assert least == 0 and most + lead["prompt"] - 1 + lead["frames"] == steps
    assert figures["episodes"] == 3 and figures["prompt_frames"] == lead["prompt"] == min(32, 1 + steps // 4)
    assert list(figures["psnr"]) == [str(h) for h in (1, 4, 16, 64, 256) if h <= lead["frames"]]
    assert f"after 0 to {most} steps and a prompt of {lead['prompt']} frames" in card["pages"]["fidelity"]
    assert ("control" in card) == (lead["frames"] >= 3)
    assert card["stability"]["dreams"] == 3 and card["stability"]["lead"] == lead
    said = capsys.readouterr().err
    assert f"last {steps} steps" in said and said.count("last") == 1  # it is settled once


def test_a_game_that_ends_at_once_gets_a_true_sentence() -> None:
    with pytest.raises(UserError, match=r"every episode of .* ends at its first step"):
        evaluate(tiny(shortest=1, longest=1), ("fidelity", "control"))


def test_some_short_episodes_are_left_out_and_do_not_shorten_the_others() -> None:
    card = evaluate(tiny(shortest=3, longest=400), ("fidelity",), episodes=12)
    figures = card["fidelity"]
    assert "lead" not in figures and 0 < figures["episodes"] < 12 and figures["prompt_frames"] == 32
    assert f"Of {12 - figures['episodes']} more seeds the game ended before" in figures["protocol"]


def test_the_usual_lead_is_that_of_the_protocol() -> None:
    card = evaluate(tiny(shortest=3000, longest=3000), ("fidelity",), episodes=2)
    assert "lead" not in card["fidelity"] and "warm-up of 32 to 159 frames" in card["fidelity"]["protocol"]
    assert card["termination"]["events"] == card["termination"]["endings"] == 0
    assert Pace().cut(64, 256) == (64, 256)
    for steps in range(2, 200):
        pace = Pace.of_episodes(steps, 32)
        assert pace.prompt and pace.frames and pace.prompt >= 1 and pace.frames >= 2
        assert pace.warm_up[1] + pace.prompt - 1 + pace.frames == steps


def test_a_game_with_one_action_has_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    card = evaluate(tiny(shortest=40, longest=40, choices=1), ("fidelity", "control"))
    assert "control" not in card and "psnr" in card["fidelity"]
    assert "control: left out" in capsys.readouterr().err


def test_one_picture_and_actions_that_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    card = evaluate(tiny(shortest=300, longest=300, still=True), ("fidelity", "control", "stability"), frames=40)
    assert card["fidelity"]["psnr"]["16"] == pytest.approx(48.13, abs=0.01)
    assert "sharpness" not in card["fidelity"] and "the truth's sharpness" not in card["pages"]["fidelity"]
    assert "ratio" not in card["control"] and "tell the actions apart" in card["pages"]["control"]
    assert "tell the actions apart" in capsys.readouterr().err
    assert card["stability"]["frechet_end"] == card["stability"]["kernel_end"] == 0


def test_an_own_game_is_looked_for_here_and_beside_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, here = tmp_path / "project/runs/mine", tmp_path / "here"
    run.mkdir(parents=True)
    here.mkdir()
    checkpoint: Any = SimpleNamespace(game="gym:their_game_7:Game-v0", path=run / "mine.safetensors")
    monkeypatch.syspath_prepend(str(here))
    with pytest.raises(UserError, match=r"run this from the folder that holds their_game_7\.py"):
        suites.source(checkpoint)
    (tmp_path / "project/their_game_7.py").write_text("")
    with pytest.raises(UserError, match=f"run this from {tmp_path / 'project'}, which holds it"):
        suites.source(checkpoint)
    (here / "their_game_7.py").write_text("")
    monkeypatch.syspath_prepend(str(here))  # forgets what was not there
    assert suites.source(checkpoint) == here / "their_game_7.py"
    assert f"another their_game_7 lies beside the checkpoint, {tmp_path / 'project'}" in capsys.readouterr().err
    for game in ("maze", "gym:ALE/Pong-v5", "doom?bob=1"):
        assert suites.source(SimpleNamespace(game=game, path=run / "x.safetensors")) is None  # type: ignore[arg-type]


def test_a_game_with_other_actions_is_not_what_was_learnt() -> None:
    game = tiny(shortest=40, longest=40)
    other = games.make(tiny(choices=2)).get_wrapper_attr("action_schema")
    checkpoint: Any = SimpleNamespace(game=game, schema=other, path=None, model=Repeats(16))
    checkpoint.contexts_frames = torch.zeros(1, 5, 16, 16, 3)
    with pytest.raises(
        UserError, match="has the actions noop, left, right here, but the checkpoint has learnt noop, l"
    ):
        list(suites.measure(checkpoint, Options(("fidelity",), 1)))
