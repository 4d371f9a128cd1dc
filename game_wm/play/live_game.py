"""The real game that a model has learnt, to be played in place of the dream or beside it.

    real = LiveGame(checkpoint, seed=0)
    real.begin(number=0)                    # an explorer plays the prompt: as many frames as a seed context has
    frames, actions, poses = real.prompt()  # the dream that starts from these stands where the real game stands
    real.step(raw); real.back()

Going back shows the pictures that were kept; the game itself is played again from its seed when it goes on. It is a
guest (`data_collect/guest`): what it does to its process is not done to the player's.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data_collect import players
from data_collect.errors import Fault, UserError
from data_collect.guest.guest import Guest
from data_collect.recording.recorder import seeds
from game_wm.dream import Moment

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint
    from game_wm.play.files.recording import ShardRecording

KEPT_FRAMES = 1800  # frames that can be taken back
STEP_SECONDS = 5.0  # seconds that a player waits for a step, unless GAME_SECONDS says otherwise


class Lost(UserError):
    """The real game has failed; another episode begins it anew."""


def pose_of(info: dict[str, Any]) -> np.ndarray | None:
    pose = info.get("pose")
    return None if pose is None else np.array(pose, np.float32)


class LiveGame:
    """One player in the game of a checkpoint. `UserError` where it is not installed, or is not what was learnt.

    Whatever plays raises `Lost` where the game fails.
    """

    def __init__(self, checkpoint: Checkpoint, seed: int = 0) -> None:
        self.schema, self.game, self.seed = checkpoint.schema, checkpoint.game, abs(seed)
        self.length = checkpoint.contexts_frames.shape[1]
        height, width = checkpoint.contexts_frames.shape[2:4]
        seconds = None if os.environ.get("GAME_SECONDS") else STEP_SECONDS
        self.env: Guest = _call(Guest, checkpoint.game, seconds, frame=(width, height))
        try:
            self._check(checkpoint)
        except UserError:
            self.env.close()
            raise
        self.number = -1
        self._kept: deque[Moment] = deque(maxlen=KEPT_FRAMES)
        self.data: ShardRecording | None = None  # what is played goes there as well
        self.moment: Moment
        self.info: dict[str, Any] = {}

    def _check(self, checkpoint: Checkpoint) -> None:
        schema, size = self.env.action_schema, self.env.render().shape
        learnt = tuple(checkpoint.contexts_frames.shape[2:])
        if (schema.kind, schema.names) != (self.schema.kind, self.schema.names) or size != learnt:
            raise UserError(
                f"the game {checkpoint.game} that is installed here is not what {checkpoint.name} has learnt: it has "
                f"{', '.join(schema.names)} at {size[1]}x{size[0]}, not {', '.join(self.schema.names)} at "
                f"{learnt[1]}x{learnt[0]}; install the version that it was recorded with"
            )

    def begin(self, number: int) -> None:
        """Episode `number` of the recording with this seed, its first frames played by an explorer where the game has a
        map, else at random."""
        self.number = number
        env_seed, player_seed = seeds(self.seed, number)
        self._reset(env_seed)
        if self.data is not None:
            self.data.begin(self.moment.picture, self.info)
        player: Any = players.make("random", self.env, player_seed)
        if "map" in self.info and {"forward", "turn_left", "turn_right"} <= set(self.schema.names):
            player = players.make("explorer", self.env, player_seed)
        player.reset(self.env, self.moment.picture, self.info)
        ended = False
        while self.moment.frames < self.length - 1 and not ended:
            try:
                ended = self.step(self.schema.raw(player.act(self.moment.picture, self.info))).ended
            except Lost:
                if not self.moment.frames:
                    raise
                ended = True
        if ended:
            # An episode shorter than a prompt: stand where it can still go on.
            self.seek(max(0, self.moment.frames - 1))

    def step(self, raw: np.ndarray) -> Moment:
        if self._behind:
            self.seek(self.moment.frames)
        self._step(raw)
        if self.data is not None:
            self.data.step(raw, self.moment.reward, self.moment.ended, self.moment.picture, self.info)
        return self.moment

    def _step(self, raw: np.ndarray) -> None:
        picture, reward, terminated, truncated, self.info = _call(self.env.step, self.schema.action(raw))
        before, reward, ended = self.moment, float(reward), float(terminated or truncated)
        self.actions.append(raw)
        moment = Moment(
            picture.copy(), raw, before.score + reward, before.frames + 1, ended, reward, pose_of(self.info)
        )
        self._show(moment)

    def back(self) -> bool:
        """One frame back; False where no earlier one is kept, or the game cannot be played again."""
        if len(self._kept) < 2 or not self.env.replayable:
            return False
        if self.data is not None:
            self.data.end()
        self._kept.pop()
        self.moment, self._behind = self._kept[-1], True
        del self.actions[self.moment.frames :]
        return True

    def seek(self, frames: int) -> None:
        """The moment after so many of the frames played: they are played again."""
        actions = self.actions[:frames]
        self._reset(seeds(self.seed, self.number)[0])
        for raw in actions:
            self._step(raw)

    def prompt(self, frames: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The last frames uint8 (P, H, W, 3), by default as many as a seed context has, the encoded actions float32
        (P - 1, A) between them, and poses float32 (P, 3), where the game tells them."""
        last = list(self._kept)[-(frames or self.length) :]
        pictures = torch.from_numpy(np.stack([moment.picture for moment in last]))
        raw = np.stack([moment.action for moment in last])[1:]
        actions = torch.from_numpy(self.schema.encode(raw).reshape(len(raw), self.schema.size))
        poses = [moment.pose for moment in last if moment.pose is not None]
        return pictures, actions, torch.from_numpy(np.stack(poses)) if len(poses) == len(last) else None

    def stop_data(self) -> Path | None:
        """Finish its recording; the folder, or None where nothing was recorded."""
        data, self.data = self.data, None
        return None if data is None else data.close()

    def close(self) -> None:
        self.env.close()

    def _reset(self, env_seed: int) -> None:
        picture, self.info = _call(self.env.reset, seed=env_seed)
        self._behind = False
        self.actions: list[np.ndarray] = []
        self._kept.clear()
        self._show(Moment(picture.copy(), self.schema.raw(self.schema.noop()), pose=pose_of(self.info)))

    def _show(self, moment: Moment) -> None:
        self._kept.append(moment)
        self.moment = moment


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a call into the game; `Lost` where it fails."""
    try:
        return function(*arguments, **options)
    except Fault as fault:
        raise Lost(str(fault)) from fault
