"""The real game fails in the midst of an evaluation: the play ends there, and too many are one sentence."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from rude_game import rude

from data_collect.errors import UserError
from game_wm.evaluation.report.page import section
from game_wm.evaluation.truth.game import Pace, RealGame

pytestmark = pytest.mark.slow

BRIEF = Pace((1, 3), 4, 16)  # steps before the prompt, its frames, those after it


@pytest.mark.parametrize("deed", ["raise", "kill"])
def test_a_play_in_which_the_game_fails_counts_as_far_as_it_went(deed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of seeds 1 to 9 the game fails in three, in step 12, and in all attempts of them."""
    with RealGame(rude(deed, at=12, seeds=3, length=100)) as game:
        game.pace = BRIEF
        plays = [game.find(seed, 4, 16, attempts=2) for seed in range(1, 7)]
        assert game.told()["lead"] and game.told()["faults"]["failed"] == 4
        assert game.told()["faults"]["plays"] == game.tally.plays == 8
    whole, cut = plays[0], plays[2]
    assert whole is not None and cut is not None and len(whole.rewards) == 16 and not game.ended
    assert 5 <= len(cut.rewards) <= 7 and not cut.terminated
    assert len(cut.frames) == 4 + len(cut.rewards) == len(cut.actions) + 1
    assert (cut.frames[-1] != cut.frames[-2]).any()  # none is shown twice
    assert capsys.readouterr().err.count("seed 3: ") == 2
    card = {"control": {"real": 1, "dream": 1, "faults": game.told()["faults"]}}
    assert "In 4 of 8 plays the real game failed" in " ".join(section(card, "control"))


def test_a_seed_of_which_nothing_can_be_played_is_replaced() -> None:
    with RealGame(rude("raise", at=0, seeds=3)) as game:
        frame, _ = game.env.reset(seed=3)
        other, _ = game.env.reset(seed=3 + 1_000_003)
        assert np.array_equal(frame, other) and game.tally.plays == 3 and len(game.tally.faults) == 1


def test_a_game_that_fails_in_most_plays_is_given_up() -> None:
    with (
        RealGame(rude("exit", at=2)) as game,
        pytest.raises(UserError, match=r"failed in 5 of 5 plays \(seed 5: .*Sys"),
    ):
        for seed in range(1, 20):
            game.lead(seed, 0, 4)
