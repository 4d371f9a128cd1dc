"""Which episode comes next and where it must end, so that W workers record exactly what one would.

    plan = Plan(frames=20_000, episode_frames=2048)
    number = plan.take()            # None: nothing is certain to be needed now
    limit, final = plan.limit(number)
    plan.finish(number, frames)     # or with a fault of the game, which may be one too many: UserError

Episodes are numbered, an episode is a function of (seed, number), and N frames means: episodes 0, 1, 2 ... until there
are N, the last one cut. How long an episode gets is known only when it ends, but never more than `episode_frames`; so
an episode is started only when those before it cannot reach N, and its limit is final only when those before it are
done. No episode is ever recorded in vain.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from data_collect.errors import UserError
from data_collect.shards.chunk import ChunkRef

# Recording stops when so many of its episodes have ended by a fault of the game, and they are more than this share.
FAULTS, FAULTY = 5, 0.75


class Plan:
    """Numbers of episodes to hand out. `kept`: chunks that an earlier run left, by episode; `minutes`: after so many no
    more are handed out, once there is one."""

    def __init__(
        self, frames: int, episode_frames: int, kept: Mapping[int, Sequence[ChunkRef]] | None = None,
        minutes: float | None = None,
    ) -> None:  # fmt: skip
        self.frames, self.episode_frames = frames, episode_frames
        self.ends = None if minutes is None else time.monotonic() + 60 * minutes
        self.done: dict[int, int] = {}
        self.running: set[int] = set()
        self.kept = dict(kept or {})
        for number, refs in self.kept.items():
            if refs[-1].last and [ref.chunk for ref in refs] == list(range(len(refs))):
                self.done[number] = sum(ref.frames for ref in refs)
        self.kept_whole = set(self.done)
        self.faults: dict[int, str] = {}  # of this run's episodes
        self.base = self.base_frames = 0  # episodes below `base` are done and have so many frames
        self._advance()
        self._judged, self._played = self.base, 0

    def take(self) -> int | None:
        """The next episode to record; None as long as the running ones may be enough."""
        if (number := self._next()) is not None:
            self.running.add(number)
        return number

    @property
    def left(self) -> bool:
        """Whether there is an episode to hand out."""
        return self._next() is not None

    def _next(self) -> int | None:
        number = self.base
        while number in self.done or number in self.running:
            number += 1
        return None if self._at_most(number) >= self.frames or (self.over and self.done) else number

    def again(self, number: int, kept: Sequence[ChunkRef]) -> None:
        """Nobody records this episode any more; `kept` is what there is of it."""
        self.running.discard(number)
        self.kept[number] = kept

    @property
    def over(self) -> bool:
        """Whether its minutes are over."""
        return self.ends is not None and time.monotonic() > self.ends

    def limit(self, number: int) -> tuple[int, bool]:
        """How many frames episode `number` may have for certain, and whether that is final."""
        kept = self.kept.get(number)
        if kept and kept[-1].last:
            return kept[-1].start + kept[-1].frames, True
        # Never less than what is on disk already and a step to end it.
        least = kept[-1].start + kept[-1].steps + 2 if kept else 2
        certain = min(max(self.frames - self._at_most(number), least), self.episode_frames)
        final = certain == self.episode_frames or not any(other < number for other in self.running)
        return certain, final

    def finish(self, number: int, frames: int, fault: str = "") -> None:
        """Episode `number` has ended with so many frames, by a `fault` of the game if it was one.

        `UserError` when the game fails too often, judged in the order of episodes, whatever the workers.
        """
        self.running.discard(number)
        self.done[number] = frames
        if fault:
            self.faults[number] = fault
        self._advance()
        self._judge()

    def _judge(self) -> None:
        while self._judged < self.base:
            number, self._judged = self._judged, self._judged + 1
            if number in self.kept_whole:
                continue
            self._played += 1
            faults = sum(other <= number for other in self.faults)
            if number in self.faults and number == 0 and not self.done[number]:
                raise UserError(f"{self.faults[number]}; nothing could be recorded")
            if number in self.faults and faults >= FAULTS and faults > FAULTY * self._played:
                raise UserError(
                    f"the game failed in {faults} of {self._played} episodes, the last time in episode {number}: "
                    f"{self.faults[number]}; what was played is kept, mend the game and run the same command again"
                )

    def _advance(self) -> None:
        while self.base in self.done:
            self.base_frames += self.done[self.base]
            self.base += 1

    def _at_most(self, number: int) -> int:
        """Frames of all episodes before `number`, if those that run get as long as they may."""
        later = sum(self.done.get(other, self.episode_frames) for other in range(self.base, number))
        return self.base_frames + later
