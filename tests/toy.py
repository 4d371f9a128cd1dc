"""A small game on a torus, a model that dreams it or shows the last frame for ever, and evaluations of that model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import TrueGame
from played import Torus

from data_collect import games
from game_wm.evaluation import evaluate, suites
from game_wm.evaluation.options import Options
from game_wm.evaluation.truth import game as truth_game

BUTTONS = ("left", "right", "up", "down")


class Toy(Torus):
    """A torus to move on; every eighth column pays, and where `ends`, the sixteenth is the last."""

    buttons = BUTTONS

    def __init__(self, ends: bool = False, surface: bool = False) -> None:
        super().__init__(surface)
        self.ends = ends

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        left, right_, up, down = (int(v) for v in action)
        self.x, self.y = (self.x + right_ - left) % 64, (self.y + down - up) % 64
        reward = float(self.x % 8 == 0 and right_ != left)
        return self.frame(), reward, self.ends and self.x == 16, False, self.info()


class Fake(TrueGame):
    """Dreams the torus ("perfect") or shows the last frame for ever ("frozen")."""

    def __init__(self, frozen: bool, ends: bool = False) -> None:
        super().__init__()
        self.frozen, self.ends = frozen, ends

    def game(self, seed: int, last: np.ndarray) -> Toy:
        game = Toy(self.ends)
        game.reset(seed=seed)
        game.x, game.y = int(last[0, 0, 0]), int(last[0, 0, 1])
        return game


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every real game is `Toy`."""
    monkeypatch.setattr(games, "option_names", lambda game_id: ("ends", "surface"))
    monkeypatch.setattr(
        truth_game, "Forgiving", lambda game_id, tally, frame, **options: Toy("ends" in game_id, **options)
    )


def checkpoint(model: Fake, path: Path | None = None) -> Any:
    return SimpleNamespace(
        contexts_frames=torch.zeros(1, 5, 1, 1, 3),
        model=model, schema=Toy().action_schema, game="toy", name="toy", parameters=5_000_000,
        trained={"frames": 1000, "hours": 0.5, "machine": "2 cores"}, path=path, check_steps=lambda steps: None,
    )  # fmt: skip


def measured(checkpoint: Any, options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and pictures of all the suites together."""
    results, pictures = dict[str, Any](), dict[str, Any]()
    for found in suites.measure(checkpoint, options):
        results |= found.results
        pictures |= found.pictures
    return results, pictures


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, frozen: bool = False) -> dict[str, Any]:
    """`evaluate` from its command line with a fake model in place of the file's."""
    path = tmp_path / "toy.safetensors"
    if not path.exists():
        path.write_bytes(b"weights")
    monkeypatch.setattr("game_wm.checkpoint.load", lambda p, device="cpu": checkpoint(Fake(frozen), Path(p)))
    monkeypatch.setattr("game_wm.evaluation.cost.measure", lambda *a, **k: {"fps_median": 70.0, "frames": a[1]})
    monkeypatch.setattr("game_wm.evaluation.cost.in_turn", lambda *a, **k: {})
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(path), *arguments]) == 0
    return json.loads((tmp_path / "toy.json").read_text())
