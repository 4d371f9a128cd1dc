"""What a window opens while it is there: the gallery, another checkpoint, a saved dream.

choose(window)                                  # the gallery, or back to what is played
play(window, Path("checkpoints/maze.safetensors"))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pygame

from data_collect.errors import UserError
from game_wm.library import SUFFIX
from game_wm.play.files import folder
from game_wm.play.gallery import checkpoints, dreams
from game_wm.play.window import screen
from game_wm.play.window.chooser import Chooser

if TYPE_CHECKING:
    from game_wm.play.window.window import Window


def choose(window: Window) -> None:
    """Show the gallery, or go back to what is played."""
    window.interrupt()
    if window.chooser:
        window.chooser = None
        return
    current = window.session.checkpoint.path if window.playing else None
    window.chooser = Chooser(checkpoints(window.folders, current) + dreams(folder.FOLDER), current)
    if window.playing:
        window.keys.release_all()


def play(window: Window, path: Path) -> None:
    """Play a checkpoint, or go on in a saved dream; where that fails its tile says why, and what was played goes on."""
    try:
        dream = path if path.suffix == SUFFIX else None
        if dream and window.playing and folder.is_of(dream, window.session.checkpoint):
            window.commands.restore(dream)
            window.chooser = None
        elif _load(window, folder.checkpoint_of(dream, window.folders) if dream else path) and dream:
            window.commands.restore(dream)
            window.draw()
    except UserError as error:
        words = str(error) if path.exists() else f"{path} is gone: choose another one"
        if window.chooser and window.chooser.tile:
            window.chooser.tile.problem = words
        window.fail(UserError(words))


def _load(window: Window, path: Path) -> bool:
    """Play another checkpoint; False where the player has thought better of it."""
    if window.opener is None:
        raise UserError("this window plays one checkpoint only")
    before, name, loaded = window.made_by, window.name, False
    playing = window.session if window.playing else None
    window.made_by, window.name = window.opener(path), path.stem
    try:
        loaded = window.load()
    finally:
        if not loaded:
            window.made_by, window.name = before, name
    if not loaded:
        window.interrupt()
        return False
    pygame.display.set_caption(screen.caption(window.name))
    if playing is not None:
        window.commands.saved = None
    window.begin()
    if playing is not None:
        window.commands.finish(playing)
    return True
