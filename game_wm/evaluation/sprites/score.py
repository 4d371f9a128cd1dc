"""Sprites in free rollouts: does the dream have the ball where the game has one, and does the paddle obey?

    score = Sprites(finder(game_id))
    score.add(model, truth, rollout)
    card["sprites"] = score.result()

For each sprite, of frames 1 to 64: `game`, `dream`: share of the frames that have it. `kept`: share of the frames with
it in the game that have it in the dream. `tokenised`: the same of real frames sent through the tokenizer, of the first
episodes. `error`: distance in pixels between game and dream, where both have it, by frames of the rollout. `follows`:
of the steps on which the paddle moves in the game, the share on which it moves the same way in the dream. KEY_interval
is the 95 % bootstrap interval over episodes.

Legend: E episodes, N frames after the prompt, H height, W width in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from game_wm.evaluation import metrics
from game_wm.evaluation.rollout import DreamRollout, in_threes, round_trip
from game_wm.evaluation.sprites import Find
from game_wm.evaluation.truth.plays import Truth

FRAMES = 64
SPANS = ((1, 4), (5, 16), (17, 64))  # frames of the rollout
STEERED = "paddle"
MOVES = 0.5  # pixels from one frame to the next
ALIKE = 0.25  # of a move in the game: so much of it the dream must make


class Sprites:
    """Collects where game and dream have their sprites; `result` makes the card's `sprites` object of it."""

    def __init__(self, find: Find) -> None:
        self.find = find
        self.places: dict[str, dict[str, list[np.ndarray]]] = {"game": {}, "dream": {}, "tokenised": {}}
        self.frames = 0  # that the game has

    def add(self, model: Any, truth: Truth, dream: DreamRollout) -> None:
        """Score a batch of episodes (of the first one the model is asked for the tokenizer's round trip)."""
        first = truth.prompt - 1
        real = truth.frames[:, first : truth.prompt + FRAMES]
        made = real.clone()
        made[:, 1:] = dream.frames[:, :FRAMES]
        shown = {"game": real, "dream": made}
        if not self.places["tokenised"]:
            rows = in_threes(truth.frames[:, : truth.prompt + FRAMES])
            decoded = round_trip(model, rows).unflatten(0, (len(real), -1))
            shown["tokenised"] = decoded[:, first:]
        self.frames += int(np.minimum(truth.length, FRAMES).sum())
        for side, frames in shown.items():
            self._note(side, frames, truth.length)

    def _note(self, side: str, frames_ENHWC: Tensor, length: np.ndarray) -> None:
        """Where a side has its sprites, from the prompt's last frame on; NaN behind the game's end."""
        count, frames = frames_ENHWC.shape[:2]
        behind = np.arange(frames) > length[:, None]
        for name, places in self.find(frames_ENHWC.flatten(0, 1)).items():
            found = places.numpy().reshape(count, frames, 2)
            self.places[side].setdefault(name, []).append(np.where(behind[..., None], np.nan, found))

    def result(self) -> dict[str, Any]:
        """The card's `sprites` object."""
        return {name: self._sprite(name) for name in self.places["game"]}

    def _sprite(self, name: str) -> dict[str, Any]:
        game, dream, tokenised = (np.concatenate(side[name]) for side in self.places.values())
        there = [~np.isnan(side[:, 1:, 0]) for side in (game, dream, tokenised)]
        both, again = there[0] & there[1], there[0][: len(tokenised)]
        card: dict[str, Any] = {side: has.sum() / self.frames for side, has in zip(("game", "dream"), there)}
        _put(card, "kept", both, there[0])
        _put(card, "tokenised", again & there[2], again)
        apart = np.linalg.norm(game - dream, axis=-1)[:, 1:]
        card["error"] = {f"{a}-{b}": metrics.mean(apart[:, a - 1 : b]) for a, b in SPANS}
        if name == STEERED:
            moved, followed = np.diff(game, axis=1), np.diff(dream, axis=1)
            length = np.linalg.norm(moved, axis=-1)
            alike = (moved * followed).sum(-1) >= ALIKE * length**2  # not where the dream has none
            _put(card, "follows", (length >= MOVES) & alike, length >= MOVES)
        return card


def _put(card: dict[str, Any], name: str, right_EN: np.ndarray, asked_EN: np.ndarray) -> None:
    """The share of what is asked that is right, and its interval."""
    rows = np.stack([right_EN.sum(1), asked_EN.sum(1)], 1).astype(np.float64)
    card[name], card[f"{name}_interval"] = metrics.ratio(rows), list(metrics.bootstrap(rows, metrics.ratio))
