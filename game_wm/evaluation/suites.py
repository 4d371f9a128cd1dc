"""The suites one after another, each told of as soon as its figures are there.

    for found in measure(checkpoint, Options(("fidelity", "control"), episodes=2)):
        found.suite, found.results, found.pictures

Every suite is described in the file of its name. What a game lacks the means for is left out; one line says so.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect import games
from data_collect.errors import UserError
from game_wm.deadline import OutOfTime, left_out
from game_wm.evaluation.options import Found, Options
from game_wm.evaluation.places import suites as places
from game_wm.evaluation.report.progress import progress
from game_wm.evaluation.rollout import device_of, memory_of, roll
from game_wm.evaluation.sprites import finder
from game_wm.evaluation.sprites.score import Sprites
from game_wm.evaluation.truth.game import BATCH, RealGame, TooShort
from game_wm.evaluation.truth.plays import Play, Truth, stack

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint

LED = 5  # seeds of which a prompt is led to see whether the game lasts so long
MIN_PROMPT = 32
FEW = 4  # seeds that are played and dreamt together where time is short


def measure(checkpoint: Checkpoint, options: Options) -> Iterator[Found]:
    """Run the suites on a loaded checkpoint.

    Raises UserError when the game cannot be made, is not the one that was learnt, or ends at its first step.
    """
    suites = {names: suite for names, suite in SUITES.items() if set(names) & set(options.suites)}
    costs = "cost" in options.suites
    if suites:
        source(checkpoint)
        height, width = checkpoint.contexts_frames.shape[2:4]
        with RealGame(checkpoint.game, (width, height)) as game:
            check(game, checkpoint)
            prompt = max(MIN_PROMPT, checkpoint.model.window, checkpoint.contexts_frames.shape[1])
            if set(options.suites) - {"revisit", "cost"}:
                game.settle(options.seeds(LED), prompt)
            for number, (names, suite) in enumerate(suites.items()):
                part = replace(options, deadline=options.deadline.part(1 / (len(suites) + costs - number)))
                yield from _in_time(names, checkpoint, part, _paced(suite, checkpoint, part, game, prompt))
    if costs:
        yield from _in_time(("cost",), checkpoint, options, _cost(checkpoint, options))


def _in_time(
    names: tuple[str, ...], checkpoint: Checkpoint, options: Options, suite: Iterator[Found]
) -> Iterator[Found]:
    """What is found before the deadline, which every dreamt frame looks at; a line tells what is not."""
    waiting, step = [name for name in options.suites if name in names], checkpoint.model.step

    def in_time(*given: Any) -> Any:
        options.deadline.check()
        return step(*given)

    try:
        if not options.deadline.never:
            checkpoint.model.step = in_time  # type: ignore[method-assign,assignment]
        for found in suite:
            waiting = [name for name in waiting if name != found.suite or not found.whole]
            yield found
    except OutOfTime:
        again = f"python -m game_wm evaluate {shlex.quote(str(checkpoint.path))} --suite {','.join(waiting)}"
        print(f"{', '.join(waiting)}: left out, for there is no time: `{again}` measures it", file=sys.stderr)
    finally:
        checkpoint.model.step = step  # type: ignore[method-assign]


def source(checkpoint: Checkpoint) -> Path | None:
    """The file of the module that registers the checkpoint's game, None where it is no module of the user's own.

    Raises UserError when Python does not find it, with the folder beside the checkpoint's run that holds it.
    """
    name, _ = games.parse(checkpoint.game)
    module = name.removeprefix("gym:").rpartition(":")[0].partition(".")[0] if name.startswith("gym:") else ""
    if not module:
        return None
    spec = importlib.util.find_spec(module)
    here = Path(spec.origin).resolve() if spec and spec.origin else None
    folders = checkpoint.path.resolve().parents[:3] if checkpoint.path else ()
    beside = [file for folder in folders for file in (folder / f"{module}.py", folder / module / "__init__.py")]
    there = next((file for file in beside if file.is_file()), None)
    if spec is None:
        where = f"from {there.parent}, which holds it" if there else f"from the folder that holds {module}.py"
        raise UserError(f"the module {module} of the game {checkpoint.game} is not found here: run this {where}")
    if here and there and here != there:
        print(f"the game is {here}; another {module} lies beside the checkpoint, {there}", file=sys.stderr)
    return here


def check(game: RealGame, checkpoint: Checkpoint) -> None:
    """`UserError` when the game has other actions than those that were learnt. (Its size is checked by `begin`.)"""
    here, learnt = game.schema, checkpoint.schema
    if (here.kind, here.names, here.nvec) != (learnt.kind, learnt.names, learnt.nvec):
        raise UserError(
            f"the game {checkpoint.game} has the actions {', '.join(here.names)} here, but the checkpoint has learnt "
            f"{', '.join(learnt.names)}: evaluate it where the game is the one that was recorded"
        )


def _paced(
    suite: Callable[..., Iterator[Found]], checkpoint: Checkpoint, options: Options, game: RealGame, prompt: int
) -> Iterator[Found]:
    """The suite; again with a shorter lead when no episode lasts for the usual one."""
    while True:
        try:
            yield from suite(checkpoint, options, game, prompt)
            return
        except TooShort as short:
            game.shorten(short, prompt)


def _rollouts(checkpoint: Checkpoint, options: Options, game: RealGame, prompt: int) -> Iterator[Found]:
    """Fidelity with reward and termination, then sprites, then control: of the same free rollouts."""
    from game_wm.evaluation.control import lacking
    from game_wm.evaluation.feature_distance import FeatureDistance
    from game_wm.evaluation.fidelity import HORIZONS, Fidelity
    from game_wm.evaluation.outcomes import Outcomes
    from game_wm.evaluation.report.sheet import draw

    model = checkpoint.model
    prompt, frames = game.pace.cut(prompt, HORIZONS[-1])
    horizons = [horizon for horizon in HORIZONS if horizon <= frames]
    fidelity = Fidelity(FeatureDistance(device_of(model)), horizons) if "fidelity" in options.suites else None
    controlled = "control" in options.suites
    if controlled and (reason := lacking(game.schema)):
        print(f"control: left out, for {checkpoint.game}: {reason}", file=sys.stderr)
        controlled = False
    sprites = _sprites(checkpoint.game) if "sprites" in options.suites else None
    if not (fidelity or controlled or sprites):
        return
    outcomes, sheet, told, kept, asked, endings = Outcomes(), None, False, list[Any](), 0, 0
    game.ended.clear()
    total = options.episodes * (frames + 1)
    with _what_there_is(lambda: asked), progress("rollouts", total, options.deadline, whole=False) as tick:
        for seeds in _groups(options):
            for truth in game.truths(seeds, prompt, frames, horizons, tick):
                dream = roll(model, truth, options.steps, tick)
                told = truth.poses is not None and memory_of(model).placed
                outcomes.add(truth, dream)
                if fidelity:
                    fidelity.add(model, truth, dream)
                    sheet = sheet or draw(truth, dream)
                if sprites:
                    sprites.add(model, truth, dream)
                kept += [(truth, dream)] * controlled
            asked += len(seeds)
        for truth in _endings(game.ended[:asked] if fidelity else [], prompt, frames):
            outcomes.add(truth, roll(model, truth, options.steps))
            endings += len(truth.seeds)
    if fidelity:
        episodes = len(fidelity.seeds)
        unplayed = asked - episodes
        least, most = game.pace.warm_up
        figures = fidelity.result() | game.told() | {
            "episodes": episodes,
            "prompt_frames": prompt,
            "protocol": f"Prompts are played by `{game.led_by}` after a warm-up of {least} to {most} frames, the "
            "actions dreamt are random-sticky; of eight action seeds the first is taken in whose truth the game does "
            "not end."
            + (" The game has one map, so the map was seen in training." if game.one_map else "")
            + (" The poses of a prompt's frames are told with it." if told else "")
            + (f" Of {unplayed} more seeds the game ended before a prompt was over." if unplayed else ""),
        }  # fmt: skip
        rest = {"reward": outcomes.reward(), "termination": outcomes.termination() | {"endings": endings}}
        yield Found("fidelity", {"fidelity": figures, **rest}, {"": sheet} if sheet else {}, episodes=asked)
    if sprites:
        yield Found("sprites", {"sprites": sprites.result()}, {}, episodes=asked)
    if controlled:
        yield from _control(checkpoint, options, game, kept, asked)


def _endings(ended: list[Play], prompt: int, frames: int) -> Iterator[Truth]:
    """The plays that the game ended, a batch at a time."""
    return (stack(ended[first : first + BATCH], prompt, frames) for first in range(0, len(ended), BATCH))


@contextmanager
def _what_there_is(count: Callable[[], int]) -> Iterator[None]:
    """At the deadline, go on with what there is, if that is anything."""
    try:
        yield
    except OutOfTime:
        if not count():
            raise


def _groups(options: Options) -> Iterator[Sequence[int]]:
    """The seeds; where there is a deadline, a few at a time, as long as as many more end in time."""
    seeds, done = options.seeds(options.episodes), 0
    few = len(seeds) if options.deadline.never else FEW
    for group in options.deadline.each([seeds[i : i + few] for i in range(0, len(seeds), few)], 1, len):
        yield group
        done += len(group)
    if done < len(seeds):
        print(left_out("rollouts", done, len(seeds), "episodes"), file=sys.stderr)


def _sprites(game_id: str) -> Sprites | None:
    """What scores the sprites of a game, if anything finds them."""
    find = finder(game_id)
    if find is None:
        print(f"sprites: left out, for {game_id}: nothing here finds its sprites", file=sys.stderr)
    return Sprites(find) if find else None


def _control(
    checkpoint: Checkpoint, options: Options, game: RealGame, rollouts: list[Any], asked: int
) -> Iterator[Found]:
    """Control, of rollouts that were dreamt."""
    from game_wm.evaluation.control import Control, trained_namer

    control = Control(trained_namer(game, options))
    for truth, dream in rollouts:
        control.add(checkpoint.model, truth, dream)
    figures = control.result()
    if not figures:
        print("control: left out, for no episode goes on for three frames after its prompt", file=sys.stderr)
        return
    if "ratio" not in figures:
        print("control: real frames do not tell the actions apart, so the dream's share says nothing", file=sys.stderr)
    yield Found("control", {"control": figures | game.told()}, {}, episodes=asked)


def _stability(checkpoint: Checkpoint, options: Options, game: RealGame, prompt: int) -> Iterator[Found]:
    from game_wm.evaluation.feature_distance import FeatureDistance
    from game_wm.evaluation.stability import budget, stability

    features = FeatureDistance(device_of(checkpoint.model))
    prompt, _ = game.pace.cut(prompt, 1)
    seeds = options.seeds(options.dreams)
    with progress("stability", budget(options.dreams, options.long), options.deadline, whole=False) as tick:
        for card in stability(checkpoint.model, game, features, prompt, seeds, options.long, options.steps, tick):
            yield Found("stability", {"stability": card | game.told()}, {}, whole="dreamt" not in card)


def _cost(checkpoint: Checkpoint, options: Options) -> Iterator[Found]:
    from game_wm.evaluation import cost

    if checkpoint.path is None:
        raise UserError("the suite cost needs a checkpoint file: save it first")
    print("cost: playing in a process of its own", file=sys.stderr)
    how: Any = {"steps": options.steps, "device": device_of(checkpoint.model), "precision": options.precision}
    figures = cost.measure(checkpoint.path, options.long, True, options.deadline, **how)
    yield Found("cost", {"cost": figures | cost.in_turn(checkpoint, options.long, options.deadline, **how)}, {})


SUITES: dict[tuple[str, ...], Callable[..., Iterator[Found]]] = {
    ("fidelity", "sprites", "control"): _rollouts,
    ("stability",): _stability,
    **places.SUITES,
}
