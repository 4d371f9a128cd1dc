"""There and back on a way that is led through the dream, whose own walls must not be in the way.

    guide = Guide(namer, strides(game))
    way = lead(model, guide, Prompt(90000, frames, actions), half=100)        # None where it does not get so far

A player walks ahead and turns, or walks in four directions, one button at a time, for as long as chance says. A step is
kept only if the dream shows it: the inverse-dynamics network of the suite control names its button, a model that tracks
its pose has moved as far as usual, and a picture that is seen from above has moved rather than stood still. Otherwise
the step is undone, and the player goes another way. (A turn is always kept.) The second half of the way is the opposite
buttons in reverse order.

Legend: P frames of the prompt, K given steps, N of the way, H, W pixels, A length of an encoded action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.schema import ActionSchema
from game_wm.evaluation.control import Namer, triples
from game_wm.evaluation.places.trips import AWAY, OPPOSITE, Stride, difference, reversed_actions
from game_wm.evaluation.rollout import begin_each, device_of, memory_of, round_trip
from game_wm.evaluation.truth.plays import Prompt

LEG, DRIFT = (8, 40), 0.7  # steps in one direction of four; share of the legs that lead away if they can
AHEAD, BACK, TURN = (8, 40), (6, 12), (6, 30)  # steps of a leg, the least and less than the most
TURNS = 0.4  # share of the legs that follow a leg ahead
SURE, FEW = 24, 3  # grey levels of a difference that count, pixels of a mask that do not
PATIENCE = 3  # steps tried for one that is wanted
NAMED = 0.9  # share of the actions that must be named rightly for a way to count
HELD_UP = 0.05  # by what share a step may be shorter or longer than that button's


class Way(NamedTuple):
    """Dreamt frames uint8 (N, H, W, 3) and the actions (N, A) that led to them."""

    frames: Tensor
    actions: np.ndarray


class Guide(NamedTuple):
    """What leads through a dream: what names its actions, and the strides of a game that is seen from above."""

    namer: Namer
    strides: Mapping[str, Stride] = {}


class Leader:
    """Which button is held: legs ahead with turns between them, and some steps back from where there is no way."""

    def __init__(self, schema: ActionSchema, generator: np.random.Generator) -> None:
        self.schema, self.generator, self.name = schema, generator, ""
        self.begin()

    def begin(self) -> None:
        if self.name == "back" or self.generator.random() < TURNS:
            self.turn()
        else:
            self._hold("forward", AHEAD)

    def held_up(self) -> None:
        """There is no way: away from it, or at least another way round."""
        if self.name == "forward":
            self._hold("back", BACK)
        else:
            self.turn()

    def turn(self) -> None:
        self._hold(("turn_left", "turn_right")[int(self.generator.integers(2))], TURN)

    def _hold(self, name: str, steps: tuple[int, int]) -> None:
        self.name, self.left = name, int(self.generator.integers(*steps))

    def button(self) -> np.ndarray:
        return np.array([name == self.name for name in self.schema.names], np.float32)

    def taken(self) -> None:
        self.left -= 1
        if not self.left:
            self.begin()


class Roamer(Leader):
    """The same in four directions: from one to another, mostly two that lead away, never straight back, but from where
    there is no way."""

    def begin(self) -> None:
        if not self.name:
            pairs = [(name, OPPOSITE[name]) for name in self.schema.names if name in OPPOSITE and name < OPPOSITE[name]]
            self.away = {pair[self.generator.integers(2)] for pair in pairs}
        self._turn({self.name, OPPOSITE.get(self.name)})

    def held_up(self) -> None:
        self._turn({self.name})

    turn = held_up

    def _turn(self, but: set[str | None]) -> None:
        ways = [name for name in self.schema.names if name in OPPOSITE and name not in but]
        wanted = [name for name in ways if name in self.away]
        ways = wanted if wanted and self.generator.random() < DRIFT else ways
        self._hold(ways[self.generator.integers(len(ways))], LEG)


def scrolled(before_HWC: Tensor, after_HWC: Tensor, stride: Stride, moves_HW: Tensor) -> bool:
    """Whether a picture has moved by all of this rather than by a part of it, or not at all, where it `moves`."""
    (across, down), steps = stride, max(map(abs, stride))
    height, width = moves_HW.shape
    rows, columns = (slice(max(0, -way), size - max(0, way)) for way, size in ((down, height), (across, width)))
    after, part, errors = after_HWC[rows, columns].int(), moves_HW[rows, columns], []
    for i in range(steps + 1):
        moved = before_HWC.roll((-down * i // steps, -across * i // steps), (0, 1))[rows, columns]
        errors.append(int((after - moved).abs().clamp(max=SURE)[part].sum()))
    return errors[-1] < min(errors[:-1])


def ahead(mask_HW: np.ndarray, stride: Stride) -> bool:
    """Whether the mask has some pixels where the next steps lead, in a picture that is seen from above."""
    height, width = mask_HW.shape
    across, down = stride
    far, beside = height // 4, height // 5
    rows, columns = (
        slice(
            size // 2 - (beside if not way else far * (way < 0)), size // 2 + (beside if not way else far * (way > 0))
        )
        for size, way in ((height, down), (width, across))
    )
    return bool(mask_HW[rows, columns].sum() > FEW)


def leaves_view(guide: Guide, way: Way, mask_HW: np.ndarray) -> bool:
    """Whether all that is at the mask at first is out of a picture seen from above at some point of the way."""
    strides = np.array([guide.strides.get(name, (0, 0)) for name in guide.namer.schema.names])
    moved, pixels = np.cumsum(way.actions @ strides, 0), np.argwhere(mask_HW)[:, ::-1]  # across, down
    places = pixels - moved[:, None]  # (N, pixels, 2)
    return bool(((places < 0) | (places >= mask_HW.shape[::-1])).any(-1).all(-1).any())


@torch.no_grad()
def share_named(namer: Namer, frames_NHWC: Tensor, actions_NA: Tensor) -> float:
    """Share of the actions, of one button or none, that are named rightly from the third frame on."""
    choices = torch.cat([torch.zeros(1, actions_NA.shape[1]), torch.eye(actions_NA.shape[1])])
    output = torch.cat([namer.network(view) for view in triples(frames_NHWC[None])[0].split(128)])
    likelihood = F.logsigmoid(output) @ choices.T + F.logsigmoid(-output) @ (1 - choices).T
    return float((choices[likelihood.argmax(1)] == actions_NA[2:]).all(1).float().mean())


@torch.inference_mode()
def lead(
    model: Any, guide: Guide, start: Prompt, half: int, steps: int | None = None, given: Sequence[np.ndarray] = (),
    shuns: Callable[[Tensor, str], bool] = lambda *_: False,
) -> Way | None:  # fmt: skip
    """The way, `half` steps there and as many back; None where the player is held up everywhere.

    Args:
        steps: denoiser calls a frame (the model's own number when None).
        given: the first steps (K, A), from which it is led on.
        shuns: whether a frame (H, W, 3) shows what the player must not walk into by this button: it turns at once.
    """
    state, device = begin_each(model, [start]), device_of(model)
    leader = (Roamer if guide.strides else Leader)(guide.namer.schema, np.random.default_rng((start.seed, half)))
    moves = torch.from_numpy((start.frames != start.frames[:1]).any((0, 3)))
    frames, actions, tried = [*torch.from_numpy(start.frames[-2:])], list[np.ndarray](), 0

    def step(button: np.ndarray) -> Tensor:
        nonlocal state
        outcome, state = model.step(state, torch.from_numpy(button)[None].to(device), steps)
        return outcome.frames[0].cpu()

    for button in given:
        frames.append(step(button))
        actions.append(button)
    while len(actions) < half:
        if tried == PATIENCE * half:
            return None
        tried += 1
        if shuns(frames[-1], leader.name):
            leader.turn()
            if guide.strides:  # which may lead there as well
                continue
        button = leader.button()
        action = torch.from_numpy(button)
        walks = not leader.name.startswith("turn_")
        before = state.clone() if walks else state  # a turn is never taken back
        wanted = memory_of(model).usual_length(state.memory, action[None].to(device)) if walks else None
        frame = step(button)
        free = not walks or share_named(guide.namer, torch.stack([*frames[-2:], frame]), action.expand(3, -1)) == 1
        if wanted is not None:
            free &= abs(memory_of(model).last_length(state.memory) - wanted) <= HELD_UP * wanted
        if stride := guide.strides.get(leader.name):
            free &= scrolled(frames[-1], frame, stride, moves)
        if not free:
            state = before
            leader.held_up()
            continue
        frames.append(frame)
        actions.append(button)
        leader.taken()
    back = reversed_actions(guide.namer.schema, actions)
    frames += [step(button) for button in back]
    return Way(torch.stack(frames[2:]), np.stack([*actions, *back]))


def go(model: Any, guide: Guide, start: Prompt, half: int, steps: int | None, **led: Any) -> tuple[Way | None, Tensor]:
    """The way from here if it counts, and the frame (H, W, 3) before it as the tokenizer shows it."""
    before = round_trip(model, torch.from_numpy(start.frames[None, -3:]))[0]
    way = lead(model, guide, start, half, steps, **led)
    if way is None or share_named(guide.namer, way.frames, torch.from_numpy(way.actions)) < NAMED:
        return None, before
    marks = (half // 2, half, half + half // 2)
    away = min(difference(way.frames[mark - 1].numpy(), before.numpy()) for mark in marks)
    return way if away >= AWAY else None, before
