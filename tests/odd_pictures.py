"""Games whose pictures are odd in one way each, on the sound one: a dot on stripes, left and right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pygame
from gymnasium import spaces
from PIL import Image

SIDE = 64


class Dot(gymnasium.Env[Any, Any]):
    """The sound one: a picture of 64x64, an observation that is none, left, stay, right."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}
    observation_space: Any = spaces.Box(-1, 1, (2,), np.float32)
    action_space: Any = spaces.Discrete(3)
    length = 40

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.x, self.steps = render_mode, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.steps = int(self.np_random.integers(SIDE)), 0
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.x = (self.x + 2 * self.move(action)) % SIDE
        return self.observation(), 0.0, self.steps >= self.length, False, {}

    def move(self, action: Any) -> int:
        return int(action) - 1

    def observation(self) -> Any:
        return np.zeros(2, np.float32)

    def picture(self) -> np.ndarray:
        """uint8 (64, 64, 3)."""
        picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
        picture[:, ::16] = 90
        picture[28:36, self.x : self.x + 6] = (250, 200, 50)
        return picture

    def render(self) -> Any:
        return self.picture()


# --- what an inspection finds -----------------------------------------------------------------------------------------


class Deaf(Dot):
    """Moves by itself, whatever the action."""

    def move(self, action: Any) -> int:
        return 1


class HalfDeaf(Dot):
    """Fire does what nothing does."""

    metadata = Dot.metadata | {"action_names": ["noop", "right", "fire"]}

    def move(self, action: Any) -> int:
        return int(action == 1)


class Black(Dot):
    """Shows nothing, as a window that is covered."""

    def render(self) -> Any:
        return np.zeros((SIDE, SIDE, 3), np.uint8)


class Brief(Dot):
    """Over after six steps."""

    length = 6


# --- what it gives for a picture --------------------------------------------------------------------------------------

# Every way to give the same picture; `render` of `Shown-v0?way=NAME`.
WAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "rgb": lambda p: p,
    "rgba": lambda p: np.dstack([p, np.full((SIDE, SIDE), 255, np.uint8)]),
    "clear": lambda p: np.dstack([p, np.zeros((SIDE, SIDE), np.uint8)]),
    "first": lambda p: p.transpose(2, 0, 1),
    "floats": lambda p: (p / 255).astype(np.float32),
    "doubles": lambda p: p / 255,
    "halves": lambda p: p.astype(np.float16),
    "floats255": lambda p: p.astype(np.float32),
    "int64": lambda p: p.astype(np.int64),
    "uint16": lambda p: p.astype(np.uint16),
    "listed": lambda p: [p],
    "frames": lambda p: [p * 0, p // 2, p],
    "tuple": lambda p: (p,),
    "batch": lambda p: p[None],
    "lists": lambda p: p.tolist(),
    "flipped": lambda p: np.asfortranarray(p)[::-1][::-1],
    "read_only": lambda p: np.frombuffer(p.tobytes(), np.uint8).reshape(p.shape),
    "pil": Image.fromarray,
    "palette": lambda p: Image.fromarray(p).convert("P", palette=Image.Palette.ADAPTIVE),
    "surface": lambda p: pygame.surfarray.make_surface(p.swapaxes(0, 1)),
}
# Grey ones: the red channel of the picture.
GREY: dict[str, Callable[[np.ndarray], Any]] = {
    "grey": lambda p: p[..., 0],
    "grey1": lambda p: p[..., :1],
    "grey_alpha": lambda p: np.dstack([p[..., 0], p[..., 0] * 0]),
    "grey_first": lambda p: p[None, ..., 0],
    "grey_floats": lambda p: p[..., 0] / 255,
    "grey_pil": lambda p: Image.fromarray(p[..., 0]),
}
# And what is no picture, with what the sentence says of it.
NONE: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "nil": (lambda p: None, "render() gave None"),
    "text": (lambda p: "##..#", "an object of type str"),
    "vector": (lambda p: p[0, :, 0], "uint8 of shape (64,)"),
    "empty": (lambda p: [], "a list of 0"),
    "nones": (lambda p: [None], "a list of 1, None the last"),
    "dict": (lambda p: {"rgb": p}, "a dict of rgb"),
    "number": (lambda p: 3.5, "an object of type float"),
    "five": (lambda p: np.dstack([p, p[..., :2]]), "uint8 of shape (64, 64, 5)"),
    "several": (lambda p: np.stack([p, p]), "uint8 of shape (2, 64, 64, 3)"),
    "nothing": (lambda p: p[:0], "uint8 of shape (0, 64, 3)"),
    "negative": (lambda p: p.astype(np.int16) - 200, "values from -160 to 50"),
    "deep": (lambda p: p.astype(np.uint16) * 257, "values from 10280 to 64250"),
    "centred": (lambda p: p / 127.5 - 1, "values from -0."),
    "nan": (lambda p: p * np.nan, "values from nan to nan"),
    "objects": (lambda p: p.astype(object), "object of shape (64, 64, 3)"),
}


class Shown(Dot):
    """Gives its picture in one of these ways."""

    def __init__(self, way: str = "rgb", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.way = ({name: way for name, (way, _) in NONE.items()} | WAYS | GREY)[way]

    def render(self) -> Any:
        return self.way(self.picture())


class Growing(Dot):
    """A window that somebody scales, after five steps."""

    def render(self) -> Any:
        return self.picture().repeat(1 + (self.steps > 5), 0).repeat(1 + (self.steps > 5), 1)


class Brightens(Dot):
    """Floats from 0 to 1 at first, then bytes as floats."""

    def render(self) -> Any:
        return self.picture() / (255 if self.steps < 5 else 1)


class Reused(Dot):
    """Its observation is one array, drawn over again and again."""

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
    buffer = np.zeros((SIDE, SIDE, 3), np.uint8)

    def observation(self) -> Any:
        self.buffer[:] = self.picture()
        return self.buffer


# Observations of a game that may not render; the entry that is the picture, and the picture that it shows.
SEEN: dict[str, tuple[spaces.Space, Callable[[np.ndarray], Any]]] = {
    "rgb": (spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8), lambda p: p),
    "dict": (
        spaces.Dict(
            {"map": spaces.Box(0, 255, (9, 9), np.uint8), "image": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)}
        ),
        lambda p: {"map": p[:9, :9, 0], "image": p},
    ),
    "tuple": (spaces.Tuple([spaces.Discrete(4), spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)]), lambda p: (1, p)),
    "floats": (spaces.Box(0, 1, (SIDE, SIDE, 3), np.float32), lambda p: (p / 255).astype(np.float32)),
    "first": (spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8), lambda p: p.transpose(2, 0, 1)),
    "stack": (spaces.Box(0, 255, (2, SIDE, SIDE, 3), np.uint8), lambda p: np.stack([p * 0, p])),
    "grey": (spaces.Box(0, 255, (SIDE, SIDE), np.uint8), lambda p: p[..., 0]),
    "grey1": (spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8), lambda p: p[..., :1]),
    "grey_stack": (
        spaces.Box(0, 255, (4, SIDE, SIDE), np.uint8), lambda p: np.stack([p[..., 1], p[..., 2], p[..., 1], p[..., 0]])
    ),
    "grey_stack_last": (
        spaces.Box(0, 255, (SIDE, SIDE, 4), np.uint8), lambda p: np.dstack([p[..., 1], p[..., 2], p[..., 1], p[..., 0]])
    ),
    "symbols": (spaces.Box(0, 255, (7, 7, 3), np.uint8), lambda p: p[:7, :7] // 64),
    "wide_symbols": (spaces.Box(0, 255, (48, 48, 3), np.uint8), lambda p: p[:48, :48] // 16),
}  # fmt: skip


class Seen(Dot):
    """Observations of one kind; `drawn`: it renders its picture as well."""

    def __init__(self, kind: str = "rgb", drawn: bool = False, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space, self.way = SEEN[kind]
        self.drawn = drawn

    def observation(self) -> Any:
        return self.way(self.picture())

    def render(self) -> Any:
        return self.picture() if self.drawn else super(Dot, self).render()
