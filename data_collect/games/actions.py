"""Action spaces as they come, seen as the flat ones that a schema describes.

    actions = Actions(env.action_space)
    actions.space, actions.names            # a Discrete from 0, flat MultiBinary, MultiDiscrete or Box
    env.step(actions.nested(action))        # an action of the flat space as the game wants it

Dict and Tuple are put together: choices to a MultiDiscrete, buttons alone to a MultiBinary, axes alone to a Box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from data_collect.errors import UserError

LEAVES = (spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete, spaces.Box)


class Actions:
    """The flat view `space` of the action space `given`. `UserError` where there is none: choices beside axes, text."""

    def __init__(self, given: spaces.Space) -> None:
        self.given = given
        leaves = list(_leaves(given, ()))
        kinds = {type(leaf) for _, leaf in leaves}
        if not leaves or not kinds <= set(LEAVES) or (spaces.Box in kinds and len(kinds) > 1):
            raise UserError(
                f"the action space {given} is not supported: wrap it to a Discrete, MultiBinary, MultiDiscrete or Box, "
                "or to a Dict or Tuple of choices alone or of Boxes alone"
            )
        names = [".".join(map(str, path)) for path, _ in leaves]
        parts = [leaf for _, leaf in leaves]
        buttons = all(isinstance(leaf, spaces.MultiBinary) or _is_button(leaf) for leaf in parts)
        self.names: tuple[str, ...] | None = None  # where the parts have names of their own
        if len(leaves) == 1 and isinstance(parts[0], spaces.Discrete):
            self.space: spaces.Space = spaces.Discrete(int(parts[0].n))
        elif spaces.Box in kinds:
            low, high = (np.concatenate([np.ravel(getattr(leaf, side)) for leaf in parts]) for side in ("low", "high"))
            self.space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
            self.names = _numbered(names, parts)
        elif buttons:
            self.space = spaces.MultiBinary(sum(map(_count, parts)))
            self.names = _numbered(names, parts)
        else:
            choices = np.concatenate([_choices(leaf) for leaf in parts])
            self.space = spaces.MultiDiscrete(choices)
            if (single := _numbered(names, parts)) is not None:
                self.names = tuple(f"{name} {i}" for name, size in zip(single, choices.tolist()) for i in range(size))

    def nested(self, action: Any) -> Any:
        """What the game's `step` takes, from an action of `space`."""
        return self._nested(self.given, iter(np.ravel(action).tolist()))

    def _nested(self, space: spaces.Space, values: Any) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._nested(part, values) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._nested(part, values) for part in space.spaces)
        if isinstance(space, spaces.Discrete):
            return int(next(values)) + int(space.start)
        assert isinstance(space, LEAVES) and space.shape is not None
        array = np.array([next(values) for _ in range(_count(space))]).reshape(space.shape)
        if isinstance(space, spaces.MultiDiscrete):
            array = array + space.start
        assert space.dtype is not None
        if space.dtype.kind in "iu":
            array = np.rint(array)
        return array.astype(space.dtype)


def _leaves(space: spaces.Space, path: tuple[Any, ...]) -> Any:
    """(path, space) of every part that is neither a Dict nor a Tuple."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces if isinstance(space, spaces.Dict) else {f"part{i}": p for i, p in enumerate(space.spaces)}
        for name, part in named.items():
            yield from _leaves(part, (*path, name))
    else:
        yield path, space


def _is_button(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Discrete) and space.n == 2 and space.start == 0


def _count(space: spaces.Space) -> int:
    return int(np.prod(space.shape or (), dtype=int))


def _choices(space: spaces.Space) -> np.ndarray:
    """Choices of each value of a part without axes."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.n])
    return np.ravel(space.nvec) if isinstance(space, spaces.MultiDiscrete) else np.full(_count(space), 2)


def _numbered(names: list[str], parts: list[spaces.Space]) -> tuple[str, ...] | None:
    """A name for each value: that of its part, numbered where the part has several; None for a part without a name."""
    if names == [""]:
        return None
    return tuple(
        name if _count(part) == 1 else f"{name}.{i}" for name, part in zip(names, parts) for i in range(_count(part))
    )
