"""The suites that need a world through which a camera moves: revisit and dream.

`SUITES` has them as `evaluation/suites.py` runs them: (checkpoint, options, game, prompt) -> figures and pictures. A
game that lacks the means is left out; one line says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from data_collect.errors import UserError
from data_collect.players import seen_from_above
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
    from game_wm.evaluation.places.plot import plot, sheet
    from game_wm.evaluation.places.revisit import PROMPTS, budget, revisit

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
    from game_wm.evaluation.places.detector import UPDATES, WALKS, thing_detector, told_things
    from game_wm.evaluation.places.dream import budget, dream
    from game_wm.evaluation.places.plot import ways
    from game_wm.evaluation.places.trips import lacking

    if reason := lacking(game):
        print(f"dream: left out, for {checkpoint.game}: {reason}", file=sys.stderr)
        return
    namer, found = trained_namer(game, options), {}
    for kind, things in told_things(game).items():
        walks, updates = options.share(WALKS), options.share(UPDATES)
        with progress(f"detector of what is {kind}", walks + max(1, walks // 5) + updates, options.deadline) as tick:
            found[kind] = things, thing_detector(game, checkpoint.game, things, options.cache, tick, walks, updates)
    seeds, (prompt, _) = options.seeds(options.runs), game.pace.cut(prompt, 1)
    budgeted = budget(options.runs, found, turns=not seen_from_above(game.schema))
    with progress("dream", budgeted, options.deadline) as tick:
        card, notes, led = dream(checkpoint.model, game, namer, seeds, prompt, found, steps=options.steps, tick=tick)
    for note in notes:
        print(f"dream: {note}", file=sys.stderr)
    yield Found("dream", {"dream": card | game.told()}, {"-ways": ways(led)} if led else {})


SUITES: dict[tuple[str, ...], Callable[..., Iterator[Found]]] = {("revisit",): _revisit, ("dream",): _dream}
