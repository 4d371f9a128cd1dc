"""The commands of `python -m data_collect`: their flags, and what they print."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from data_collect.commandline import Command, Parser, Program

PROGRAM = Program(
    "python -m data_collect",
    "Record gameplay, verify it, look at it.",
    [
        Command("record", "record", "play a game into a folder of shards; run it again to continue",
                "data_collect.commands:record", "data_collect.commands:record_parser"),
        Command("corpus", "record", "record every game of a list, each into a folder of its own",
                "data_collect.commands:corpus", "data_collect.commands:corpus_parser"),
        Command("verify", "look at a recording", "read every chunk of a recording, and replay some episodes",
                "data_collect.commands:verify", "data_collect.commands:verify_parser"),
        Command("inspect", "look at a recording", "show the card of a recording, and a picture of its episodes",
                "data_collect.commands:inspect", "data_collect.commands:inspect_parser"),
    ],
    [
        "python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out data/maze",
        "python -m data_collect verify data/maze",
        "python -m data_collect inspect data/maze --sheet sheet.png",
    ],
)  # fmt: skip

RECORD = (  # 5 and three quarters are those of `plan.py`, which would bring numpy
    "Play a game into a folder of shards; run it again to continue.\n\n"
    "An episode in which the game fails (raises, exits, is killed, or does not answer within GAME_SECONDS, 60 unless "
    "set)\nis kept up to there, named, and listed in dataset.json under `faults`. Recording goes on, and stops when at "
    "least 5\nepisodes and more than three quarters of them have ended so."
)


def record_parser() -> Parser:
    parser = Parser("python -m data_collect record", RECORD, [
        "python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out data/maze",
        "python -m data_collect record --game gym:my_game:MyGame-v0 --player human --frames 5000 --out data/mine",
        "python -m data_collect record --game pygame:my_program.py --player random --frames 5000 --out data/program",
        "python -m data_collect record --game 'doom?scenario=deathmatch' --player wanderer --frames 9000 --out data/dm",
    ])  # fmt: skip
    what = parser.group("what to record")
    what.add_argument(
        "--game", required=True, help="maze, isles, doom, scroll, gym:ID, pygame:FILE.py, with options: 'maze?size=9'"
    )
    what.add_argument("--player", required=True, help="explorer, wanderer, random, human or policy:MODULE:FUNCTION")
    what.add_argument("--frames", type=int, required=True, help="frames that the folder shall hold in the end")
    what.add_argument("--out", required=True, help="the folder; one that holds the same recording is continued")
    what.add_argument("--minutes", type=float, help="begin no more episodes after so long, however many frames there "
                      "are")  # fmt: skip
    how = parser.group("how")
    how.add_argument("--keys", help="what a pygame program is played with, such as left,right,space,mouse,joystick "
                     "(default: what is found)")  # fmt: skip
    about = "processes, or ray or ray:N for N of a Ray cluster; the result does not depend on it (default: 1)"
    how.add_argument("--workers", default="1", help=about)
    how.add_argument("--seed", type=int, help="what the episodes are a function of (default: the folder's, or 0)")
    how.add_argument("--episode-frames", type=int,
                     help="an episode is cut at this length (default: the folder's, or 2048)")  # fmt: skip
    return parser


def record(words: list[str]) -> int:
    return make_recording(**vars(record_parser().parse_args(words)))


def make_recording(
    out: str, frames: int, game: str, minutes: float | None = None, keys: str | None = None, **how: Any
) -> int:
    """The same, with the arguments of `recording.record.record`; the exit status."""
    from data_collect.games import with_options
    from data_collect.recording.record import record
    from data_collect.shards.inspect import size

    started = time.monotonic()
    game = with_options(game, {} if keys is None else {"keys": keys})
    card = record(out, game=game, frames=frames, minutes=minutes, **how).card
    print(
        f"{out}: {card['frames']:,} frames in {card['episodes']:,} episodes, {card['shards']} shards, "
        f"{size(card['bytes'])}, after {time.monotonic() - started:,.1f} s"
    )
    if card["frames"] < frames and minutes is not None:
        print(f"its {minutes:g} minutes were over before the {frames:,} frames that were wanted")
    if faults := card["faults"]:
        print(f"{len(faults):,} episodes ended because the game failed: {out}/dataset.json tells why")
    return 0


def corpus_parser() -> Parser:
    parser = Parser(
        "python -m data_collect corpus",
        "Record every game of a list, each into a folder of its own; run it again to continue.",
        ["python -m data_collect corpus --config configs/base/games.yaml --out recordings/base"],
    )
    parser.add_argument("--config", type=Path, required=True, help="the list: configs/base/games.yaml shows how")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--workers", type=int, default=1, help="games at a time (default: 1)")
    parser.add_argument("--only", default="", metavar="GROUP", help="record this group of the list alone")
    parser.add_argument("--skip-missing", action="store_true", help="leave out games whose package is not installed")
    return parser


def corpus(words: list[str]) -> int:
    from data_collect.recording.corpus import corpus

    options = corpus_parser().parse_args(words)
    print(f"{options.out}: {corpus(**vars(options)):,} frames")
    return 0


def verify_parser() -> Parser:
    parser = Parser("python -m data_collect verify", "Read every chunk of a recording, and replay some episodes.",
                    ["python -m data_collect verify data/maze --replay all"])  # fmt: skip
    parser.add_argument("folder", help="a recording")
    parser.add_argument("--replay", default="3",
                        help="episodes to play again and compare: a number or 'all' (default: 3)")  # fmt: skip
    return parser


def verify(words: list[str]) -> int:
    from data_collect.shards.verify import verify

    arguments = verify_parser().parse_args(words)
    print(verify(arguments.folder, arguments.replay))
    return 0


def inspect_parser() -> Parser:
    parser = Parser("python -m data_collect inspect", "Show the card of a recording.",
                    ["python -m data_collect inspect data/maze --sheet sheet.png"])  # fmt: skip
    parser.add_argument("folder", help="a recording")
    parser.add_argument("--sheet", metavar="FILE.png", help="write a contact sheet of its episodes")
    parser.add_argument("--json", action="store_true", help="print the card as JSON, and nothing else")
    return parser


def inspect(words: list[str]) -> int:
    from data_collect.shards.inspect import inspect

    arguments = inspect_parser().parse_args(words)
    inspect(arguments.folder, arguments.sheet, arguments.json)
    return 0
