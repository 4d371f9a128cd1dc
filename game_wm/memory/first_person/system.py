"""The whole memory of a first-person game on a plane: where the player is, how places looked, what is in the way.

The geometry reads depth and motion off latents; `recent` holds the last frames, `episodic` what places looked like and
where the player has been. For a coming frame the step is predicted first (`foresee`); then what is remembered, and what
was in sight a moment ago, is drawn as it looks from there (`views`).

In a model that is `aligned` the predicted step is the step that is taken: views and frame share that pose. In another
one it is estimated from the finished frame, unless the trail is sure of it.

Legend: B players, T frames, H, W picture, C channels, h, w latent grid, M channels of the views, A action vector,
E features of two frames, P the past of a step, R recalled frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.first_person.atlas import Atlas
from game_wm.memory.first_person.atlas_file import pack_atlas, unpack_atlas
from game_wm.memory.first_person.camera import Sources, draw_pair
from game_wm.memory.first_person.episodic import YOUNG, EpisodicMemory, Places
from game_wm.memory.first_person.geometry import FINER, Geometry, MemoryConfig
from game_wm.memory.first_person.obstacles import Obstacles
from game_wm.memory.first_person.pose import move, relative
from game_wm.memory.first_person.recent import KEPT, RecentFrames, features, steady
from game_wm.memory.protocol import Frame, Memory, NoMemory, Prompt, Recalled
from game_wm.memory.views import as_latents, keep_still, keep_view
from game_wm.model.config import DynamicsConfig
from game_wm.model.tokenizer import Tokenizer

ATLAS = "geometry.atlas."


@dataclass
class FirstPersonState:
    """What B players remember: the last frames, the last `latent` (B, C, h, w), how many frames there were, `count`
    (B,), and the store, None where the network reads only the last frames."""

    recent: RecentFrames
    latent: Tensor
    count: Tensor
    episodic: EpisodicMemory | None = None


class FirstPersonStep(NamedTuple):
    """The step that an action is expected to lead to: `motion` (B, 3), whether it is `sure` (B, 1), and the stored
    frames that show the view there, as `EpisodicMemory.choose` gives them, where there is a store."""

    motion: Tensor
    sure: Tensor
    which: Tensor | None = None
    away: Tensor | None = None
    there: Tensor | None = None


class FirstPersonMemory(Memory):
    """A geometry and what a network reads of its views: those of the store (`recall`), those of the last frames
    (`warp`), and whether they are `aligned`. `placed`: whether recorded poses place a prompt; `informed`: whether
    the geometry's obstacles and atlas, if it has them, are used."""

    Config, State, Step, packed = MemoryConfig, FirstPersonState, FirstPersonStep, (ATLAS,)

    def __init__(
        self, geometry: Geometry, recall: bool, warp: bool, aligned: bool, placed: bool, informed: bool = True
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.recall, self.warp, self.aligned, self.placed, self.informed = recall, warp, aligned, placed, informed
        self.config = config = geometry.config
        self.trails = recall and config.trail > 0
        self.grows, self.reaches_back = config.unbounded, recall

    @classmethod
    def build(cls, config: MemoryConfig, dynamics: DynamicsConfig) -> FirstPersonMemory:
        return cls.around(Geometry(config), dynamics)

    @classmethod
    def around(cls, geometry: Geometry, dynamics: DynamicsConfig) -> FirstPersonMemory:
        """The memory that a network of these sizes reads, with this geometry."""
        placed = dynamics.recall and dynamics.aligned
        return cls(geometry, dynamics.recall, dynamics.warp, dynamics.aligned, placed)

    @property
    def atlas(self) -> Atlas | None:
        return self.geometry.atlas if self.informed else None

    @property
    def places(self) -> Places:
        config, geometry = self.config, self.geometry
        return Places(config.place, config.headings, config.unbounded, geometry.focal, self.atlas)

    @property
    def obstacles(self) -> Obstacles | None:
        return self.geometry.obstacles if self.informed else None

    # --- the beginning ---

    def start(self, prompt: Prompt, tokenizer: Tokenizer) -> FirstPersonState:
        frames, time = self.read(prompt, tokenizer), prompt.latents.shape[1]
        state = self._state(frames.before(time), prompt.latents[:, time - 1], time)
        if self.recall:
            began = prompt.poses[:, 0].to(frames.steps) if prompt.poses is not None and self.placed else None
            with _exact(frames.steps):
                state.episodic = self._remember(frames, began)
        return state

    def read(self, prompt: Prompt, tokenizer: Tokenizer) -> RecentFrames:
        """All frames of a prompt, with the steps between them: recorded, or estimated from the pictures."""
        steps = recorded_steps(prompt.poses).to(prompt.latents) if prompt.poses is not None and self.placed else None
        return RecentFrames.read(self.geometry, tokenizer.decode, *prompt[:3], steps)

    def _state(self, recent: RecentFrames, latent_BChw: Tensor, frames: int) -> FirstPersonState:
        count = torch.full((len(latent_BChw),), frames, device=latent_BChw.device)
        return FirstPersonState(recent, _rows(latent_BChw), count)

    def _remember(self, frames: RecentFrames, began_B3: Tensor | None) -> EpisodicMemory:
        """The store after these frames, the first of which was taken at the recorded pose `began`, if it is known."""
        episodic = self.empty(frames.pictures, frames.disparity)
        if self.atlas is not None:
            episodic.pose += self.atlas.aside(self.places.side) if began_B3 is None else began_B3
        blocked = frames.blocked_motions(self.geometry) if self.obstacles is not None else None
        for t in range(frames.there.shape[1]):
            self.arrive(episodic, frames, t, began_B3 is not None, None if blocked is None else blocked[:, t])
        return episodic

    def empty(self, pictures_BTCHW: Tensor, disparity_BThw: Tensor) -> EpisodicMemory:
        """A store for frames of this size, before the first of them."""
        config, shapes = self.geometry.config, (pictures_BTCHW.shape[2:], disparity_BThw.shape[2:])
        return EpisodicMemory.start(
            len(pictures_BTCHW), config.slots, *shapes, str(disparity_BThw.device), config.trail
        )

    def arrive(
        self, episodic: EpisodicMemory, frames: RecentFrames, t: int, sure: bool, blocked_B2: Tensor | None = None
    ) -> None:
        """Keep frame t of a recording, whose step is `sure` where it was recorded."""
        at = torch.full((len(frames.there),), t, device=frames.there.device)
        shown = frames.pictures[:, t], frames.disparity[:, t]
        episodic.arrive(self.places, frames.steps[:, t], *shown, at, sure, blocked_B2)

    # --- a frame ---

    def foresee(self, state: FirstPersonState, action_BA: Tensor) -> FirstPersonStep:
        with _exact(action_BA):
            past = state.recent.past(self.geometry)
            step, free = self.expected(state.recent.pairs[:, -1], action_BA, past)
            if state.episodic is None:
                return FirstPersonStep(step, self._sure(step))
            blocked = state.recent.blocked_motion(self.geometry) if self.obstacles is not None else None
            motion, sure = self.predict(state.episodic, step, free, blocked)
            return FirstPersonStep(motion, sure, *self.choose(state.episodic, motion, state.count))

    def expected(self, pair_BE: Tensor, action_BA: Tensor, past_BP: Tensor) -> tuple[Tensor, Tensor]:
        """The step (B, 3) by the last picture, and by the action alone, as if nothing were in the way."""
        geometry = self.geometry
        step = steady(geometry, geometry.motion.predict_step(pair_BE, action_BA, past_BP))
        return step, steady(geometry, geometry.motion.unhindered(action_BA, past_BP)) if self.trails else step

    def predict(
        self, episodic: EpisodicMemory, step_B3: Tensor, free_B3: Tensor, blocked_B22: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The step (B, 3) by what is known of the surroundings as well, and whether it is sure (B, 1). `blocked`: the
        last step and its blocked motion."""
        if not self.trails:
            return step_B3, self._sure(step_B3)
        if self.obstacles is not None and blocked_B22 is not None:
            around = episodic.surfaces(self.places), episodic.stops(self.places)
            left = self.obstacles.hindered(free_B3, blocked_B22, *around, self.places.side)
            step_B3 = free_B3 = steady(self.geometry, left)
        step, sure = episodic.predict_step(self.places, step_B3, free_B3)
        return step, sure | self._sure(step)

    def _sure(self, step_B3: Tensor) -> Tensor:
        return torch.full_like(step_B3[:, :1], self.aligned, dtype=torch.bool)

    def choose(
        self, episodic: EpisodicMemory, motion_B3: Tensor, now_B: Tensor, young: Tensor | int = YOUNG
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The stored frames that show the view after this step, at time `now`: see `EpisodicMemory.choose`."""
        return episodic.choose(self.places, move(episodic.pose, motion_B3), now_B, self.config.views, young)

    def views(self, state: FirstPersonState, step: FirstPersonStep, tokenizer: Tokenizer) -> Tensor | None:
        recalled, recent = self._recalled(state, step), self._recent(state, step)
        if recalled is None and recent is None:
            return None
        views = self.draw(recalled, recent, tokenizer)
        return keep_view(views, state.latent, step.motion) if self.aligned else views

    def draw(self, recalled: Sources | None, recent: Sources | None, tokenizer: Tokenizer) -> Tensor:
        """The views (B, M, h, w) that these sources give."""
        return as_latents(tokenizer, draw_pair(recalled, recent, self.geometry.focal))

    def _recalled(self, state: FirstPersonState, step: FirstPersonStep) -> Sources | None:
        if state.episodic is None or step.which is None or step.away is None or step.there is None:
            return None
        return Sources(*state.episodic.frames(step.which, self.atlas), step.away, step.there)

    def _recent(self, state: FirstPersonState, step: FirstPersonStep) -> Sources | None:
        return state.recent.sources(self.geometry, step.motion) if self.warp else None

    def settle(self, state: FirstPersonState, step: FirstPersonStep, latent_BChw: Tensor) -> Tensor:
        return keep_still(latent_BChw, state.latent, step.motion) if self.aligned else latent_BChw

    def commit(self, state: FirstPersonState, step: FirstPersonStep, frame: Frame) -> None:
        geometry = self.geometry
        pair = features(geometry, state.latent, frame.latent)
        estimated = geometry.motion.estimate_step(pair, frame.action, state.recent.past(geometry))
        motion = torch.where(step.sure, step.motion, steady(geometry, estimated))
        disparity = geometry.depth(frame.latent).float()
        state.recent.push(frame.picture.permute(0, 3, 1, 2), disparity, motion, frame.action, pair)
        if state.episodic is not None:
            state.episodic.pose = move(state.episodic.pose, motion)
        state.latent, state.count = _rows(frame.latent), state.count + 1

    def store(self, state: FirstPersonState, step: FirstPersonStep) -> None:
        if state.episodic is None:
            return
        blocked = state.recent.blocked_motion(self.geometry)[:, 1] if self.obstacles is not None else None
        shown = state.recent.pictures[:, -1], state.recent.disparity[:, -1]
        state.episodic.write(self.places, *shown, state.episodic.pose, state.count - 1, blocked)

    def inspect(
        self, state: FirstPersonState, action_BA: Tensor, tokenizer: Tokenizer, player: int = 0
    ) -> Recalled | None:
        step, memory, focal = self.foresee(state, action_BA), state.episodic, self.geometry.focal
        recalled = self._recalled(state, step)
        if memory is None or recalled is None or step.which is None:
            return None
        view, known = draw_pair(recalled, self._recent(state, step), focal)[0]
        found = recalled.there[player]
        ages = memory.ages(step.which, state.count, self.atlas)[player, found]
        kept = (memory.keys[player] >= 0).repeat_interleave(2)
        pose = move(memory.pose, step.motion)[player]
        away = relative(pose, memory.poses[player].flatten(0, 1)[kept]) / self.geometry.config.place
        trail = torch.stack((away[:, 1] * focal.sign(), away[:, 0]), 1)
        shown = tokenizer.to_frames(view[player : player + 1])[0]
        return Recalled(recalled.pictures[player, found].permute(0, 2, 3, 1), ages, shown, known[player], trail)

    # --- training ---

    def start_window(
        self, window: Prompt, at: int, tokenizer: Tokenizer
    ) -> tuple[FirstPersonState, Sequence[FirstPersonStep] | None]:
        """Of an aligned network the steps are those recorded, or estimated from the window's own pictures."""
        first = max(0, at - KEPT - 1)
        estimates = self.aligned and window.poses is None
        frames = self.read(window.part(slice(first, None if estimates else at)), tokenizer)
        state = self._state(frames.before(at - first), window.latents[:, at - 1], at)
        if not self.aligned:
            return state, None
        steps = frames.steps if window.poses is None else recorded_steps(window.poses[:, first:])
        return state, [FirstPersonStep(step, self._sure(step)) for step in steps[:, at - first :].unbind(1)]

    def within_window(self) -> Memory:
        """The last frames alone: the window does not hold what the store would."""
        if not self.warp:
            return NoMemory()
        return FirstPersonMemory(self.geometry, False, True, self.aligned, placed=self.aligned)

    def for_recordings(self, aligned: bool) -> FirstPersonMemory:
        """Both views, whatever a network reads of them; of what is known before play none: an episode shows enough to
        learn from, and a dream must also do without."""
        return FirstPersonMemory(self.geometry, True, True, aligned, placed=aligned, informed=False)

    def for_network(self, dynamics: DynamicsConfig) -> FirstPersonMemory:
        return self.around(self.geometry, dynamics)

    # --- what the rest of the program asks ---

    def networks(self) -> list[nn.Module]:
        return [self.geometry.depth]

    def about(self) -> dict[str, str]:
        if self.atlas is None:
            return {}
        what = f"{len(self.atlas.poses)} pictures and {len(self.atlas.stops)} stretches of wall of the level"
        return {"atlas": f"{what}, recorded for training"}

    def pack(self) -> dict[str, Tensor]:
        return {} if self.geometry.atlas is None else pack_atlas(self.geometry.atlas)

    def unpack(self, tensors: dict[str, Tensor], height: int, width: int) -> dict[str, Tensor]:
        config = self.geometry.config
        if not config.atlas:
            return {}
        found = unpack_atlas(tensors, (height, width), (FINER * config.height, FINER * config.width))
        return {f"{ATLAS}{name}": value for name, value in found.items()}

    def usual_length(self, state: FirstPersonState, action_1A: Tensor) -> float | None:
        motion = self.geometry.motion
        if motion.free is None:
            return None
        step = steady(self.geometry, motion.unhindered(action_1A, state.recent.past(self.geometry)))
        return float(step[0, :2].norm())

    def last_length(self, state: FirstPersonState) -> float:
        return float(state.recent.steps[0, -1, :2].norm())

    def weights(self) -> list[Tensor]:
        """All but the atlas, which training does without."""
        return [value for name, value in self.geometry.state_dict().items() if not name.startswith("atlas.")]


def recorded_steps(poses_BT3: Tensor) -> Tensor:
    """The steps (B, T, 3) that led to recorded poses; none to the first."""
    return F.pad(relative(poses_BT3[:, :-1], poses_BT3[:, 1:]), (0, 0, 1, 0))


def _exact(like: Tensor) -> Any:
    """Arithmetic in 32 bits: rounding would add up from step to step."""
    return torch.autocast(like.device.type, enabled=False)


def _rows(latent_BChw: Tensor) -> Tensor:
    """A copy whose values lie row by row, whatever layout the network prefers: rewinding writes into rows."""
    return latent_BChw.clone(memory_format=torch.contiguous_format)
