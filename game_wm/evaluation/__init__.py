"""How good a checkpoint is, measured on seeds that training never saw, with the real game as the truth.

    python -m game_wm evaluate checkpoints/maze.safetensors
    python -m game_wm evaluate checkpoints/maze.safetensors --suite fidelity,control --episodes 8     # a quick look
    python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity --json - --out runs/mine/card

Suites: fidelity (with reward and termination), control, stability, revisit, dream, cost. Each is described in the file
of its name; what truth and prompt are, in rollout.py. What a game lacks the means for is left out; one line says so.
Written beside the checkpoint, or into --out: NAME.json, NAME.md and NAME.png; by revisit also NAME-revisit.png (quality
against age) and NAME-returns.png, by dream NAME-ways.png (there and back). Revisit measures NAME-window.safetensors
along, a model of the same size without long memory, where that file lies beside the checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect.commandline import Parser
from data_collect.errors import UserError
from data_collect.files import save_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from game_wm.checkpoint import Checkpoint
    from game_wm.evaluation.control import Namer
    from game_wm.evaluation.rollout import RealGame, Tick

EPISODES = 64
CACHE = Path("runs/evaluation")
SUITES = ("fidelity", "control", "stability", "revisit", "dream", "cost")


@dataclass(frozen=True)
class Options:
    """What to measure and on how much of it. Fewer episodes are a smaller sample of the same protocol."""

    suites: tuple[str, ...] = SUITES
    episodes: int = EPISODES
    frames: int | None = (
        None  # of stability's dreams and of the cost run; None: 10,000, fewer for less than 16 episodes
    )
    steps: int | None = None  # denoiser calls a frame; None: the checkpoint's own
    cache: Path | None = CACHE  # where the inverse-dynamics network is kept
    inverse_plays: int | None = None  # None: the protocol's
    inverse_updates: int | None = None
    prompts: tuple[int, ...] | None = None  # frames of revisit's prompts; None: the protocol's
    window: Path | None = None  # revisit compares with this file; None: NAME-window.safetensors, if it is there
    gem_walks: int | None = None  # of the gem detector's training; None: the protocol's
    gem_updates: int | None = None
    first: int | None = None  # the first held-out seed; None: FIRST_SEED, which the committed cards are of
    precision: str = "auto"  # of the window-only model and of the cost run; the model itself comes as it is

    def __post_init__(self) -> None:
        unknown = [suite for suite in self.suites if suite not in SUITES]
        if unknown or not self.suites:
            raise UserError(f"unknown suite {', '.join(unknown) or '(none)'}: --suite takes {', '.join(SUITES)}")
        for name in ("episodes", "frames", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if self.first is not None and not 0 <= self.first < 2**31 - 1000:
            raise UserError(f"--first-seed must lie between 0 and 2147482647, got {self.first}")
        if self.prompts is not None and min(self.prompts, default=0) < 1:
            raise UserError("--prompts takes numbers of frames, such as 256,1024")

    def seeds(self, count: int) -> range:
        """So many held-out seeds. Training's are drawn at random of 2^31."""
        from game_wm.evaluation.rollout import FIRST_SEED

        first = FIRST_SEED if self.first is None else self.first
        return range(first, first + count)

    @property
    def runs(self) -> int:
        """Runs of each kind in the dream suite."""
        return min(32, self.episodes)

    @property
    def dreams(self) -> int:
        """Dreams of the stability suite."""
        return min(16, self.episodes)

    @property
    def long(self) -> int:
        """Frames of a long run."""
        return self.frames or max(1000, 10_000 * self.dreams // 16)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Tick]:
    """A progress bar on standard error that is gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def evaluate(checkpoint: Checkpoint, options: Options) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """Run the suites on a loaded checkpoint -> the card's results by key, and pictures by what follows NAME.

    The pictures: "" is the contact sheet of fidelity, "-revisit" and "-returns" are those of revisit, "-ways" of dream.

    Raises UserError when the game cannot be made or makes frames of another size.
    """
    from game_wm.evaluation.features import FeatureDistance
    from game_wm.evaluation.rollout import RealGame, device_of

    model, results = checkpoint.model, dict[str, Any]()
    pictures: dict[str, Image.Image] = {}
    pictured = {"fidelity", "stability", "revisit"} & set(options.suites)
    features = FeatureDistance(device_of(model)) if pictured else None
    prompt = max(32, model.window, checkpoint.contexts_frames.shape[1])
    if set(options.suites) - {"cost"}:
        height, width = checkpoint.contexts_frames.shape[2:4]
        with RealGame(checkpoint.game, (width, height)) as game:
            if {"fidelity", "control"} & set(options.suites):
                found, sheet = _rollouts(checkpoint, options, game, features, prompt)
                results |= found
                pictures |= {"": sheet} if sheet else {}
            if "revisit" in options.suites:
                found, drawn = _revisit(checkpoint, options, game, features)
                results |= found
                pictures |= drawn
            if "dream" in options.suites:
                found, drawn = _dream(checkpoint, options, game, prompt)
                results |= found
                pictures |= drawn
            if "stability" in options.suites:
                from game_wm.evaluation.stability import budget, stability

                seeds = options.seeds(options.dreams)
                with _progress("stability", budget(options.dreams, options.long)) as tick:
                    assert features is not None
                    for found in stability(model, game, features, prompt, seeds, options.long, options.steps, tick):
                        results["stability"] = found
    if "cost" in options.suites:
        from game_wm.evaluation.cost import cost

        if checkpoint.path is None:
            raise UserError("the suite cost needs a checkpoint file: save it first")
        print("cost: playing in a process of its own", file=sys.stderr)
        results["cost"] = cost(checkpoint.path, options.long, options.steps, device_of(model).type, options.precision)
    return results, pictures


def _rollouts(
    checkpoint: Checkpoint, options: Options, game: Any, features: Any, prompt: int
) -> tuple[dict[str, Any], Image.Image | None]:
    """Fidelity, reward and termination, control: all of the same free rollouts."""
    from game_wm.evaluation.control import Control
    from game_wm.evaluation.fidelity import HORIZONS, Fidelity
    from game_wm.evaluation.outcomes import Outcomes
    from game_wm.evaluation.rollout import BATCH, roll, stack
    from game_wm.evaluation.sheet import draw

    model, frames = checkpoint.model, HORIZONS[-1]
    seeds = options.seeds(options.episodes)
    fidelity = Fidelity(features) if "fidelity" in options.suites else None
    outcomes, control = Outcomes(), None
    if "control" in options.suites:
        control = Control(_namer(checkpoint, options, game))
        game.ended.clear()
    sheet, told = None, False
    with _progress("rollouts", options.episodes * (frames + 1)) as tick:
        for truth in game.truths(seeds, prompt, frames, HORIZONS, tick):
            dream = roll(model, truth, options.steps, tick)
            told = truth.poses is not None and getattr(model, "placed", False)
            outcomes.add(truth.length, truth.rewards, dream.rewards, truth.terminated, dream.terminated)
            if fidelity:
                fidelity.add(model, truth, dream)
                sheet = sheet or draw(truth, dream)
            if control:
                control.add(model, truth, dream)
        ended = game.ended[: options.episodes] if fidelity else []
        for first in range(0, len(ended), BATCH):
            truth = stack(ended[first : first + BATCH], prompt, frames)
            dream = roll(model, truth, options.steps)
            outcomes.add(truth.length, truth.rewards, dream.rewards, truth.terminated, dream.terminated)
    results: dict[str, Any] = {}
    if fidelity:
        results["fidelity"] = fidelity.result() | {
            "episodes": options.episodes,
            "prompt_frames": prompt,
            "protocol": f"Prompts are played by `{game.led_by}` after a warm-up of 32 to 159 frames, the actions "
            "dreamt are random-sticky; of eight action seeds the first is taken in whose truth the game does not end."
            + (" The game has one map, so the map was seen in training." if game.one_map else "")
            + (" The poses of a prompt's frames are told with it." if told else ""),
        }
        results["reward"] = outcomes.reward()
        results["termination"] = outcomes.termination() | {"endings": len(ended)}
    if control:
        results["control"] = control.result()
    return results, sheet


def _namer(checkpoint: Checkpoint, options: Options, game: RealGame) -> Namer:
    """The inverse-dynamics network."""
    from game_wm.evaluation.control import PLAYS, UPDATES, inverse_dynamics

    plays, updates = options.inverse_plays or PLAYS, options.inverse_updates or UPDATES
    with _progress("inverse dynamics", plays + updates) as tick:
        return inverse_dynamics(game, checkpoint.game, options.cache, plays, updates, tick)


def window_only(checkpoint: Checkpoint, options: Options) -> Path | None:
    """The file of the model without long memory, if there is one; `UserError` when the one named is missing."""
    if options.window is not None and not options.window.is_file():
        raise UserError(f"--window {options.window}: no such file")
    beside = checkpoint.path.with_name(f"{checkpoint.path.stem}-window.safetensors") if checkpoint.path else None
    return options.window or (beside if beside and beside.is_file() else None)


def _revisit(
    checkpoint: Checkpoint, options: Options, game: RealGame, features: Any
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    from game_wm.acceleration import prepare
    from game_wm.checkpoint import load
    from game_wm.evaluation.plot import plot, sheet
    from game_wm.evaluation.revisit import PROMPTS, budget, revisit
    from game_wm.evaluation.rollout import device_of

    if "surface" not in game.env.reset(seed=options.seeds(1)[0])[1]:
        print(
            f"revisit: left out, for {checkpoint.game} does not number the surfaces behind its pixels", file=sys.stderr
        )
        return {}, {}
    file, prompts = window_only(checkpoint, options), options.prompts or PROMPTS
    window = load(file, device_of(checkpoint.model)).model if file else None
    if window is not None:
        prepare(window, options.precision, str(device_of(checkpoint.model)))
    if window is not None and (window.height, window.width) != (checkpoint.model.height, checkpoint.model.width):
        raise UserError(f"{file} dreams frames of another size than {checkpoint.path}: name another one with --window")
    seeds = options.seeds(options.episodes)
    with _progress("revisit", budget(options.episodes, prompts)) as tick:
        card, returns = revisit(checkpoint.model, game, features, seeds, prompts, window, options.steps, tick)
    return {"revisit": card}, {"-revisit": plot(card), "-returns": sheet(returns)}


def _dream(
    checkpoint: Checkpoint, options: Options, game: RealGame, prompt: int
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    from game_wm.evaluation.dream import budget, dream
    from game_wm.evaluation.gems import UPDATES, WALKS, Bare, gem_detector, has_gems
    from game_wm.evaluation.plot import ways
    from game_wm.evaluation.trips import lacking

    if reason := lacking(game):
        print(f"dream: left out, for {checkpoint.game}: {reason}", file=sys.stderr)
        return {}, {}
    namer, gems = _namer(checkpoint, options, game), None
    if has_gems(game):
        walks, updates = options.gem_walks or WALKS, options.gem_updates or UPDATES
        with _progress("gem detector", walks + max(1, walks // 5) + updates) as tick:
            detector = gem_detector(game, checkpoint.game, options.cache, tick, walks, updates)
        gems = (Bare(game, checkpoint.game), detector)
    seeds = options.seeds(options.runs)
    with _progress("dream", budget(options.runs, gems=gems is not None)) as tick:
        card, notes, found = dream(checkpoint.model, game, namer, seeds, prompt, gems, steps=options.steps, tick=tick)
    for note in notes:
        print(f"dream: {note}", file=sys.stderr)
    return {"dream": card}, {"-ways": ways(found)} if found else {}


def make_card(checkpoint: Checkpoint, options: Options, results: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """Results with what identifies them, before they are merged with an existing card."""
    from data_collect import games
    from game_wm.evaluation.card import SUITES as KEYS
    from game_wm.evaluation.card import file_hash

    assert checkpoint.path is not None
    line = f"python -m game_wm evaluate {checkpoint.path} --suite {{suites}}"
    line += f" --episodes {options.episodes}" if options.episodes != EPISODES else ""
    line += f" --frames {options.frames}" if options.frames else ""
    line += f" --steps {options.steps}" if options.steps else ""
    line += f" --prompts {','.join(map(str, options.prompts))}" if options.prompts else ""
    line += f" --window {options.window}" if options.window else ""
    line += f" --first-seed {options.first}" if options.first is not None else ""
    line += f" --precision {options.precision}" if options.precision != "auto" else ""
    line += f" --out {out}" if out else ""
    last = {"fidelity": options.episodes, "control": options.episodes, "stability": 2 * options.dreams}
    last |= {"revisit": options.episodes, "dream": options.runs}
    runs = {}
    for suite in options.suites:
        if not set(KEYS[suite]) & set(results):  # left out: the game lacks what it needs
            continue
        runs[suite] = {"command": line}
        if suite == "revisit" and (window := window_only(checkpoint, options)):
            runs[suite] |= {"window": window.name, "window_weights": file_hash(window)}
        if suite in last:
            seeds = options.seeds(last[suite])
            runs[suite]["seeds"] = f"{seeds[0]}-{seeds[-1]}"
    teacher = checkpoint.path.with_name(f"{checkpoint.path.stem}-teacher.json")
    head = {
        "checkpoint": checkpoint.path.stem,
        "game": checkpoint.game,
        "parameters": checkpoint.parameters,
        "tokens_per_frame": checkpoint.model.config.dynamics.tokens,
        "calls_per_frame": options.steps or checkpoint.model.steps,
        "trained": checkpoint.trained,
        "weights": file_hash(checkpoint.path),
    }
    known = getattr(getattr(checkpoint.model, "geometry", None), "atlas", None)
    if known is not None:
        what = f"{len(known.poses)} pictures and {len(known.stops)} stretches of wall of the level"
        head |= {"atlas": f"{what}, recorded for training"}
    head |= {"teacher": teacher.name} if teacher.exists() else {}
    head |= {"notice": said} if (said := games.notice(checkpoint.game)) else {}
    return head | {"runs": runs} | results


def parser() -> Parser:
    """Flags of `evaluate`."""
    parser = Parser("python -m game_wm evaluate", "Measure a checkpoint against the real game, and write its card.", [
        "python -m game_wm evaluate checkpoints/maze.safetensors",
        "python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity,control --episodes 2    # a quick look",
        "python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity --json - --out runs/mine/card",
    ])  # fmt: skip
    parser.add_argument("checkpoint", type=Path, help="a .safetensors file")
    what = parser.group("what to measure, and on how much")
    what.add_argument("--suite", default=",".join(SUITES), help="comma-separated (default: %(default)s)")
    what.add_argument(
        "--episodes", type=int, default=EPISODES, metavar="N", help="held-out seeds (default: %(default)s)"
    )
    what.add_argument("--first-seed", type=int, metavar="N",
                      help="the first of them (default: 90000, which the committed cards are of)")  # fmt: skip
    what.add_argument("--frames", type=int, metavar="N", help="frames of the stability and cost runs (default: 10000, "
                      "fewer for less than 16 episodes)")  # fmt: skip
    what.add_argument("--prompts", help="frames of revisit's prompts, comma-separated (default: 256,1024,4096)")
    what.add_argument("--window", type=Path, metavar="FILE", help="revisit compares with this checkpoint (default: "
                      "NAME-window.safetensors beside the checkpoint, if it is there)")  # fmt: skip
    how = parser.group("how the model runs")
    how.add_argument("--steps", type=int, metavar="N", help="denoiser calls a frame (default: the checkpoint's)")
    how.add_argument("--device", default="cpu", help="where the model runs (default: %(default)s)")
    how.add_argument("--precision", choices=("auto", "8", "16", "32"), default="auto", help="bits of the arithmetic "
                     "(default: 16 where the machine has bfloat16, as in play)")  # fmt: skip
    where = parser.group("where the card goes")
    where.add_argument("--out", type=Path, metavar="DIR", help="folder of the card (default: beside the checkpoint)")
    where.add_argument("--json", metavar="FILE", help="write the card there too; - is standard output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m game_wm evaluate`: measure a checkpoint and write its card. `UserError` for what the user can mend."""
    arguments = parser().parse_args(argv)
    suites = tuple(dict.fromkeys(name.strip() for name in arguments.suite.split(",") if name.strip()))
    try:
        prompts = tuple(int(part) for part in arguments.prompts.split(",")) if arguments.prompts else None
    except ValueError:
        prompts = (0,)
    options = Options(
        suites,
        arguments.episodes,
        arguments.frames,
        arguments.steps,
        prompts=prompts,
        window=arguments.window,
        first=arguments.first_seed,
        precision=arguments.precision,
    )

    import torch

    from game_wm.acceleration import prepare
    from game_wm.checkpoint import load
    from game_wm.evaluation.card import markdown, merge, read, tidy, writable, write

    try:
        checkpoint = load(arguments.checkpoint, arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {arguments.device!r} cannot be used: {str(error).splitlines()[0]}") from error
    if options.steps is not None:
        checkpoint.check_steps(options.steps)
    prepare(checkpoint.model, arguments.precision, arguments.device)
    path = writable(arguments.out or arguments.checkpoint.parent) / f"{arguments.checkpoint.stem}.json"
    read(path)  # a file that is no card is told of before the work
    if arguments.json and arguments.json != "-":
        writable(Path(arguments.json).parent, "--json")
    if "revisit" in suites and (window := window_only(checkpoint, options)):
        load(window)
    tokens, model = checkpoint.model.config.dynamics.tokens, checkpoint.model
    bits = 8 if model.quantised else 16 if model.low_precision else 32
    print(
        f"evaluating {arguments.checkpoint} ({checkpoint.game}): {checkpoint.parameters / 1e6:.2f} M parameters, "
        f"{tokens} tokens and {options.steps or checkpoint.model.steps} denoiser calls a frame; "
        f"{arguments.device}, {bits} bits, {torch.get_num_threads()} threads; {', '.join(suites)}, "
        f"{options.episodes} episodes",
        file=sys.stderr,
    )
    # A card is written after each piece of work, so that a run that is cut off leaves what it has measured.
    pieces = (
        [suite for suite in piece if suite in suites]
        for piece in (("fidelity", "control"), ("stability",), ("revisit",), ("dream",), ("cost",))
    )
    for piece in filter(None, pieces):
        part = replace(options, suites=tuple(piece))
        results, pictures = evaluate(checkpoint, part)
        # Read again: another evaluation may have written meanwhile.
        card = merge(read(path), tidy(make_card(checkpoint, part, results, arguments.out)))
        text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
        write(path, text)
        for name, picture in pictures.items():
            save_picture(path.with_name(f"{path.stem}{name}.png"), picture)
        write(path.with_suffix(".md"), markdown(card, path.with_suffix(".png").exists()))
        print(f"{', '.join(piece)}: written to {path} and {path.with_suffix('.md').name}", file=sys.stderr)
    if arguments.json == "-":
        sys.stdout.write(text)
    elif arguments.json:
        write(Path(arguments.json), text)
    return 0
