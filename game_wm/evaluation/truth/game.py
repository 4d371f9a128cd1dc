"""The real game on seeds that training never saw: how a prompt is played, and what follows it.

    with RealGame("maze") as game:
        for truth in game.truths(seeds=range(90000, 90016), prompt=32, frames=256):
            rollout = roll(model, truth)

A truth is a prompt of P real frames, as many as the checkpoint's own seed contexts have (32 at least), and N more. The
*leader* plays a warm-up of 32 to 159 frames, then the prompt: the explorer where the game has a map, since random play
mostly sees the wall that it runs into; else `random`, which holds random buttons for a while. `random` goes on after
the prompt. Of eight action seeds the first is taken in whose play the game does not end within N frames; where all end,
the longest, as far as it goes. Plays that ended also serve the measure of termination. Where most episodes end before
the prompt is over, all three are shortened (`RealGame.settle`); a seed whose eight plays all do is left out.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_collect import games
from data_collect.errors import UserError
from data_collect.guest.match import LEADER, NOBODY, Leg, leading
from game_wm.evaluation.truth.forgiving import Forgiving, Tally
from game_wm.evaluation.truth.plays import Lead, Play, Truth, stack

ATTEMPTS = 8  # action seeds tried for one seed
SEEN_FRAMES = 16  # a surface counts as seen when it was on screen in the last so many frames of the prompt
BATCH = 16  # episodes in one batch of rollouts

Tick = Callable[[int], None]


def no_tick(count: int) -> None:
    """Progress that nobody watches."""


class TooShort(UserError):
    """The game ended before any prompt was over; `steps` is the median length of its episodes."""

    def __init__(self, game: str, prompt: int, pace: Pace, lasted: Sequence[int]) -> None:
        self.steps = int(statistics.median_low(lasted or [prompt]))  # a game that failed only then lasted so long
        first, last = pace.warm_up
        super().__init__(
            f"episodes of {game} last {self.steps} steps and so end before {first} to {last} steps and a prompt of "
            f"{prompt} frames have been played"
        )


@dataclass(frozen=True)
class Pace:
    """How many real frames are played before a dream begins, and how many are compared with it."""

    warm_up: tuple[int, int] = (32, 159)  # steps, the least and the most
    prompt: int | None = None  # frames, at most; None: as many as are asked for
    frames: int | None = None  # after the prompt, at most

    @staticmethod
    def of_episodes(steps: int, prompt: int) -> Pace:
        """A quarter of an episode for the warm-up at most, a quarter for the prompt, the rest for what is compared."""
        quarter = steps // 4
        prompt = min(prompt, 1 + quarter)
        return Pace((0, quarter), prompt, steps - quarter - (prompt - 1))

    def told(self) -> dict[str, Any]:
        """For the card: `lead`, where it is not the usual one."""
        usual = self == Pace()
        return {} if usual else {"lead": {"warm_up": self.warm_up, "prompt": self.prompt, "frames": self.frames}}

    def cut(self, prompt: int, frames: int) -> tuple[int, int]:
        """So many frames of the prompt and after it, or as many as there are."""
        return min(prompt, self.prompt or prompt), min(frames, self.frames or frames)


class RealGame:
    """A game to be played on chosen seeds; `frame` is the (width, height) of a model of it. `UserError` when it cannot
    be made."""

    def __init__(self, game_id: str, frame: tuple[int, int] | None = None) -> None:
        self.game_id, self.frame, self.pace, self.tally = game_id, frame, Pace(), Tally(game_id)
        self.options = games.option_names(game_id)
        self.made: list[Forgiving] = []
        self.shown = {"surface": True} if "surface" in self.options else {}  # costs time otherwise
        self.env = self.make(**self.shown)
        self.schema = self.env.action_schema
        self.lasted: list[int] = []  # steps of the episodes that ended before their prompt was over
        self.led_by = ""  # the player of the last warm-up and prompt
        self.maps: dict[int, bytes] = {}  # seed -> its walls, where the game has a map
        self.ended: list[Play] = []  # plays that the game ended after the prompt

    def __enter__(self) -> RealGame:
        return self

    def __exit__(self, *_: object) -> None:
        for env in self.made:
            env.close()

    def make(self, **options: Any) -> Forgiving:
        """The game once more, with these options."""
        self.made.append(Forgiving(self.game_id, self.tally, frame=self.frame, **options))
        return self.made[-1]

    def without(self, *options: str) -> RealGame:
        """The same game where these of its options are 0."""
        other = copy.copy(self)
        other.env = self.make(**self.shown, **{name: 0 for name in options if name in self.options})
        return other

    def told(self) -> dict[str, Any]:
        """For the card: what was unusual about the plays."""
        return self.pace.told() | self.tally.told()

    @property
    def one_map(self) -> bool:
        """Whether all seeds played so far had the same walls: then training has seen the map too."""
        return len(self.maps) > 1 and len(set(self.maps.values())) == 1

    def settle(self, seeds: Sequence[int], prompt: int) -> None:
        """Shorten the pace where most of the seeds' episodes end before a prompt of so many frames is over."""
        played = 0
        for seed in seeds:
            played += self.lead(seed, 0, prompt) is not None
            if 2 * max(played, len(self.lasted)) > len(seeds):  # the others cannot change it
                break
        lasted, self.lasted = self.lasted, []
        if played < len(lasted):
            self.shorten(TooShort(self.game_id, prompt, self.pace, lasted), prompt)

    def shorten(self, short: TooShort, prompt: int) -> None:
        """A pace for episodes of that length; `UserError` when they end at once."""
        if short.steps < 2:
            raise UserError(
                f"every episode of {self.game_id} ends at its first step, so there is nothing to compare a dream with: "
                "evaluate needs a game that goes on for two steps or more"
            )
        self.pace, self.lasted = Pace.of_episodes(short.steps, prompt), []
        (first, last), frames = self.pace.warm_up, self.pace.frames
        print(
            f"episodes of {self.game_id} last {short.steps} steps: dreams begin after {first} to {last} steps and a "
            f"prompt of {self.pace.prompt} frames, and at most {frames} frames are compared",
            file=sys.stderr,
        )

    def lead(self, seed: int, action_seed: int, prompt: int, idle: int = 0) -> Lead | None:
        """Play warm-up and prompt, the last `idle` steps by nobody, and stay there; None when the game ends before."""
        generator = np.random.default_rng((seed, action_seed))
        leader, (first, last) = int(generator.integers(2**31)), self.pace.warm_up
        steps = int(generator.integers(first, last + 1)) + prompt - 1
        legs = [Leg(LEADER, leader, steps - idle), Leg(NOBODY, steps=idle)]
        frames, actions = deque[np.ndarray](maxlen=prompt), deque[np.ndarray](maxlen=prompt - 1)
        surfaces, poses = deque[Any](maxlen=SEEN_FRAMES), deque[Any](maxlen=prompt)
        for step, (raw, _, terminated, truncated, frame, info) in enumerate(self.env.play(legs, seed)):
            if terminated or truncated:
                self.lasted.append(step)
                return None
            if raw is not None:
                actions.append(self.schema.encode(raw))
            else:
                self.led_by = leading(self.schema, info)
                if "map" in info:
                    self.maps[seed] = (np.asarray(info["map"]) == 1).tobytes()
            frames.append(frame.copy())
            surfaces.append(info.get("surface"))
            poses.append(info.get("pose"))
        follower = Leg("random", int(generator.integers(2**31)))
        seen = None if info.get("surface") is None else np.unique([s for s in surfaces if s is not None])
        told = [np.array(p, np.float32) for p in poses if p is not None]
        play = Play(seed, list(frames), list(actions), told, width=self.schema.size)
        return Lead(play, info, follower, seen)

    def play(
        self, seed: int, action_seed: int, prompt: int, frames: int, horizons: Sequence[int] = (), idle: int = 0
    ) -> Play | None:
        """One attempt; None when the game ends before the prompt is full. Random play goes on, or nobody where `idle`.

        `horizons`: frames after the prompt at which the seen surfaces are wanted.
        """
        if (lead := self.lead(seed, action_seed, prompt, idle)) is None:
            return None
        play, legs = lead.play, [Leg(NOBODY, steps=frames) if idle else replace(lead.follower, steps=frames)]
        for step, (raw, reward, play.terminated, _, frame, info) in enumerate(self.env.play(legs), 1):
            if "fault" in info:
                break
            play.frames.append(frame.copy())
            play.actions.append(self.schema.encode(raw))
            play.rewards.append(reward)
            if lead.seen is not None and step in horizons:
                play.seen[step] = np.isin(info["surface"], lead.seen[lead.seen >= 0])
        return play if play.rewards else None

    def find(
        self, seed: int, prompt: int, frames: int, horizons: Sequence[int] = (), idle: int = 0, attempts: int = ATTEMPTS
    ) -> Play | None:
        """The first of `attempts` that does not end within those frames, else the longest; None without any prompt.

        Attempts whose game ends before the prompt is full do not count.
        """
        longest: Play | None = None
        for action_seed in range(ATTEMPTS):
            play = self.play(seed, action_seed, prompt, frames, horizons, idle)
            if play is None:
                continue
            attempts -= 1
            if play.terminated and not idle:
                self.ended.append(play)
            if longest is None or len(play.rewards) > len(longest.rewards):
                longest = play
            if len(play.rewards) == frames or not attempts:
                break
        return longest

    def choose(self, seed: int, prompt: int, frames: int, horizons: Sequence[int] = ()) -> Play:
        """The same; `TooShort` when no prompt can be played."""
        if (play := self.find(seed, prompt, frames, horizons)) is None:
            raise TooShort(self.game_id, prompt, self.pace, self.lasted)
        return play

    def truths(
        self, seeds: Sequence[int], prompt: int, frames: int, horizons: Sequence[int] = (), tick: Tick = no_tick
    ) -> Iterator[Truth]:
        """Truths of at most `BATCH` seeds each, of those of which a prompt can be played; `TooShort` when none is."""
        found = 0
        for first in range(0, len(seeds), BATCH):
            plays = []
            for seed in seeds[first : first + BATCH]:
                plays += [play] if (play := self.find(seed, prompt, frames, horizons)) else []
                tick(1)
            found += len(plays)
            if plays:
                yield stack(plays, prompt, frames)
        if not found:
            raise TooShort(self.game_id, prompt, self.pace, self.lasted)
