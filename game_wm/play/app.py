"""The command line of play.py: reads the options, then opens the window, serves a page or plays without."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect.errors import UserError
from game_wm.library import SHIPPED
from game_wm.play.files import folder
from game_wm.play.flags import (
    HEADLESS_FRAMES,
    HOST,
    PLAYERS,
    PORT,
    WHERE,
    check_flags,
    checkpoint_path,
    chooses,
    parser,
)  # fmt: skip

if TYPE_CHECKING:
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.play.keymap import Command
    from game_wm.play.session import Session


def main(argv: list[str] | None = None) -> int:
    """Play a checkpoint; returns the exit status. `UserError` for everything that the user can mend."""
    options = parser().parse_args(argv)
    check_flags(options)
    if options.checkpoint is None and (dream := options.load or options.replay):
        options.checkpoint = folder.checkpoint_of(dream, [SHIPPED])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that a film in hand is finished
    if options.web:
        return _web(options)
    return _headless(options) if options.headless else _window(options)


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


def _window(options: argparse.Namespace) -> int:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from game_wm.play.window import Window, loading
        from game_wm.play.window.screen import require_display
    except ImportError as error:
        raise UserError(
            f"{error.name} is missing: pip install pygame-ce, or play without a window (--headless)"
        ) from None

    path = None if chooses(options) else checkpoint_path(options.checkpoint)
    require_display()

    def opener(chosen: Path) -> Callable[[Callable[[str, float], None]], Session]:
        """Another checkpoint with the same options, but for those that belong to the first one alone."""
        alone = dict.fromkeys((*WHERE, "record", "steps"))
        other = argparse.Namespace(**{**vars(options), **alone, "checkpoint": chosen, "view": "dream", "other": True})
        return lambda report: load_session(other, report)

    if path is None:
        Window(opener=opener, folders=[SHIPPED]).run()
    else:
        folders = list(dict.fromkeys([path.resolve().parent, SHIPPED]))
        Window(path.stem, lambda report: load_session(options, report), opener, folders).run()
    if loading.under_way():  # PyTorch aborts a process that ends while a thread is reading it
        sys.stderr.flush()
        os._exit(0)
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
    players, token = options.players or PLAYERS, None if web.is_loopback(host) else secrets.token_urlsafe(16)

    def room(path: Path | None, report: Callable[[str, float], None]) -> web.Room:
        chosen = argparse.Namespace(**{**vars(options), "checkpoint": path, "other": path is not options.checkpoint})
        loaded, commands = load_checkpoint(chosen, report)
        quality = prepare(chosen, loaded)
        return web.Room(
            loaded, players=players, seed=options.seed, context=options.context, steps=options.steps, fps=options.fps,
            commands=commands, quality=quality,
        )  # fmt: skip

    with listening:
        if chooses(options):
            server, what = web.Server(web.Gallery([SHIPPED], room), players=players, token=token), "a gallery"
        else:
            only = room(options.checkpoint, lambda stage, fraction: None)
            server, what = web.Server(only, players=players, token=token), only.checkpoint.name
        print(f"{what}, {players} player{'s' if players > 1 else ''} at most; Ctrl-C ends it", file=sys.stderr)
        where = web.address(listening, host, token, secure=tls is not None)

        def ready() -> None:
            print(where, flush=True)
            if token is not None and sys.stderr.isatty():  # for a phone's camera: a token is long to type
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
    from data_collect.recording.mp4 import VideoWriter
    from game_wm.dream.actions import read_actions
    from game_wm.play import headless
    from game_wm.play.scene import DIVERGED_DB

    replay = read_actions(options.actions, session.schema) if options.actions else None
    if options.replay and session.beginning is not None:
        frames = len(session.beginning.actions)
        if options.frames or not frames:
            raise UserError(f"--replay plays the {frames} frames that {options.replay} holds: leave out --frames")
    else:
        frames = options.frames or (HEADLESS_FRAMES if replay is None else len(replay))
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
