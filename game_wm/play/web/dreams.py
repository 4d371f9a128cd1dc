"""The dreams of all players, in one batch; for one thread, which has the model.

    dreams = Dreams(checkpoint, steps=None)
    dreams.turn({0: Begin(context=2, seed=7), 1: action})       # {0: Shown, 1: Shown}
    dreams.turn({0: action, 1: BACK})                           # player 1's last frame is taken back

A prompt is read once: the state that it leads to is kept, and a dream that begins there is a copy with its own noise,
the same in every bit as if the prompt had been read for it. Where one must be read while others play, it may cost them
no more than SHARE of their time, so that a player who asks for ever new places delays nobody else.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from game_wm.acceleration.batching import Batch
from game_wm.dream import Dream, Moment

if TYPE_CHECKING:
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.dream.saved import SavedDream
    from game_wm.state import WorldState

PROMPT_BYTES = 512 << 20  # bytes of states in which dreams begin: fifteen places of the maze or of Doom
PLAYER_REWIND_BYTES = 64 << 20  # bytes of what each player can take back: twenty seconds of them
SHARE = 0.05  # of the time of those who play, for prompts that have not been read yet


class Begin(NamedTuple):
    """A dream is to begin in this seed context, with this noise."""

    context: int
    seed: int


class Back(NamedTuple):
    """The last frame is to be taken back."""


BACK: Final = Back()
Wish = Begin | Back | np.ndarray | None  # begin, go back, a raw action (D,), or rest


class Shown(NamedTuple):
    """The moment at which a dream stands now, and where it has begun with it."""

    moment: Moment
    began: Begin | None = None


@dataclass
class Seat:
    dream: Dream
    member: int | None = None


class Dreams:
    """The dreams of all players, those at rest aside."""

    def __init__(self, checkpoint: Checkpoint, steps: int | None, quality: Quality | None = None) -> None:
        self.checkpoint, self.steps, self.quality = checkpoint, steps, quality
        self.device = next(checkpoint.model.parameters()).device
        # What has grown cannot be put back in place.
        self._rewind = 0 if checkpoint.model.memory.grows else PLAYER_REWIND_BYTES
        self.batch = Batch(checkpoint.model)
        self._take_quality()
        self._seats: dict[int, Seat] = {}
        self.prompts: OrderedDict[tuple[int, int], WorldState] = OrderedDict()  # (model, context), the newest last
        self._free_at = 0.0  # when the next prompt may be read while others play
        self._queue: dict[int, None] = {}  # who waits for that, in the order in which they came

    def turn(self, wishes: Mapping[int, Wish]) -> dict[int, Shown]:
        """Grant wishes: one frame to each player who acts, a first picture to each who begins, the previous one to each
        who goes back. Players without an entry have left; a wish that must wait gets no answer yet."""
        for player in self._seats.keys() - wishes.keys():
            self._drop(player)
        self._queue = {player: None for player in self._queue if isinstance(wishes.get(player), Begin)}
        shown: dict[int, Shown] = {}
        acting: dict[int, np.ndarray] = {}
        for player, wish in wishes.items():
            if isinstance(wish, Begin) and self._may_begin(player, wish, wishes):
                shown[player] = self._begin(player, wish)
            elif player not in self._seats:
                continue
            elif isinstance(wish, Back):
                dream = self._rest(self._seats[player])
                if dream.back():
                    shown[player] = Shown(dream.moment)
            elif isinstance(wish, np.ndarray):
                acting[player] = wish
            else:
                self._rest(self._seats[player])
        return shown | self._step(acting)

    def read_ahead(self) -> bool:
        """Read one prompt that a player may ask for; False where none is left, or there is no room for one."""
        model, contexts = id(self.batch.model), len(self.checkpoint.contexts_frames)
        unread = next((k for k in range(contexts) if (model, k) not in self.prompts), None)
        size = next(iter(self.prompts.values())).nbytes if self.prompts else 0
        if unread is None or size * (1 + len(self.prompts)) > PROMPT_BYTES:
            return False
        self._prompt(unread)
        return True

    def copy(self, player: int) -> SavedDream:
        """A player's dream as it is now, to be saved; KeyError for a player without one."""
        return self._seats[player].dream.snapshot(self.batch.model)

    def _step(self, acting: Mapping[int, np.ndarray]) -> dict[int, Shown]:
        """A frame for all who act; the others rest by now."""
        model, steps = self.batch.model, self.steps or self.batch.model.steps
        vectors = {}
        for player, raw in acting.items():
            seat = self._seats[player]
            if seat.member is None:
                seat.member = self.batch.join(seat.dream.state)
            vectors[seat.member] = seat.dream.encode(raw).to(self.device)
            seat.dream.runs_on(model, len(acting))
        started = time.perf_counter()
        outcomes = self.batch.step(vectors, self.steps)
        seconds = time.perf_counter() - started
        if vectors and self.quality is not None and (words := self.quality.record_frame_time(seconds)):
            print(words, file=sys.stderr, flush=True)
            self._take_quality()
        shown = {}
        for player, raw in acting.items():
            seat = self._seats[player]
            assert seat.member is not None
            seat.dream.state = self.batch.view(seat.member)
            seat.dream.record(raw, outcomes[seat.member], steps)
            shown[player] = Shown(seat.dream.moment)
        return shown

    def _take_quality(self) -> None:
        if self.quality is not None:
            self.batch.model, self.steps = self.quality.model, self.quality.calls

    def _may_begin(self, player: int, begin: Begin, wishes: Mapping[int, Wish]) -> bool:
        """Whether a dream may begin in this turn: reading a new prompt delays the frames of the other players."""
        others = (wish for other, wish in wishes.items() if other != player)
        alone = all(wish is None or isinstance(wish, Begin) for wish in others)
        if alone or (id(self.batch.model), begin.context) in self.prompts:
            return True
        self._queue.setdefault(player)
        return player == next(iter(self._queue)) and time.monotonic() >= self._free_at

    def _begin(self, player: int, begin: Begin) -> Shown:
        self._drop(player)
        self._queue.pop(player, None)
        state = self._prompt(begin.context).clone()
        state.seeds.fill_(begin.seed)
        prompt = self.checkpoint.prompt(begin.context)
        dream = Dream(self.checkpoint, prompt, state, seed=begin.seed, context=begin.context, rewind=self._rewind)
        self._seats[player] = Seat(dream)
        return Shown(dream.moment, begin)

    def _prompt(self, context: int) -> WorldState:
        """The state after a place's prompt; its seed is to be replaced."""
        model = self.batch.model
        key = id(model), context
        if key not in self.prompts:
            started = time.monotonic()
            frames, actions, poses = self.checkpoint.prompt(context)
            self.prompts[key] = model.begin(frames, actions, 0, poses)
            now = time.monotonic()
            self._free_at = now + (now - started) * (1 / SHARE - 1)
        self.prompts.move_to_end(key)
        state = self.prompts[key]
        while len(self.prompts) > 1 and sum(each.nbytes for each in self.prompts.values()) > PROMPT_BYTES:
            self.prompts.popitem(last=False)
        return state

    def _rest(self, seat: Seat) -> Dream:
        if seat.member is not None:
            seat.dream.state, seat.member = self.batch.leave(seat.member), None
        return seat.dream

    def _drop(self, player: int) -> None:
        seat = self._seats.pop(player, None)
        if seat is not None:
            self._rest(seat)
