"""A dream: an action becomes a step of the model, the step a moment, and every step can be undone, saved and repeated.

    dream = Dream.begin(checkpoint, model, checkpoint.prompt(2), seed=7, context=2, rewind=REWIND_BYTES)
    moment = dream.advance(model, raw)      # a raw action (D,) -> picture, reward, score, whether it has ended
    dream.back()                            # exactly the state of one frame before
    saved.save("walk.dream", dream.snapshot(model))

The window, the page in a browser and the gymnasium environment all play through it. The model is passed to each step:
the quality of play may change in the middle of a dream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from game_wm.dream import saved
from game_wm.dream.actions import ActionLog
from game_wm.dream.moment import Moment
from game_wm.dream.rewind import Undo
from game_wm.world import Outcome

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint
    from game_wm.state import WorldState
    from game_wm.world import WorldModel

NO_CONTEXT = -1  # the context of a dream that began in none of the checkpoint's
Prompt = tuple[Tensor, Tensor, Tensor | None]  # frames (P, H, W, 3), actions (P - 1, A), poses (P, 3) where known


class Dream:
    """One player's dream of a checkpoint's game.

    `rewind` is the memory in bytes for going back (0: it cannot), `log` the action log that it continues (default: one
    of its own).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompt: Prompt,
        state: WorldState,
        *,
        seed: int,
        context: int = NO_CONTEXT,
        moment: Moment | None = None,
        rewind: int = 0,
        log: ActionLog | None = None,
    ) -> None:
        schema = checkpoint.schema
        self.checkpoint, self.prompt, self.state = checkpoint, prompt, state
        self.seed, self.context = seed, context
        self.moment = moment or Moment(prompt[0][-1].cpu().numpy(), schema.raw(schema.noop()))
        self.undo = Undo(state, rewind) if rewind else None
        self.log = ActionLog(schema) if log is None else log
        self.log.begin(context, seed)
        self.calls = bytearray()  # denoiser calls of each frame
        self.remembered: Any = None  # what memory gave for the last frame, where it was asked to show it
        self._ran: list[str] = []  # executables that its frames were dreamt on, in order
        self._running: tuple[WorldModel, bool, int] | None = None

    @classmethod
    def begin(cls, checkpoint: Checkpoint, model: WorldModel, prompt: Prompt, *, seed: int, **options: Any) -> Dream:
        frames, actions, poses = prompt
        return cls(checkpoint, prompt, model.begin(frames, actions, seed, poses), seed=seed, **options)

    @classmethod
    def resume(cls, checkpoint: Checkpoint, source: saved.SavedDream, **options: Any) -> Dream:
        """A dream that goes on where one was saved. The saved one stays as it is, so that others can branch from it."""
        about, schema, played = source.about, checkpoint.schema, len(source.actions)
        raw = source.actions[-1] if played else schema.raw(schema.noop())
        moment = Moment(source.picture, raw, about.score, played, float(about.ended))
        begun: dict[str, Any] = {"seed": about.seed, "context": about.context, "moment": moment}
        dream = cls(checkpoint, source.prompt, source.state.clone(), **begun, **options)
        dream.log.add(source.actions)
        dream.calls[:] = source.steps.tobytes()
        dream._ran = [about.executable] if played else []
        return dream

    def advance(self, model: WorldModel, raw: np.ndarray, steps: int | None = None, inspect: bool = False) -> Moment:
        """One frame of a raw action (D,), with `steps` denoiser calls (default: the model's own); with `inspect`, what
        memory gives for it goes to `remembered`."""
        vector_1A = self.encode(raw)[None].to(next(model.parameters()).device)
        remembered = model.inspect(self.state, vector_1A) if inspect else None
        self.runs_on(model)
        outcome, self.state = model.step(self.state, vector_1A, steps or model.steps)
        self.record(raw, Outcome(*(x[0] for x in outcome)), steps or model.steps)
        self.remembered = remembered
        return self.moment

    def encode(self, raw: np.ndarray) -> Tensor:
        """What the network is given of a raw action: float32 (A,)."""
        return torch.from_numpy(self.checkpoint.schema.encode(raw))

    def runs_on(self, model: WorldModel, batch: int = 1) -> None:
        """The next frame is dreamt by this model, in a batch of so many: executables differ in how they round."""
        if (now := (model, model.compiled, batch)) != self._running:
            self._running, name = now, saved.executable(model, batch)
            self._ran += [name] if self._ran[-1:] != [name] else []

    def record(self, raw: np.ndarray, outcome: Outcome, steps: int) -> None:
        """The state has made a step of this outcome, which has no batch axis: it becomes the moment."""
        before, reward = self.moment, float(outcome.rewards)
        picture, score, ended = outcome.frames.cpu().numpy(), before.score + reward, float(outcome.terminated)
        self.moment = Moment(picture, raw, score, before.frames + 1, ended, reward)
        if self.undo is not None:
            self.undo.note(self.state, before)
        self.log.add(raw)
        self.calls.append(steps)

    def back(self) -> bool:
        """Take the last frame back, exactly; False where the dream began, or where memory of it ends."""
        if not self.undo:
            return False
        self.moment = self.undo.back(self.state)
        self.log.drop()
        self.calls.pop()
        self.remembered = None
        return True

    def snapshot(self, model: WorldModel) -> saved.SavedDream:
        """The dream at this moment, as `saved.save` writes it."""
        checkpoint, now = self.checkpoint, self.moment
        ran = ", then ".join(self._ran) or saved.executable(model)
        about = saved.About(checkpoint.name, checkpoint.digest, ran, self.context, self.seed, now.score, now.ended)
        actions, steps = self.log.last(now.frames), np.frombuffer(bytes(self.calls), np.uint8)
        return saved.SavedDream(about, self.prompt, actions, steps, now.picture, self.state.clone())
