"""What runs in a guest's process: the game, its copies and their agents. `serve` answers what a `Host` asks."""

from __future__ import annotations

import copy
import itertools
import math
import mmap
import os
import pickle
import reprlib
import traceback
from collections.abc import Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from data_collect import games, players
from data_collect.errors import Fault, UserError, blamed, failed
from data_collect.guest.match import Leg, Match, Step

SLOTS, RING_BYTES = 64, 32 << 20  # frames, and bytes of them, that the game may play ahead
POSE_SIZE = 16  # more numbers are no pose
SILENT, STOPPED = "silent", "stopped"  # what needs no answer; the answer to "stop"


def serve(pipe: Connection) -> None:
    """Answer what the host asks until the pipe is closed."""
    inside = Inside(pipe)
    with suppress(EOFError, OSError):
        while True:
            what, *arguments = inside.hear()
            answer: tuple[str, Any]
            try:
                answer = "done", getattr(inside, what)(*arguments)
            except players.Quit:
                answer = "quit", None
            except Fault as error:
                answer = "fault", str(error)
            except UserError as error:
                answer = "user", str(error)
            except Gone:
                break
            except Exception:
                answer = "bug", traceback.format_exc()
            if answer[1] is not SILENT:
                inside.tell(*answer)
    inside.close()


class Gone(Exception):
    """The host has closed the pipe."""


class Inside:
    """What runs in a guest's process: the game, copies of it, and the agents that play them."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.matches: dict[int, Match] = {}
        self.numbers = itertools.count()
        self.ring: np.ndarray | None = None

    def hear(self) -> Any:
        return pickle.loads(self.pipe.recv_bytes())

    def tell(self, kind: str, value: Any) -> None:
        self.pipe.send_bytes(pickle.dumps((kind, value), pickle.HIGHEST_PROTOCOL))

    def make(self, game_id: str, options: dict[str, Any], spec: bytes | None, file: int | None) -> dict[str, Any]:
        """Make the game; what there is to know of it, and how many slots the ring of frames has."""
        self.what = f"the game {game_id!r}"
        try:
            if spec is not None:
                with suppress(ImportError, AttributeError):
                    known = pickle.loads(spec)
                    gymnasium.registry.setdefault(known.id, known)
            game: Any = games.make(game_id, **options)
        except UserError:
            raise
        except BaseException as error:
            raise failed(self.what, error) from error
        self.matches[next(self.numbers)] = Match(game, self.what)
        shape = game.observation_space.shape
        return {
            "game": games.with_options(game_id, getattr(game, "found", {})),
            "schema": game.action_schema, "replayable": bool(getattr(game, "replayable", True)), "shape": shape,
            "metadata": _metadata(game), "depth": hasattr(game, "depth"), "slots": self._map(file, shape),
        }  # fmt: skip

    def _map(self, file: int | None, shape: tuple[int, ...]) -> int:
        """Map the file as a ring of frames of this shape; how many, 0 where there is no room for two."""
        size = math.prod(shape)
        slots = min(SLOTS, RING_BYTES // size)
        if file is None or slots < 2:
            return 0
        try:
            os.ftruncate(file, slots * size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, slots * size)
            memory = mmap.mmap(file, slots * size)
        except OSError:
            return 0
        self.ring = np.frombuffer(memory, np.uint8).reshape(slots, *shape)
        return slots

    def reset(self, place: int, seed: int | None, options: dict | None) -> Step:
        return self._pack(0, self.matches[place].reset(seed, options))

    def step(self, place: int, action: Any) -> Step:
        return self._pack(0, self.matches[place].step(action))

    def play(self, place: int, legs: Sequence[Leg], env_seed: int | None) -> str | None:
        """Tell the steps of an episode, of which the first may be played at once; at last None, or that it stopped."""
        until = 1
        with closing(self.matches[place].play(legs, env_seed)) as steps:
            for number, step in enumerate(steps):
                packed = self._pack(number, step)
                try:
                    self.tell("done", packed)
                    while until <= number + 1:
                        what, *frames = self.hear()
                        if what == "stop":
                            return STOPPED
                        until = frames[0]
                except (EOFError, OSError):
                    raise Gone from None
        return None

    def until(self, frames: int) -> str:
        """The episode was over before this message arrived."""
        return SILENT

    def stop(self) -> str:
        """The same."""
        return STOPPED

    def check(self, place: int, player: str) -> None:
        players.make(player, self.matches[place].env)

    def depth(self, place: int, poses: np.ndarray, height: int, width: int) -> np.ndarray:
        return self.matches[place].env.depth(poses, height, width)

    def copy(self, place: int, dropped: list[int]) -> int:
        """The number of a copy; those that were dropped go."""
        for number in dropped:
            self.matches.pop(number)
        number = next(self.numbers)
        self.matches[number] = copy.deepcopy(self.matches[place])
        return number

    def close(self) -> None:
        """Let the games go, whatever they say to it."""
        for match in self.matches.values():
            with suppress(BaseException):
                match.env.close()

    def _pack(self, number: int, step: Step) -> Step:
        """A step as it is sent: plain values, and None for a frame that lies in the ring."""
        raw, reward, terminated, truncated, frame, info = step
        given: Any = frame
        with blamed(self.what):
            if self.ring is not None and frame.shape == self.ring.shape[1:] and frame.dtype == np.uint8:
                self.ring[number % len(self.ring)] = frame
                given = None
            return raw, float(reward), bool(terminated), bool(truncated), given, told(info)


def _metadata(game: Any) -> dict[str, Any]:
    """Rate and note, as the games of `games.make` have them."""
    known = {"render_modes": ["rgb_array"], "render_fps": game.action_schema.fps}
    return known | ({"note": game.metadata["note"]} if "note" in game.metadata else {})


def told(info: dict[str, Any]) -> dict[str, Any]:
    """The entries of a game's `info` that are used here, as arrays that can be sent."""
    kept: dict[str, Any] = {name: _pose(info[name]) for name in ("pose", "map_pose") if name in info}
    for name in ("map", "surface"):
        with suppress(Exception):
            array = np.asarray(info[name])
            if array.ndim == 2 and array.dtype.kind in "biuf":
                kept[name] = array
    return kept


def _pose(value: Any) -> Any:
    """A pose as it was given where it is a few numbers, else what there is to say of it."""
    if value is None or (isinstance(value, (tuple, list)) and len(value) <= POSE_SIZE and all(map(_number, value))):
        return value
    with suppress(Exception):
        array = np.asarray(value)
        if array.size <= POSE_SIZE and array.dtype.kind in "biuf":
            return array
    return value[:POSE_SIZE] if isinstance(value, str) else reprlib.repr(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))
