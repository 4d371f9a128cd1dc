"""The command line of play.py: reads the options, then opens the window, serves a page or plays without."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect.commandline import Parser
from data_collect.errors import UserError, nearest
from game_wm.library import SHIPPED, playable

if TYPE_CHECKING:
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.play.keymap import Command
    from game_wm.play.session import Session

DEFAULT = SHIPPED / "doom.safetensors"
BEGINNINGS = ("context", "picture", "recording", "load", "replay")
WINDOW_ONLY = ("player", "record", "load", "replay")  # --web has none of these
HOST, PORT, PLAYERS = "127.0.0.1", 8080, 2  # of --web
QUALITIES = ("fast", "balanced", "best")  # as in `acceleration/quality.py`, which would bring PyTorch
SEEDS = 2**62  # the network takes 64 bits, and each player and episode counts on from the seed
FRAMES = 1000  # of a headless run that was given neither a number nor an action file


def main(argv: list[str] | None = None) -> int:
    """Play a checkpoint; returns the exit status. `UserError` for everything that the user can mend."""
    options = parser().parse_args(argv)
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
    given = [name for name in BEGINNINGS if getattr(options, name) is not None]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} both say where to begin: give one of them")
    if options.json and options.view != "dream":
        raise UserError("--json tells what a frame of the dream costs: leave out --view")
    for name in ("load", "replay"):
        if getattr(options, name) is not None and (options.view != "dream" or options.actions):
            raise UserError(f"--{name} goes on in a saved dream: leave out --view and --actions")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that a film in hand is finished
    if options.web:
        return _web(options)
    return _headless(options) if options.headless else _window(options)


def parser() -> Parser:
    """Flags of play.py, which outside the project's folder is `python -m game_wm play`."""
    play = "python play.py" if Path(sys.argv[0]).name == "play.py" else "python -m game_wm play"
    names = ", ".join(path.stem for path in playable(SHIPPED)) or "none"
    p = Parser(play, f"Play a world model. Those in {SHIPPED.name}/: {names}. In the window, H shows the keys.", [
        f"{play}                                        # the Doom level, in a window",
        f"{play} maze --player random --record dream.mp4   # filmed, by a player who presses at random",
        f"{play} runs/mine/mine.safetensors --view both    # the real game beside the dream",
        f"{play} --headless --frames 600 --video dream.mp4   # no display needed",
        f"{play} --web --host 0.0.0.0                      # in browsers, of other machines too",
    ])  # fmt: skip
    p.add_argument("checkpoint", nargs="?", type=Path,
                   help=f"a .safetensors file, or the name of one of these (default: {DEFAULT.stem})")  # fmt: skip
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
    h.add_argument("--frames", type=positive, metavar="N", help=f"how many (default: all of --actions, else {FRAMES})")
    h.add_argument("--actions", type=Path, metavar="FILE", help="play these raw actions: .npz, .npy or .json")
    h.add_argument("--video", type=Path, metavar="FILE.mp4", help="write the frames to a video (.mp4 or .gif)")
    h.add_argument("--json", action="store_true", help="print the card's cost object alone (after 64 warm-up frames)")
    return p


def load_checkpoint(
    options: argparse.Namespace, report: Callable[[str, float], None]
) -> tuple[Checkpoint, tuple[Command, ...]]:
    """The checkpoint, with the places to begin in, and the window's keys; `report(stage, fraction)` feeds the progress
    bar. It is not yet prepared for play."""
    path = checkpoint_path(options.checkpoint)
    report("Starting PyTorch", 0.1)
    import torch  # a second on its own: only here, when the window stands already

    if options.threads:
        torch.set_num_threads(options.threads)
    report(f"Reading {path.name}", 0.6)
    from game_wm import checkpoint
    from game_wm.play import keymap, starts

    loaded = checkpoint.load(path, options.device)
    if loaded.warning:
        print(f"warning: {loaded.warning}", file=sys.stderr)
    commands: tuple[Command, ...] = keymap.COMMANDS
    if options.keys:
        schema, commands = keymap.read(options.keys, loaded.schema, getattr(options, "other", False))
        loaded = replace(loaded, schema=schema)
    if options.picture:
        loaded = starts.from_picture(loaded, options.picture)
    if options.recording:
        loaded = starts.from_recording(loaded, options.recording)
    return loaded, commands


def prepare(options: argparse.Namespace, loaded: Checkpoint) -> Quality:
    """The model at the quality that the options ask for, and at others."""
    from game_wm.acceleration.quality import AUTO, USUAL, Quality

    wanted = options.quality or (USUAL if options.headless else AUTO)
    fps = loaded.schema.fps if options.fps is None else options.fps
    return Quality(
        loaded.model, wanted, fps, steps=options.steps, precision=options.precision, compiled=options.compile,
        only=options.headless and wanted != AUTO,
    )  # fmt: skip


def load_session(options: argparse.Namespace, report: Callable[[str, float], None]) -> Session:
    """Load the checkpoint and begin an episode; `report` as in `load_checkpoint`."""
    loaded, commands = load_checkpoint(options, report)
    from game_wm.dream import saved
    from game_wm.dream.rewind import REWIND_BYTES
    from game_wm.play.session import Session, check

    file = options.load or options.replay
    dream = saved.load(file, loaded) if file else None
    check(loaded, options.steps, options.context)
    quality = prepare(options, loaded)
    report("Looking at the first frames", 0.9)
    player = options.player or ("random" if options.headless else "keyboard")
    session = Session(
        loaded, seed=options.seed, context=options.context, steps=options.steps, fps=options.fps, player=player,
        view=options.view, beginning=dream, commands=commands, quality=quality,
        rewind=0 if options.headless else REWIND_BYTES,
    )  # fmt: skip
    if options.replay and dream is not None and not options.headless:
        session.replay(dream)
    if options.record and not options.headless:
        session.record(options.record)
    report("Ready", 1.0)
    return session


def checkpoint_path(given: Path | None) -> Path:
    """The file to play; `UserError` where there is none."""
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


def _window(options: argparse.Namespace) -> int:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from game_wm.play.window.screen import require_display
        from game_wm.play.window.window import Window
    except ImportError as error:
        raise UserError(
            f"{error.name} is missing: pip install pygame-ce, or play without a window (--headless)"
        ) from None

    path = checkpoint_path(options.checkpoint)
    require_display()

    def opener(chosen: Path) -> Callable[[Callable[[str, float], None]], Session]:
        """Another checkpoint with the same options, but for those that belong to the first one alone."""
        alone = dict.fromkeys((*BEGINNINGS, "record", "steps"))
        other = argparse.Namespace(**{**vars(options), **alone, "checkpoint": chosen, "view": "dream", "other": True})
        return lambda report: load_session(other, report)

    folders = list(dict.fromkeys([path.resolve().parent, DEFAULT.parent]))
    Window(path.stem, lambda report: load_session(options, report), opener, folders).run()
    return 0


def _web(options: argparse.Namespace) -> int:
    try:
        from game_wm.play import web
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install 'game_wm[model]'") from None

    if options.key and not options.certificate:
        raise UserError("--key belongs to a --certificate, which is missing (a key map is --keys)")
    tls = web.certificate(options.certificate, options.key) if options.certificate else None
    host = options.host or HOST
    listening = web.listen(host, PORT if options.port is None else options.port)  # before a model is loaded in vain
    with listening:
        loaded, commands = load_checkpoint(options, lambda stage, fraction: None)
        quality = prepare(options, loaded)
        token = None if web.is_loopback(host) else secrets.token_urlsafe(16)
        players = options.players or PLAYERS
        server = web.Server(
            loaded, players=players, seed=options.seed, context=options.context, steps=options.steps, fps=options.fps,
            commands=commands, token=token, quality=quality,
        )  # fmt: skip
        print(f"{loaded.name}, {players} player{'s' if players > 1 else ''} at most; Ctrl-C ends it", file=sys.stderr)
        where = web.address(listening, host, token, secure=tls is not None)

        def ready() -> None:
            print(where, flush=True)
            if token is not None and sys.stderr.isatty():  # for a phone's camera: nobody types a token
                print(web.qr_code(where, sys.stderr.encoding), file=sys.stderr, flush=True)

        asyncio.run(web.serve(server, listening, ready, tls))
    return 0


def _headless(options: argparse.Namespace) -> int:
    if options.player == "keyboard":
        raise UserError(
            "--player keyboard needs the window; without it use random, policy:MODULE:FUNCTION or --actions"
        )
    # Players and libraries may print; standard output is for the figures.
    with contextlib.redirect_stdout(sys.stderr):
        cost = _play(options)
    print(json.dumps(cost) if options.json else _sentence(cost))
    return 0


def _play(options: argparse.Namespace) -> dict[str, Any]:
    session = load_session(options, lambda stage, fraction: None)
    from game_wm.dream.actions import read_actions
    from game_wm.play import headless
    from game_wm.play.files.video import VideoWriter
    from game_wm.play.scene import DIVERGED_DB

    replay = read_actions(options.actions, session.schema) if options.actions else None
    if options.replay and session.beginning is not None:
        frames = len(session.beginning.actions)
        if options.frames or not frames:
            raise UserError(f"--replay plays the {frames} frames that {options.replay} holds: leave out --frames")
    else:
        frames = options.frames or (FRAMES if replay is None else len(replay))
    path = options.video or options.record
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(VideoWriter(path, session.fps or session.schema.fps)) if path else None
        cost = headless.play(session, frames, replay, video, _progress(frames), again=bool(options.replay))
    if options.replay and session.beginning is not None:
        print(headless.compared(session.snapshot(), session.beginning))
    if psnr := session.scene.likeness.psnr:
        diverged = session.scene.likeness.diverged
        parted = f"first below {DIVERGED_DB:.0f} dB at frame {diverged}" if diverged else "not parted"
        mean = sum(psnr) / len(psnr)
        print(f"dream against real game, the last {len(psnr)} frames: {mean:.1f} dB in the mean, {parted}")
    return cost


def _progress(frames: int) -> Callable[[int], None]:
    """A line on the terminal about every hundredth of the way; nothing where stderr is a file."""
    if not sys.stderr.isatty():
        return lambda done: None
    stride = max(1, frames // 100)

    def report(done: int) -> None:
        if done % stride == 0 or done == frames:
            end = "\n" if done == frames else ""
            print(f"\r{done} of {frames} frames", end=end, file=sys.stderr, flush=True)

    return report


def _sentence(cost: dict[str, Any]) -> str:
    return (
        f"{cost['frames']} frames on {cost['device']}: {cost['fps_median']:.0f} frames/s "
        f"({cost['p50_ms']:.1f} ms a frame, 95% within {cost['p95_ms']:.1f} ms), "
        f"first frame after {cost['first_frame_s']:.1f} s, {cost['rss_mb_last']:.0f} MB resident"
    )


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
