"""The dreams of all players, in one batch; for one thread, which has the model.

    dreams = Dreams(checkpoint, steps=None)
    dreams.turn({0: Begin(context=2, seed=7), 1: action})       # {0: Shown, 1: Shown}
    dreams.turn({0: action, 1: BACK})                           # player 1 has his last frame taken back

A prompt is read once: the state that it leads to is kept, and a dream that begins there is a copy with its own noise,
the same in every bit as if the prompt had been read for it. Where one must be read while others play, it may cost them
no more than SHARE of their time, so that whoever asks for ever new places only waits himself.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from game_wm.acceleration.batching import Batch
from game_wm.play.files import saved_dream as saved
from game_wm.play.files.actions import ActionLog
from game_wm.play.live_game import Moment
from game_wm.play.rewind import Undo
from game_wm.play.session import ENDED

if TYPE_CHECKING:
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.world import Outcome, WorldModel, WorldState

PROMPTS = 512 << 20  # bytes of states in which dreams begin: fifteen places of the maze or of Doom
REWIND = 64 << 20  # bytes of what each player can take back: twenty seconds of them
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


class Dream:
    """One player's: where it began, what was played in it, and how its last frames are taken back."""

    def __init__(self, checkpoint: Checkpoint, begin: Begin, state: WorldState, rewinds: bool) -> None:
        self.begin = begin
        self.prompt = checkpoint.prompt(begin.context)
        schema = checkpoint.schema
        self.moment = Moment(self.prompt[0][-1].cpu().numpy(), schema.raw(schema.noop()))
        self.resting: WorldState | None = state  # None: it is in the batch
        self.member = -1  # its number there
        self.undo = Undo(state, REWIND) if rewinds else None
        self.log, self.calls = ActionLog(schema), bytearray()
        self.ran: list[str] = []  # what its frames were dreamt on, in order
        self._running: tuple[object, ...] = ()

    def note(self, state: WorldState, raw: np.ndarray, outcome: Outcome, model: WorldModel, steps: int, n: int) -> None:
        """A frame was dreamt, in a batch of n."""
        before, ended = self.moment, float(outcome.terminated) > ENDED
        score = before.score + float(outcome.rewards)
        self.moment = Moment(outcome.frames.cpu().numpy(), raw, score, before.frames + 1, ended)
        if self.undo is not None:
            self.undo.note(state, before)
        self.log.add(raw)
        self.calls.append(steps)
        if (now := (model, model.compiled, n)) != self._running:
            self._running, name = now, saved.executable(model, n)
            self.ran += [name] if self.ran[-1:] != [name] else []

    def back(self, state: WorldState) -> bool:
        """Take its last frame back; False where there is none to be taken back."""
        if not self.undo:
            return False
        self.moment = self.undo.back(state)
        self.log.drop()
        self.calls.pop()
        return True


class Dreams:
    """The dreams of all players, those at rest aside."""

    def __init__(self, checkpoint: Checkpoint, steps: int | None, quality: Quality | None = None) -> None:
        self.checkpoint, self.steps, self.quality = checkpoint, steps, quality
        self.device = next(checkpoint.model.parameters()).device
        memory = checkpoint.model.config.memory
        self._rewinds = memory is None or not memory.growing  # what has grown cannot be put back in place
        self.batch = Batch(checkpoint.model)
        self._take_quality()
        self._dreams: dict[int, Dream] = {}
        self._read: OrderedDict[tuple[int, int], WorldState] = OrderedDict()  # (model, context), the newest last
        self._read_again = 0.0  # when the next prompt may be read while others play
        self._queue: dict[int, None] = {}  # who waits for that, in the order in which they came

    def turn(self, wishes: Mapping[int, Wish]) -> dict[int, Shown]:
        """One frame for each player who acts, the first picture for each who begins, the one before for each who goes
        back; who is not named has left, and who cannot have what he wishes yet is not answered."""
        for player in self._dreams.keys() - wishes.keys():
            self._drop(player)
        self._queue = {player: None for player in self._queue if isinstance(wishes.get(player), Begin)}
        shown: dict[int, Shown] = {}
        acting: dict[int, np.ndarray] = {}
        for player, wish in wishes.items():
            if isinstance(wish, Begin) and self._may_begin(player, wish, wishes):
                shown[player] = self._begin(player, wish)
            elif player not in self._dreams:
                continue
            elif isinstance(wish, Back):
                dream = self._dreams[player]
                if dream.back(self._rest(dream)):
                    shown[player] = Shown(dream.moment)
            elif isinstance(wish, np.ndarray):
                acting[player] = wish
            else:
                self._rest(self._dreams[player])
        return shown | self._step(acting)

    def read_ahead(self) -> bool:
        """Read one prompt that somebody may ask for; False where there is none left, or no room for one."""
        model, contexts = id(self.batch.model), len(self.checkpoint.contexts_frames)
        unread = next((k for k in range(contexts) if (model, k) not in self._read), None)
        size = next(iter(self._read.values())).nbytes if self._read else 0
        if unread is None or size * (1 + len(self._read)) > PROMPTS:
            return False
        self._prompt(unread)
        return True

    def copy(self, player: int) -> saved.Dream:
        """A player's dream as it is now, to be saved; KeyError where he has none."""
        dream, checkpoint = self._dreams[player], self.checkpoint
        state = self.batch.view(dream.member) if dream.resting is None else dream.resting
        (context, seed), now = dream.begin, dream.moment
        ran = ", then ".join(dream.ran) or saved.executable(self.batch.model)
        about = saved.About(checkpoint.name, checkpoint.digest, ran, context, seed, now.score, now.ended)
        actions, steps = dream.log.last(now.frames), np.frombuffer(bytes(dream.calls), np.uint8)
        frames, led, poses = dream.prompt
        return saved.Dream(about, frames, led, actions, steps, now.picture, state.clone(), poses)

    # -------------------------------------------------------------------------------------------------------------

    def _step(self, acting: Mapping[int, np.ndarray]) -> dict[int, Shown]:
        """A frame for all who act; the others rest by now."""
        vectors = {}
        for player, raw in acting.items():
            dream = self._dreams[player]
            if dream.resting is not None:
                dream.member, dream.resting = self.batch.join(dream.resting), None
            vectors[dream.member] = torch.from_numpy(self.checkpoint.schema.encode(raw)).to(self.device)
        model, steps, started = self.batch.model, self.steps or self.batch.model.steps, time.perf_counter()
        outcomes = self.batch.step(vectors, self.steps)
        if vectors and self.quality is not None and (words := self.quality.saw(time.perf_counter() - started)):
            print(words, file=sys.stderr, flush=True)
            self._take_quality()
        for player, raw in acting.items():
            dream = self._dreams[player]
            dream.note(self.batch.view(dream.member), raw, outcomes[dream.member], model, steps, len(acting))
        return {player: Shown(self._dreams[player].moment) for player in acting}

    def _take_quality(self) -> None:
        if self.quality is not None:
            self.batch.model, self.steps = self.quality.model, self.quality.calls

    def _may_begin(self, player: int, begin: Begin, wishes: Mapping[int, Wish]) -> bool:
        """Whether a dream may begin in this turn: where its prompt is still to be read, that is at others' expense."""
        others = (wish for other, wish in wishes.items() if other != player)
        alone = all(wish is None or isinstance(wish, Begin) for wish in others)
        if alone or (id(self.batch.model), begin.context) in self._read:
            return True
        self._queue.setdefault(player)
        return player == next(iter(self._queue)) and time.monotonic() >= self._read_again

    def _begin(self, player: int, begin: Begin) -> Shown:
        self._drop(player)
        self._queue.pop(player, None)
        state = self._prompt(begin.context).clone()
        state.seeds.fill_(begin.seed)
        dream = self._dreams[player] = Dream(self.checkpoint, begin, state, self._rewinds)
        return Shown(dream.moment, begin)

    def _prompt(self, context: int) -> WorldState:
        """The state after a place's prompt; its seed is to be replaced."""
        model = self.batch.model
        key = id(model), context
        if key not in self._read:
            started = time.monotonic()
            frames, actions, poses = self.checkpoint.prompt(context)
            self._read[key] = model.begin(frames, actions, 0, poses)
            now = time.monotonic()
            self._read_again = now + (now - started) * (1 / SHARE - 1)
        self._read.move_to_end(key)
        state = self._read[key]
        while len(self._read) > 1 and sum(each.nbytes for each in self._read.values()) > PROMPTS:
            self._read.popitem(last=False)
        return state

    def _rest(self, dream: Dream) -> WorldState:
        """Take a dream out of the batch; its state."""
        if dream.resting is None:
            dream.resting = self.batch.leave(dream.member)
        return dream.resting

    def _drop(self, player: int) -> None:
        dream = self._dreams.pop(player, None)
        if dream is not None and dream.resting is None:
            self.batch.leave(dream.member)
