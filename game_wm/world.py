"""The functional core of a dream: `start` from a prompt, `step` by an action, all state explicit.

Legend: B players, P prompt frames, H, W pixels, C channels and h, w grid of a latent, A action vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from threading import Thread
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.memory.first_person.camera import Sources, draw_pair
from game_wm.memory.first_person.episodic import EpisodicMemory, Places
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig
from game_wm.memory.first_person.pose import move, relative
from game_wm.memory.first_person.recent import RecentFrames, steady
from game_wm.memory.first_person.views import as_latents, at_rest, unmoved
from game_wm.memory.recurrent import RecurrentMemory
from game_wm.memory.working import WorkingMemory
from game_wm.model.config import DynamicsConfig
from game_wm.model.context import ContextMemory
from game_wm.model.denoiser import Denoiser
from game_wm.model.dynamics import DenoiserCall, Dynamics, DynamicsState
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig, earlier
from game_wm.objectives import FlowMatching, Objective, make_objective, objective_entries


@dataclass(frozen=True)
class WorldConfig:
    """Everything needed to build the network; `steps` is the number of denoiser calls a frame that it plays with,
    `memory` its episodic memory and geometry, which `dynamics.recall` and `dynamics.warp` need."""

    tokenizer: TokenizerConfig
    dynamics: DynamicsConfig
    objective: Objective = FlowMatching()
    steps: int = 1
    memory: MemoryConfig | None = None

    def __post_init__(self) -> None:
        if self.dynamics.views and self.memory is None:
            raise ValueError("a network that is shown views needs a geometry, and the configuration has no memory")
        if self.dynamics.levels != self.tokenizer.levels:
            raise ValueError("the dynamics was trained on latents of another tokenizer")
        if self.tokenizer.temporal and self.memory is not None:
            raise ValueError("memory draws single frames, which a temporal tokenizer does not code: leave one out")
        if self.dynamics.trunk not in self.objective.trunks:
            raise ValueError(
                f"{self.objective.kind} takes the trunk {' or '.join(self.objective.trunks)}, not {self.dynamics.trunk}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"objective": objective_entries(self.objective)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WorldConfig:
        """Inverse of `to_dict`, also after a round trip through JSON (lists become tuples)."""
        return cls(
            build(TokenizerConfig, values["tokenizer"]),
            build(DynamicsConfig, values["dynamics"]),
            make_objective(values["objective"]),
            int(values["steps"]),
            build(MemoryConfig, values["memory"]) if values.get("memory") else None,
        )


def build(kind: Any, entries: dict[str, Any]) -> Any:
    """A configuration dataclass from its entries; ValueError for unknown ones."""
    if unknown := set(entries) - {f.name for f in fields(kind)}:
        raise ValueError(f"unknown {kind.__name__} entries: {', '.join(sorted(unknown))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()})


class Outcome(NamedTuple):
    """What a step shows: frames uint8 (B, H, W, 3), expected rewards (B,), termination probabilities (B,)."""

    frames: Tensor
    rewards: Tensor
    terminated: Tensor


class Remembered(NamedTuple):
    """What episodic memory gives for one player's next frame: the recalled pictures uint8 (R, H, W, 3) and their ages
    in frames (R,), `NEVER` or more for those of an atlas, the view drawn from them uint8 (H, W, 3) and where it is
    drawn, bool (H, W); and where the frames that are kept were seen, (n, 2) from the player's own position: to the
    right and ahead, in sides of a place."""

    pictures: Tensor
    ages: Tensor
    view: Tensor
    known: Tensor
    trail: Tensor


@dataclass
class WorldState:
    """The dreams of B players. The player is the first axis of every tensor; `seeds` (B,) rule the noise."""

    dynamics: DynamicsState
    seeds: Tensor
    episodic: EpisodicMemory | None = None
    recent: RecentFrames | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, players: slice) -> WorldState:
        """Some of the players, copied."""
        return _rebuild(self, lambda x: x[players].clone())

    def view(self, players: slice) -> WorldState:
        """Some of the players, in place."""
        return _rebuild(self, lambda x: x[players])

    def clone(self) -> WorldState:
        return self[:]

    @staticmethod
    def cat(states: Sequence[WorldState]) -> WorldState:
        """Players of several states in one batch."""
        flat = [s.to_dict() for s in states]
        return WorldState.from_dict({k: torch.cat([f[k] for f in flat]) for k in flat[0]})

    def to_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor, ready for safetensors."""
        return dict(_walk(self, ""))

    @staticmethod
    def from_dict(values: dict[str, Tensor]) -> WorldState:
        def part(kind: Any, name: str) -> Any:
            found = [values.get(f"{name}.{f.name}") for f in fields(kind)]
            return None if found[0] is None else kind(*found)

        dynamics = DynamicsState(
            values["dynamics.latents"],
            values["dynamics.actions"],
            ContextMemory(
                part(WorkingMemory, "dynamics.context.working"), part(RecurrentMemory, "dynamics.context.recurrent")
            ),
            part(WorkingMemory, "dynamics.bottleneck"),
        )
        return WorldState(dynamics, values["seeds"], part(EpisodicMemory, "episodic"), part(RecentFrames, "recent"))

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.to_dict().values())


def _walk(node: Any, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for f in fields(node):
        value = getattr(node, f.name)
        if value is None:  # a level of memory that this network has not
            continue
        found += _walk(value, f"{prefix}{f.name}.") if is_dataclass(value) else [(prefix + f.name, value)]
    return found


def _rebuild(node: Any, change: Any) -> Any:
    values = {f.name: getattr(node, f.name) for f in fields(node)}
    return type(node)(
        **{k: _rebuild(v, change) if is_dataclass(v) else v if v is None else change(v) for k, v in values.items()}
    )


def frame_noise(seeds_B: Tensor, frames_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal (B, *shape) on the CPU, a function of each player's seed and frame number alone."""
    rows = []
    for seed, frame in zip(seeds_B.tolist(), frames_B.tolist(), strict=True):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + frame) % 2**63)
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows)


@dataclass(frozen=True)
class FrameParts:
    """The four functions that a frame of play is made of, in the order of their calls.

    An acceleration puts others in their place, all at once: `model.parts = replace(model.parts, decode=...)`.
    """

    views: Callable[[WorldState, Tensor], Tensor | None]  # `WorldModel.render_views`
    denoise: Callable[[WorldState, Tensor, Tensor, Tensor | None, int], Tensor]  # `WorldModel.denoise`
    decode: Callable[[Tensor, Tensor], Tensor]  # `WorldModel.decode`
    commit: Callable[[WorldState, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # `WorldModel.commit_frame`


class WorldModel(nn.Module):
    """Tokenizer and dynamics as one playable model."""

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        self.dynamics = Dynamics(config.dynamics)
        self.geometry = Geometry(config.memory) if config.memory else None
        self.steps = config.steps
        self.low_precision = False  # see `acceleration/precision.py`
        self.quantised = False  # see `acceleration/quantisation.py`
        self.compiling: Thread | None = None  # see `acceleration/compilation.py`
        self.compiled = False
        self.parts = self.own_parts()

    def own_parts(self) -> FrameParts:
        """The parts as this class has them: no acceleration has replaced any."""
        return FrameParts(self.render_views, self.denoise, self.decode, self.commit_frame)

    def autocast(self) -> torch.autocast:
        """What the networks run under."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.low_precision)

    @property
    def height(self) -> int:
        return self.config.tokenizer.height

    @property
    def width(self) -> int:
        return self.config.tokenizer.width

    @property
    def window(self) -> int:
        """Frames of working memory."""
        return self.config.dynamics.window

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        d = self.config.dynamics
        return d.channels, d.height, d.width

    @torch.inference_mode()
    def encode(self, frames_BHWC: Tensor, before_BHWC: Tensor | None = None) -> Tensor:
        """uint8 (B, H, W, 3) -> latents (B, C, h, w); `before` as in `Tokenizer`."""
        with self.autocast():
            return self.tokenizer.encode(frames_BHWC, before_BHWC)

    @torch.inference_mode()
    def decode(self, latents_BCHW: Tensor, before_BCHW: Tensor | None = None) -> Tensor:
        """Latents (B, C, h, w) -> uint8 (B, H, W, 3); `before` as in `Tokenizer`."""
        with self.autocast():
            return self.tokenizer.decode(latents_BCHW, before_BCHW)

    @torch.inference_mode()
    def start(
        self, frames_BPHWC: Tensor, actions_BPA: Tensor, seeds: Tensor, poses_BP3: Tensor | None = None
    ) -> WorldState:
        """State after a prompt of P >= 1 real frames and the P - 1 actions between them.

        `poses`, where the game tells them, are those of the frames. The memory of an `aligned` network is placed by
        them, as it was in training; without them, and in others, by what the pictures show.

        Raises ValueError when frames, actions and seeds do not fit each other or the model.
        """
        batch, prompt, height, width = frames_BPHWC.shape[:4]
        if (height, width) != (self.height, self.width):
            raise ValueError(f"the model plays frames of {self.width}x{self.height}, not {width}x{height}")
        expected = (batch, prompt - 1, self.config.dynamics.actions)
        if tuple(actions_BPA.shape) != expected or len(seeds) != batch:
            raise ValueError(f"a prompt of {prompt} frames needs actions of shape {expected} and {batch} seeds")
        parts = zip(*(x.flatten(0, 1).split(64) for x in (frames_BPHWC, earlier(frames_BPHWC))), strict=True)
        latents = torch.cat([self.encode(*part) for part in parts])
        latents = latents.unflatten(0, (batch, prompt))
        return self.start_latents(latents, actions_BPA, seeds, frames_BPHWC, poses_BP3)

    def begin(self, frames_PHWC: Tensor, actions_PA: Tensor, seed: int, poses_P3: Tensor | None = None) -> WorldState:
        """The same for one player, wherever his prompt lies."""
        device = next(self.parameters()).device
        prompt = frames_PHWC[None].to(device), actions_PA[None].to(device), torch.tensor([seed], device=device)
        return self.start(*prompt, None if poses_P3 is None else poses_P3[None].to(device))

    @torch.inference_mode()
    def start_latents(
        self,
        latents_BPCHW: Tensor,
        actions_BPA: Tensor,
        seeds: Tensor,
        frames_BPHWC: Tensor | None = None,
        poses_BP3: Tensor | None = None,
    ) -> WorldState:
        """The same from latents (B, P, C, h, w). Memory keeps their frames, or what they decode to."""
        with self.autocast():
            dynamics = self.dynamics.start(latents_BPCHW, actions_BPA)
        state = WorldState(dynamics, seeds.to(latents_BPCHW.device).clone())
        if self.geometry is not None:
            whole, led = latents_BPCHW.float(), None
            if poses_BP3 is not None and self.placed:
                led = F.pad(relative(poses_BP3[:, :-1], poses_BP3[:, 1:]), (0, 0, 1, 0)).to(whole)
            with self.autocast():
                frames = RecentFrames.read(self.geometry, self.decode, whole, actions_BPA, frames_BPHWC, led)
            state.recent = frames.before(whole.shape[1])
            if self.config.dynamics.recall:
                began = poses_BP3[:, 0].to(whole) if poses_BP3 is not None and led is not None else None
                state.episodic = self._remember(self.geometry, frames, began)
        return state

    def _remember(self, geometry: Geometry, frames: RecentFrames, began_B3: Tensor | None) -> EpisodicMemory:
        """Episodic memory of a prompt, which began at these poses where it was recorded, and so were its steps."""
        batch, prompt = frames.there.shape
        shapes, device = (frames.pictures.shape[2:], frames.disparity.shape[2:]), str(frames.there.device)
        memory = EpisodicMemory.start(batch, geometry.config.slots, *shapes, device, geometry.config.trail)
        if geometry.atlas is not None:
            memory.pose += geometry.atlas.aside(self.places.side) if began_B3 is None else began_B3
        lost = frames.losses(geometry) if geometry.obstacles is not None else None
        for t in range(prompt):
            at = torch.full((batch,), t, device=memory.keys.device)
            shown, stop = (frames.pictures[:, t], frames.disparity[:, t]), None if lost is None else lost[:, t]
            memory.arrive(self.places, frames.steps[:, t], *shown, at, geometry.focal, began_B3 is not None, stop)
        return memory

    @property
    def placed(self) -> bool:
        """Whether a prompt's poses place its memory."""
        return self.config.dynamics.recall and self.config.dynamics.aligned

    @property
    def places(self) -> Places:
        """How poses are divided in this model's memory."""
        assert self.config.memory is not None
        memory = self.config.memory
        return Places(memory.place, memory.headings, memory.growing)

    # --- the parts of a frame, see `FrameParts` ---

    def render_views(self, state: WorldState, action_BA: Tensor) -> Tensor | None:
        """The views (B, V * (C + COVER), h, w) that memory and the last frames give of the frame that this action leads
        to; None in a network without views."""
        if self.geometry is None or state.recent is None:
            return None
        recalled = recent = None
        step, _ = self._coming(self.geometry, state, state.recent, action_BA)
        if state.episodic is not None:
            which, poses, there = self._choose(state, step)[1]
            recalled = Sources(*state.episodic.frames(which, self.geometry.atlas), poses, there)
        if self.config.dynamics.warp:
            recent = state.recent.sources(self.geometry, step)
        if recalled is None and recent is None:
            return None
        with self.autocast():
            views = as_latents(self.tokenizer, draw_pair(recalled, recent, self.geometry.focal))
        return unmoved(views, state.dynamics.latents[:, -1], step) if self.config.dynamics.aligned else views

    def denoise(
        self,
        state: WorldState,
        action_BA: Tensor,
        noise_BCHW: Tensor,
        views: Tensor | None,
        steps: int,
        call: DenoiserCall | None = None,
    ) -> Tensor:
        """The frame's latent (B, C, h, w) by a walk of `steps` denoiser calls from noise; `call`: what makes one of
        them, `Dynamics.denoise` if None."""
        past, config = state.dynamics, self.config
        with self.autocast():
            clean = self.dynamics.generate(past, action_BA, noise_BCHW, steps, config.objective, views, call).float()
        return at_rest(clean, past.latents[:, -1], views) if config.dynamics.aligned else clean

    def commit_frame(
        self, state: WorldState, clean_BCHW: Tensor, action_BA: Tensor, frames_BHWC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Read a finished frame into the state, in place; all but keeping it in episodic memory.

        Returns rewards (B,) and termination probabilities (B,).
        """
        before = state.dynamics.latents[:, -1].clone()
        with self.autocast():
            outcome = self.dynamics.encode_context(state.dynamics, clean_BCHW, action_BA)
        self.place_frame(state, before, clean_BCHW, action_BA, frames_BHWC)
        return outcome

    def place_frame(
        self, state: WorldState, before_BCHW: Tensor, clean_BCHW: Tensor, action_BA: Tensor, frames_BHWC: Tensor
    ) -> None:
        """The half of `commit_frame` that runs no dynamics: where the frame was seen from, and the last frames."""
        if self.geometry is None or state.recent is None:
            return
        with self.autocast():
            picture = frames_BHWC.permute(0, 3, 1, 2)
            coming = self._coming(self.geometry, state, state.recent, action_BA)
            step = state.recent.push(self.geometry, before_BCHW, clean_BCHW, action_BA, picture, coming)
            if state.episodic is not None:
                state.episodic.pose = move(state.episodic.pose, step)

    # -------------------------------------------------------------------------------------------------------------

    def _coming(
        self, geometry: Geometry, state: WorldState, recent: RecentFrames, action_BA: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step (B, 3) that an action will lead to, and whether that is sure (B, 1)."""
        step = recent.to_come(geometry, action_BA)
        sure = torch.full_like(step[:, :1], self.config.dynamics.aligned, dtype=torch.bool)
        if state.episodic is None or not geometry.config.trail:
            return step, sure
        free = recent.unhindered(geometry, action_BA)
        if geometry.obstacles is not None:
            surfaces = state.episodic.surfaces(self.places, geometry.focal, geometry.atlas)
            stops, last = state.episodic.stops(self.places, geometry.atlas), recent.lost(geometry)
            step = free = steady(geometry, geometry.obstacles.hindered(free, last, surfaces, stops, self.places.side))
        step, known = state.episodic.coming(self.places, step, free)
        return step, known | sure

    def _choose(self, state: WorldState, step_B3: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The pose that a step will lead to, and what `EpisodicMemory.choose` finds for it."""
        memory, geometry = state.episodic, self.geometry
        assert memory is not None and geometry is not None
        pose = move(memory.pose, step_B3)
        now = state.dynamics.context.working.count
        return pose, memory.choose(self.places, pose, now, geometry.config.views, geometry.focal, atlas=geometry.atlas)

    @torch.inference_mode()
    def remembered(self, state: WorldState, action_BA: Tensor, player: int = 0) -> Remembered | None:
        """What memory gives for a frame, to be looked at; None in a model without episodic memory."""
        memory, geometry = state.episodic, self.geometry
        if memory is None or geometry is None or state.recent is None:
            return None
        step, _ = self._coming(geometry, state, state.recent, action_BA.to(state.dynamics.actions))
        pose, (which, poses, there) = self._choose(state, step)
        pictures, disparity = memory.frames(which, geometry.atlas)
        recent = state.recent.sources(geometry, step) if self.config.dynamics.warp else None
        view, known = draw_pair(Sources(pictures, disparity, poses, there), recent, geometry.focal)[0]
        found = there[player]
        ages = memory.ages(which, state.dynamics.context.working.count, geometry.atlas)[player, found]
        kept = (memory.keys[player] >= 0).repeat_interleave(2)
        away = relative(pose[player], memory.poses[player].flatten(0, 1)[kept]) / geometry.config.place
        trail = torch.stack((away[:, 1] * geometry.focal.sign(), away[:, 0]), 1)
        shown = self.tokenizer.to_frames(view[player : player + 1])[0]
        return Remembered(pictures[player, found].permute(0, 2, 3, 1), ages, shown, known[player], trail)

    @torch.inference_mode()
    def step(self, state: WorldState, action_BA: Tensor, steps: int | None = None) -> tuple[Outcome, WorldState]:
        """One frame for every player. The state is updated in place and returned; `clone` it first to branch."""
        frames, _, rewards, terminated = self._advance(state, action_BA, steps)
        return Outcome(frames, rewards, terminated), state

    @torch.inference_mode()
    def step_latents(
        self, state: WorldState, action_BA: Tensor, steps: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same as latents (B, C, h, w), rewards (B,), termination probabilities (B,)."""
        return self._advance(state, action_BA, steps, decoded=False)[1:]

    def _advance(
        self, state: WorldState, action_BA: Tensor, steps: int | None, decoded: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames (empty where neither the geometry nor `decoded` asks for them), latents, rewards, terminations."""
        past = state.dynamics
        if tuple(action_BA.shape) != (len(state), self.config.dynamics.actions):
            expected = (len(state), self.config.dynamics.actions)
            raise ValueError(f"actions must have the shape {expected}, not {tuple(action_BA.shape)}")
        action_BA = action_BA.to(past.actions)
        now = past.context.working.count.clone()
        noise = frame_noise(state.seeds, now, self.latent_shape).to(past.latents)
        parts = self.parts
        views = parts.views(state, action_BA)
        clean = parts.denoise(state, action_BA, noise, views, steps or self.steps)
        wanted = decoded or self.geometry is not None
        frames = parts.decode(clean, past.latents[:, -1].clone()) if wanted else clean.new_zeros(0)
        rewards, terminated = parts.commit(state, clean, action_BA, frames)
        if state.episodic is not None and state.recent is not None:
            picture, disparity = frames.permute(0, 3, 1, 2), state.recent.disparity[:, -1]
            geometry = self.geometry
            lost = state.recent.lost(geometry)[:, 1] if geometry is not None and geometry.obstacles else None
            state.episodic.write(self.places, picture, disparity, state.episodic.pose, now, lost)
        return frames, clean, rewards, terminated


def unet(model: WorldModel) -> Denoiser:
    """The denoiser of a model that has one; `UserError` for one of tokens."""
    denoiser = model.dynamics.denoiser
    if not isinstance(denoiser, Denoiser):
        raise UserError("this model draws frames token by token with a transformer: what was asked for is for U-Nets")
    return denoiser
