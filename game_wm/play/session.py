"""A dream being played: the model and its state, who plays, what is recorded, how long everything takes.

    session = Session(checkpoint.load("checkpoints/maze.safetensors"), seed=1)
    frame = session.tick()                  # asks the player for an action and dreams one frame of it
    session.rewind()                        # takes it back

The window and the headless run share it; it draws nothing and waits for nothing.

What is shown is the dream, the real game (`real.py`), or both. As long as they are `linked`, the same actions go to
both, from the same moment on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.games import DREAM
from game_wm.evaluation.metrics import psnr
from game_wm.play import controls as players
from game_wm.play.files import saved_dream as saved
from game_wm.play.files.actions import ActionLog
from game_wm.play.files.recording import ShardRecording
from game_wm.play.files.video import VideoWriter, fitted
from game_wm.play.keymap import COMMANDS, Command
from game_wm.play.live_game import LiveGame, Lost, Moment
from game_wm.play.rewind import LIMIT, Undo
from game_wm.play.timing import Timings

if TYPE_CHECKING:
    from game_wm.acceleration.quality import Quality
    from game_wm.checkpoint import Checkpoint
    from game_wm.world import Remembered

ENDED = 0.5  # predicted probability from which on an episode has ended, as in the dream's environment
LOOKBACK = 256  # frames of the real game that a dream with episodic memory begins with, where there are so many
MOST_STEPS = 64
ELSEWHERE = -1  # the context of a dream that began in none of the checkpoint's


@dataclass(frozen=True)
class Frame:
    """One step: the raw action (D,), the picture it led to (uint8, H, W, 3) and what was said of it."""

    picture: np.ndarray
    action: np.ndarray
    reward: float
    ended: bool


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
    overrides the former, and `dream`, a saved one, both. `steps` are the denoiser calls a frame, `fps` is the pace
    (0: as fast as it goes), `view` what is shown ("dream", "real" or "both"), `commands` the window's key
    map, `rewind` the bytes that going back in time may take (0: it cannot), `quality` what it is played at and can be
    changed to; without one the checkpoint's model plays as it is.
    """

    PARTED = 20.0  # dB: below it the dream has parted from the real game

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
        dream: saved.Dream | None = None,
        commands: tuple[Command, ...] = COMMANDS,
        rewind: int = LIMIT,
        quality: Quality | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.checkpoint, self.schema, self.quality = checkpoint, checkpoint.schema, quality
        self.model = checkpoint.model if quality is None else quality.model
        self.contexts = len(checkpoint.contexts_frames)
        self._first = (seed % self.contexts if context is None else context, seed)
        self.beginning, self.commands = dream, commands
        self._view, self._limit = view, rewind
        self.steps = steps or (self.model.steps if quality is None else quality.calls)
        self.fps = self.schema.fps if fps is None else fps
        check(checkpoint, steps, context)
        self.keyboard = players.Keyboard(self.schema)
        self.player: Any = self.keyboard
        self.player_name, self._other = "keyboard", player if player != "keyboard" else "random"
        self.paused = False
        self.watching = False  # whether what memory gives is kept to be shown
        self.remembered: Remembered | None = None
        self.video: VideoWriter | None = None
        self.data: ShardRecording | None = None
        self.times = Timings()  # player, model and decoding, one duration a frame
        self.latencies = Timings()  # key pressed or released -> its picture shown
        self._clock = clock
        self._unanswered: float | None = None
        self.real: LiveGame | None = None
        self._notice: str  # what nobody has been told yet
        self.view, self.linked = "dream", False
        self.reset()
        if player != "keyboard":
            self.take_over(player)

    # --- what is shown ------------------------------------------------------------------------------------------

    @property
    def now(self) -> Moment:
        """The frame that is shown; of both, the dream's."""
        return self.real.moment if self.view == "real" and self.real is not None else self.moment

    @property
    def picture(self) -> np.ndarray:
        return self.now.picture

    @property
    def action(self) -> np.ndarray:
        return self.now.action

    @property
    def score(self) -> float:
        return self.now.score

    @property
    def frames(self) -> int:
        return self.now.frames

    @property
    def ended(self) -> bool:
        """Whether the episode that is shown is over; of both, either."""
        return self.now.ended or (self.view == "both" and self.real is not None and self.real.moment.ended)

    @property
    def film(self) -> np.ndarray:
        """The picture that a film gets: of both, the real one and the dream's side by side."""
        if self.view == "both" and self.real is not None:
            return np.concatenate([self.real.moment.picture, self.moment.picture], 1)
        return self.picture

    def show(self, view: str) -> None:
        """Show the dream, the real game or both, from the same moment. `UserError` where the game is missing.

        The real game goes on where it has followed the dream's actions, else in an episode of its own; a dream of what
        the real game shows begins anew, from its last frames. Where it fails, the dream is shown, and `news` tells why.
        """
        if view == self.view:
            return
        if view == "dream" and self.view == "both":
            self.view = view
            return
        self.stop_data()
        try:
            self._show(view)
        except Lost as lost:
            self._lose(lost)

    def _show(self, view: str) -> None:
        """Another view than the present one."""
        if self.real is None:
            self.real = LiveGame(self.checkpoint, self.seed)
        if view == "dream":
            self._from_real()
        elif view == "real" and not self.linked:
            self.real.begin(self.real.number + 1)
        elif view == "both" and not self.linked:
            if self.view == "dream":
                self.real.begin(self.real.number + 1)
            self._from_real()
        # Alone, the real game leaves the dream behind.
        self.linked = self.linked and view != "real"
        self.view = view

    def _lose(self, lost: Lost) -> None:
        """The real game has failed: the dream goes on, from where the game stood if that was what was shown."""
        self._notice = f"the dream plays on without the real game: {lost}"
        if self.real is not None and self.data is not None and self.data is self.real.data:
            with suppress(UserError):
                self._notice += f"; saved {folder}" if (folder := self.stop_data()) else ""
        if self.view == "real":
            self._from_real()
        self.view, self.linked = "dream", False

    def news(self) -> str:
        """What has happened that the player should know, once; mostly nothing."""
        notice, self._notice = self._notice, ""
        return notice

    def _from_real(self) -> None:
        """A dream of the moment at which the real game stands."""
        assert self.real is not None
        lookback = max(LOOKBACK, self.real.length) if self.state.episodic is not None else None
        self._start(self.real.prompt(lookback), ELSEWHERE)
        self._linked_at, self.linked = self.real.moment.frames, True

    # --- episodes -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """As if it had just been made: the first place, nothing logged; whoever plays begins anew as well."""
        self.log = ActionLog(self.schema)
        self.episodes = 0
        self.context, self.seed = self._first
        self.view, self._notice = "dream", ""
        if self.beginning is None:
            self.begin()
        else:
            self.restore(self.beginning)
        if self.real is not None:
            self.real.number = -1
        self.show(self._view)

    def begin(self, context: int | None = None, seed: int | None = None) -> None:
        """Start a dream from a seed context (default: the present one again; counted modulo their number)."""
        context = (self.context if context is None else context) % self.contexts
        self.seed = self.seed if seed is None else seed
        self._start(self.checkpoint.prompt(context), context)

    def again(self) -> None:
        """Start the present episode again."""
        self._restart(0)

    def move(self, places: int) -> None:
        """Start another episode, so many places on."""
        self._restart(places)

    def _restart(self, places: int) -> None:
        try:
            self._restart_shown(places)
        except Lost as lost:
            self._lose(lost)
            self._restart_shown(places)  # of the dream alone

    def _restart_shown(self, places: int) -> None:
        if self.real is not None and self.linked and places == 0 and self.real.replayable:
            self.real.seek(self._linked_at)
            self._from_real()
        elif self.real is not None and self.view != "dream":
            # Episodes of a recording are numbered in their order.
            number = max(0, self.real.number + places)
            self.real.begin(number if self.real.data is None else self.real.data.episode + 1)
            if self.view == "both":
                self._from_real()
            else:
                self._anew()
        elif places == 0:
            self._start(self.prompt, self.context)
        else:
            self.begin((self.context if self.context != ELSEWHERE else min(0, -places)) + places)

    def _start(self, prompt: tuple[Tensor, Tensor, Tensor | None], context: int) -> None:
        """A dream from real frames, the actions between them and where they were taken, if that is known."""
        self.prompt, self.context = prompt, context
        frames_PHWC, actions_PA, poses_P3 = prompt
        state = self.model.begin(frames_PHWC, actions_PA, self.seed, poses_P3)
        self._enter(state, Moment(frames_PHWC[-1].cpu().numpy(), self.schema.raw(self.schema.noop())))
        self._anew()

    def _enter(self, state: Any, moment: Moment) -> None:
        """The dream is at this moment, and can go back no further."""
        self.state, self.moment = state, moment
        self.undo = Undo(state, self._limit) if self._limit else None
        self.calls = bytearray()  # denoiser calls of each frame
        self.ran: list[str] = []  # what the frames were dreamt on, in order
        self._running: tuple[Any, bool] | None = None
        self.psnr: list[float] = []  # of each frame since the real game was at the same moment, in dB
        self.parted: int | None = None  # the first of these frames below PARTED
        self.linked, self._linked_at = False, 0
        self.remembered = None
        self.log.begin(self.context, self.seed)
        if self.data is not None and self.data is not getattr(self.real, "data", None):
            self.data.end()

    def _anew(self) -> None:
        """An episode begins: nobody is to answer for the last one."""
        self.episodes += 1
        self.keyboard.forget()
        self.take_over(self.player_name)

    def step(self, action: Any) -> Frame:
        """One frame of `action`, of whatever is shown. `UserError` when it is no action of this game."""
        raw = self.schema.raw(action)
        if self.view == "real" and self.real is not None:
            try:
                moment = self.real.step(raw)
                return Frame(moment.picture, raw, self.real.reward, moment.ended)
            except Lost as lost:
                self._lose(lost)
        vector_BA = torch.from_numpy(self.schema.encode(raw))[None].to(next(self.model.parameters()).device)
        self.remembered = self.model.remembered(self.state, vector_BA) if self.watching else None
        self._note_executable()
        outcome, self.state = self.model.step(self.state, vector_BA, self.steps)
        before, reward = self.moment, float(outcome.rewards[0])
        ended = float(outcome.terminated[0]) > ENDED
        picture = outcome.frames[0].cpu().numpy()
        self.moment = Moment(picture, raw, before.score + reward, before.frames + 1, ended)
        if self.undo is not None:
            self.undo.note(self.state, before)
        self.log.add(raw)
        self.calls.append(self.steps)
        if self.linked and self.real is not None:
            self._follow(self.real, raw)
        if self.data is not None and self.data is not getattr(self.real, "data", None):
            if not self.data.playing:
                self.data.begin(before.picture, {})
            self.data.step(raw, reward, ended, picture, {})
        return Frame(picture, raw, reward, ended)

    def _note_executable(self) -> None:
        """What plays the next frame is part of the dream: others round otherwise."""
        now = self.model, self.model.compiled
        if now != self._running:
            self._running, name = now, saved.executable(self.model)
            self.ran += [name] if self.ran[-1:] != [name] else []

    def _follow(self, real: LiveGame, raw: np.ndarray) -> None:
        """The real game does what the dream did."""
        if real.moment.ended:
            self.linked = False
            return
        try:
            pictures = real.step(raw).picture, self.moment.picture
        except Lost as lost:
            self._lose(lost)
            return
        self.psnr.append(psnr(*(torch.from_numpy(picture)[None] for picture in pictures)).item())
        if self.parted is None and self.psnr[-1] < self.PARTED:
            self.parted = len(self.psnr)

    def tick(self) -> Frame:
        """Ask the player and play one frame; where the last episode has ended, in a new one from the next place."""
        if self.ended:
            self.move(1)
        started = self._clock()
        self._unanswered = self.keyboard.pressed_at if self.player is self.keyboard else None
        action = self.player.act(self.picture, {})
        self.keyboard.forget()
        try:
            frame = self.step(action)
        except UserError:
            self._drop_broken_data()
            raise
        self.times.add(self._clock() - started)
        self._record()
        return frame

    def shown(self) -> None:
        """The window has put the last picture on the screen."""
        if self._unanswered is not None:
            self.latencies.add(self._clock() - self._unanswered)
            self._unanswered = None

    def change_quality(self) -> None:
        """Play at the next level; `UserError` where there is but one."""
        if self.quality is None:
            raise UserError("this player has one quality only")
        self.quality.next()
        self._take_quality(self.quality)

    def hold(self, seconds: float) -> str | None:
        """A frame took so long, all in all: a sentence where the quality changes for it."""
        if self.quality is None or self.view == "real" or self.player_name == "replay":
            return None
        words = self.quality.saw(seconds)
        if words:
            self._take_quality(self.quality)
        return words

    def _take_quality(self, quality: Quality) -> None:
        self.model, self.steps = quality.model, quality.calls
        if isinstance(self.player, players.Replay):
            self.player.steps = self.steps

    # --- back in time -------------------------------------------------------------------------------------------

    def rewind(self) -> bool:
        """Take the last frame back; False where the episode began, or where memory of it ends. A replay ends."""
        if self.player_name == "replay":
            self.take_over("keyboard")
        try:
            if self.view == "real" and self.real is not None:
                gone = self.real.back()
            else:
                gone = bool(self.undo)
                if self.undo:
                    self._back(self.undo)
        except UserError:
            self._drop_broken_data()
            raise
        if gone:
            self._record()
        return gone

    def _back(self, undo: Undo) -> None:
        self.moment = undo.back(self.state)
        self.log.drop()
        self.calls.pop()
        self.remembered = None
        if self.data is not None:
            self.data.end()
        if self.linked and self.real is not None and self.psnr:
            self.psnr.pop()
            if self.parted is not None and self.parted > len(self.psnr):
                self.parted = None
            self.linked = self.real.back()
            if not self.linked:
                self.view = "dream"  # a game that cannot go back stays behind

    def dream(self) -> saved.Dream:
        """What `saved.save` writes: this dream, at this moment. `UserError` where the real game is what is shown."""
        if self.view == "real":
            raise UserError("this is the real game: only a dream can be saved")
        now = self.moment
        ran = ", then ".join(self.ran) or saved.executable(self.model)
        about = saved.About(
            self.checkpoint.name, self.checkpoint.digest, ran, self.context, self.seed, now.score, now.ended
        )
        actions, steps = self.log.last(now.frames), np.frombuffer(bytes(self.calls), np.uint8)
        frames, led, poses = self.prompt
        return saved.Dream(about, frames, led, actions, steps, now.picture, self.state.clone(), poses)

    def restore(self, dream: saved.Dream) -> None:
        """Go on where a dream was saved; the dream itself stays as it is, so that it can branch again."""
        if self.real is not None and self.data is not None and self.data is self.real.data:
            self.stop_data()
        about = dream.about
        self.view, self.prompt = "dream", dream.prompt
        self.context, self.seed = about.context, about.seed
        raw = dream.actions[-1] if len(dream.actions) else self.schema.raw(self.schema.noop())
        self._enter(dream.state.clone(), Moment(dream.picture, raw, about.score, len(dream.actions), about.ended))
        self.log.add(dream.actions)
        self.calls[:] = dream.steps.tobytes()
        self.ran = [about.executable] if len(dream.actions) else []
        self._anew()

    def replay(self, dream: saved.Dream) -> None:
        """Dream all of a saved dream again, from its prompt; then the keyboard plays on."""
        self.view, self.seed = "dream", dream.about.seed
        self._start(dream.prompt, dream.about.context)
        self.player, self.player_name = players.Replay(self, dream.actions, dream.steps), "replay"

    # --- players ------------------------------------------------------------------------------------------------

    def take_over(self, name: str | None = None) -> None:
        """Give the controls to `name`; without one, swap between the keyboard and the other player."""
        if name is None:
            name = self._other if self.player is self.keyboard else "keyboard"
        if isinstance(self.player, players.Replay):
            self.steps = self.player.steps
        if name in ("keyboard", "replay"):  # a replay is over when another episode begins
            name, self.player = "keyboard", self.keyboard
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

    def _record(self) -> None:
        if self.video is None:
            return
        try:
            self.video.write(fitted(self.film, self.video.shape))
        except UserError:
            self.video = None  # it has cleaned up after itself; the dream goes on if the caller likes
            raise

    def record_data(self, folder: str | Path) -> None:
        """Record what is played as shards: a dream from here on, the real game from an episode that begins now, so that
        `verify` can play it again."""
        real = self.real if self.view == "real" else None
        game = f"{DREAM}{self.checkpoint.name}" if real is None else real.game
        self.data = ShardRecording(folder, game, self.schema, abs(self.seed) if real is None else real.seed)
        if real is not None:
            real.data = self.data
            self.move(0)

    def stop_data(self) -> Path | None:
        """Finish the shards; their folder, or None where nothing was recorded."""
        data, self.data = self.data, None
        if self.real is not None:
            self.real.data = None
        return None if data is None else data.close()

    def _drop_broken_data(self) -> None:
        """A recording that cannot go on is over, what it has written stays; what is played goes on."""
        if self.data is not None and self.data.broken:
            with suppress(UserError):  # no room for the index either: it is made again from the shards
                self.stop_data()

    def save_log(self, path: str | Path) -> None:
        """Write every action since the session began, with the episodes' contexts and seeds."""
        self.log.save(path, self.checkpoint.name, self.steps)
