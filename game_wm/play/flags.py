"""The flags of play.py: what they are, which go together, and the file that they name. PyTorch is not needed."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from data_collect.commandline import Parser
from data_collect.errors import UserError, nearest
from game_wm.library import SHIPPED, playable

DEFAULT = SHIPPED / "doom.safetensors"
WHERE = ("context", "picture", "recording", "load", "replay")
WINDOW_ONLY = ("player", "record", "load", "replay")  # --web has none of these
HOST, PORT, PLAYERS = "127.0.0.1", 8080, 2  # of --web
QUALITIES = ("fast", "balanced", "best")  # as in `acceleration/quality.py`, which would bring PyTorch
SEEDS = 2**62  # the network takes 64 bits, and each player and episode counts on from the seed
HEADLESS_FRAMES = 1000  # of a headless run that was given neither a number nor an action file


def parser() -> Parser:
    """Flags of play.py, which outside the project's folder is `python -m game_wm play`."""
    play = "python play.py" if Path(sys.argv[0]).name == "play.py" else "python -m game_wm play"
    names = ", ".join(path.stem for path in playable(SHIPPED)) or "none"
    p = Parser(play, f"Play a world model. Those in {SHIPPED.name}/: {names}. In the window, H shows the keys.", [
        f"{play}                                        # choose in a window",
        f"{play} maze --player random --record dream.mp4   # filmed, by a player who presses at random",
        f"{play} runs/mine/mine.safetensors --view both    # the real game beside the dream",
        f"{play} --headless --frames 600 --video dream.mp4   # no display needed",
        f"{play} --web --host 0.0.0.0                      # in browsers, of other machines too",
    ])  # fmt: skip
    p.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        help=f"a .safetensors file, or one of these names (default: you choose; headless: {DEFAULT.stem})",
    )
    g = p.group("how to play")
    g.add_argument("--view", choices=("dream", "real", "both"), default="dream",
                   help="the dream, the real game, or both from the same moment by the same keys")  # fmt: skip
    g.add_argument("--player", help="keyboard (in the window), random (without one) or policy:MODULE:FUNCTION")
    g.add_argument("--record", type=Path, metavar="FILE.mp4", help="film what is played (.mp4 or .gif)")
    g.add_argument("--keys", type=Path, metavar="FILE", help="a key map of your own: YAML or JSON")
    g.add_argument("--fps", type=rate, metavar="N",
                   help="frames a second (default: the game's own; 0: as fast as it goes)")  # fmt: skip
    b = p.group("where to begin")
    b.add_argument("--seed", type=seed, default=0, metavar="N", help="chooses the noise, and the place to begin in")
    b.add_argument("--context", type=int, metavar="K", help="in seed context K, whatever the seed")
    b.add_argument("--picture", type=Path, metavar="FILE", help="in a picture of your own")
    b.add_argument("--recording", type=Path, metavar="DIR", help="in the episodes of a recording")
    b.add_argument("--load", type=Path, metavar="FILE.dream", help="where a dream was saved")
    b.add_argument("--replay", type=Path, metavar="FILE.dream", help="at the start of a saved dream, played again")
    q = p.group("how fast, and how well")
    q.add_argument("--quality", choices=(*QUALITIES, "auto"),
                   help="auto: balanced, less where that is too slow (default; headless: balanced)")  # fmt: skip
    q.add_argument("--precision", choices=("auto", "8", "16", "32"),
                   help="bits of the arithmetic (auto: 16 where the machine has bfloat16, else 32)")  # fmt: skip
    q.add_argument("--compile", action="store_true",
                   help="compile in the background (a minute or two, the first time), then play on faster")  # fmt: skip
    q.add_argument("--steps", type=positive, metavar="N", help="denoiser calls a frame (default: the quality's)")
    q.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    q.add_argument("--threads", type=positive, metavar="N", help="processor threads (default: all cores)")
    w = p.group("in browsers")
    w.add_argument("--web", action="store_true", help="serve a page to play on, here or from another machine")
    w.add_argument("--host", metavar="ADDRESS", help=f"to listen on ({HOST}; others ask for a token, which is printed)")
    w.add_argument("--port", type=port, metavar="N", help=f"to listen on ({PORT}; 0: any that is free)")
    w.add_argument("--players", type=positive, metavar="N", help=f"how many may play at once ({PLAYERS})")
    w.add_argument(
        "--certificate", type=Path, metavar="FILE.pem", help="encrypt the line (HTTPS) with this certificate"
    )
    w.add_argument("--key", type=Path, metavar="FILE.pem", help="its key, where that is a file of its own")
    h = p.group("without a window")
    h.add_argument("--headless", action="store_true", help="play as fast as it goes, without a display")
    h.add_argument(
        "--frames", type=positive, metavar="N", help=f"how many (default: all of --actions, else {HEADLESS_FRAMES})"
    )
    h.add_argument("--actions", type=Path, metavar="FILE", help="play these raw actions: .npz, .npy or .json")
    h.add_argument("--video", type=Path, metavar="FILE.mp4", help="write the frames to a video (.mp4 or .gif)")
    h.add_argument("--json", action="store_true", help="print the card's cost object alone (after 64 warm-up frames)")
    return p


def check_flags(options: argparse.Namespace) -> None:
    if not options.headless:
        for name in ("frames", "actions", "video", "json"):
            if getattr(options, name):
                raise UserError(f"--{name} needs --headless (to film in the window: --record FILE.mp4)")
    for name in ("host", "port", "players", "certificate", "key"):
        if getattr(options, name) is not None and not options.web:
            raise UserError(f"--{name} needs --web")
    if options.headless and options.video and options.record:
        raise UserError(f"--video {options.video} and --record {options.record} are the same film: give one of them")
    if options.web:
        if options.headless:
            raise UserError("--web and --headless: give one of them")
        for name in WINDOW_ONLY:
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for the window: leave it out, or leave out --web")
        if options.view != "dream":
            raise UserError("--view is for the window: leave it out, or leave out --web")
    given = [name for name in WHERE if getattr(options, name) is not None]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} both say where to begin: give one of them")
    if options.json and options.view != "dream":
        raise UserError("--json tells what a frame of the dream costs: leave out --view")
    for name in ("load", "replay"):
        if getattr(options, name) is not None and (options.view != "dream" or options.actions):
            raise UserError(f"--{name} goes on in a saved dream: leave out --view and --actions")


def chooses(options: argparse.Namespace) -> bool:
    """Whether the player chooses what to play: no file is named, and nothing that only one of them has."""
    of_one = any(getattr(options, name) is not None for name in (*WHERE, "record", "steps"))
    return options.checkpoint is None and not (of_one or options.headless or options.view != "dream")


def checkpoint_path(given: Path | None) -> Path:
    path = given or DEFAULT
    if path.is_file():
        return path
    if given is None:
        raise UserError(f"{path} is not there: train one with `make demo`, or name a checkpoint (play.py FILE)")
    named = {each.stem: each for each in playable(SHIPPED)}
    if str(given) in named:
        return named[str(given)]
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a .safetensors checkpoint")
    beside = [str(each) for each in playable(path.parent)] if path.parent.is_dir() else []
    raise UserError(f"{path} does not exist: name a .safetensors checkpoint{nearest(str(path), [*named, *beside])}")


def positive(words: str) -> int:
    value = int(words)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{words} is not a positive number")
    return value


def seed(words: str) -> int:
    if not (words.isdecimal() and int(words) < SEEDS):
        raise argparse.ArgumentTypeError(f"{words} is not a seed (a whole number from 0 to {SEEDS - 1})")
    return int(words)


def port(words: str) -> int:
    value = int(words)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{words} is not a port (0 to 65535)")
    return value


def rate(words: str) -> float:
    value = float(words)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{words} is not a rate")
    return value
