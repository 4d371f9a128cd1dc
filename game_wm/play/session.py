"""A session of play: what is shown, who plays it, what is recorded of it, and how long everything takes.

    session = Session(checkpoint.load("checkpoints/maze.safetensors"), seed=1)
    moment = session.tick()                 # asks keyboard or agent for an action, and plays one frame of it
    session.rewind()                        # takes it back

The window and the headless run share it; it draws nothing and waits for nothing. `scene.py` has the dream and the real
game, `controls.py` the keyboard and the agents.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect.errors import UserError
from data_collect.games import DREAM
from data_collect.recording.mp4 import VideoWriter, fitted
from game_wm.dream import Dream, Moment
from game_wm.dream.rewind import REWIND_BYTES
from game_wm.play.controls import Controls, Replay
from game_wm.play.files.recording import ShardRecording
from game_wm.play.keymap import COMMANDS, Command
from game_wm.play.scene import Scene
from game_wm.play.timing import Timings

if TYPE_CHECKING:
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.dream.saved import SavedDream

MOST_STEPS = 64


def check(checkpoint: Checkpoint, steps: int | None, context: int | None) -> None:
    """`UserError` for denoiser calls a frame, or a seed context, that the checkpoint has not."""
    if steps is not None:
        checkpoint.check_steps(steps)
        if not 1 <= steps <= MOST_STEPS:
            raise UserError(f"--steps {steps} is not between 1 and {MOST_STEPS}")
    contexts = len(checkpoint.contexts_frames)
    if context is not None and not 0 <= context < contexts:
        raise UserError(f"--context {context}: this checkpoint has seed contexts 0 to {contexts - 1}")


class Session:
    """One player in one dream.

    `seed` chooses the seed context (modulo their number) and the noise, as `DreamEnv.reset(seed=)` does; `context`
    overrides the former, and `beginning`, a saved dream, both. `steps` are the denoiser calls a frame, `fps` is the
    pace (0: as fast as it goes), `view` what is shown ("dream", "real" or "both"), `commands` the window's key map,
    `rewind` the bytes that going back in time may take (0: it cannot), `quality` what it is played at and can be
    changed to; without one the checkpoint's model plays as it is.
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
        view: str = "dream",
        beginning: SavedDream | None = None,
        commands: tuple[Command, ...] = COMMANDS,
        rewind: int = REWIND_BYTES,
        quality: Quality | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check(checkpoint, steps, context)
        self.checkpoint, self.schema, self.quality = checkpoint, checkpoint.schema, quality
        self.beginning, self.commands = beginning, commands
        self.fps = self.schema.fps if fps is None else fps
        self.paused = False
        self.video: VideoWriter | None = None
        self.times = Timings()  # agent, model and decoding, one duration a frame
        self.latencies = Timings()  # key pressed or released -> its picture shown
        self.episodes = 0
        model = checkpoint.model if quality is None else quality.model
        calls = steps or (model.steps if quality is None else quality.calls)
        self.scene = Scene(checkpoint, model, calls, rewind=rewind, began=self._began)
        self.controls = Controls(self.schema, player if player != "keyboard" else "random")
        self._first = (seed % self.scene.contexts if context is None else context, seed)
        self._view, self._clock = view, clock
        self._unanswered: float | None = None  # when the oldest key change went out that no picture has answered
        self._dream_data: ShardRecording | None = None
        self._own_steps = calls  # denoiser calls that a replay comes back to
        self.reset()
        if player != "keyboard":
            self.take_over(player)

    @property
    def dream(self) -> Dream:
        return self.scene.dream

    @property
    def now(self) -> Moment:
        """The moment that is shown; of both, the dream's."""
        return self.scene.now

    def reset(self) -> None:
        """Back to the state after `__init__`: the first place, nothing logged, a fresh agent."""
        self.episodes = 0
        self.scene.reset()
        if self.beginning is None:
            self.scene.begin(*self._first)
        else:
            self.restore(self.beginning)
        self.show(self._view)

    def _began(self) -> None:
        """An episode has begun: keys of the last one count no more, and an agent starts afresh."""
        self.episodes += 1
        self.controls.keyboard.forget()
        self.take_over("keyboard" if self.controls.name == "replay" else self.controls.name)

    def show(self, view: str) -> None:
        """As `Scene.show`; what is recorded ends where the view changes to another episode."""
        if view != self.scene.view and (self.scene.view, view) != ("both", "dream"):
            self.stop_data()
        self.scene.show(view)

    def restore(self, source: SavedDream) -> None:
        """Go on where a dream was saved; the dream itself stays as it is, so that it can branch again."""
        if self.scene.real is not None:
            self.scene.real.stop_data()
        self.scene.resume(source)

    def replay(self, source: SavedDream) -> None:
        """Dream all of a saved dream again, from its prompt; then the keyboard plays on."""
        self.scene.repeat(source)
        self._own_steps = self.scene.steps
        self.controls.replay(source.actions, source.steps)

    def snapshot(self) -> SavedDream:
        """What `saved.save` writes: this dream, at this moment. `UserError` where the real game is what is shown."""
        if self.scene.view == "real":
            raise UserError("this is the real game: only a dream can be saved")
        return self.dream.snapshot(self.scene.model)

    def step(self, action: Any) -> Moment:
        """One frame of `action`, of whatever is shown. `UserError` when it is no action of this game."""
        before = self.dream.moment
        moment = self.scene.step(self.schema.raw(action))
        if self._dream_data is not None:
            self._dream_data.dreamt(before, moment)
        return moment

    def tick(self) -> Moment:
        """Ask keyboard or agent and play one frame; after the end of an episode, in a new one from the next place."""
        if self.scene.ended:
            self.scene.restart(1)
        started = self._clock()
        self._unanswered = self.controls.keyboard.pressed_at if self.controls.by_hand else None
        action = self._act()
        self.controls.keyboard.forget()
        try:
            moment = self.step(action)
        except UserError:
            self._drop_broken_data()
            raise
        self.times.add(self._clock() - started)
        self._film()
        return moment

    def _act(self) -> Any:
        """The next action; after the last one of a replay, the keyboard's."""
        if isinstance(self.controls.agent, Replay):
            if self.controls.agent.over:
                self.take_over("keyboard")
            else:
                self.scene.steps = self.controls.agent.steps
        return self.controls.agent.act(self.now.picture, {})

    def rewind(self) -> bool:
        """Take the last frame back; False where the episode began, or where memory of it ends. A replay ends."""
        if self.controls.name == "replay":
            self.take_over("keyboard")
        try:
            gone = self.scene.back()
        except UserError:
            self._drop_broken_data()
            raise
        if gone:
            self._film()
        return gone

    def shown(self) -> None:
        """The window has put the last picture on the screen."""
        if self._unanswered is not None:
            self.latencies.add(self._clock() - self._unanswered)
            self._unanswered = None

    def take_over(self, name: str | None = None) -> None:
        """Give the controls to `name`; without one, swap between the keyboard and the other player."""
        if self.controls.name == "replay":
            self.scene.steps = self._own_steps
        # Another seed for each episode, or a random player would do the same things in all of them.
        self.controls.take_over(name, self.now.picture, self.dream.seed + self.episodes - 1)

    def change_quality(self) -> str:
        """Play at the next level; its label. `UserError` where there is but one."""
        if self.quality is None:
            raise UserError("this player has one quality only")
        self.quality.next()
        self._take_quality(self.quality)
        return self.quality.label

    def adapt_quality(self, seconds: float) -> str | None:
        """A frame took so long, all in all: a sentence where the quality changes for it."""
        if self.quality is None or self.scene.view == "real" or self.controls.name == "replay":
            return None
        words = self.quality.record_frame_time(seconds)
        if words:
            self._take_quality(self.quality)
        return words

    def _take_quality(self, quality: Quality) -> None:
        self.scene.model = quality.model
        self.scene.steps = self._own_steps = quality.calls

    @property
    def data(self) -> ShardRecording | None:
        """The shards that are being written, of the dream or of the real game."""
        real = self.scene.real
        return self._dream_data if real is None or real.data is None else real.data

    def record(self, path: str | Path) -> None:
        self.stop_recording()
        self.video = VideoWriter(path, self.fps or self.schema.fps)

    def stop_recording(self) -> Path | None:
        """Finish the film; its path, or None where there was none."""
        video, self.video = self.video, None
        if video is None:
            return None
        video.close()
        return video.path if video.frames else None

    def _film(self) -> None:
        if self.video is None:
            return
        try:
            self.video.write(fitted(self.scene.film, self.video.shape))
        except UserError:
            self.video = None  # it has cleaned up after itself; the dream goes on if the caller likes
            raise

    def record_data(self, folder: str | Path) -> None:
        """Record what is played as shards: a dream from here on, the real game from an episode that begins now, so that
        `verify` can play it again."""
        real = self.scene.real if self.scene.view == "real" else None
        if real is not None:
            real.data = ShardRecording(folder, real.game, self.schema, real.seed)
            self.scene.restart()
        else:
            name = f"{DREAM}{self.checkpoint.name}"
            self._dream_data = ShardRecording(folder, name, self.schema, abs(self.dream.seed))

    def stop_data(self) -> Path | None:
        """Finish the shards; their folder, or None where nothing was recorded."""
        data, self._dream_data = self._dream_data, None
        if data is not None:
            return data.close()
        return None if self.scene.real is None else self.scene.real.stop_data()

    def save_log(self, path: Path) -> None:
        """Write every action since the session began, with the episodes' contexts and seeds."""
        self.dream.log.save(path, self.checkpoint.name, self.scene.steps)

    def _drop_broken_data(self) -> None:
        """A recording that cannot go on is over, what it has written stays; what is played goes on."""
        if self.data is not None and self.data.broken:
            with suppress(UserError):  # no room for the index either: it is made again from the shards
                self.stop_data()
