"""Games that are odd in one way each: `gym:odd_games:NAME-v0`. Those with odd pictures are in odd_pictures.py."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from odd_pictures import Dot


class NoModes(Dot):
    """Renders, but its metadata does not say so."""

    metadata: dict[str, Any] = {}


class NoArgument(Dot):
    """Takes no render mode, though its metadata has one."""

    def __init__(self) -> None:
        super().__init__("rgb_array")


class ListOnly(Dot):
    """Lists the mode of Gymnasium that gives all frames since the last call."""

    metadata = Dot.metadata | {"render_modes": ["rgb_array_list"]}

    def render(self) -> Any:
        assert self.render_mode == "rgb_array_list"
        return [self.picture() * 0, self.picture()]


class Leveled(Dot):
    """Cannot be made without a level."""

    def __init__(self, level: int, render_mode: str | None = None) -> None:
        super().__init__(render_mode)


class Strict(Dot):
    """Lists no render mode and takes none either."""

    metadata: dict[str, Any] = {}

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise ValueError("no rendering here")
        super().__init__(render_mode)


class Spaceless(gymnasium.Env):
    """Forgot its spaces."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return 0, {}


class Named(gymnasium.Wrapper):
    """Names actions, keys and a rate for somebody else's game."""

    metadata: Any = {
        "render_fps": 10,
        "action_names": ["left", "stay", "right"],
        "action_keys": {"a": "left", "d": "right"},
    }

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(Dot(render_mode))


class Renamed(gymnasium.Wrapper):
    """Gives other keys to what another wrapper has named; the rest is the other's."""

    metadata: Any = {"action_keys": {"left": "left", "right": "right"}}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(Named(render_mode))


class Fewer(gymnasium.ActionWrapper):
    """Two actions of three: the names inside of it do not count."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(Named(render_mode))
        self.action_space = spaces.Discrete(2)

    def action(self, action: Any) -> Any:
        return 2 * int(action)

    def get_action_meanings(self) -> list[str]:
        return ["LEFT", "RIGHT"]


def factory(render_mode: str | None = None, wide: bool = False) -> gymnasium.Env:
    """A function that makes one."""
    return gymnasium.wrappers.TransformReward(Dot(render_mode), float)


def plain_factory() -> gymnasium.Env:
    """A function that takes no option."""
    return Dot("rgb_array")


class Told(Dot):
    """Says something wrong, or odd, in its metadata."""

    def __init__(self, entry: str, value: Any, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.metadata = Dot.metadata | {"action_names": ["left", "stay", "right"], entry: value}


class OldApi(Dot):
    """As in gym, before Gymnasium: `what` is still of that time."""

    def __init__(self, what: str = "step", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.what = what

    def reset(self, **arguments: Any) -> Any:
        if self.what == "arguments":
            return self._reset(**arguments)
        observation, info = super().reset(**arguments)
        return observation if self.what == "reset" else (observation, info)

    def _reset(self) -> Any:
        return super().reset()

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        odd: dict[str, Any] = {
            "step": (observation, reward, terminated, info),
            "reward": (observation, None, terminated, False, info),
            "rewards": (observation, [1.0, 2.0], terminated, False, info),
            "info": (observation, reward, terminated, False, "won"),
        }
        return odd[self.what]


class Changes(Dot):
    """Another version of the game is installed: its picture is as wide, its keys are such as the environment says."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.metadata = Dot.metadata | {"action_keys": {os.environ.get("ODD_KEY", "a"): "action0"}}
        self.metadata |= {"render_fps": float(os.environ.get("ODD_FPS", "15"))}

    def render(self) -> Any:
        return self.picture().repeat(int(os.environ.get("ODD_WIDTH", "1")), 1)


# --- actions ----------------------------------------------------------------------------------------------------------

SPACES: dict[str, spaces.Space] = {
    "dict": spaces.Dict({"move": spaces.Discrete(3), "fire": spaces.Discrete(2)}),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.MultiDiscrete([2, 4])]),
    "buttons": spaces.Dict({"jump": spaces.Discrete(2), "walk": spaces.MultiBinary(2)}),
    "axes": spaces.Dict({"gas": spaces.Box(0, 1), "turn": spaces.Box(-1, 1, (2,))}),
    "nested": spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(5)])}),
    "shifted": spaces.Discrete(3, start=-1),
    "shifted_several": spaces.MultiDiscrete([3, 2], start=[1, 5]),
    "square": spaces.MultiBinary([2, 2]),
    "square_box": spaces.Box(-1, 1, (2, 2)),
    "whole_box": spaces.Box(0, 10, (2,), np.int64),
    "double": spaces.Box(-1, 1, (1,), np.float64),
}


class Acts(Dot):
    """Takes actions of one of these spaces, and nothing that is not of it."""

    def __init__(self, space: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = SPACES[space]
        self.given: list[Any] = []

    def move(self, action: Any) -> int:
        assert self.action_space.contains(action), action
        self.given.append(action)
        return 1


for cls in (*Dot.__subclasses__(), Spaceless, Named, Renamed, Fewer):
    gymnasium.register(f"{cls.__name__}-v0", entry_point=cls)
gymnasium.register("Dot-v0", entry_point=Dot)
gymnasium.register("Factory-v0", entry_point=factory)
gymnasium.register("FactoryByName-v0", entry_point="odd_games:factory")
gymnasium.register("PlainFactory-v0", entry_point=plain_factory)
gymnasium.register("Lambda-v0", entry_point=lambda: Dot("rgb_array"))
gymnasium.register("Vector-v0", entry_point=lambda: gymnasium.vector.SyncVectorEnv([Dot]))
gymnasium.register("Packaged-v0", entry_point="no_such_package:Game")
gymnasium.register("Limited-v0", entry_point=OldApi, max_episode_steps=30)
gymnasium.register("Timed-v0", entry_point=Dot, max_episode_steps=8)
