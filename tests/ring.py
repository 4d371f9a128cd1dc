"""A first-person game on a ring, as seen by the suites revisit and dream, and models that dream it well or badly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from fakes import SIZE, Playing, TrueGame
from played import Torus
from torch import Tensor

from data_collect import games
from game_wm.evaluation.places import returns
from game_wm.evaluation.truth import game as truth_game
from game_wm.world import Outcome

WORLD, STEP = 96, 4  # 24 turns are 360 degrees
WALL = 12  # rows from one wall to the next
BUTTONS = ("forward", "back", "turn_left", "turn_right")
GEM = (255, 40, 132)


class Ring(Torus):
    """A torus in the first person: turning shifts the view sideways, walking up and down. One gem, taken by walking
    over its row. The first pixel of a frame also tells whether it was taken.
    """

    metadata = {"render_fps": 20.0}
    buttons = BUTTONS
    world, patch, brightest = WORLD, 8, 120

    def __init__(self, surface: bool = False, gems: int = 1) -> None:
        super().__init__(surface)
        self.gems = gems

    def begin(self, generator: np.random.Generator) -> None:
        self.row, self.column = (int(n) for n in generator.integers(WORLD, size=2))
        self.x, self.y, self.far, self.taken = 0, 0, 0, False

    def frame(self) -> np.ndarray:
        world = self.texture.copy()
        if self.gems and not self.taken:
            rows, columns = (np.arange(n, n + 8) % WORLD for n in (self.row, self.column))
            world[np.ix_(rows, columns)] = GEM
        frame = self.view(world)
        frame[0, 0] = self.x, self.y, self.taken
        return frame

    def info(self) -> dict[str, Any]:
        return {"pose": (self.far * 0.1, 0.0, -math.tau * self.x / WORLD)} | super().info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        forward, back, left, right = (int(v) for v in action)
        self.x, self.y = (self.x + STEP * (right - left)) % WORLD, (self.y + forward - back) % WORLD
        self.far += forward - back
        near = (self.row - self.y) % WORLD == SIZE // 2 and (self.column - self.x) % WORLD < SIZE - 8
        took = bool(self.gems and near and not self.taken and forward)
        self.taken |= took
        return self.frame(), float(took), False, False, self.info()


class Fake(TrueGame):
    """Dreams the ring ("perfect"), with a wall across it ("walled"), or shows the last frame for ever ("frozen")."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.frozen = kind, kind == "frozen"

    def game(self, seed: int, last: np.ndarray) -> Ring:
        game = Ring()
        game.reset(seed=seed)
        game.x, game.y, game.taken = (int(v) for v in last[0, 0])
        return game

    def step(self, state: Playing, action: Tensor, steps: int | None = None) -> tuple[Outcome, Playing]:
        if self.kind == "walled":
            held = torch.tensor([game.y % WALL == 5 for game in state.games])
            action = action.clone()
            action[held, 0] = 0  # nobody walks ahead from these rows
        outcome, state = super().step(state, action, steps)
        nothing = torch.zeros(len(action))
        return Outcome(outcome.frames, nothing, nothing), state


class Namer:
    """Names every action from two frames of the ring: a network is not what is tested here."""

    schema = Ring().action_schema

    def network(self, views: Tensor) -> Tensor:
        x, y = views[:, 1:, 0, 0, 0].long().diff(dim=1)[:, 0], views[:, 1:, 0, 0, 1].long().diff(dim=1)[:, 0]
        x, y = ((v + WORLD // 2) % WORLD - WORLD // 2 for v in (x, y))
        return torch.stack([y > 0, y < 0, x < 0, x > 0], 1).float() * 20 - 10


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every real game is `Ring`."""
    monkeypatch.setattr(games, "option_names", lambda game_id: ("surface", "gems"))
    monkeypatch.setattr(truth_game, "Forgiving", lambda game_id, tally, frame, **options: Ring(**options))
    monkeypatch.setattr(returns, "CUTS", 5)  # fewer copies of the game than in earnest
    monkeypatch.setattr(returns, "SPARE", 128)
