"""One frame of a dream: `start` makes a state from a prompt, `step` takes an action and gives the next frame.

The state holds everything that a dream is, and `step` changes it in place; `state.clone()` branches. A *frame* is one
picture of play. Generating it takes `steps` calls of the denoiser. Memory's *step* is the predicted motion of the
player.

Legend: B players, P prompt frames, H, W pixels, C channels and h, w grid of a latent, A action vector, M channels of
the views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Thread
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.memory.protocol import Frame, Prompt, Recalled
from game_wm.memory.registry import from_entries, make_memory, to_entries
from game_wm.model.config import DynamicsConfig, build
from game_wm.model.denoiser import Denoiser
from game_wm.model.dynamics import DenoiserCall, Dynamics
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig, earlier
from game_wm.objectives import FlowMatching, Objective, make_objective, objective_entries
from game_wm.state import WorldState


@dataclass(frozen=True)
class WorldConfig:
    """Everything needed to build the network. `steps`: denoiser calls a frame in play. `memory`: the configuration of a
    kind of memory (`memory/registry.py`), None for a model without long memory."""

    tokenizer: TokenizerConfig
    dynamics: DynamicsConfig
    objective: Objective = FlowMatching()
    steps: int = 1
    memory: Any = None

    def __post_init__(self) -> None:
        if self.dynamics.views and self.memory is None:
            raise ValueError("a network that reads views needs a memory, and the configuration has none")
        if self.dynamics.levels != self.tokenizer.levels:
            raise ValueError("the dynamics was trained on latents of another tokenizer")
        if self.tokenizer.temporal and self.memory is not None:
            raise ValueError(
                "memory draws single frames, and a temporal tokenizer cannot encode a frame alone: leave one out"
            )
        if any(self.tokenizer.padding) and self.memory is not None:
            raise ValueError(
                f"memory draws pictures that whole latents cover, and {self.tokenizer.factor} pixels do not divide "
                f"{self.tokenizer.width}x{self.tokenizer.height}"
            )
        if self.dynamics.trunk not in self.objective.trunks:
            raise ValueError(
                f"{self.objective.kind} takes the trunk {' or '.join(self.objective.trunks)}, not {self.dynamics.trunk}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"objective": objective_entries(self.objective), "memory": to_entries(self.memory)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WorldConfig:
        """Inverse of `to_dict`, also after a round trip through JSON (lists become tuples)."""
        tokenizer, dynamics = build(TokenizerConfig, values["tokenizer"]), build(DynamicsConfig, values["dynamics"])
        objective, memory = make_objective(values["objective"]), from_entries(values.get("memory"))
        return cls(tokenizer, dynamics, objective, int(values["steps"]), memory)


class Outcome(NamedTuple):
    """What a step shows: frames uint8 (B, H, W, 3), expected rewards (B,), termination probabilities (B,)."""

    frames: Tensor
    rewards: Tensor
    terminated: Tensor


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

    An acceleration replaces some of them: `model.parts = replace(model.parts, decode=...)`.
    """

    views: Callable[[WorldState, Tensor], tuple[Any, Tensor | None]]  # `WorldModel.render_views`
    denoise: Callable[[WorldState, Tensor, Tensor, Tensor | None, int], Tensor]  # `WorldModel.denoise`
    decode: Callable[[Tensor, Tensor], Tensor]  # `WorldModel.decode`
    commit: Callable[[WorldState, Any, Frame], tuple[Tensor, Tensor]]  # `WorldModel.commit_frame`


class WorldModel(nn.Module):
    """Tokenizer, dynamics and memory as one playable model."""

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        self.dynamics = Dynamics(config.dynamics)
        self.memory = make_memory(config.memory, config.dynamics)
        self.steps, self.window = config.steps, config.dynamics.window  # frames of working memory
        self.height, self.width = config.tokenizer.height, config.tokenizer.width
        self.latent_shape = config.dynamics.channels, config.dynamics.height, config.dynamics.width
        self.low_precision = False  # see `acceleration/precision.py`
        self.quantised = False  # see `acceleration/quantisation.py`
        self.compiling: Thread | None = None  # see `acceleration/compilation.py`
        self.compiled = False
        self.parts = self.own_parts()

    def own_parts(self) -> FrameParts:
        return FrameParts(self.render_views, self.denoise, self.decode, self.commit_frame)

    def autocast(self) -> torch.autocast:
        """What the networks run under."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.low_precision)

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

        `poses` are those of the frames, where the game tells them: some memories place what they remember by them.

        Raises ValueError when frames, actions and seeds do not fit each other or the model.
        """
        batch, prompt, height, width = frames_BPHWC.shape[:4]
        if (height, width) != (self.height, self.width):
            raise ValueError(f"the model plays frames of {self.width}x{self.height}, not {width}x{height}")
        expected = (batch, prompt - 1, self.config.dynamics.actions)
        if tuple(actions_BPA.shape) != expected or len(seeds) != batch:
            raise ValueError(f"a prompt of {prompt} frames needs actions of shape {expected} and {batch} seeds")
        parts = zip(*(x.flatten(0, 1).split(64) for x in (frames_BPHWC, earlier(frames_BPHWC))), strict=True)
        latents = torch.cat([self.encode(*part) for part in parts]).unflatten(0, (batch, prompt))
        return self.start_latents(latents, actions_BPA, seeds, frames_BPHWC, poses_BP3)

    def begin(self, frames_PHWC: Tensor, actions_PA: Tensor, seed: int, poses_P3: Tensor | None = None) -> WorldState:
        """The same for one player; the prompt may lie on any device."""
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
        """The same from latents (B, P, C, h, w). Memory stores `frames`; without them, what the latents decode to."""
        with self.autocast():
            dynamics = self.dynamics.start(latents_BPCHW, actions_BPA)
            prompt = Prompt(latents_BPCHW.float(), actions_BPA, frames_BPHWC, poses_BP3)
            memory = self.memory.start(prompt, self.tokenizer)
        return WorldState(dynamics, seeds.to(latents_BPCHW.device).clone(), memory)

    # --- the parts of a frame, see `FrameParts` ---

    def render_views(self, state: WorldState, action_BA: Tensor) -> tuple[Any, Tensor | None]:
        """The motion that memory predicts for this action, and the views (B, M, h, w) drawn from the pose it leads to;
        no views (None) where the network reads none."""
        step = self.memory.foresee(state.memory, action_BA)
        with self.autocast():
            return step, self.memory.views(state.memory, step, self.tokenizer)

    def denoise(
        self,
        state: WorldState,
        action_BA: Tensor,
        noise_BCHW: Tensor,
        views: Tensor | None,
        steps: int,
        call: DenoiserCall | None = None,
    ) -> Tensor:
        """The frame's latent (B, C, h, w), from noise by `steps` denoiser calls. `call` is the function that makes one
        call; `Dynamics.denoise` if None."""
        with self.autocast():
            return self.dynamics.generate(
                state.dynamics, action_BA, noise_BCHW, steps, self.config.objective, views, call
            ).float()

    def commit_frame(self, state: WorldState, step: Any, frame: Frame) -> tuple[Tensor, Tensor]:
        """Read a finished frame into the state, in place. `Memory.store` then keeps it for good.

        Returns rewards (B,) and termination probabilities (B,).
        """
        with self.autocast():
            outcome = self.dynamics.encode_context(state.dynamics, frame.latent, frame.action)
            self.memory.commit(state.memory, step, frame)
        return outcome

    # -------------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def inspect(self, state: WorldState, action_BA: Tensor, player: int = 0) -> Recalled | None:
        """What memory gives for a player's next frame, to be looked at; None where there is nothing to see."""
        return self.memory.inspect(state.memory, action_BA.to(state.dynamics.actions), self.tokenizer, player)

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
        """Frames (empty where neither memory nor `decoded` asks for them), latents, rewards, terminations."""
        past = state.dynamics
        if tuple(action_BA.shape) != (len(state), self.config.dynamics.actions):
            expected = (len(state), self.config.dynamics.actions)
            raise ValueError(f"actions must have the shape {expected}, not {tuple(action_BA.shape)}")
        noise = frame_noise(state.seeds, past.context.working.count, self.latent_shape).to(past.latents)
        return self.frame(state, action_BA.to(past.actions), noise, steps, decoded)

    def frame(
        self, state: WorldState, action_BA: Tensor, noise_BCHW: Tensor, steps: int | None = None, decoded: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `_advance` returns, from noise that was drawn before. Nothing in it depends on what a tensor holds, so
        that it may be a CUDA graph (`acceleration/graphs.py`)."""
        parts, past = self.parts, state.dynamics
        step, views = parts.views(state, action_BA)
        latent = parts.denoise(state, action_BA, noise_BCHW, views, steps or self.steps)
        latent = self.memory.settle(state.memory, step, latent)
        wanted = decoded or self.memory.needs_pictures
        frames = parts.decode(latent, past.latents[:, -1].clone()) if wanted else latent.new_zeros(0)
        if wanted:
            frames = self.memory.restore(state.memory, step, views, latent, frames)
        rewards, terminated = parts.commit(state, step, Frame(latent, frames, action_BA))
        self.memory.store(state.memory, step)
        return frames, latent, rewards, terminated


def unet(model: WorldModel) -> Denoiser:
    """The U-Net of a model; `UserError` if a transformer over tokens draws its frames."""
    denoiser = model.dynamics.denoiser
    if not isinstance(denoiser, Denoiser):
        raise UserError("this model draws frames token by token with a transformer: what was asked for is for U-Nets")
    return denoiser
