"""Any Gymnasium environment as a game: `gym:ID`, with its picture as the observation.

    make("gym:ALE/Pong-v5")                         # 15 steps a second, sticky actions off
    make("gym:CarRacing-v3?width=96&height=96")
    make("gym:my_module:MyGame-v0?skip=1")          # my_module registers MyGame-v0

The picture is the environment's observation when that is an RGB image, else what it renders, else an image among its
observations; `picture.py` tells what counts as one. An environment, or a wrapper of it, may name its actions and keys
in its metadata: {"render_fps": 30, "action_names": ["noop", "jump"], "action_keys": {"space": "jump"}}. Options that
are not listed in `Gym` go to the environment itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error, logger, spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from data_collect.errors import UserError, failed
from data_collect.games import ids
from data_collect.games.actions import Actions
from data_collect.games.picture import Entry, PictureReader, looks_symbolic, picture_entry, short, told
from data_collect.games.resize import check_size, default_size, resize
from data_collect.schema import ActionSchema

STEPS_PER_SECOND = 17  # aimed at when the frame skip is not given: between 15 and 20
DRIVE = {"left": "steer-", "right": "steer+", "up": "gas+", "down": "brake+"}
WALK = {"left": "left", "right": "right", "up": "forward", "space": "toggle", "p": "pickup", "d": "drop"}
LANES = {"up": "lane_left", "down": "lane_right", "right": "faster", "left": "slower"}
# Names and keys for well-known environments that do not tell: (name or package, kind) -> (names, keys or None for the
# usual ones).
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
    # MiniGrid's seventh, "done", does nothing where a mission does not ask for it.
    ("minigrid", "Discrete"): (("left", "right", "forward", "pickup", "drop", "toggle", "noop"), WALK),
    ("highway_env", "Discrete"): (("lane_left", "idle", "lane_right", "faster", "slower"), LANES),
}  # fmt: skip
EXTRA = "pip install 'game_wm[games]'"
ATARI_FPS = 60.0  # its metadata says 30, at a frame skip of its own
# Atari's names are spelt from these: UPFIRE is up and space held together.
ATARI_KEYS = {"up": "UP", "down": "DOWN", "left": "LEFT", "right": "RIGHT", "space": "FIRE"}
OLD_API = (
    "{} does not follow Gymnasium: reset must take seed and options, def reset(self, *, seed=None, options=None), and "
    "give (observation, info); step must give (observation, reward, terminated, truncated, info) – {}"
)
# Of a wrapper that was given too little, or a reset that takes too little.
OLD_SIGNS = r"values to unpack \(expected [25]\b|unexpected keyword argument '(seed|options)'"


class Gym(gymnasium.Env[np.ndarray, Any]):
    """The Gymnasium environment `env_id`, seen through frames of `height` x `width` (multiples of 8).

    Without a size, the short side has 64 pixels and the aspect is kept. `skip` repeats each action and adds up the
    rewards; by default so often that 15 to 20 steps make a second. `fps` is the environment's own rate where its
    metadata does not tell. `replayable=false` says that its seed does not fix its frames. `note` says what becomes of
    its pictures and its rate. `UserError`: unknown id or option, missing package, no picture, unsupported action space.
    """

    def __init__(
        self, env_id: str, *, width: int = 0, height: int = 0, skip: int = 0, fps: float = 0.0,
        replayable: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        self.game = f"gym:{env_id}"
        spec = ids.find(env_id)
        self.atari = env_id.startswith("ALE/")
        if self.atari:
            # One raw frame a step (the skip is ours), and no random repeats: a seed and its actions fix the frames.
            options = {"frameskip": 1, "repeat_action_probability": 0.0, **options}
        if width or height:
            check_size(width or height, height or width)
        self.env = _make(spec, env_id, options)
        try:
            self._look(spec, width, height, skip, fps)
        except BaseException:
            self.env.close()
            raise
        self.replayable = replayable and not spec.nondeterministic
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.action_schema.fps, "note": self.note}
        self.observation_space = spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        self._frame = np.zeros((self.height, self.width, 3), np.uint8)

    def _look(self, spec: EnvSpec, width: int, height: int, skip: int, fps: float) -> None:
        """Set what the environment tells of itself: rate, actions, where its picture is and what becomes of it."""
        raw_fps = fps or (ATARI_FPS if self.atari else _rate(self.env))
        if not 0 <= raw_fps < np.inf or skip < 0:
            raise UserError(f"skip and fps of {self.game!r} must be positive")
        rate = raw_fps or STEPS_PER_SECOND
        self.skip = skip or max(1, round(raw_fps / STEPS_PER_SECOND))
        self._actions = Actions(self._call(getattr, self.env, "action_space"))
        self.action_schema = _schema(self.env, self._actions, spec.name, rate / self.skip)
        self.action_space = self._actions.space

        observation, _ = self._reset(seed=0)
        self._entry, self._read = self._source(observation)
        rows, columns = self._picture(observation).shape[:2]
        if not width and not height:
            width, height = default_size(columns, rows)
        self.width, self.height = width or height, height or width
        size = _becomes(f"{columns}x{rows}", f"{self.width}x{self.height}")
        unknown = "" if raw_fps else " (its metadata has no render_fps: ?fps=…)"
        self.note = f"{size}, {_becomes(f'{rate:.3g}', f'{self.action_schema.fps:.3g}')} frames/s{unknown}"

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self._reset(seed=seed, options=options)
        self._frame = resize(self._picture(observation), self.width, self.height)
        return self._frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = self._actions.nested(self.action_schema.raw(action))
        total, pictures = 0.0, []
        for i in range(self.skip):
            observation, reward, terminated, truncated, info = self._step(action)
            total += reward
            last = terminated or truncated or i == self.skip - 1
            # Atari draws some sprites on every other frame only: keep the brighter of the last two.
            if last or (self.atari and i == self.skip - 2):
                pictures.append(self._picture(observation))
            if last:
                break
        picture = pictures[0] if len(pictures) == 1 else np.maximum(*pictures)
        self._frame = resize(picture, self.width, self.height)
        return self._frame, total, terminated, truncated, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self._frame

    def close(self) -> None:
        self.env.close()

    def _source(self, observation: Any) -> tuple[Entry | None, PictureReader]:
        """Where the picture comes from, by the first observation: an entry of the observations, or none to render."""
        entry = picture_entry(self._call(getattr, self.env, "observation_space"))
        if entry is not None and entry.plain and not looks_symbolic(np.asarray(observation)):
            return entry, PictureReader(f"{self.game!r}: reset and step")
        rendered = None
        if entry is None or self.env.render_mode is not None:
            try:
                rendered = self.env.render()
            except NotImplementedError:
                pass  # gymnasium.Env's own
            except Exception as failure:
                raise failed(f"render() of {self.game!r}", failure) from failure
        if rendered is not None:
            return None, PictureReader(f"{self.game!r}: render()")
        if entry is not None:
            reader = PictureReader(f"{self.game!r}: reset and step", entry.limit)
            return self._call(entry.unstacked, observation), reader
        raise UserError(
            f"{self.game!r} gives no picture: render() gave {told(rendered)} (render_mode {self.env.render_mode}), and "
            f"its observation, {' '.join(str(self.env.observation_space).split())[:200]}, is none; it needs the render "
            "mode rgb_array or RGB observations"
        )

    def _picture(self, observation: Any) -> np.ndarray:
        """uint8 (H, W, 3) at the environment's own size."""
        given = self._call(self.env.render) if self._entry is None else self._call(self._entry.of, observation)
        return self._read(given)

    def _reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        result = self._call(self.env.reset, **arguments)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            raise UserError(OLD_API.format(f"{self.game!r}", f"reset gave {told(result)}"))
        return result[0], dict(result[1])

    def _step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self._call(self.env.step, action)
        if not (isinstance(result, tuple) and len(result) == 5):
            raise UserError(OLD_API.format(f"{self.game!r}", f"step gave {told(result)}"))
        observation, reward, terminated, truncated, info = result
        try:
            if reward is None:
                raise TypeError
            total = float(np.asarray(reward, np.float64).reshape(()))
            ended, cut, extra = bool(terminated), bool(truncated), dict(info or {})
        except (TypeError, ValueError):
            given = (*map(short, (reward, terminated, truncated)), told(info))
            raise UserError(
                f"{self.game!r}: step gave {', '.join(given)} after the observation; it must give a number (the "
                "reward), two booleans (terminated, truncated) and a dict (info)"
            ) from None
        return observation, total, ended, cut, extra

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """What a function gives that runs the environment's code; `UserError` for whatever that raises."""
        try:
            return function(*arguments, **options)
        except UserError:
            raise
        except Exception as failure:
            if isinstance(failure, TypeError | ValueError) and re.search(OLD_SIGNS, str(failure)):
                raise UserError(OLD_API.format(f"{self.game!r}", failure)) from failure
            raise failed(f"{self.game!r}", failure) from failure


def _becomes(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _make(spec: EnvSpec, env_id: str, options: dict[str, Any]) -> gymnasium.Env:
    """The environment, with pictures to render where it takes a render mode."""
    level, logger.min_level = logger.min_level, logger.ERROR  # it warns of render modes that nobody lists
    if "highway_env" in str(spec.entry_point) and os.environ.get("SDL_VIDEODRIVER") == "dummy":
        os.environ["SDL_VIDEODRIVER"] = "offscreen"  # it needs no window, but draws nothing where that says "dummy"
    try:
        creator: Any = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
        mode, listed = _render_mode(creator)
        if mode and "render_mode" not in options:
            try:
                return gymnasium.make(spec, disable_env_checker=True, render_mode=mode, **options)
            except Exception as failure:
                takes_none = re.search("render_mode|takes no arguments", str(failure))
                if listed and not (isinstance(failure, TypeError) and takes_none):
                    raise
        return gymnasium.make(spec, disable_env_checker=True, **options)
    except Exception as failure:
        raise UserError(_why_not(spec, env_id, failure)) from failure
    finally:
        logger.min_level = level


def _render_mode(creator: Any) -> tuple[str, bool]:
    """The render mode to ask for, and whether the class lists it; rgb_array where nothing is listed (a function)."""
    metadata = getattr(creator, "metadata", None)  # of a wrapper's class it may be a property
    listed = metadata.get("render_modes") if isinstance(metadata, Mapping) else None
    modes = [listed] if isinstance(listed, str) else list(listed or ())
    wanted = next((mode for mode in ("rgb_array", "rgb_array_list") if mode in modes), "")
    return wanted or ("" if modes else "rgb_array"), bool(wanted)


def _why_not(spec: EnvSpec, env_id: str, failure: Exception) -> str:
    """The sentence for an environment that cannot be made."""
    said = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
    if isinstance(failure, ImportError | error.DependencyNotInstalled):
        ours = str(spec.entry_point).startswith(("gymnasium.envs.box2d", "ale_py"))
        return f"'gym:{env_id}' needs a package{': ' + EXTRA if ours else ''} ({said})"
    if isinstance(failure, TypeError):
        said = said.partition(" was raised from the environment creator")[0]
        if "unexpected keyword" in said:
            return f"'gym:{env_id}' does not know an option: {said}"
        if missing := re.search(r"missing \d+ required .*?argument.*?: '(\w+)'", said):
            return f"'gym:{env_id}' needs an option: --game 'gym:{env_id}?{missing[1]}=…' ({said})"
    return str(failed(f"'gym:{env_id}'", failure))


def _layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """The environment's wrappers, from the outermost inwards, and the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _told(layer: gymnasium.Env, key: str) -> Any:
    """An entry of a layer's own metadata, None where it has none."""
    metadata = getattr(layer, "metadata", None)
    if isinstance(layer, gymnasium.Wrapper) and metadata is layer.env.metadata:
        return None  # what it wraps is asked in its turn
    return metadata.get(key) if isinstance(metadata, Mapping) else None


def _rate(env: gymnasium.Env) -> float:
    """Frames a second by the metadata of the outermost wrapper that tells, 0 where none does."""
    given = next((fps for layer in _layers(env) if (fps := _told(layer, "render_fps"))), 0)
    try:
        return float(given)
    except (TypeError, ValueError):
        raise UserError(f"render_fps in the environment's metadata is {given!r}, no number") from None


def _schema(env: gymnasium.Env, actions: Actions, name: str, fps: float) -> ActionSchema:
    """Names and keys from the metadata, the action meanings, or the table of well-known ones.

    Each from the outermost wrapper that has it; those inside of one that changes the action space do not count.
    """
    layers = [layer for layer in _layers(env) if layer.action_space == env.action_space]
    known_names, known_keys = _known(env, name, actions)
    names = next((given for layer in layers if (given := _told(layer, "action_names")) is not None), known_names)
    keys = next((given for layer in layers if (given := _told(layer, "action_keys")) is not None), known_keys)
    meanings = next((layer.get_action_meanings for layer in layers if hasattr(layer, "get_action_meanings")), None)
    if names is None and meanings is not None and isinstance(actions.space, spaces.Discrete):
        names = tuple(map(str, meanings()))
        spelt = {key: part for key, part in ATARI_KEYS.items() if any(part in whole for whole in names)}
        keys = keys if keys and "UP" not in names else spelt or None
    try:
        return ActionSchema.from_space(actions.space, fps, actions.names if names is None else names, keys)
    except UserError as failure:
        raise UserError(f"the actions of {name}: {failure}") from None


def _known(env: gymnasium.Env, name: str, actions: Actions) -> tuple[tuple[str, ...] | None, dict[str, str] | None]:
    """Names and keys by the table, for the environment's name or the package of one of its classes."""
    packages = [cls.__module__.partition(".")[0] for cls in type(env.unwrapped).__mro__]
    for known in (name, *packages):
        names, keys = KNOWN.get((known, type(actions.space).__name__), (None, None))
        size = getattr(actions.space, "n", None) or actions.space.shape[0]  # type: ignore[index]
        if names is not None and len(names) in (0, size):
            return names or None, keys
    return None, None
