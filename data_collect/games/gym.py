"""Any Gymnasium environment as a game: `gym:ID`, with its picture as the observation.

    make("gym:ALE/Pong-v5")                         # 15 steps a second, sticky actions off
    make("gym:CarRacing-v3?width=96&height=96")
    make("gym:my_module:MyGame-v0?skip=1")          # my_module registers MyGame-v0

The picture is the environment's observation when that is an RGB image, else what it renders. An environment may name
its actions and keys in its metadata: {"render_fps": 30, "action_names": ["noop", "jump"], "action_keys": {"space":
"jump"}}. Options that are not listed in `Gym` go to the environment itself.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error, spaces
from gymnasium.envs.registration import load_env_creator

from data_collect.errors import UserError, failed
from data_collect.games.resize import check_size, default_size, resize
from data_collect.schema import ActionSchema

STEPS_PER_SECOND = 17  # aimed at when the frame skip is not given: between 15 and 20
NO_PICTURE = "{!r} gives no picture: it needs RGB observations or the render mode rgb_array"
DRIVE = {"left": "steer-", "right": "steer+", "up": "gas+", "down": "brake+"}
# Names and keys for well-known environments that do not tell: (name, kind) -> (names, keys or None for the usual ones).
KNOWN: dict[tuple[str, str], tuple[tuple[str, ...], dict[str, str] | None]] = {
    ("CarRacing", "Box"): (("steer", "gas", "brake"), DRIVE),
    ("CarRacing", "Discrete"): (("noop", "right", "left", "gas", "brake"),
                                {"left": "left", "right": "right", "up": "gas", "down": "brake"}),
    ("LunarLander", "Discrete"): (("noop", "left", "main", "right"), {"left": "left", "right": "right", "up": "main"}),
    ("LunarLanderContinuous", "Box"): (("main", "side"), {"up": "main+", "left": "side-", "right": "side+"}),
    ("CartPole", "Discrete"): (("left", "right"), None),
    # Pong's paddle goes up by RIGHT where there is no UP.
    ("Pong", "Discrete"): ((), {"up": "RIGHT", "down": "LEFT", "right": "RIGHT", "left": "LEFT", "space": "FIRE"}),
    ("MountainCar", "Discrete"): (("left", "noop", "right"), None),
}  # fmt: skip
ATARI_FPS = 60.0  # its metadata says 30, at a frame skip of its own
# Atari's names are spelt from these: UPFIRE is up and space held together.
ATARI_KEYS = {"up": "UP", "down": "DOWN", "left": "LEFT", "right": "RIGHT", "space": "FIRE"}


class Gym(gymnasium.Env[np.ndarray, Any]):
    """The Gymnasium environment `env_id`, seen through frames of `height` x `width` (multiples of 16).

    `skip` repeats each action and adds up the rewards; by default so often that 15 to 20 steps make a second.
    `fps` is the environment's own rate where its metadata does not tell. `replayable=false` says that its seed does
    not fix its frames. `UserError`: unknown id or option, missing package, no picture, unsupported action space.
    """

    def __init__(
        self, env_id: str, *, width: int = 0, height: int = 0, skip: int = 0, fps: float = 0.0,
        replayable: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        self.game = f"gym:{env_id}"
        spec = _spec(env_id)
        self.atari = env_id.startswith("ALE/")
        if self.atari:
            # One raw frame a step (the skip is ours), and no random repeats: a seed and its actions fix the frames.
            options = {"frameskip": 1, "repeat_action_probability": 0.0, **options}
        self.env = _make(spec, env_id, options)
        self.replayable = replayable and not spec.nondeterministic

        metadata = self.env.unwrapped.metadata
        raw_fps = fps or (ATARI_FPS if self.atari else _rate(metadata))
        if not 0 <= raw_fps < np.inf or skip < 0:
            raise UserError(f"skip and fps of {self.game!r} must be positive")
        self.skip = skip or max(1, round(raw_fps / STEPS_PER_SECOND))
        self.action_schema = _schema(self.env, spec.name, (raw_fps or STEPS_PER_SECOND) / self.skip)
        self.action_space = self.env.action_space

        space = self.env.observation_space
        self._observed = isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)
        if not self._observed and self.env.render_mode != "rgb_array":
            raise UserError(NO_PICTURE.format(self.game))
        if not width and not height:
            rows, columns = self._size()
            width, height = (64, 64) if self.atari else default_size(columns, rows)
        self.width, self.height = width or height, height or width
        check_size(self.width, self.height)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.action_schema.fps}
        self.observation_space = spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        self._frame = np.zeros((self.height, self.width, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self._call(_two, self.env.reset, seed=seed, options=options)
        self._frame = resize(self._picture(observation), self.width, self.height)
        return self._frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = self.action_schema.action(self.action_schema.raw(action))
        if isinstance(self.action_space, spaces.Box):
            action = np.asarray(action, self.action_space.dtype)
        total, pictures = 0.0, []
        for i in range(self.skip):
            observation, reward, terminated, truncated, info = self._call(_five, self.env.step, action)
            total += reward
            last = terminated or truncated or i == self.skip - 1
            # Atari draws some sprites on every other frame only: keep the brighter of the last two.
            if last or (self.atari and i == self.skip - 2):
                pictures.append(self._picture(observation))
            if last:
                break
        picture = pictures[0] if len(pictures) == 1 else np.maximum(*pictures)
        self._frame = resize(picture, self.width, self.height)
        return self._frame, total, bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The last frame."""
        return self._frame

    def close(self) -> None:
        self.env.close()

    def _picture(self, observation: Any) -> np.ndarray:
        """uint8 (H, W, 3) at the environment's own size."""
        picture = observation if self._observed else self._call(self.env.render)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            raise UserError(NO_PICTURE.format(self.game))
        return picture

    def _size(self) -> tuple[int, ...]:
        """(H, W) of the environment's own picture."""
        if self._observed:
            return self.env.observation_space.shape[:2]  # type: ignore[index]
        return self._picture(self._call(_two, self.env.reset, seed=0)[0]).shape[:2]

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """What a function gives that runs the environment's code; `UserError` for whatever that raises."""
        try:
            return function(*arguments, **options)
        except UserError:
            raise
        except Exception as failure:
            raise failed(f"{self.game!r}", failure) from failure


def _two(reset: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    observation, info = reset(**options)
    return observation, dict(info)


def _five(step: Any, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    observation, reward, terminated, truncated, info = step(action)
    return observation, float(reward), bool(terminated), bool(truncated), info


def _rate(metadata: dict[str, Any]) -> float:
    """Frames a second by the environment's metadata, 0 where it does not tell."""
    try:
        return float(metadata.get("render_fps") or 0)
    except (TypeError, ValueError):
        raise UserError(f"render_fps in the environment's metadata is {metadata['render_fps']!r}, no number") from None


def _spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """What Gymnasium knows of the id, after the packages that register ids of their own."""
    if env_id.startswith("ALE/"):
        try:
            ale_py = importlib.import_module("ale_py")
        except ImportError:
            raise UserError(f"'gym:{env_id}' needs ale-py: pip install 'game_wm[games]'") from None
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ImportError as failure:
        raise UserError(f"'gym:{env_id}' cannot be imported: {failure}") from None
    except error.Error as failure:
        raise UserError(f"unknown game 'gym:{env_id}': {failure}") from None
    except Exception as failure:
        raise failed(f"the module of 'gym:{env_id}'", failure) from failure


def _make(spec: gymnasium.envs.registration.EnvSpec, env_id: str, options: dict[str, Any]) -> gymnasium.Env:
    try:
        creator: Any = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
        modes = getattr(creator, "metadata", {}).get("render_modes", ())
        if "rgb_array" in modes:
            options = {"render_mode": "rgb_array", **options}
        return gymnasium.make(spec, disable_env_checker=True, **options)
    except (ImportError, error.DependencyNotInstalled) as failure:
        raise UserError(f"'gym:{env_id}' needs a package: pip install 'game_wm[games]' ({failure})") from None
    except Exception as failure:
        if isinstance(failure, TypeError) and "unexpected keyword" in str(failure):
            told = f"'gym:{env_id}' does not know an option: {str(failure).splitlines()[0]}"
            raise UserError(told) from None
        raise failed(f"'gym:{env_id}'", failure) from failure


def _schema(env: gymnasium.Env, name: str, fps: float) -> ActionSchema:
    """Names and keys from the environment's metadata, its action meanings, or the table of well-known ones."""
    metadata, space = env.unwrapped.metadata, env.action_space
    known_names, known_keys = KNOWN.get((name, type(space).__name__), ((), None))
    names = metadata.get("action_names") or known_names or None
    keys = metadata.get("action_keys") or known_keys
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    if names is None and meanings is not None and isinstance(space, spaces.Discrete):
        names = tuple(meanings())
        spelt = {key: part for key, part in ATARI_KEYS.items() if any(part in whole for whole in names)}
        keys = keys if keys and "UP" not in names else spelt or None
    try:
        return ActionSchema.from_space(space, fps, names=names, keys=keys)
    except (TypeError, ValueError, IndexError) as failure:
        raise UserError(
            f"action_names must be a list and action_keys a map of keys to names in the metadata of {name} ({failure})"
        ) from None
