"""The loop game x player -> chunks of one episode.

    frames, fault = EpisodeRecorder(env, settings, writer.add).record(number, limit=(2048, True))

Episode `number` of a recording is a function of (recording seed, number): `seeds` gives the seed of its reset and of
its player. An episode that an earlier run left unfinished is played again from its seed; the chunks that are on disk
are compared with what is played, and those that are not are written. An episode in which the game fails ends there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from data_collect import players
from data_collect.errors import Fault
from data_collect.guest.guest import Guest
from data_collect.guest.match import Leg, Match, Steps
from data_collect.schema import ActionSchema
from data_collect.shards.chunk import MAX_STEPS, Chunk, ChunkRef

FLOAT32_MAX = float(np.finfo(np.float32).max)
Limit = tuple[int, bool]  # frames that an episode may have for certain, and whether that is the last word


class Differs(Exception):
    """The episode on disk is not what is played now: it cannot be continued."""


class Stopped(Exception):
    """Somebody asked the recorder to stop; the chunk in hand is lost."""


def seeds(recording_seed: int, number: int) -> tuple[int, int]:
    """(seed for `env.reset`, seed for the player) of episode `number`; both below 2**31."""
    env_seed, player_seed = np.random.SeedSequence([recording_seed, number]).generate_state(2) >> 1
    return int(env_seed), int(player_seed)


class EpisodeRecorder:
    """Plays episodes of one game and hands their chunks to `add`.

    `settings` are the recording's (`dataset.SETTINGS`). `read` gives a chunk of an earlier run. `stop` is asked now and
    then whether to raise `Stopped`. Where the game is a guest, all players but a human live in its process.
    """

    def __init__(
        self, env: Any, settings: dict[str, Any], add: Callable[[Chunk], Any],
        read: Callable[[ChunkRef], Chunk] | None = None, stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.env, self.settings, self.add, self.read, self.stop = env, settings, add, read, stop

    def record(
        self, number: int, limit: Limit, more: Callable[[int], Limit] | None = None, kept: Iterable[ChunkRef] = ()
    ) -> tuple[int, str]:
        """Record episode `number`, leaving out the chunks in `kept`; its frames, and how the game failed if it did.

        `limit` is the number of frames allowed and whether that is final; if not, `more(allowed)` is called when the
        episode gets there, and may block. Raises `Differs`, `Stopped`, and `players.Quit` (the episode is saved).
        """
        env_seed, player_seed = seeds(self.settings["recording_seed"], number)
        meta = self.settings | {"episode": number, "seed": env_seed, "player_seed": player_seed}
        episode: EpisodeWriter | None = None
        name = self.settings["player"]
        player = self.env if isinstance(self.env, Guest) and name != "human" else Match(self.env)
        with closing(player.play([Leg(name, player_seed)], env_seed)) as steps:
            try:
                *_, frame, info = next(steps)
                episode = EpisodeWriter(meta, self.add, frame, info, kept, self.read)
                self._write(episode, steps, limit, more)
            except players.Quit:
                if episode is not None:
                    episode.end()
                raise
            except Fault as fault:
                frames = 0 if episode is None else episode.end(str(fault))
                return frames, str(fault)
        return episode.frames, ""

    def record_or_keep(
        self, number: int, limit: Limit, kept: Sequence[ChunkRef], say: Callable[[str], Any],
        more: Callable[[int], Limit] | None = None,
    ) -> tuple[int, str]:  # fmt: skip
        """As `record`, but an episode that cannot be continued stays as it is. `say` that, and how a game failed."""
        try:
            frames, fault = self.record(number, limit, more, kept)
        except Differs:
            say(f"episode {number} was interrupted and does not play the same way again: it stays as it is")
            return sum(ref.frames for ref in kept), ""
        if fault:
            seed, _ = seeds(self.settings["recording_seed"], number)
            say(f"episode {number} (seed {seed}) ends after {max(frames - 1, 0)} steps: {fault}")
        return frames, fault

    def _write(self, episode: EpisodeWriter, steps: Steps, limit: Limit, more: Callable[[int], Limit] | None) -> None:
        """Play the episode to its end."""
        allowed, final = limit
        terminated = truncated = False
        while not (terminated or truncated):
            raw, reward, terminated, truncated, frame, info = steps.send(allowed)
            count = episode.frames + 1
            if not (terminated or truncated) and count >= allowed:
                if not final and more is not None:
                    allowed, final = more(allowed)
                truncated = count >= allowed
            assert raw is not None
            episode.step(raw, reward, terminated, truncated, frame, info)
            if count % 8 == 0 and self.stop():
                raise Stopped


class EpisodeWriter:
    """Cuts an episode that is played step by step into chunks for `add`; its first frame is there already.

    `meta` are the recording's settings with the episode's number and seeds. Chunks in `kept` are not added again but
    compared with what `read` gives of them: `Differs` where one is not the same, and then none was added before it.
    `Fault`: a frame, a reward or a pose that cannot be stored; its step is not stored either.
    """

    def __init__(
        self, meta: dict[str, Any], add: Callable[[Chunk], Any], frame: np.ndarray, info: dict[str, Any],
        kept: Iterable[ChunkRef] = (), read: Callable[[ChunkRef], Chunk] | None = None,
    ) -> None:  # fmt: skip
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise Fault(f"the game must give frames of uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
        self.meta, self.add, self.read = meta, add, read
        self.kept = {ref.chunk: ref for ref in kept}
        self._held: list[Chunk] = []  # new ones that fill a gap, until what is on disk behind it has proved the same
        self.chunk = self.start = 0
        self.steps = 0  # in the chunk in hand
        schema = ActionSchema.from_json(meta["schema"])
        self._pictures = np.empty((MAX_STEPS + 1, *frame.shape), np.uint8)
        self._actions = np.empty((MAX_STEPS, schema.width), schema.dtype)
        self._rewards = np.empty(MAX_STEPS, np.float32)
        self._terminated, self._truncated = np.empty((2, MAX_STEPS), np.bool_)
        self._poses = np.empty((MAX_STEPS + 1, 3), np.float32) if info.get("pose") is not None else None
        self._see(0, frame, None if self._poses is None else _pose(info["pose"]))

    @property
    def frames(self) -> int:
        """Frames of the episode so far."""
        return self.start + self.steps + 1

    def step(
        self, raw: np.ndarray, reward: float, terminated: bool, truncated: bool, frame: np.ndarray, info: dict[str, Any]
    ) -> None:
        """The raw action (D,) and what came of it; the episode is over where it is terminated or truncated."""
        if not abs(reward) <= FLOAT32_MAX:
            raise Fault(f"the game gave the reward {reward} in step {self.frames}: a reward must be finite")
        pose = None if self._poses is None else _pose(info.get("pose"))
        if self.steps == MAX_STEPS:
            # Only now is it sure that the episode goes on behind this chunk.
            last = self._pictures[MAX_STEPS].copy(), None if self._poses is None else self._poses[MAX_STEPS].copy()
            self._emit(last=False)
            self._see(0, *last)
        i = self.steps
        self._actions[i], self._rewards[i], self._terminated[i], self._truncated[i] = raw, reward, terminated, truncated
        self._see(i + 1, frame, pose)
        self.steps += 1
        if terminated or truncated:
            self._emit(last=True)

    def end(self, fault: str = "") -> int:
        """The episode goes no further: what there is of it is truncated here, for this `fault` of the game if it was
        one. How many frames are kept."""
        if not self.steps:
            return 0
        frames = self.frames
        self._truncated[self.steps - 1] = True
        self.meta |= {"fault": fault} if fault else {}
        self._emit(last=True)
        return frames

    def _see(self, i: int, frame: np.ndarray, pose: np.ndarray | None) -> None:
        self._pictures[i] = frame
        if self._poses is not None:
            self._poses[i] = pose

    def _emit(self, last: bool) -> None:
        """Write the chunk in hand, or compare it with the one on disk."""
        steps, self.steps = self.steps, 0
        frames = steps + last
        actions, rewards = self._actions[:steps], self._rewards[:steps]
        terminated, truncated = self._terminated[:steps], self._truncated[:steps]
        poses = None if self._poses is None else self._poses[:frames]
        meta = self.meta | {"chunk": self.chunk, "start": self.start, "last": last}
        chunk = Chunk(self._pictures[:frames], actions, rewards, terminated, truncated, poses, meta)
        furthest = max(self.kept, default=-1)
        if last and self.chunk < furthest:
            raise Differs
        if ref := self.kept.get(self.chunk):
            if self.read is not None and not chunk.same(self.read(ref)):
                raise Differs
        else:
            # A copy where it waits, since the next chunk fills the same arrays.
            self._held.append(copy.deepcopy(chunk) if self.chunk < furthest else chunk)
        while self._held and self.chunk >= furthest:
            self.add(self._held.pop(0))
        self.chunk += 1
        self.start += steps


def _pose(given: Any) -> np.ndarray:
    """float32 (3,): the pose that a game tells. `UserError` when it is none."""
    try:
        pose = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        pose = np.empty(0, np.float32)
    if pose.shape != (3,) or not np.isfinite(pose).all():
        wanted = "it must be x, y and angle, finite, in every step or in none"
        raise Fault(f"the game gave the pose {given!r} in info: {wanted}")
    return pose
