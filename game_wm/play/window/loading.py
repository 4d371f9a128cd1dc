"""Loading: a thread makes the session while a bar fills in the window.

found = load(lambda report: Session(...), show)         # a Session, or what was asked for meanwhile
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pygame

if TYPE_CHECKING:
    from game_wm.play.session import Session

NAME = "loading"  # of the thread
Report = Callable[[str, float], None]  # what is being done, and how much of all is done by then, 0 to 1
Load = Callable[[Report], "Session"]


def under_way() -> bool:
    """Whether a thread still makes a session that nobody waits for."""
    return any(thread.name == NAME for thread in threading.enumerate())


def load(make: Load, show: Report) -> Session | Literal["quit", "back"]:
    """The session that `make` makes, while `show` draws how far it is; "quit" when the window was closed meanwhile,
    "back" after Esc.

    Raises the errors of `make`.
    """
    stage, done = ("Starting", 0.0), 0.0
    failure: list[BaseException] = []
    made: list[Session] = []

    def report(text: str, fraction: float) -> None:
        nonlocal stage
        stage = (text, fraction)

    def work() -> None:
        try:
            made.append(make(report))
        except BaseException as error:  # raised again below, in the thread that can tell the user
            failure.append(error)

    thread = threading.Thread(target=work, name=NAME, daemon=True)
    thread.start()
    while thread.is_alive():
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return "quit"
            if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
                return "back"
        done += (stage[1] - done) * 0.12
        show(stage[0], done)
        thread.join(1 / 30)
    if failure:
        raise failure[0]
    return made[0]
