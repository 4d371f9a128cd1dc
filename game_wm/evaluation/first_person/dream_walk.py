"""There and back on a way that is led through the dream, whose own walls must not be in the way.

    way = lead(model, namer, Prompt(90000, frames, actions), half=100)        # None where it does not get so far

A player walks ahead and turns, one button at a time, for as long as chance says. A step ahead or back is kept only if
the dream shows it: the inverse-dynamics network of the suite control names its button, and a model that tracks its
pose has moved as far as usual. Otherwise the step is undone, and the player backs off and turns. The second half of the
way is the opposite buttons in reverse order.

Legend: P frames of the prompt, K given steps, N of the way, H, W pixels, A length of an encoded action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.schema import ActionSchema
from game_wm.evaluation.control import Namer, triples
from game_wm.evaluation.first_person.trips import AWAY, difference, reversed_actions
from game_wm.evaluation.rollout import begin_each, device_of, memory_of, round_trip
from game_wm.evaluation.truth.plays import Prompt

AHEAD, BACK, TURN = (8, 40), (6, 12), (6, 30)  # steps of a leg, the least and less than the most
TURNS = 0.4  # share of the legs that follow a leg ahead
PATIENCE = 3  # steps tried for one that is wanted
NAMED = 0.9  # share of the actions that must be named rightly for a way to count
HELD_UP = 0.05  # by what share a step may be shorter or longer than that button's


class Way(NamedTuple):
    """Dreamt frames uint8 (N, H, W, 3) and the actions (N, A) that led to them."""

    frames: Tensor
    actions: np.ndarray


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


@torch.no_grad()
def share_named(namer: Namer, frames_NHWC: Tensor, actions_NA: Tensor) -> float:
    """Share of the actions, of one button or none, that are named rightly from the third frame on."""
    choices = torch.cat([torch.zeros(1, actions_NA.shape[1]), torch.eye(actions_NA.shape[1])])
    output = torch.cat([namer.network(view) for view in triples(frames_NHWC[None])[0].split(128)])
    likelihood = F.logsigmoid(output) @ choices.T + F.logsigmoid(-output) @ (1 - choices).T
    return float((choices[likelihood.argmax(1)] == actions_NA[2:]).all(1).float().mean())


@torch.inference_mode()
def lead(
    model: Any, namer: Namer, start: Prompt, half: int, steps: int | None = None, given: Sequence[np.ndarray] = (),
    shuns: Callable[[Tensor], bool] = lambda _: False,
) -> Way | None:  # fmt: skip
    """The way, `half` steps there and as many back; None where the player is held up everywhere.

    Args:
        steps: denoiser calls a frame (the model's own number when None).
        given: the first steps (K, A), from which it is led on.
        shuns: whether a frame (H, W, 3) shows what the player must not walk into: there it turns at once.
    """
    state, device = begin_each(model, [start]), device_of(model)
    leader = Leader(namer.schema, np.random.default_rng((start.seed, half)))
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
        if leader.name == "forward" and shuns(frames[-1]):
            leader.turn()
        button = leader.button()
        action = torch.from_numpy(button)
        walks = not leader.name.startswith("turn_")
        before = state.clone() if walks else state  # a turn is never taken back
        wanted = memory_of(model).usual_length(state.memory, action[None].to(device)) if walks else None
        frame = step(button)
        free = not walks or share_named(namer, torch.stack([*frames[-2:], frame]), action.expand(3, -1)) == 1
        if wanted is not None:
            free &= abs(memory_of(model).last_length(state.memory) - wanted) <= HELD_UP * wanted
        if not free:
            state = before
            leader.held_up()
            continue
        frames.append(frame)
        actions.append(button)
        leader.taken()
    back = reversed_actions(namer.schema, actions)
    frames += [step(button) for button in back]
    return Way(torch.stack(frames[2:]), np.stack([*actions, *back]))


def go(model: Any, namer: Namer, start: Prompt, half: int, steps: int | None, **led: Any) -> tuple[Way | None, Tensor]:
    """The way from here if it counts, and the frame (H, W, 3) before it as the tokenizer shows it."""
    before = round_trip(model, torch.from_numpy(start.frames[None, -3:]))[0]
    way = lead(model, namer, start, half, steps, **led)
    if way is None or share_named(namer, way.frames, torch.from_numpy(way.actions)) < NAMED:
        return None, before
    marks = (half // 2, half, half + half // 2)
    away = min(difference(way.frames[mark - 1].numpy(), before.numpy()) for mark in marks)
    return way if away >= AWAY else None, before
