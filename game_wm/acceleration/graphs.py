"""A frame as one CUDA graph: the device dreams it without the host, which waits for it once.

    player = GraphPlayer(model, model.start(frames, actions, seeds))
    outcome = player.step(action)       # on the host
    player.state                        # the dreams as they are now

The graph works on tensors that stay where they are, for one number of players. The host hands over action and noise
without waiting, draws the next frame's noise meanwhile, and gets picture, reward and termination in one copy. Without
a CUDA device the same function runs as it is.

Legend: B players, A action vector.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor

from game_wm.state import WorldState
from game_wm.world import Outcome, WorldModel, frame_noise

WARM_UP = 3  # frames without a graph, in which kernels are chosen


class GraphPlayer:
    """The dreams of B players, which go on from a copy of this state. `record`: what else is computed from the state
    after each frame, as `dream.rewind.Undo.record` of a log that began with it; then `recorded` is what it gave."""

    @torch.inference_mode()
    def __init__(
        self, model: WorldModel, state: WorldState, record: Callable[[WorldState], Tensor] | None = None
    ) -> None:
        self.model, self.state = model, state.clone()
        self._tensors = self.state.to_dict()
        latents, actions = self.state.dynamics.latents, self.state.dynamics.actions
        self._seeds, self._count = (x.cpu().clone() for x in (state.seeds, state.dynamics.context.working.count))
        self._action = torch.zeros_like(actions[:, 0])
        self._noise = torch.zeros(len(state), *model.latent_shape, dtype=latents.dtype, device=latents.device)
        self._packed = self._frame()  # to know its size
        self._put_back(state)
        on_device = latents.device.type == "cuda"
        held = [self._noise, self._noise, self._packed, self._action]  # two for noise: one may still be on its way
        *drawn, self._host, self._given = (torch.zeros(x.shape, dtype=x.dtype, pin_memory=on_device) for x in held)
        self._drawn = cycle(drawn)
        self._next = self._draw()
        self._done = torch.cuda.Event() if on_device else None
        self._runs = [self._made_ready(lambda: self._packed.copy_(self._frame()))]
        self._put_back(state)
        if record is not None:
            self.recorded = record(self.state)
            self._runs.append(self._made_ready(lambda: self.recorded.copy_(record(self.state))))

    @torch.inference_mode()
    def step(self, action_BA: Tensor) -> Outcome:
        """One frame for every player, under actions that lie on the host; what it shows, on the host."""
        self._given.copy_(action_BA)
        self._action.copy_(self._given, non_blocking=True)
        self._noise.copy_(self._next, non_blocking=True)
        for run in self._runs:
            run()
        self._host.copy_(self._packed, non_blocking=True)
        if self._done is not None:
            self._done.record()
        self._count += 1
        self._next = self._draw()
        if self._done is not None:
            self._done.synchronize()
        return self._unpacked()

    def _frame(self) -> Tensor:
        """Dream a frame in place; pictures, rewards and terminations as bytes (B, N)."""
        state = WorldState.from_dict(dict(self._tensors))
        frames, _, rewards, terminated = self.model.frame(state, self._action, self._noise)
        for name, new in state.to_dict().items():
            if new is not self._tensors[name]:
                self._tensors[name].copy_(new)
        outcomes = torch.stack((rewards, terminated), 1).float().view(torch.uint8)
        return torch.cat((frames.flatten(1), outcomes), 1)

    def _made_ready(self, make: Callable[[], object]) -> Callable[[], object]:
        """The same as one CUDA graph, where there is such a device."""
        return make if self._done is None else captured(make)

    def _put_back(self, state: WorldState) -> None:
        """Undo the frames that were dreamt to get ready."""
        for name, old in state.to_dict().items():
            self._tensors[name].copy_(old)

    def _draw(self) -> Tensor:
        return next(self._drawn).copy_(frame_noise(self._seeds, self._count, self.model.latent_shape))

    def _unpacked(self) -> Outcome:
        pictures, outcomes = self._host.split((self._host.shape[1] - 8, 8), 1)
        rewards, terminated = outcomes.contiguous().view(torch.float32).unbind(1)
        frames = pictures.view(-1, self.model.height, self.model.width, 3).clone()
        return Outcome(frames, rewards.clone(), terminated.clone())


def captured(make: Callable[[], object]) -> Callable[[], object]:
    """The same calls as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            make()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        make()
    return graph.replay
