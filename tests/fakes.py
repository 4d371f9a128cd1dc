"""Models without a network: one brightens its picture, for tests of play; one repeats its last frame and one plays the
true game, for tests of what is measured.

    session = Session(fake(MAZE, end=2))        # a checkpoint of the former, whose episodes end after two frames
    class Fake(TrueGame): ...                   # says which game, and what of it is dreamt; wants `in_32_bits`
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_collect.schema import ActionSchema
from game_wm.memory.protocol import NoMemory
from game_wm.world import Outcome

SIZE = 32  # pixels of a side
MAZE = ActionSchema(
    "multibinary",
    ("forward", "back", "turn_left", "turn_right"),
    keys={"up": "forward", "down": "back", "left": "turn_left", "right": "turn_right"},
    fps=20,
)


MAZE_WASD = replace(MAZE, keys={**MAZE.keys, "w": "forward", "s": "back"})


ATARI = ActionSchema(
    "discrete",
    ("NOOP", "FIRE", "UP", "UPFIRE"),
    keys={"up": "UP", "space": "FIRE", "p": "FIRE"},
    fps=15,
)


CAR = ActionSchema(
    "box",
    ("steer", "gas"),
    low=(-1, 0),
    high=(1, 1),
    keys={"left": "steer-", "right": "steer+", "up": "gas+"},
    fps=25,
)


WASD = replace(MAZE, keys={"w": "forward", "s": "back", "a": "turn_left", "d": "turn_right"})


@dataclass
class Playing:
    """The dreams of some players: their games, and the frames that are shown."""

    games: list[Any]
    frames: Tensor
    memory: None = None

    def clone(self) -> Playing:
        return copy.deepcopy(self)


class FakeModel(nn.Module):
    """What play asks of any model, without a network."""

    steps = 1
    low_precision = quantised = compiled = False
    compiling = None
    memory = NoMemory()

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor, poses: Tensor | None = None) -> Any:
        raise NotImplementedError

    def begin(self, frames: Tensor, actions: Tensor, seed: int, poses: Tensor | None = None) -> Any:
        return self.start(frames[None], actions[None], torch.tensor([seed]))


class Brightness:
    """The picture and how many frames there were."""

    nbytes, episodic = 1_000_000, None

    def __init__(self, picture: Any) -> None:
        self.picture, self.frames = picture, torch.zeros(1, dtype=torch.int64)

    def to_dict(self) -> dict[str, Any]:
        return {"picture": self.picture, "frames": self.frames}


class BrighteningModel(FakeModel):
    """The place is written in the red channel; "forward" (or the first axis) brightens the green one."""

    def __init__(self, end: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.end, self.calls = end, []

    def start(self, frames: Any, actions: Any, seeds: Any, poses: Any = None) -> Brightness:
        assert frames.shape == (1, 3, 10, 15, 3) and actions.shape[:2] == (1, 2) and seeds.shape == (1,)
        return Brightness(frames[0, -1].clone())

    def step(self, state: Brightness, action: Any, steps: int) -> tuple[Any, Brightness]:
        assert action.dtype == torch.float32 and action.shape[0] == 1
        self.calls.append((action[0].tolist(), steps))
        state.picture = state.picture.clone()
        state.picture[..., 1] += int(action[0, 0])
        state.frames += 1
        ended = float(self.end is not None and int(state.frames) >= self.end)
        return Outcome(state.picture[None], action[:, 0], torch.tensor([ended])), state


def fake(schema: ActionSchema = MAZE, end: int | None = None) -> Any:
    contexts = torch.zeros(4, 3, 10, 15, 3, dtype=torch.uint8)
    contexts[..., 0] = torch.arange(4)[:, None, None, None] * 10
    actions = torch.zeros(4, 2, schema.size)
    return SimpleNamespace(
        model=BrighteningModel(end), schema=schema, game="maze", name="fake", path=None,
        parameters=1_500_000,
        contexts_frames=contexts, contexts_actions=actions, prompt=lambda i: (contexts[i], actions[i], None),
        check_steps=lambda steps: None,
    )  # fmt: skip


class Repeats(FakeModel):
    """Dreams the last frame for ever. Its tokenizer loses nothing."""

    window = 4

    def __init__(self, side: int = SIZE) -> None:
        super().__init__()
        self.height = self.width = side

    def encode(self, frames: Tensor, before: Tensor | None = None) -> Tensor:
        return frames.permute(0, 3, 1, 2).float()

    def decode(self, latents: Tensor, before: Tensor | None = None) -> Tensor:
        return latents.permute(0, 2, 3, 1).to(torch.uint8)

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor, poses: Tensor | None = None) -> Any:
        assert actions.shape[:2] == (frames.shape[0], frames.shape[1] - 1) and frames.shape[1] >= 1
        return frames[:, -1]

    def step(self, state: Any, action: Tensor, steps: int | None = None) -> tuple[Outcome, Any]:
        return Outcome(state, torch.zeros(len(action)), torch.zeros(len(action))), state


class TrueGame(Repeats):
    """Dreams what the game does; with `frozen`, shows the last frame for ever."""

    config = SimpleNamespace(dynamics=SimpleNamespace(tokens=7))
    frozen = False

    def game(self, seed: int, last: np.ndarray) -> Any:
        """The game of this seed, where its last frame, uint8 (H, W, 3), shows it to be."""
        raise NotImplementedError

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor, poses: Tensor | None = None) -> Playing:
        assert actions.shape[:2] == (frames.shape[0], frames.shape[1] - 1)
        games = []
        for seed, last in zip(seeds.tolist(), frames[:, -1].numpy(), strict=True):
            games.append(self.game(seed, last))
            assert np.array_equal(games[-1].frame(), last)
        return Playing(games, frames[:, -1].clone())

    def step(self, state: Playing, action: Tensor, steps: int | None = None) -> tuple[Outcome, Playing]:
        rewards = ended = torch.zeros(len(action))
        if not self.frozen:
            results = [game.step(a) for game, a in zip(state.games, action.numpy(), strict=True)]
            state.frames = torch.from_numpy(np.stack([result[0] for result in results]))
            rewards, ended = (torch.tensor([float(result[i]) for result in results]) for i in (1, 2))
        return Outcome(state.frames, rewards, ended), state


def recorded(arrays: dict[str, Tensor]) -> Any:
    """A `LatentStore` of one episode."""

    def read(name: str, span: Any) -> np.ndarray:
        return arrays[name][span.start :][: span.frames].numpy()

    def tensors(span: Any, *names: str) -> list[Tensor]:
        return [torch.from_numpy(read(name, span)).float() for name in names]

    return SimpleNamespace(read=read, tensors=tensors)
