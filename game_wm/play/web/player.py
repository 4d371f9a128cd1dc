"""One page that plays: its keys, what it wants next, and which pictures it gets.

    player = Player(schema, Begin(context=2, seed=7))
    player.hear({"key": "up", "level": 1, "at": 1234.5})    # what the page says
    wish = player.wish()                                    # what its dream is to do in the next turn
    player.show(shown)                                      # what has come of it

Beginning elsewhere, pausing and going back in time move its dream out of the batch and into it, which costs the others:
CHANGES are allowed, and where there are more, the newest counts when its turn has come.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from typing import TYPE_CHECKING, Any

from game_wm.play.controls import Keyboard
from game_wm.play.keymap import PLACES
from game_wm.play.web.dreams import BACK, Begin, Shown, Wish
from game_wm.play.web.limits import Bucket

if TYPE_CHECKING:
    import numpy as np

    from data_collect.schema import ActionSchema
    from game_wm.dream import Moment

MOST_UNSEEN = 2  # pictures on their way to a page at most
CHANGES = 1.0, 4.0  # a second, and at once


class Player:
    """A page's keys, and where its dream stands; it may come back to it by another line, which knows its `ticket`."""

    def __init__(self, schema: ActionSchema, begin: Begin, places: int) -> None:
        self.keyboard = Keyboard(schema)
        self.place, self.places = begin, places
        self.begin: Begin | None = begin  # where it is to begin, until it has
        self.paused = self.hidden = self.rewinding = False
        self.moment: Moment | None = None  # what it sees
        self.ticket = secrets.token_urlsafe(16)
        self.address: str | None = None  # where its line comes from, or came from
        self.changed = asyncio.Event()  # there may be something to send
        self.next_place: asyncio.TimerHandle | None = None
        self._changes = Bucket(*CHANGES)
        self._doing: Begin | str = begin
        self._fresh = False
        self._asked: float | None = None  # the oldest key that the frame in the making answers
        self._answers: float | None = None  # the oldest key that no picture sent has answered
        self.disconnect()

    def connect(self, address: str) -> None:
        self.disconnect()
        self.address, self.there = address, True

    def disconnect(self) -> None:
        self.there = False
        self.sent = self.seen = 0
        self.rewinding = self.hidden = False
        # Since when it needs no frames by its own will.
        self.rests_since = time.monotonic() if self.paused else None
        self.owes_since: float | None = None  # since when it has not said that it has seen a picture
        self.keyboard.release_all()
        self.publish()

    def hear(self, message: dict[str, Any]) -> None:
        """One message; ValueError, KeyError, TypeError or OverflowError for what no page sends."""
        if "seen" in message:
            self.seen = min(self.seen + 1, self.sent)
            self.owes_since = None if self.seen == self.sent else time.monotonic()
            self.changed.set()
        elif "key" in message:
            key, level, at = message["key"], float(message["level"]), float(message["at"])
            if not (0 <= level <= 1 and math.isfinite(at)):
                raise ValueError(f"a key is down from 0 to 1, not {level}")
            self.keyboard.move(key, at, level)
        elif "hidden" in message:
            self.hidden = bool(message["hidden"])
            self._stopped()
        elif "rewind" in message:
            self.rewinding = bool(message["rewind"])
            self._stopped()
        elif message["command"] == "pause":
            self.paused = not self.paused
            self._stopped()
        else:
            self.move(PLACES[message["command"]])

    def move(self, places: int) -> None:
        """Begin so many places on; 0: in the same one again."""
        self.place = self.begin = Begin((self.place.context + places) % self.places, self.place.seed)
        self.keyboard.forget()

    def _stopped(self) -> None:
        """It rests now, or does not any more: what was pressed before is not answered."""
        self.keyboard.forget()
        if not (self.paused or self.hidden):
            self.rests_since = None
        elif self.rests_since is None:
            self.rests_since = time.monotonic()
        self.publish()

    @property
    def ended(self) -> bool:
        """Whether its episode is over, which its page shows."""
        return self.begin is None and not self.rewinding and self.moment is not None and self.moment.ended

    @property
    def waits(self) -> bool:
        return not self.there or self._wanted() == "rest"

    def _wanted(self) -> Begin | str:
        if self.begin is not None:
            return "rest" if self.hidden else self.begin
        if self.hidden or self.ended or (self.paused and not self.rewinding):
            return "rest"
        return "back" if self.rewinding else "play"

    def wish(self) -> Wish:
        wanted = self._wanted()
        free = self.moment is None or self.ended or not self.there
        if wanted != self._doing and (free or self._changes.take()):
            self._doing = wanted
        self._asked = None
        if isinstance(self._doing, Begin) or self._doing == "back":
            self.keyboard.forget()
            return self._doing if isinstance(self._doing, Begin) else BACK
        if self._doing == "rest" or self.moment is None or self.moment.ended:
            return None
        self._asked = self.keyboard.pressed_at
        action = self.keyboard.act(self.moment.picture, {})
        self.keyboard.forget()
        return self.keyboard.schema.raw(action)

    def show(self, shown: Shown) -> None:
        if shown.began is not None and shown.began == self._doing:
            self._doing = "play"
            self.begin = None if shown.began == self.begin else self.begin
        self.moment = shown.moment
        self._answers = self._asked if self._answers is None else self._answers
        self.publish()

    def publish(self) -> None:
        """Have what it sees sent (again)."""
        self._fresh = self.moment is not None
        self.changed.set()

    def take(self) -> tuple[dict[str, Any], np.ndarray] | None:
        """The newest status and picture, once; None where there is nothing new, or the line is not free."""
        if not self._fresh or self.moment is None or self.sent - self.seen >= MOST_UNSEEN:
            return None
        self._fresh = False
        self.sent += 1
        self.owes_since = time.monotonic() if self.owes_since is None else self.owes_since
        status, self._answers = self.status(self.moment) | {"answers": self._answers}, None
        return status, self.moment.picture

    def status(self, moment: Moment) -> dict[str, Any]:
        """What the page is told beside the picture."""
        return {
            "frame": moment.frames, "score": round(moment.score, 3), "place": self.place.context,
            "paused": self.paused, "ended": self.ended, "rewinding": self.rewinding,
        }  # fmt: skip
