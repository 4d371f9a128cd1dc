"""A game in a process of its own: whatever it does there to its process, ours goes on.

    with Guest("gym:my_module:MyGame-v0") as env:       # a gymnasium.Env with `action_schema`, as `games.make` gives
        frame, info = env.reset(seed=1)
        frame, reward, terminated, truncated, info = env.step(env.action_schema.noop())
        for raw, reward, terminated, truncated, frame, info in env.play([Leg("random", seed=2)], env_seed=1): ...

A game that raises (SystemExit too), is killed, or does not answer in time is one `Fault`, which says in which step; the
next `reset` starts it anew. Frames come through shared memory where the system has it to give, else through the pipe.
Of `info` come `pose`, `map_pose`, `map` and `surface`.

Its process has SDL's dummy drivers for display and sound, so that no window of its own comes up (the variable
GAME_VIDEODRIVER names another), and prints to standard error.
"""

from __future__ import annotations

import copy
import itertools
import math
import mmap
import os
import pickle
import reprlib
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from data_collect import games, players
from data_collect.errors import Fault, UserError, blamed, failed
from data_collect.guest.child import Child
from data_collect.guest.match import Leg, Match, Step, Steps
from data_collect.schema import ActionSchema

SECONDS = 60.0  # for a step or a reset, unless GAME_SECONDS says otherwise
MAKING = 5  # times as long for a game to be made
LEAVING = 2.0  # seconds that it has to close
SLOTS, MEMORY = 64, 32 << 20  # frames, and bytes of them, that a playing game may be ahead of who listens
MOST = 1 << 28  # bytes of what it says at once
LOOK = 1.0  # seconds between looks at whether a process that says nothing still runs
POSE_SIZE = 16  # more numbers are no pose


class Guest(gymnasium.Env):
    """The game `game_id` in a process of its own; `frame` and `options` as in `games.make`.

    `seconds` is how long it may take for a step or a reset. `copy.deepcopy` gives a copy of the game as it stands, in
    the same process. `UserError` where it cannot be made, of which a `Fault` is the game's.
    """

    def __init__(
        self, game_id: str, seconds: float | None = None, /, frame: tuple[int, int] | None = None, **options: Any
    ) -> None:
        self.game, self._seconds, self._options = game_id, seconds or _patience(), {"frame": frame, **options}
        self._place = 0  # which of the games in the process it is
        self._steps = 0
        self._host: Host | None = self._start()
        about = self._host.about
        self.action_schema: ActionSchema = about["schema"]
        self.replayable: bool = about["replayable"]
        self._knows_depth: bool = about["depth"]
        self.render_mode = "rgb_array"
        self.metadata = about["metadata"]
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, about["shape"], np.uint8)
        self._frame = np.zeros(about["shape"], np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._steps = 0
        *_, self._frame, info = self._alive().ask("the reset", "reset", self._place, seed, options)
        return self._frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        answer = self._playing().ask(f"step {self._steps}", "step", self._place, action)
        _, reward, terminated, truncated, self._frame, info = answer
        return self._frame, reward, terminated, truncated, info

    def play(self, legs: Sequence[Leg], env_seed: int | None = None) -> Steps:
        """Steps of an episode by players that live with the game, as `Match.play` has it.

        They play ahead of who listens, but no further than the legs go. `send` them, from the first step on, how many
        steps there may be for now, and they wait there (`next` alone: as many as there are).
        """
        begins = env_seed is not None
        host = self._alive() if begins else self._playing()
        self._steps = -1 if begins else self._steps
        seen, told, over = 0, 1, False
        host.begin_stream(mine := object(), self._place, legs, env_seed)
        try:
            while host.stream is mine:  # not another one, or a step, since
                over, number = True, self._steps + 1  # over where it raises
                answer = host.hear(f"step {number}" if number else "the reset")
                if answer is None:
                    return
                step = host.step(answer, seen)
                self._steps, self._frame, over, seen = number, step[4], False, seen + 1
                allowed = yield step
                until = min(seen + host.slots, allowed or sys.maxsize)
                if until > told and told - seen <= host.slots // 2:
                    host.post("until", until)
                    told = until
        finally:
            if host.stream is mine:
                host.end_stream(stop=not over)

    def check(self, player: str) -> None:
        """`UserError` where no such player can play this game."""
        self._alive().ask(f"player {player!r}", "check", self._place, player)

    def __getattr__(self, name: str) -> Any:
        if name == "depth" and self.__dict__.get("_knows_depth"):
            return partial(self._alive().ask, "the depth", "depth", self._place)
        raise AttributeError(name)

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The last frame."""
        return self._frame

    def close(self) -> None:
        """End the process, or let go of a copy."""
        host, self._host = self._host, None
        if host is not None and self._place:
            host.dropped.append(self._place)
        elif host is not None:
            host.end(LEAVING)

    def __deepcopy__(self, memo: dict[int, Any]) -> Guest:
        host, other = self._playing(), copy.copy(self)
        other._place = host.ask("a copy", "copy", self._place, host.dropped)
        host.dropped = []
        return other

    def __del__(self) -> None:
        if self.__dict__.get("_place"):
            self.close()

    def _start(self) -> Host:
        return Host(self.game, self._options, self._seconds)

    def _playing(self) -> Host:
        """The process, in the midst of an episode."""
        if self._host is None or self._host.ended:
            raise Fault(f"the game {self.game!r} has ended: it must be reset")
        return self._host

    def _alive(self) -> Host:
        """The process, a new one where the last has gone."""
        if self._host is not None and not self._host.ended and self._host.child.running():
            return self._host
        if self._place:
            raise Fault(f"the game {self.game!r} has ended, and this copy of it with it")
        if self._host is not None:
            self._host.end()
        try:
            self._host = self._start()
        except UserError as error:
            raise Fault(str(error)) from error
        return self._host


def _patience() -> float:
    """Seconds that a game may take."""
    given = os.environ.get("GAME_SECONDS", "")
    try:
        seconds = float(given or SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"GAME_SECONDS={given!r} is no number of seconds that a game may take for a step")
    return seconds


class Host:
    """The process of a game, seen from here: it is asked, and answers. `UserError` as in `Guest`.

    Whatever else than an answer comes of it is a `Fault`, and then it has `ended`.
    """

    def __init__(self, game_id: str, options: dict[str, Any], seconds: float) -> None:
        self.game, self.seconds, self.ended = game_id, seconds, False
        self.dropped: list[int] = []  # copies that nobody has any more
        self.stream: object = None  # the episode that is being played
        drivers = {"SDL_VIDEODRIVER": os.environ.get("GAME_VIDEODRIVER", "dummy"), "SDL_AUDIODRIVER": "dummy"}
        with _shared() as file:
            files = [] if file is None else [file]
            self.child = Child("data_collect.guest:serve", {"PYGAME_HIDE_SUPPORT_PROMPT": "1", **drivers}, files)
            try:
                asked = "make", game_id, options, _registered(game_id), file
                self.about = self.ask("its beginning", *asked, seconds=MAKING * seconds)
            except BaseException as error:
                self.end()
                if isinstance(error, Fault):  # what it is, not when
                    raise Fault(str(error).removesuffix(" (its beginning)")) from error
                raise
            slots, shape = self.about["slots"], self.about["shape"]
            self.slots, self.ring = slots or SLOTS, None
            if slots and file is not None:
                memory = mmap.mmap(file, slots * math.prod(shape))
                self.ring = np.frombuffer(memory, np.uint8).reshape(slots, *shape)

    def ask(self, where: str, *message: Any, seconds: float | None = None) -> Any:
        """The answer to a message; `where` tells in a sentence what it was about."""
        self.end_stream(stop=True)
        self.post(*message)
        answer = self.hear(where, seconds)
        return self.step(answer, 0) if message[0] in ("reset", "step") else answer

    def post(self, *message: Any) -> None:
        """Say something without waiting; who has died meanwhile is noticed by who listens."""
        with suppress(OSError):
            self.child.pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def hear(self, where: str, seconds: float | None = None) -> Any:
        """What it says next."""
        try:
            said = self._receive(where, seconds or self.seconds)
            try:
                kind, value = pickle.loads(said)
            except Exception:  # words of its own in our pipe
                raise Fault(f"the game {self.game!r} has written into what is not its own ({where})") from None
        except BaseException:
            self.end()
            raise
        if kind == "fault":
            self.end(LEAVING)
            raise Fault(f"{value} ({where})")
        if kind == "bug":
            self.end()
            raise RuntimeError(f"the process of the game {self.game!r} failed:\n{value}")
        if kind == "user":
            raise UserError(value)
        if kind == "quit":
            raise players.Quit
        return value

    def begin_stream(self, stream: object, *message: Any) -> None:
        """Have an episode played; steps are heard until None comes."""
        self.end_stream(stop=True)
        self.stream = stream
        self.post("play", *message)

    def end_stream(self, stop: bool) -> None:
        """The episode that is being played, if any, is over, or is to `stop`: what was played ahead is lost."""
        stream, self.stream = self.stream, None
        if stream is None or self.ended or not stop:
            return
        self.post("stop")
        with suppress(Fault):
            while True:
                with suppress(players.Quit):
                    if self.hear("its end") == STOPPED:
                        return

    def _receive(self, where: str, seconds: float) -> bytes:
        pipe, until = self.child.pipe, time.monotonic() + seconds
        try:
            while not pipe.poll(min(LOOK, max(0.0, until - time.monotonic()))):
                # What the game has started may hold its end of the pipe.
                if not self.child.running() and not pipe.poll(0):
                    raise EOFError
                if time.monotonic() > until:
                    raise Fault(
                        f"the game {self.game!r} did not answer within {seconds:g} seconds ({where}); "
                        f"set GAME_SECONDS to wait longer than {self.seconds:g}"
                    )
            return pipe.recv_bytes(MOST)
        except (EOFError, OSError):
            raise Fault(f"the game {self.game!r} {self.child.died()} ({where})") from None

    def step(self, answer: Any, number: int) -> Any:
        """The step that an answer holds; its picture lies in the ring where it does not hold it itself."""
        *rest, frame, info = answer
        if frame is None:
            assert self.ring is not None
            frame = self.ring[number % self.slots].copy()
        return *rest, frame, info

    def end(self, seconds: float = 0.0) -> None:
        """Let it close within so many seconds, then end it."""
        self.ended = True
        self.child.end(seconds)


@contextmanager
def _shared() -> Iterator[int | None]:
    """An empty file in memory for two processes to map; None where there is none."""
    file = None
    with suppress(OSError):
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("frames")
        elif sys.platform != "win32":
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def _registered(game_id: str) -> bytes | None:
    """What this process knows of an id that the program has registered itself, where it can be sent."""
    name = games.parse(game_id)[0].removeprefix("gym:")
    spec = gymnasium.registry.get(name)
    if spec is None or not game_id.startswith("gym:"):
        return None
    if getattr(spec.entry_point, "__module__", "") == "__main__":
        raise UserError(
            f"{name} is registered in the program that runs: put it into a module of its own, and call it "
            f"gym:MODULE:{name}"
        )
    with suppress(Exception):  # what cannot be sent is looked for there by its id
        return pickle.dumps(spec)
    return None


# --- in the game's process --------------------------------------------------------------------------------------------

SILENT, STOPPED = "silent", "stopped"  # what needs no answer; the answer to "stop"


def serve(pipe: Connection) -> None:
    """A guest's life: it answers until the pipe is closed."""
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
    """Nobody listens any more."""


class Inside:
    """What lives in a guest's process: the game, copies of it, and who plays them."""

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
            "schema": game.action_schema, "replayable": bool(getattr(game, "replayable", True)), "shape": shape,
            "metadata": _metadata(game), "depth": hasattr(game, "depth"), "slots": self._map(file, shape),
        }  # fmt: skip

    def _map(self, file: int | None, shape: tuple[int, ...]) -> int:
        """Map the file as a ring of frames of this shape; how many, 0 where there is no room for two."""
        size = math.prod(shape)
        slots = min(SLOTS, MEMORY // size)
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
        """The episode was over before it heard this."""
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
    """Of what a game tells beside a frame, what is used of it here."""
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
