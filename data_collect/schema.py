"""What an action is: the schema that travels with the data, and the network's view of an action.

    schema = ActionSchema.from_space(env.action_space, fps=20)
    vector = schema.encode(action)            # float32 (A,)
    action = schema.from_keys({"up", "left"})

An *action* is what `env.step` takes. *Raw* actions are its stored form, an array (..., D): multibinary D = buttons
(uint8), discrete D = 1 (int64), multidiscrete D = sub-actions (int64), box D = axes (float32). *Encoded* actions are
float32 (..., A): 0/1 per button, one-hot, concatenated one-hots, axes scaled to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_collect.errors import UserError
from data_collect.keys import check_keys, default_keys, is_idle, parts

KINDS = ("multibinary", "discrete", "multidiscrete", "box")


@dataclass(frozen=True)
class ActionSchema:
    """Names, ranges and keys of a game's actions. JSON round trip by `to_json` and `from_json`.

    `keys` maps a pygame key name to an action name; for a box an axis name with its direction ("steer-", "steer+").
    `fps` is game time: steps per second. Raises `UserError` when the description contradicts itself.
    """

    kind: str
    names: tuple[str, ...]
    nvec: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    keys: dict[str, str] = field(default_factory=dict, hash=False)
    fps: float = 20.0

    def __post_init__(self) -> None:
        problem = None
        if self.kind not in KINDS:
            problem = f"kind {self.kind!r} is none of {', '.join(KINDS)}"
        elif not self.names or len(set(self.names)) != len(self.names):
            problem = f"its names {list(self.names)} are empty or repeat"
        elif self.kind == "multidiscrete" and (sum(self.nvec) != len(self.names) or min(self.nvec, default=0) < 1):
            problem = f"nvec {list(self.nvec)} does not add up to {len(self.names)} names"
        elif self.kind == "box" and not len(self.low) == len(self.high) == len(self.names):
            problem = f"low and high need {len(self.names)} values each"
        elif self.kind == "box" and not (np.isfinite(self.low + self.high).all() and all(np.less(self.low, self.high))):
            problem = "the bounds of every axis must be finite, low below high"
        elif not 0 < self.fps < 10_000:
            problem = f"fps {self.fps} is not a sensible rate"
        else:
            unknown = sorted(name for name in set(self.keys.values()) if not self._nameable(name))
            there = ", ".join(self.names[:12])
            problem = f"its keys name unknown actions {unknown}; there are {there}" if unknown else None
        if problem:
            raise UserError(f"the action schema is invalid: {problem}")

    def _nameable(self, name: str) -> bool:
        if self.kind == "box":
            return name[:-1] in self.names and name[-1] in "+-"
        # Atari's smaller sets may know FIRE only inside UPFIRE.
        return name in self.names or (self.kind == "discrete" and any(name in other for other in self.names))

    @property
    def size(self) -> int:
        """A, the length of an encoded action."""
        return len(self.names)

    @property
    def width(self) -> int:
        """D, the length of a raw action."""
        return {"discrete": 1, "multidiscrete": len(self.nvec)}.get(self.kind, len(self.names))

    @property
    def dtype(self) -> np.dtype:
        """The type of raw actions."""
        return np.dtype({"multibinary": np.uint8, "box": np.float32}.get(self.kind, np.int64))

    def space(self) -> Any:
        """The `gymnasium.Space` of actions."""
        from gymnasium import spaces

        if self.kind == "multibinary":
            return spaces.MultiBinary(len(self.names))
        if self.kind == "discrete":
            return spaces.Discrete(len(self.names))
        if self.kind == "multidiscrete":
            return spaces.MultiDiscrete(np.array(self.nvec))
        return spaces.Box(np.array(self.low, np.float32), np.array(self.high, np.float32), dtype=np.float32)

    def raw(self, action: Any) -> np.ndarray:
        """Stored form (..., D) of an action, or of raw actions with leading axes; `UserError` when it is invalid."""
        try:
            value = np.asarray(action)
            if value.ndim == 0 and self.width == 1:
                value = value[None]
            value = value.astype(np.float64)
        except (TypeError, ValueError):
            raise UserError(f"{action!r} is not an action of kind {self.kind}") from None
        except OverflowError:
            raise UserError(f"an action of kind {self.kind} has no value as large as one of these") from None
        if value.ndim == 0 or value.shape[-1] != self.width:
            raise UserError(f"an action of kind {self.kind} has {self.width} values, got shape {value.shape}")
        if self.kind == "box":
            low, high = np.array(self.low), np.array(self.high)
            slack = 1e-5 * (high - low)
            valid = (value >= low - slack) & (value <= high + slack)
        else:
            valid = (value >= 0) & (value < self._limits()) & (value == np.floor(value))
        if not valid.all():
            names = ", ".join(self.names)
            raise UserError(f"invalid action of kind {self.kind} ({names}): {value[~valid][:4].tolist()}")
        return value.astype(self.dtype)

    def action(self, raw: np.ndarray) -> Any:
        """What `env.step` takes, from one raw row (D,)."""
        if self.kind == "discrete":
            return int(raw[0])
        return np.asarray(raw).astype(np.int8 if self.kind == "multibinary" else self.dtype)

    def encode(self, action: Any) -> np.ndarray:
        """float32 (..., A) of an action or of raw actions (..., D); `UserError` when it is invalid."""
        raw = self.raw(action)
        if self.kind == "multibinary":
            return raw.astype(np.float32)
        if self.kind == "box":
            low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
            return np.clip(2 * (raw - low) / (high - low) - 1, -1, 1).astype(np.float32)
        return np.concatenate([np.eye(n, dtype=np.float32)[raw[..., i]] for i, n in enumerate(self._limits())], axis=-1)

    def decode(self, vector: Any) -> Any:
        """Inverse of `encode`: (A,) gives an action, (..., A) raw actions; vectors in between, the nearest action."""
        value = np.asarray(vector, np.float32)
        if value.ndim == 0 or value.shape[-1] != self.size or not np.isfinite(value).all():
            raise UserError(f"an encoded action has {self.size} finite values, got shape {value.shape}")
        if self.kind == "multibinary":
            raw = (value > 0.5).astype(self.dtype)
        elif self.kind == "box":
            low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
            raw = (low + (np.clip(value, -1, 1) + 1) / 2 * (high - low)).astype(self.dtype)
        else:
            parts = np.split(value, np.cumsum(self._limits())[:-1], axis=-1)
            raw = np.stack([part.argmax(-1) for part in parts], axis=-1).astype(self.dtype)
        return self.action(raw) if raw.ndim == 1 else raw

    def _limits(self) -> tuple[int, ...]:
        """Choices per raw value (not for a box)."""
        if self.kind == "multibinary":
            return (2,) * len(self.names)
        return (len(self.names),) if self.kind == "discrete" else self.nvec

    def noop(self) -> Any:
        """What "no key held" does: nothing pressed, the choice named NOOP or else the first, axes nearest to zero."""
        if self.kind == "multibinary":
            return np.zeros(len(self.names), np.int8)
        if self.kind == "box":
            return np.clip(np.zeros(len(self.low)), self.low, self.high).astype(np.float32)
        raw = []
        for choices in self.groups():
            idle = [i for i, name in enumerate(choices) if is_idle(name)]
            raw.append(idle[0] if idle else 0)
        return self.action(np.array(raw, np.int64))

    def from_keys(self, held: Iterable[str]) -> Any:
        """The action of the pressed keys (pygame names, in the order in which they went down: the latest wins)."""
        wanted = [self.keys[key] for key in held if key in self.keys]
        if self.kind == "multibinary":
            return np.array([name in wanted for name in self.names], np.int8)
        if self.kind == "box":
            action = np.array(self.noop(), np.float64)
            for i, name in enumerate(self.names):
                up, down = f"{name}+" in wanted, f"{name}-" in wanted
                if up != down:
                    action[i] = self.high[i] if up else self.low[i]
            return action.astype(np.float32)
        raw = np.atleast_1d(self.noop())
        for i, choices in enumerate(self.groups()):
            best = (0, 0)
            for j, name in enumerate(choices):
                spelt = parts(name, set(self.keys.values()))
                if spelt and spelt <= set(wanted):
                    score = (len(spelt), max(wanted.index(part) + 1 for part in spelt))
                    if score > best:
                        best, raw[i] = score, j
        return self.action(raw)

    def groups(self) -> list[tuple[str, ...]]:
        """Names of the choices of each sub-action (discrete has one)."""
        if self.kind == "discrete":
            return [self.names]
        ends = np.cumsum(self.nvec)
        return [self.names[end - n : end] for n, end in zip(self.nvec, ends, strict=True)]

    def histogram(self, raw: np.ndarray) -> dict[str, int]:
        """Steps of raw actions (T, D) by action name; box: below, at, above rest as "steer-", "steer0", "steer+"."""
        if self.kind == "multibinary":
            counts = dict(zip(self.names, raw.astype(np.int64).sum(0).tolist(), strict=True))
            return {**counts, "(none)": int((raw.sum(1) == 0).sum())}
        if self.kind == "box":
            offset = (raw - self.noop()) / (np.array(self.high) - np.array(self.low))
            counts = {}
            for i, name in enumerate(self.names):
                below, above = int((offset[:, i] < -0.05).sum()), int((offset[:, i] > 0.05).sum())
                counts |= {f"{name}-": below, f"{name}0": len(raw) - below - above, f"{name}+": above}
            return counts
        return dict(zip(self.names, self.encode(raw).sum(0, dtype=np.float64).astype(int).tolist(), strict=True))

    def describe(self, action: Any) -> str:
        """An action in words: "forward+turn_left" ("-" for nothing), "UPFIRE", "left fire", "steer -1.0"."""
        raw = self.raw(action)
        if self.kind == "multibinary":
            return "+".join(name for name, held in zip(self.names, raw) if held) or "-"
        if self.kind == "box":
            axes = zip(self.names, raw, self.noop())
            return " ".join(f"{name} {value:.1f}" for name, value, rest in axes if abs(value - rest) >= 0.05) or "-"
        return " ".join(choices[i] for choices, i in zip(self.groups(), raw))

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; fields that the kind does not use are absent."""
        card: dict[str, Any] = {"kind": self.kind, "names": list(self.names), "keys": dict(self.keys), "fps": self.fps}
        card |= {"nvec": list(self.nvec)} if self.kind == "multidiscrete" else {}
        return card | ({"low": list(self.low), "high": list(self.high)} if self.kind == "box" else {})

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> ActionSchema:
        """Inverse of `to_json`; `UserError` when it is none."""
        try:
            return cls(
                kind=str(card["kind"]), names=tuple(str(name) for name in card["names"]),
                nvec=tuple(int(n) for n in card.get("nvec", ())), low=tuple(float(x) for x in card.get("low", ())),
                high=tuple(float(x) for x in card.get("high", ())), fps=float(card["fps"]),
                keys={str(key): str(name) for key, name in card.get("keys", {}).items()},
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the action schema is invalid: {error!r}") from None

    @classmethod
    def from_space(
        cls, space: Any, fps: float, names: Iterable[str] | None = None, keys: Mapping[str, str] | None = None
    ) -> ActionSchema:
        """Schema of a gymnasium Discrete, MultiBinary, MultiDiscrete or Box space; names and keys have defaults.

        `UserError`: an unsupported space, names that do not fit it, keys that no keyboard has."""
        kind, default, ranges = _of_space(space)
        given = _words(names) if names is not None else None
        chosen = given or tuple(default)
        if len(chosen) != len(default):
            raise UserError(f"{len(chosen)} action names for the {len(default)} actions of {space}")
        if keys is not None and not (isinstance(keys, Mapping) and all(isinstance(n, str) for n in keys.values())):
            raise UserError(
                f"action_keys must map keys to names of actions, such as {{'left': {chosen[0]!r}}}, not {keys}"
            )
        if keys is not None and (problem := check_keys(keys, chosen)):
            raise UserError(problem)
        keymap = dict(keys) if keys is not None else default_keys(kind, chosen)
        return cls(kind=kind, names=chosen, keys=keymap, fps=float(fps), **ranges)


def _of_space(space: Any) -> tuple[str, list[str], dict[str, Any]]:
    """The kind of a gymnasium space, default names for its actions, and its ranges. `UserError`: an unsupported one."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete) and int(space.start) == 0:
        return "discrete", [f"action{i}" for i in range(int(space.n))], {}
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return "multibinary", [f"button{i}" for i in range(space.shape[0])], {}
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1 and not np.any(space.start):
        nvec = [int(n) for n in space.nvec]
        return "multidiscrete", [f"choice{i}.{j}" for i, n in enumerate(nvec) for j in range(n)], {"nvec": tuple(nvec)}
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        ranges = {"low": tuple(map(float, space.low)), "high": tuple(map(float, space.high))}
        return "box", [f"axis{i}" for i in range(space.shape[0])], ranges
    raise UserError(
        f"the action space {space} is not supported: wrap it to a Discrete from 0 or a flat MultiBinary, "
        "MultiDiscrete from 0 or Box"
    )


def _words(names: Iterable[str]) -> tuple[str, ...]:
    """Names of actions as they were given; `UserError` where they are no list of words."""
    words = () if isinstance(names, str | Mapping) or not isinstance(names, Iterable) else tuple(names)
    if not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"action_names must be a list of words, one for each action, not {names!r}")
    return tuple(map(str, words))
