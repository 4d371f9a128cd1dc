"""Record gameplay, verify it, look at it.

python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out data/maze
python -m data_collect verify data/maze
python -m data_collect inspect data/maze --sheet sheet.png
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from data_collect.errors import main_guard


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run one command; `UserError` for what the user can mend."""
    arguments = _parser().parse_args(argv)
    # One process a core: threads of numerical libraries would only fight them. Before numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return {"record": _record, "verify": _verify, "inspect": _inspect}[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m data_collect", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)

    record = commands.add_parser("record", help="play a game into a folder of shards; run it again to continue")
    record.add_argument("--game", required=True, help="maze, doom, gym:ID, with options: 'maze?size=9&creatures=0'")
    record.add_argument("--player", required=True, help="explorer, wanderer, random, human or policy:MODULE:FUNCTION")
    record.add_argument("--frames", type=int, required=True, help="frames that the folder shall hold in the end")
    record.add_argument("--out", required=True, help="the folder; one that holds the same recording is continued")
    record.add_argument(
        "--workers", type=int, default=1, help="processes; the result does not depend on it (default: 1)"
    )
    record.add_argument("--seed", type=int, help="what the episodes are a function of (default: the folder's, or 0)")
    record.add_argument(
        "--episode-frames", type=int, help="an episode is cut at this length (default: the folder's, or 2048)"
    )

    verify = commands.add_parser("verify", help="read every chunk of a recording, and replay some episodes")
    verify.add_argument("folder")
    verify.add_argument(
        "--replay", default="3", help="episodes to play again and compare: a number or 'all' (default: 3)"
    )

    inspect = commands.add_parser("inspect", help="show the card of a recording")
    inspect.add_argument("folder")
    inspect.add_argument("--sheet", metavar="FILE.png", help="write a contact sheet of its episodes")
    inspect.add_argument("--json", action="store_true", help="print the card as JSON, and nothing else")
    return parser


def _record(arguments: argparse.Namespace) -> int:
    from data_collect.record import record

    started = time.monotonic()
    dataset = record(
        arguments.out, arguments.game, arguments.player, arguments.frames,
        arguments.workers, arguments.seed, arguments.episode_frames,
    )  # fmt: skip
    card = dataset.card
    print(
        f"{arguments.out}: {card['frames']:,} frames in {card['episodes']:,} episodes, {card['shards']} shards, "
        f"{card['bytes'] / 1e6:,.1f} MB, after {time.monotonic() - started:,.1f} s"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from data_collect.verify import verify

    print(verify(arguments.folder, arguments.replay))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from data_collect.inspect import inspect

    inspect(arguments.folder, arguments.sheet, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
