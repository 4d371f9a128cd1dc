"""The truth and the dream: the real game on seeds that training never saw, and a checkpoint dreaming the same actions.

    with RealGame("maze") as game:
        for truth in game.truths(seeds=range(90000, 90016), prompt=32, frames=256):
            dream = roll(model, truth)

A truth is a prompt of P real frames, as many as the checkpoint's own dreams begin with (32 at least), and N more. The
*leader* walks first: the explorer where the game has a map, so that the view is a place and not the wall that random
play runs into, else random-sticky play. It plays a warm-up of 32 to 159 frames, then the prompt. Random-sticky play
(the player `random`) goes on from there. The action seed is the first of eight in whose play the game does not end
within those N frames; when every one ends, the longest counts as far as it goes. Plays that ended are kept for the
measure of termination. Where most episodes end before the prompt is over, all three are shortened (`RealGame.settle`),
and a seed that ends before it in all eight is left out.

Legend: E episodes, P frames of the prompt, N frames after it, H height, W width in pixels, A length of an encoded
action.
"""

from __future__ import annotations

import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect import games
from data_collect.errors import UserError
from data_collect.guest.match import LEADER, NOBODY, Leg, leading
from game_wm.evaluation.forgiving import Forgiving, Tally

ATTEMPTS = 8  # action seeds tried for one seed
SEEN_FRAMES = 16  # a surface counts as seen when it was on screen in the last so many frames of the prompt
BATCH = 16  # players in one batch of dreams

Tick = Callable[[int], None]


class TooShort(UserError):
    """The game ended before any prompt was over; `steps`: how long its episodes lasted, the middle one of them."""

    def __init__(self, game: str, prompt: int, pace: Pace, lasted: Sequence[int]) -> None:
        self.steps = int(statistics.median_low(lasted or [prompt]))  # a game that failed only then lasted so long
        first, last = pace.warm_up
        super().__init__(
            f"episodes of {game} last {self.steps} steps and so end before {first} to {last} steps and a prompt of "
            f"{prompt} frames have been played"
        )


@dataclass(frozen=True)
class Pace:
    """How long real play is led before a dream begins and how far it is followed."""

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


def no_tick(count: int) -> None:
    """Progress that nobody watches."""


@dataclass
class Play:
    """One piece of real play: P + N frames unless the game ended earlier, actions between them."""

    seed: int
    frames: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)  # encoded, one fewer than frames
    poses: list[np.ndarray] = field(default_factory=list)  # (3,) of the prompt's frames, where the game tells them
    rewards: list[float] = field(default_factory=list)  # after the prompt only
    terminated: bool = False
    seen: dict[int, np.ndarray] = field(default_factory=dict)  # horizon -> bool (H, W)


@dataclass
class Lead:
    """A game left at the end of a prompt."""

    play: Play
    info: dict[str, Any]  # of its last frame
    follower: Leg  # random-sticky play that goes on
    seen: np.ndarray | None  # numbers of the surfaces on screen in the last frames of the prompt


@dataclass
class Truth:
    """Several plays side by side; what lies behind an episode's `length` is padding."""

    seeds: tuple[int, ...]
    prompt: int
    frames: Tensor  # uint8 (E, P+N, H, W, 3)
    actions: Tensor  # float32 (E, P+N-1, A)
    rewards: np.ndarray  # float32 (E, N)
    terminated: np.ndarray  # bool (E, N)
    length: np.ndarray  # int (E,): frames after the prompt that exist
    seen: dict[int, Tensor]  # horizon -> bool (E, H, W); empty where the game has no surfaces
    poses: Tensor | None = None  # float32 (E, P, 3); None where the game tells none

    def at(self, horizon: int) -> Tensor:
        """The real frames (E, H, W, 3) that many steps after the prompt."""
        return self.frames[:, self.prompt - 1 + horizon]

    @property
    def after(self) -> Tensor:
        """The real frames after the prompt, (E, N, H, W, 3)."""
        return self.frames[:, self.prompt :]


@dataclass
class Dream:
    """What a model made of a truth's prompt and actions."""

    frames: Tensor  # uint8 (E, N, H, W, 3)
    rewards: np.ndarray  # float32 (E, N)
    terminated: np.ndarray  # float32 (E, N), predicted probability

    def at(self, horizon: int) -> Tensor:
        """The dreamt frames (E, H, W, 3) that many steps after the prompt."""
        return self.frames[:, horizon - 1]


class RealGame:
    """A game to be played on chosen seeds; `frame` is the (width, height) of a model of it. `UserError` when it cannot
    be made."""

    def __init__(self, game_id: str, frame: tuple[int, int] | None = None) -> None:
        self.game_id, self.frame, self.pace, self.tally = game_id, frame, Pace(), Tally(game_id)
        self.options = games.option_names(game_id)
        self.made: list[Forgiving] = []
        self.env = self.make(**({"surface": True} if "surface" in self.options else {}))  # costs time otherwise
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

    def told(self) -> dict[str, Any]:
        """For the card: what was unusual about the plays."""
        return self.pace.told() | self.tally.told()

    @property
    def one_map(self) -> bool:
        """Whether all seeds played so far had the same walls: then training has seen the map too."""
        return len(self.maps) > 1 and len(set(self.maps.values())) == 1

    def leader(self, info: dict[str, Any]) -> str:
        """The player that leads: the explorer where the game has a map and the buttons to walk it, else `random`."""
        return leading(self.schema, info)

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
        """Play warm-up and prompt, and leave the game there; None when it ends before.

        Args:
            idle: how many last steps of the prompt nobody plays.
        """
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
        play = Play(seed, list(frames), list(actions), [np.array(p, np.float32) for p in poses if p is not None])
        return Lead(play, info, follower, seen)

    def play(
        self, seed: int, action_seed: int, prompt: int, frames: int, horizons: Sequence[int] = (), idle: int = 0
    ) -> Play | None:
        """One attempt; None when the game ends before the prompt is full.

        Args:
            horizons: frames after the prompt at which the seen surfaces are wanted.
            idle: how many last steps of the prompt nobody plays; then nobody plays on (0: random play goes on).
        """
        lead = self.lead(seed, action_seed, prompt, idle)
        if lead is None:
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
        """The first attempt that does not end within those frames, else the longest; None when no prompt can be played.

        Args:
            attempts: how many are made for the sake of length; those without a prompt do not count.
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

    def choose(self, seed: int, prompt: int, frames: int, horizons: Sequence[int] = (), idle: int = 0) -> Play:
        """The same; `TooShort` when no prompt can be played."""
        play = self.find(seed, prompt, frames, horizons, idle)
        if play is None:
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


def stack(plays: Sequence[Play], prompt: int, frames: int) -> Truth:
    """Plays side by side, the shorter ones padded with zeros."""
    count, total = len(plays), prompt + frames
    first = plays[0]
    frames_out = np.zeros((count, total, *first.frames[0].shape), np.uint8)
    actions = np.zeros((count, total - 1, len(first.actions[0])), np.float32)
    rewards, terminated = np.zeros((count, frames), np.float32), np.zeros((count, frames), bool)
    for i, play in enumerate(plays):
        frames_out[i, : len(play.frames)] = play.frames
        actions[i, : len(play.actions)] = play.actions
        rewards[i, : len(play.rewards)] = play.rewards
        terminated[i, len(play.rewards) - 1] = play.terminated
    blank = np.zeros(first.frames[0].shape[:2], bool)
    horizons = sorted({h for play in plays for h in play.seen})
    seen = {h: torch.from_numpy(np.stack([play.seen.get(h, blank) for play in plays])) for h in horizons}
    length = np.array([len(play.rewards) for play in plays])
    seeds = tuple(play.seed for play in plays)
    poses = torch.from_numpy(np.stack([play.poses for play in plays])) if first.poses else None
    made = torch.from_numpy(frames_out), torch.from_numpy(actions)
    return Truth(seeds, prompt, *made, rewards, terminated, length, seen, poses)


def begin(
    model: Any, frames_EPHWC: Tensor, actions_EPA: Tensor, seeds: Sequence[int], poses_EP3: Tensor | None = None
) -> Any:
    """The state of dreams after their prompts; `UserError` when the game's frames are not the model's."""
    height, width = frames_EPHWC.shape[2:4]
    if (height, width) != (model.height, model.width):
        raise UserError(
            f"the checkpoint dreams frames of {model.width}x{model.height}, but its game now makes {width}x{height}: "
            "record the game with the options that the checkpoint was trained on"
        )
    device = device_of(model)
    prompt = frames_EPHWC.to(device), actions_EPA.to(device), torch.tensor(seeds, device=device)
    return model.start(*prompt) if poses_EP3 is None else model.start(*prompt, poses_EP3.to(device))


@torch.no_grad()
def roll(model: Any, truth: Truth, steps: int | None = None, tick: Tick = no_tick) -> Dream:
    """Free rollout from the truth's prompt under the truth's actions.

    Args:
        steps: denoiser calls a frame (the model's own number when None).
        tick: told the number of frames dreamt after each step.
    """
    device, p = device_of(model), truth.prompt
    state = begin(model, truth.frames[:, :p], truth.actions[:, : p - 1], truth.seeds, truth.poses)
    frames, rewards, terminated = [], [], []
    for n in range(truth.after.shape[1]):
        action = truth.actions[:, p - 1 + n].to(device)
        outcome, state = model.step(state, action, steps)
        frames.append(outcome.frames.cpu())
        rewards.append(outcome.rewards.float().cpu().numpy())
        terminated.append(outcome.terminated.float().cpu().numpy())
        tick(len(truth.seeds))
    return Dream(torch.stack(frames, 1), np.stack(rewards, 1), np.stack(terminated, 1))


def device_of(model: Any) -> torch.device:
    """Where the model's weights lie."""
    return next(iter(model.parameters()), torch.zeros(0)).device


def in_threes(frames_ETHWC: Tensor, stride: int = 1) -> Tensor:
    """Every so many frames of episodes, each behind the two before it (B, 3, H, W, 3); an episode's first repeats."""
    now = torch.arange(0, frames_ETHWC.shape[1], stride)
    return frames_ETHWC[:, (now[:, None] - torch.tensor([2, 1, 0])).clamp_min(0)].flatten(0, 1)


@torch.no_grad()
def round_trip(model: Any, frames_BTHWC: Tensor) -> Tensor:
    """The last of each row of frames (B, T, H, W, 3) as the tokenizer shows it (B, H, W, 3): the ceiling of dreams.

    Of three in a row a temporal tokenizer sees what it sees in play; of one, a frame that is its own past.
    """
    device, made = device_of(model), []
    for part in frames_BTHWC[:, -3:].split(32):
        now, before, first = (part[:, max(0, part.shape[1] - n)].to(device) for n in (1, 2, 3))
        made.append(model.decode(model.encode(now, before), model.encode(before, first)).cpu())
    return torch.cat(made)
