"""What is played and shown: the dream, the real game, or both from the same moment.

    scene = Scene(checkpoint, model, steps=1)
    scene.begin(context=2, seed=7)
    scene.show("both")                      # the real game beside the dream
    moment = scene.step(raw)                # a raw action (D,), done in whatever is shown
    scene.back()

As long as they are `linked`, the same actions go to both, from the same moment on. The scene draws nothing, waits for
nothing and knows no keys.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_collect.errors import UserError
from game_wm.dream import NO_CONTEXT, Dream, Moment
from game_wm.dream.actions import ActionLog
from game_wm.evaluation.metrics import psnr
from game_wm.play.live_game import LiveGame, Lost

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint
    from game_wm.dream.dream import Prompt
    from game_wm.dream.saved import SavedDream

LOOKBACK = 256  # real frames that a dream with episodic memory begins with, where there are so many
DIVERGED_DB = 20.0  # PSNR below which the dream has diverged from the real game


class Likeness:
    """PSNR of the dream against the real game, of each frame since both were at the same moment."""

    def __init__(self) -> None:
        self.psnr: list[float] = []  # dB
        self.diverged: int | None = None  # the first of these frames, counted from 1, below DIVERGED_DB

    def add(self, real: np.ndarray, dreamt: np.ndarray) -> None:
        self.psnr.append(psnr(*(torch.from_numpy(picture)[None] for picture in (real, dreamt))).item())
        if self.diverged is None and self.psnr[-1] < DIVERGED_DB:
            self.diverged = len(self.psnr)

    def drop(self) -> None:
        self.psnr.pop()
        if self.diverged is not None and self.diverged > len(self.psnr):
            self.diverged = None


class Scene:
    """A dream and, once it has been shown, the real game.

    `view` is "dream", "real" or "both"; `model` and `steps` (denoiser calls) dream the next frame and may be changed at
    any time. `rewind` is the memory in bytes for going back in the dream (0: it cannot). `began` is called whenever an
    episode begins.
    """

    dream: Dream

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: Any,
        steps: int,
        *,
        rewind: int = 0,
        began: Callable[[], None] = lambda: None,
    ) -> None:
        self.checkpoint, self.model, self.steps = checkpoint, model, steps
        self.contexts = len(checkpoint.contexts_frames)
        self.inspect = False  # whether what memory gives is kept to be shown
        self.real: LiveGame | None = None
        self.view, self.linked = "dream", False
        self.likeness = Likeness()
        self._rewind, self._began = rewind, began
        self._linked_at = 0  # frames of the real game when both were at the same moment
        self._notice = ""  # for `news`
        self.log = ActionLog(checkpoint.schema)

    def reset(self) -> None:
        """As new: the dream is shown, nothing is logged, and the real game counts its episodes from the first."""
        self.log = ActionLog(self.checkpoint.schema)
        self.view, self._notice = "dream", ""
        if self.real is not None:
            self.real.number = -1

    @property
    def now(self) -> Moment:
        """The moment that is shown; of both, the dream's."""
        return self.real.moment if self.view == "real" and self.real is not None else self.dream.moment

    @property
    def beside(self) -> LiveGame | None:
        return self.real if self.view == "both" else None

    @property
    def ended(self) -> bool:
        """Whether the episode that is shown is over; of both, either."""
        return self.now.ended or (self.beside is not None and self.beside.moment.ended)

    @property
    def film(self) -> np.ndarray:
        """The picture that a film gets: of both, the real one and the dream's side by side."""
        if self.beside is not None:
            return np.concatenate([self.beside.moment.picture, self.dream.moment.picture], 1)
        return self.now.picture

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
        try:
            self._show(view)
        except Lost as lost:
            self._lose(lost)

    def _show(self, view: str) -> None:
        if self.real is None:
            self.real = LiveGame(self.checkpoint, self.dream.seed)
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
        if self.real is not None:
            with suppress(UserError):
                self._notice += f"; saved {folder}" if (folder := self.real.stop_data()) else ""
        if self.view == "real":
            self._from_real()
        self.view, self.linked = "dream", False

    def news(self) -> str:
        """What has happened that the player should know, once; mostly nothing."""
        notice, self._notice = self._notice, ""
        return notice

    def begin(self, context: int | None = None, seed: int | None = None) -> None:
        """Start a dream from a seed context (default: the present one again; counted modulo their number)."""
        context = (self.dream.context if context is None else context) % self.contexts
        self._start(self.checkpoint.prompt(context), context, self.dream.seed if seed is None else seed)

    def repeat(self, source: SavedDream) -> None:
        self.view = "dream"
        self._start(source.prompt, source.about.context, source.about.seed)

    def resume(self, source: SavedDream) -> None:
        self.view = "dream"
        self._enter(Dream.resume(self.checkpoint, source, rewind=self._rewind, log=self.log))

    def restart(self, places: int = 0) -> None:
        """Start another episode, so many places on (0: the present one again)."""
        try:
            self._restart(places)
        except Lost as lost:
            self._lose(lost)
            self._restart(places)  # of the dream alone

    def _restart(self, places: int) -> None:
        if self.real is not None and self.linked and places == 0 and self.real.env.replayable:
            self.real.seek(self._linked_at)
            self._from_real()
        elif self.real is not None and self.view != "dream":
            # Episodes of a recording are numbered in their order.
            number = max(0, self.real.number + places)
            self.real.begin(number if self.real.data is None else self.real.data.episode + 1)
            if self.view == "both":
                self._from_real()
            else:
                self._began()
        elif places == 0:
            self._start(self.dream.prompt, self.dream.context, self.dream.seed)
        else:
            context = self.dream.context
            self.begin((context if context != NO_CONTEXT else min(0, -places)) + places)

    def _from_real(self) -> None:
        """A dream of the moment at which the real game stands."""
        assert self.real is not None
        lookback = max(LOOKBACK, self.real.length) if self.model.memory.reaches_back else None
        self._start(self.real.prompt(lookback), NO_CONTEXT, self.dream.seed)
        self._linked_at, self.linked = self.real.moment.frames, True

    def _start(self, prompt: Prompt, context: int, seed: int) -> None:
        options = {"context": context, "rewind": self._rewind, "log": self.log}
        self._enter(Dream.begin(self.checkpoint, self.model, prompt, seed=seed, **options))

    def _enter(self, dream: Dream) -> None:
        """This dream is played from now on, apart from the real game."""
        self.dream, self.likeness, self.linked = dream, Likeness(), False
        self._began()

    def step(self, raw: np.ndarray) -> Moment:
        """One frame of a raw action (D,), in whatever is shown; of both, the dream's."""
        if self.view == "real" and self.real is not None:
            try:
                return self.real.step(raw)
            except Lost as lost:
                self._lose(lost)
        moment = self.dream.advance(self.model, raw, self.steps, self.inspect)
        if self.linked and self.real is not None:
            self._follow(self.real, raw)
        return moment

    def _follow(self, real: LiveGame, raw: np.ndarray) -> None:
        if real.moment.ended:
            self.linked = False
            return
        try:
            self.likeness.add(real.step(raw).picture, self.dream.moment.picture)
        except Lost as lost:
            self._lose(lost)

    def back(self) -> bool:
        """Take the last frame back; False where the episode began, or where memory of it ends."""
        if self.view == "real" and self.real is not None:
            return self.real.back()
        if not self.dream.back():
            return False
        if self.linked and self.real is not None and self.likeness.psnr:
            self.likeness.drop()
            self.linked = self.real.back()
            if not self.linked:
                self.view = "dream"  # a game that cannot go back stays behind
        return True
