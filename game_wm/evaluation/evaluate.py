"""How good a checkpoint is, measured on seeds that training never saw, with the real game as the truth.

    python -m game_wm evaluate checkpoints/maze.safetensors
    python -m game_wm evaluate checkpoints/maze.safetensors --suite fidelity,control --episodes 8     # a quick look
    python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity --json - --out runs/mine/card

Each suite is described in the file of its name, truth and prompt in truth/game.py. A suite that a game lacks the means
for is left out; one line says so. As soon as a suite has its figures they are written beside the checkpoint, or into
--out: NAME.json, NAME.md and NAME.png; revisit adds NAME-revisit.png (quality against age) and NAME-returns.png, dream
NAME-ways.png. A smaller sample than the card's goes into files of its own (report/publish.py). Revisit also measures a
model without long memory, NAME-window.safetensors in `reference/` or beside the checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect.commandline import Parser
from game_wm.evaluation.options import HELD_OUT_EPISODES, SUITES, Options

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint


def parser() -> Parser:
    parser = Parser("python -m game_wm evaluate", "Measure a checkpoint against the real game, and write its card.", [
        "python -m game_wm evaluate checkpoints/maze.safetensors",
        "python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity,control --episodes 2    # a quick look",
        "python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity --json - --out runs/mine/card",
    ])  # fmt: skip
    parser.add_argument("checkpoint", type=Path, help="a .safetensors file")
    what = parser.group("what to measure, and on how much")
    what.add_argument("--suite", default=",".join(SUITES), help="comma-separated (default: %(default)s)")
    what.add_argument("--episodes", type=int, default=HELD_OUT_EPISODES, metavar="N",
                      help="held-out seeds (default: %(default)s)")  # fmt: skip
    what.add_argument("--first-seed", type=int, metavar="N",
                      help="the first of them (default: 90000, which the committed cards are of)")  # fmt: skip
    what.add_argument("--frames", type=int, metavar="N", help="frames of the stability and cost runs (default: 10000, "
                      "fewer for less than 16 episodes)")  # fmt: skip
    what.add_argument("--prompts", help="frames of revisit's prompts, comma-separated (default: 256,1024,4096)")
    what.add_argument("--window", type=Path, metavar="FILE", help="revisit compares with this checkpoint (default: "
                      "NAME-window.safetensors in reference/ or beside the checkpoint, if it is there)")  # fmt: skip
    how = parser.group("how the model runs")
    how.add_argument("--steps", type=int, metavar="N", help="denoiser calls a frame (default: the checkpoint's)")
    how.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps or auto (default: %(default)s)")
    how.add_argument("--precision", choices=("auto", "8", "16", "32"), default="auto", help="bits of the arithmetic "
                     "(default: 16 where the machine has bfloat16, as in play)")  # fmt: skip
    where = parser.group("where the card goes")
    where.add_argument("--out", type=Path, metavar="DIR", help="folder of the card (default: beside the checkpoint)")
    where.add_argument("--replace", action="store_true",
                       help="put this sample into the card even where it holds a larger one")  # fmt: skip
    where.add_argument("--json", metavar="FILE", help="write the card with these figures there; - is standard output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m game_wm evaluate`: measure a checkpoint and write its card. `UserError` for what the user can mend."""
    arguments = parser().parse_args(argv)
    return evaluate(arguments.checkpoint, options_of(arguments), arguments.out, arguments.replace, arguments.json)


def evaluate(
    weights_at: Path, options: Options, out: Path | None = None, replace: bool = False, into: str | None = None
) -> int:
    """Measure the checkpoint in a file, and write its card; the exit status. Raises `UserError`.

    `out`, `replace` and `into` are the flags --out, --replace and --json.
    """
    from game_wm.checkpoint import load
    from game_wm.evaluation.report.card import file_hash, merge, read, writable, write
    from game_wm.evaluation.report.page import section
    from game_wm.evaluation.report.publish import make_card, path_of, publish
    from game_wm.evaluation.suites import measure

    checkpoint = prepared(weights_at, options)
    path = path_of(checkpoint, options, out)
    writable(path.parent)
    card = read(path)  # a file that is no card is told of before the work
    if into and into != "-":
        writable(Path(into).parent, "--json")
    if "revisit" in options.suites and (window := options.window_of(checkpoint.path)):
        load(window)
    weights = file_hash(weights_at)  # of now: the file may be replaced meanwhile
    announce(checkpoint, options)
    if card and card.get("weights") != weights:
        print(f"{path} is of other weights than {weights_at} now has: it is replaced", file=sys.stderr)
    said = sys.stderr if into == "-" else sys.stdout
    for found in measure(checkpoint, options):
        new = make_card(checkpoint, options, found, weights, out)
        place = publish(path, new, found.pictures, options.episodes, replace)
        card = merge(card, new)
        if not found.whole:
            continue
        print("\n".join(section(new, found.suite)), file=said)
        print(f"{found.suite}: written to {place} and {place.with_suffix('.md').name}", file=sys.stderr)
        if place != path:
            kept = f"{path} has a larger sample of {found.suite} and keeps it"
            print(f"{kept}; --replace puts this one there", file=sys.stderr)
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    if into == "-":
        sys.stdout.write(text)
    elif into:
        write(Path(into), text)
    return 0


def options_of(arguments: Any) -> Options:
    suites = tuple(dict.fromkeys(name.strip() for name in arguments.suite.split(",") if name.strip()))
    try:
        prompts = tuple(int(part) for part in arguments.prompts.split(",")) if arguments.prompts else None
    except ValueError:
        prompts = (0,)
    names = ("episodes", "frames", "steps", "window", "precision", "device")
    given = {name: getattr(arguments, name) for name in names}
    return Options(suites, prompts=prompts, first=arguments.first_seed, **given)


def prepared(path: Path, options: Options) -> Checkpoint:
    """The checkpoint, ready to dream on the device and in the precision that are asked for."""
    from game_wm.acceleration import prepare
    from game_wm.checkpoint import load

    checkpoint = load(path, options.device)
    if options.steps is not None:
        checkpoint.check_steps(options.steps)
    prepare(checkpoint.model, options.precision, options.device)
    return checkpoint


def announce(checkpoint: Checkpoint, options: Options) -> None:
    """One line about what is measured, and on what."""
    import torch

    tokens, model = checkpoint.model.config.dynamics.tokens, checkpoint.model
    bits = 8 if model.quantised else 16 if model.low_precision else 32
    print(
        f"evaluating {checkpoint.path} ({checkpoint.game}): {checkpoint.parameters / 1e6:.2f} M parameters, "
        f"{tokens} tokens and {options.steps or model.steps} denoiser calls a frame; "
        f"{options.device}, {bits} bits, {torch.get_num_threads()} threads; {', '.join(options.suites)}, "
        f"{options.episodes} episodes",
        file=sys.stderr,
    )
