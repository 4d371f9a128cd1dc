"""A dream being played: the model and its state, who plays, what is recorded, how long everything takes.

    session = Session(checkpoint.load("checkpoints/maze.safetensors"), seed=1)
    frame = session.tick()                  # asks the player for an action and dreams one frame of it

The window and the headless run share it; it draws nothing and waits for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_collect.errors import UserError
from game_wm.ui import players
from game_wm.ui.actions import ActionLog
from game_wm.ui.timing import Timings
from game_wm.ui.video import VideoWriter

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint
    from game_wm.world import Remembered

ENDED = 0.5  # predicted probability from which on an episode has ended, as in the dream's environment
MOST_STEPS = 64


@dataclass(frozen=True)
class Frame:
    """One dreamt step: the raw action (D,), the picture it led to (uint8, H, W, 3) and what the model says of it."""

    picture: np.ndarray
    action: np.ndarray
    reward: float
    ended: bool


class Session:
    """One player in one dream.

    `seed` chooses the seed context (modulo their number) and the noise, as `DreamEnv.reset(seed=)` does; `context`
    overrides the former. `steps` are the denoiser calls a frame, `fps` is the pace (0: as fast as it goes).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        seed: int = 0,
        context: int | None = None,
        steps: int | None = None,
        fps: float | None = None,
        player: str = "keyboard",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.checkpoint, self.model, self.schema = checkpoint, checkpoint.model, checkpoint.schema
        self.contexts = len(checkpoint.contexts_frames)
        self._first = (seed % self.contexts if context is None else context, seed)
        self.steps = self.model.steps if steps is None else steps
        self.fps = self.schema.fps if fps is None else fps
        if steps is not None:
            checkpoint.check_steps(steps)
            if not 1 <= steps <= MOST_STEPS:
                raise UserError(f"--steps {steps} is not between 1 and {MOST_STEPS}")
        if context is not None and not 0 <= context < self.contexts:
            raise UserError(f"--context {context}: this checkpoint has seed contexts 0 to {self.contexts - 1}")
        self.keyboard = players.Keyboard(self.schema)
        self.player: Any = self.keyboard
        self.player_name, self._other = "keyboard", player if player != "keyboard" else "random"
        self.paused = False
        self.watching = False  # whether what memory gives is kept to be shown
        self.remembered: Remembered | None = None
        self.video: VideoWriter | None = None
        self.times = Timings()  # player, model and decoding, one duration a frame
        self.latencies = Timings()  # key pressed or released -> its picture shown
        self._clock = clock
        self._unanswered: float | None = None
        self.reset()
        if player != "keyboard":
            self.take_over(player)

    # --- episodes -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """As if it had just been made: the first place, nothing logged; whoever plays begins anew as well."""
        self.log = ActionLog(self.schema)
        self.episodes = 0
        self.context, self.seed = self._first
        self.begin()

    def begin(self, context: int | None = None, seed: int | None = None) -> None:
        """Start an episode from a seed context (default: the present one again; counted modulo their number)."""
        self.context = (self.context if context is None else context) % self.contexts
        self.seed = self.seed if seed is None else seed
        frames_PHWC = self.checkpoint.contexts_frames[self.context]
        device = next(self.model.parameters()).device
        self.state = self.model.start(
            frames_PHWC[None].to(device),
            self.checkpoint.contexts_actions[self.context][None].to(device),
            torch.tensor([self.seed], device=device),
        )
        self.picture = frames_PHWC[-1].cpu().numpy()
        self.action = self.schema.raw(self.schema.noop())
        self.score, self.frames, self.ended = 0.0, 0, False
        self.remembered = None
        self.log.begin(self.context, self.seed)
        self.episodes += 1
        self.keyboard.forget()
        self.take_over(self.player_name)

    def step(self, action: Any) -> Frame:
        """Dream one frame of `action`. `UserError` when it is no action of this game."""
        raw = self.schema.raw(action)
        vector_BA = torch.from_numpy(self.schema.encode(raw))[None].to(next(self.model.parameters()).device)
        self.remembered = self.model.remembered(self.state, vector_BA) if self.watching else None
        outcome, self.state = self.model.step(self.state, vector_BA, self.steps)
        self.picture = outcome.frames[0].cpu().numpy()
        reward = float(outcome.rewards[0])
        self.score += reward
        self.frames += 1
        self.ended = float(outcome.terminated[0]) > ENDED
        self.action = raw
        self.log.add(raw)
        return Frame(self.picture, raw, reward, self.ended)

    def tick(self) -> Frame:
        """Ask the player and dream one frame; where the last episode has ended, in a new one from the next context."""
        if self.ended:
            self.begin(self.context + 1)
        started = self._clock()
        self._unanswered = self.keyboard.pressed_at if self.player is self.keyboard else None
        action = self.player.act(self.picture, {})
        self.keyboard.forget()
        frame = self.step(action)
        self.times.add(self._clock() - started)
        if self.video is not None:
            self._record(frame.picture)
        return frame

    def shown(self) -> None:
        """The window has put the last picture on the screen."""
        if self._unanswered is not None:
            self.latencies.add(self._clock() - self._unanswered)
            self._unanswered = None

    # --- players ------------------------------------------------------------------------------------------------

    def take_over(self, name: str | None = None) -> None:
        """Give the controls to `name`; without one, swap between the keyboard and the other player."""
        if name is None:
            name = self._other if self.player is self.keyboard else "keyboard"
        if name == "keyboard":
            self.player = self.keyboard
        else:
            # Another seed for each episode, or a random player would do the same things in all of them.
            self.player = players.make(name, self.schema, self.picture, self.seed + self.episodes - 1)
            self._other = name
        self.player_name = name

    # --- recordings ---------------------------------------------------------------------------------------------

    def record(self, path: str | Path) -> None:
        """Film from the next frame on."""
        self.stop_recording()
        self.video = VideoWriter(path, self.fps or self.schema.fps)

    def stop_recording(self) -> Path | None:
        """Finish the film; its path, or None where there was none."""
        video, self.video = self.video, None
        if video is None:
            return None
        video.close()
        return video.path if video.frames else None

    def _record(self, picture: np.ndarray) -> None:
        assert self.video is not None
        try:
            self.video.write(picture)
        except UserError:
            self.video = None  # it has cleaned up after itself; the dream goes on if the caller likes
            raise

    def save_log(self, path: str | Path) -> None:
        """Write every action since the session began, with the episodes' contexts and seeds."""
        self.log.save(path, self.checkpoint.name, self.steps)
