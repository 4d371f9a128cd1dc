"""Real play that ends where it began: turning round once, and walks that can be taken back button by button.

    with RealGame("maze") as game:
        trip = turn_round(game, seed=90000, prompt=32)
        walk = Walk.record(game, seed=90000, attempt=0, prompt=32, frames=1500)

A trip must come back in the real game: at least half of its last frame's pixels are those of the frame before it
(within `SAME` grey levels). These are its `still` mask; the others show what moves by itself. A trip must also lead
away: at a quarter, a half and three quarters round, the real picture differs from the frame before by `AWAY` grey
levels or more (root mean square).

A game has trips through what it tells: a pose, and buttons that walk ahead and turn, or that walk into four directions
over a world that is *seen from above*. There nobody turns, and each button has a *stride* by which the picture moves.

A walk holds one button at a time (of two the turn is kept), so that the opposite button takes a step back. A step is
*clean* when it moved or turned the player as far as that button mostly does: no wall was in the way. The pose that the
game tells shows it; a model never sees that pose.

Legend: P frames of the prompt, N of the trip, H height, W width in pixels, A length of an encoded action.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_collect import players
from data_collect.games import MARKS
from data_collect.guest.match import leading
from data_collect.players.walker import PUSHED
from data_collect.schema import ActionSchema
from game_wm.evaluation.truth.game import ATTEMPTS, RealGame
from game_wm.evaluation.truth.plays import Prompt

SAME, AWAY = 8, 12.0
OPPOSITE = {"turn_left": "turn_right", "left": "right", "forward": "back", "up": "down"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
LONGEST_TURN = 720  # frames in which a game must have turned round
FIRST_STRIDE_SEED, STRIDE_FRAMES = 60_000, 300
Stride = tuple[int, int]  # pixels across and down


@dataclass
class Trip:
    """A prompt and a trip from its last frame back to it."""

    prompt: Prompt
    actions: np.ndarray  # float32 (N, A)
    frames: np.ndarray  # uint8 (N, H, W, 3)
    marks: tuple[int, ...]  # frames of the trip (the first is number 1) at which it must be away
    still: np.ndarray  # bool (H, W)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of two frames in grey levels."""
    return float(np.sqrt(np.square(a.astype(np.float64) - b).mean()))


def pose_of(info: dict[str, Any]) -> tuple[float, float, float] | None:
    """x, y and angle (radians) where the game tells them."""
    pose = info.get("map_pose", info.get("pose"))
    return None if pose is None or len(pose) != 3 else (float(pose[0]), float(pose[1]), float(pose[2]))


def wrap(angle: Any) -> Any:
    """Angles in radians, between -π and π."""
    return (angle + math.pi) % math.tau - math.pi


def lacking(game: RealGame) -> str | None:
    """Why no trip can be made in this game, if so."""
    _, info = game.env.reset(seed=0)
    if game.schema.kind != "multibinary":
        return "it has no buttons that can be held one at a time"
    if pose_of(info) is None:
        return "it tells no pose (x, y, angle)"
    turns = {"forward", "back", "turn_left", "turn_right"} <= set(game.schema.names)
    if not turns and not players.seen_from_above(game.schema):
        return "it has no buttons forward, back, turn_left and turn_right, nor left, right, up and down"
    return None


def strides(game: RealGame) -> dict[str, Stride]:
    """How far over the world each button moves a picture that is seen from above; {} where players turn."""
    if not players.seen_from_above(game.schema):
        return {}
    walk, found = Walk.record(game, FIRST_STRIDE_SEED, 0, 1, STRIDE_FRAMES), dict[str, Stride]()
    moved, actions = np.diff([place[:2] for place in walk.places], axis=0), np.array(walk.actions)
    for i, name in enumerate(game.schema.names):
        steps = moved[(actions[:, i] > 0) & moved.any(1)]
        if name in OPPOSITE and len(steps):
            across, down = np.median(steps, 0).round().astype(int).tolist()
            found[name] = (across, down)
    return found


def turn_round(game: RealGame, seed: int, prompt: int) -> Trip | None:
    """A prompt, then `turn_left` held until the pose has turned once; None where that does not work."""
    left = game.schema.decode(np.array([name == "turn_left" for name in game.schema.names], np.float32))
    for attempt in range(ATTEMPTS):
        lead = game.lead(seed, attempt, prompt)
        pose = pose_of(lead.info) if lead else None
        if lead is None or pose is None:
            continue
        frames, angles = list[np.ndarray](), [0.0]
        while len(frames) < LONGEST_TURN:
            frame, _, terminated, truncated, info = game.env.step(left)
            last, pose = pose, pose_of(info)
            assert pose is not None
            frames.append(frame.copy())
            angles.append(angles[-1] + wrap(pose[2] - last[2]))
            if terminated or truncated or abs(angles[-1]) > math.tau - abs(angles[-1] - angles[-2]) / 2:
                break
        if terminated or truncated or abs(angles[-1]) < 0.9 * math.tau:
            continue
        marks = tuple(int(np.abs(np.abs(angles) - quarter * math.pi / 2).argmin()) for quarter in (1, 2, 3))
        before = lead.play.frames[-1]
        still = (abs(before.astype(np.int64) - frames[-1]) <= SAME).all(-1)
        if still.mean() >= 0.5 and min(difference(frames[mark - 1], before) for mark in marks) >= AWAY:
            actions = np.stack([game.schema.encode(left)] * len(frames))
            return Trip(lead.prompt, actions, np.stack(frames), marks, still)
    return None


@dataclass
class Walk:
    """Real play from an episode's first frame on: T frames, the T-1 actions between them and what each did."""

    seed: int
    prompt: int
    frames: list[np.ndarray]
    actions: list[np.ndarray]  # encoded
    rewards: np.ndarray  # float (T-1,)
    clean: np.ndarray  # bool (T-1,)
    places: list[Any]  # the poses that the game tells, in pixels where it is seen from above
    marks: list[
        np.ndarray
    ]  # int8 (H, W): what `info["surface"]` marks, 0 elsewhere; none where the game has no surfaces
    pushed: np.ndarray  # bool (T-1,): whether the map's things to be pushed moved

    @staticmethod
    def record(game: RealGame, seed: int, attempt: int, prompt: int, frames: int) -> Walk:
        """At most so many frames; fewer where the game ends."""
        frame, info = game.env.reset(seed=seed)
        player_seed = int(np.random.default_rng((seed, attempt)).integers(2**31))
        leader = players.make(leading(game.schema, info), game.env, player_seed)
        leader.reset(game.env, frame, info)
        kept, actions, rewards, poses = [frame.copy()], list[np.ndarray](), list[float](), [pose_of(info)]
        places, marks, maps = [info.get("pose")], _marks(info), [_to_push(info)]
        while len(kept) < frames:
            action = one_button(game.schema, leader.act(frame, info))
            if hasattr(leader, "held"):  # the explorer learns from what its buttons did
                leader.held = tuple(name for name, on in zip(game.schema.names, action) if on)
            frame, reward, terminated, truncated, info = game.env.step(action)
            if terminated or truncated:
                break
            kept.append(frame.copy())
            actions.append(game.schema.encode(action))
            rewards.append(float(reward))
            poses.append(pose_of(info))
            places.append(info.get("pose"))
            marks += _marks(info)
            maps.append(_to_push(info))
        clean = clean_steps(np.array(poses, float), actions)
        pushed = np.array([a != b for a, b in itertools.pairwise(maps)], bool)
        return Walk(seed, prompt, kept, actions, np.array(rewards), clean, places, marks, pushed)


def _marks(info: dict[str, Any]) -> list[np.ndarray]:
    """Of one frame, or none."""
    if (surface := info.get("surface")) is None:
        return []
    return [np.clip(surface, min(MARKS.values()), 0).astype(np.int8)]


def _to_push(info: dict[str, Any]) -> bytes:
    """Where the map has things to be pushed."""
    return (np.asarray(info.get("map", ())) == PUSHED).tobytes()


def one_button(schema: ActionSchema, action: Any) -> np.ndarray:
    """The action with at most one button held: of those not cancelled by their opposites a turn, else any."""
    held = {name for name, on in zip(schema.names, action) if on}
    held = {name for name in held if name in OPPOSITE and OPPOSITE[name] not in held}
    kept = sorted(held, key=lambda name: (not name.startswith("turn_"), name))[:1]
    return np.array([name in kept for name in schema.names], np.int8)


def reversed_actions(schema: ActionSchema, actions: list[np.ndarray]) -> list[np.ndarray]:
    """The opposite buttons (encoded), last first."""
    order = [schema.names.index(OPPOSITE.get(name, name)) for name in schema.names]
    return [action[order] for action in reversed(actions)]


def clean_steps(poses_T3: np.ndarray, actions: list[np.ndarray]) -> np.ndarray:
    """Which steps moved and turned the player as far as their button mostly does: bool (T-1,)."""
    if not actions:
        return np.zeros(0, bool)
    moved = np.hypot(*np.diff(poses_T3[:, :2], axis=0).T)
    turned = wrap(np.diff(poses_T3[:, 2]))
    buttons, clean = np.stack(actions), np.ones(len(actions), bool)
    for button in np.unique(buttons, axis=0):
        same = (buttons == button).all(1)
        for change in (moved, turned):
            usual = float(np.median(change[same]))
            clean[same] &= np.abs(change[same] - usual) <= 0.02 * abs(usual) + 1e-6
    return clean
