"""Rows trained and judged one after the other, on the same held-out episodes; what is finished is skipped.

    experiment = Experiment(protocol, rows)
    for run in experiment.carry_out(chosen={"base"}, again=set()):
        print(run.name, run.outcome)

This is the engine of `python -m train trial` and of `python -m game_wm compare`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import data_collect
from data_collect.errors import UserError
from data_collect.files import whole
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.options import FIRST_HELD_OUT_SEED
from game_wm.evaluation.truth import game as real_game
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import Truth, stack
from train.data.latents import LatentStore
from train.lab.player_run import PlayerRun
from train.lab.protocol import Protocol, Row
from train.lab.runs import Run, TokenizerRun, digest
from train.report.console import say


class Experiment:
    """The rows of a protocol, each behind those that it needs.

    `finished`: runs by name, in the order of the rows; `failed`: why others are not.
    """

    def __init__(self, protocol: Protocol, rows: list[Row]) -> None:
        self.protocol, self.rows = protocol, rows
        self.finished: dict[str, Run] = {}
        self.failed: dict[str, str] = {}

    def carry_out(self, chosen: set[str], again: set[str]) -> Iterator[Run]:
        """Train and judge what is chosen and not finished, or is to be run again; find what else is. A row that fails
        does not hold up the others."""
        truth, visits, features = real_play(self.protocol), dict[int, Any](), FeatureDistance()
        judged = repr(tuple(self.protocol.horizons)).encode()
        question = digest(truth.frames.numpy().tobytes(), truth.actions.numpy().tobytes(), judged)
        for row in self.rows:
            if row.name not in chosen and not Path(self.protocol.runs, "trials", f"{row.name}.json").exists():
                continue
            try:
                run = self.open(row, visits, row.name in chosen)
                found = None if row.name in again else run.finished(question)
                if found is None and row.name in chosen:
                    say(f"{row.name}: {row.method if row.family else row.why}")
                    if row.name in again:
                        run.forget()
                    found = run.judge(truth, features, question)
            except UserError as error:
                if row.name in chosen:
                    self.failed[row.name] = str(error)
                    say(f"{row.name}: left out: {error}")
                continue
            if found is not None:
                run.outcome = found
                self.finished[row.name] = run
                yield run

    def open(self, row: Row, visits: dict[int, Any], chosen: bool) -> Run:
        """The run of a row, with the recording encoded for it where it is to be trained. Raises `UserError`."""
        if missing := [need for need in row.needs if need not in self.finished]:
            raise UserError(f"it needs {missing[0]}, which is not there")
        if row.stage == "tokenizer":
            return TokenizerRun(self.protocol, row)
        start, tokens = (self.finished.get(name or "") for name in (row.start, row.tokens))
        assert isinstance(start, PlayerRun | None) and isinstance(tokens, TokenizerRun | None)  # see `rows.check`
        if tokens and chosen:
            tokens.encode()
        return PlayerRun(self.protocol, row, start, tokens, visits)


def real_play(protocol: Protocol) -> Truth:
    """The held-out episodes; kept under RUNS/trials until a file that they depend on changes."""
    game_id, frames = LatentStore(protocol.latents).game, max(protocol.horizons)
    seeds = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + protocol.episodes)
    files = sorted(Path(real_game.__file__).parent.glob("*.py"))
    files += sorted(Path(data_collect.__path__[0]).rglob("*.py"))
    recipe = repr((game_id, seeds, protocol.prompt, protocol.horizons)).encode()
    path = Path(protocol.runs, "trials", f"truth-{digest(recipe, *(file.read_bytes() for file in files))}.pt")
    if not path.exists():
        say(f"playing {protocol.episodes} episodes of {game_id}")
        with RealGame(game_id) as game:
            plays = [game.choose(seed, protocol.prompt, frames, protocol.horizons) for seed in seeds]
        truth = vars(stack(plays, protocol.prompt, frames))
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in truth.items()}
        own = path.with_suffix(f".{os.getpid()}")  # two protocols may run side by side
        with whole(own) as file:
            torch.save(tensors, file)
        own.replace(path)
    found = torch.load(path, weights_only=True)
    return Truth(**found | {name: found[name].numpy() for name in ("rewards", "terminated", "length")})
