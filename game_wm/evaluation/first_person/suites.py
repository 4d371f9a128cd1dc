"""The suites that only first-person games can be asked: revisit and dream.

`SUITES` has them as `evaluation/suites.py` runs them: (checkpoint, options, game, prompt) -> figures and pictures. A
game that lacks the means is left out; one line says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from data_collect.errors import UserError
from game_wm.evaluation.options import Found, Options
from game_wm.evaluation.report.progress import progress
from game_wm.evaluation.rollout import device_of
from game_wm.evaluation.truth.game import RealGame

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint


def _revisit(checkpoint: Checkpoint, options: Options, game: RealGame, prompt: int) -> Iterator[Found]:
    from game_wm.acceleration import prepare
    from game_wm.checkpoint import load
    from game_wm.evaluation.feature_distance import FeatureDistance
    from game_wm.evaluation.first_person.plot import plot, sheet
    from game_wm.evaluation.first_person.revisit import PROMPTS, budget, revisit

    if "surface" not in game.env.reset(seed=options.seeds(1)[0])[1]:
        why = f"{checkpoint.game} does not number the surfaces behind its pixels"
        print(f"revisit: left out, for {why}", file=sys.stderr)
        return
    device = device_of(checkpoint.model)
    file, prompts = options.window_of(checkpoint.path), options.prompts or PROMPTS
    window = load(file, device).model if file else None
    if window is not None:
        prepare(window, options.precision, str(device))
    if window is not None and (window.height, window.width) != (checkpoint.model.height, checkpoint.model.width):
        raise UserError(f"{file} dreams frames of another size than {checkpoint.path}: name another one with --window")
    seeds, features = options.seeds(options.episodes), FeatureDistance(device)
    with progress("revisit", budget(options.episodes, prompts), options.deadline) as tick:
        card, returns = revisit(checkpoint.model, game, features, seeds, prompts, window, options.steps, tick)
    for length in prompts:
        if not any(name.startswith(f"{length}/") for name in card):
            print(f"revisit: prompts of {length} frames left out, for the game ends before", file=sys.stderr)
    if card:
        yield Found("revisit", {"revisit": card}, {"-revisit": plot(card), "-returns": sheet(returns)})


def _dream(checkpoint: Checkpoint, options: Options, game: RealGame, prompt: int) -> Iterator[Found]:
    from game_wm.evaluation.control import trained_namer
    from game_wm.evaluation.first_person.dream import budget, dream
    from game_wm.evaluation.first_person.gems import UPDATES, WALKS, Bare, gem_detector, has_gems
    from game_wm.evaluation.first_person.plot import ways
    from game_wm.evaluation.first_person.trips import lacking

    if reason := lacking(game):
        print(f"dream: left out, for {checkpoint.game}: {reason}", file=sys.stderr)
        return
    namer, gems = trained_namer(game, options), None
    if has_gems(game):
        walks, updates = options.share(WALKS), options.share(UPDATES)
        with progress("gem detector", walks + max(1, walks // 5) + updates, options.deadline) as tick:
            detector = gem_detector(game, checkpoint.game, options.cache, tick, walks, updates)
        gems = (Bare(game), detector)
    seeds, (prompt, _) = options.seeds(options.runs), game.pace.cut(prompt, 1)
    with progress("dream", budget(options.runs, gems=gems is not None), options.deadline) as tick:
        card, notes, found = dream(checkpoint.model, game, namer, seeds, prompt, gems, steps=options.steps, tick=tick)
    for note in notes:
        print(f"dream: {note}", file=sys.stderr)
    yield Found("dream", {"dream": card | game.told()}, {"-ways": ways(found)} if found else {})


SUITES: dict[tuple[str, ...], Callable[..., Iterator[Found]]] = {("revisit",): _revisit, ("dream",): _dream}
