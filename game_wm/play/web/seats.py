"""Seats: who plays, who has left and may come back, and where each newcomer begins.

seats = Seats(schema, limit=2, seed=0, context=None, contexts=6)
number, player = seats.give(ticket)
seats.players[number] = player          # while its page has a line
seats.leave(number)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from game_wm.play.timing import NOTICE
from game_wm.play.web.dreams import Begin, Shown
from game_wm.play.web.player import Player

if TYPE_CHECKING:
    from data_collect.schema import ActionSchema

LEFT_SECONDS = 300.0  # seconds that the dream of a player who has left can be gone on with


class Seats:
    """Players by their numbers, which count up; at most `limit` at once.

    The n-th player to come has the noise, and without `context` the place, of seed + n.
    """

    def __init__(self, schema: ActionSchema, limit: int, seed: int, context: int | None, contexts: int) -> None:
        self.schema, self.limit, self.contexts = schema, limit, contexts
        self.players: dict[int, Player] = {}
        self.left: dict[int, tuple[Player, asyncio.TimerHandle]] = {}  # who may come back, and until when
        self.came = 0
        self.changed = asyncio.Event()  # a player has come, gone, or wants something else
        self._seed, self._context = seed, context

    def number_of(self, ticket: str | None) -> int | None:
        """The player with this ticket, of those who play."""
        return next((number for number, player in self.players.items() if player.ticket == ticket), None)

    def give(self, ticket: str | None) -> tuple[int, Player]:
        """Whoever holds this ticket and has left, or a new player."""
        for number, (player, end) in self.left.items():
            if player.ticket == ticket:
                end.cancel()
                del self.left[number]
                return number, player
        number = self.came
        self.came += 1
        seed = self._seed + number
        begin = Begin(seed % self.contexts if self._context is None else self._context, seed)
        return number, Player(self.schema, begin, self.contexts)

    def leave(self, number: int) -> None:
        """Keep a player's dream for a while: a page that is loaded anew, or whose line broke, goes on with it."""
        player = self.players.pop(number)
        player.disconnect()
        self.plan(player)
        if player.moment is not None:
            if len(self.left) >= max(2, self.limit):
                # Of the address that has most of them: reconnecting all the time costs only one's own dreams.
                of = Counter([player.address, *(each.address for each, _ in self.left.values())])
                self._forget(max(self.left, key=lambda n: of[self.left[n][0].address]))
            self.left[number] = player, asyncio.get_running_loop().call_later(LEFT_SECONDS, self._forget, number)
        self.changed.set()

    def _forget(self, number: int) -> None:
        player, end = self.left.pop(number)
        end.cancel()
        if player.next_place is not None:
            player.next_place.cancel()
        self.changed.set()

    def show(self, number: int, shown: Shown) -> None:
        if (player := self.players.get(number)) is not None:
            player.show(shown)
            self.plan(player)

    def plan(self, player: Player) -> None:
        """After the end of an episode comes the next place, unless the player goes back before it."""
        if not player.ended and player.next_place is not None:
            player.next_place.cancel()
            player.next_place = None
        elif player.ended and player.next_place is None:
            player.next_place = asyncio.get_running_loop().call_later(NOTICE, self._next, player)

    def _next(self, player: Player) -> None:
        player.next_place = None
        player.move(1)
        self.changed.set()
