"""Controllability: a network that names the action between real frames is asked to name it between generated ones.

    names = inverse_dynamics(game, "maze", cache=Path("runs/evaluation"))
    score = Control(names)
    score.add(truth, dream)
    card["control"] = score.result()

The inverse-dynamics network is a small convolutional one over three successive frames (t-1, t, t+1), trained on the
real game under the same random-sticky play on seeds of its own (80000 and on), with fixed random seeds. Real and
dreamt frames are asked at the same positions of the same plays under the same actions, from the third generated frame
on, so that no real frame helps. Some actions cannot be told apart even in the real game (walking against a wall, two
opposite buttons): they cost both sides alike, and `ratio`, dream over real, is what counts.

`real` and `dream`: share of actions named wholly right (every button; every sub-action; for continuous axes, each
within 0.25 where an axis runs from -1 to 1, averaged over axes). `chance`: what always naming the commonest action
would get.

Legend: B frames, E episodes, N frames after the prompt, A length of an encoded action, G parts of an action (buttons,
sub-actions or axes).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_collect.schema import ActionSchema
from game_wm.evaluation.metrics import bootstrap, mean, ratio
from game_wm.evaluation.rollout import Dream, RealGame, Truth

VERSION = 1  # of the network and its training; part of the cache's key
FIRST_SEED = 80_000
PLAYS, PLAY_FRAMES = 96, 192
UPDATES, BATCH = 1500, 64
TOLERANCE = 0.25
LARGEST = 128  # larger frames are shrunk to this many pixels a side


class InverseDynamics(nn.Module):
    """Three successive frames -> what was done between the second and the third, as logits or axis values (B, A)."""

    def __init__(self, height: int, width: int, actions: int) -> None:
        super().__init__()
        widths = (32, 64, 96, 128)
        layers: list[nn.Module] = [
            nn.Conv2d(9, widths[0], 5, stride=2, padding=2),
            nn.GroupNorm(4, widths[0]),
            nn.SiLU(),
        ]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(widths[-1] * 16, 256), nn.SiLU(), nn.Linear(256, actions))
        self.size = (min(height, LARGEST), min(width, LARGEST))

    def forward(self, frames_B3HWC: Tensor) -> Tensor:
        """uint8 (B, 3, H, W, 3) -> (B, A)."""
        images = frames_B3HWC.permute(0, 1, 4, 2, 3).flatten(1, 2).float().div(255)  # (B, 9, H, W)
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="area")
        # changes beside the picture: they are what an action shows in
        newest = images[:, 6:]
        changes = torch.cat([newest - images[:, 3:6], images[:, 3:6] - images[:, :3], newest - 0.5], 1)
        return self.head(self.trunk(changes))


def triples(frames_ENHWC: Tensor) -> Tensor:
    """Frames (E, N, H, W, 3) -> views (E, N-2, 3, H, W, 3) of each three successive ones."""
    return torch.stack([frames_ENHWC[:, i : frames_ENHWC.shape[1] - 2 + i] for i in range(3)], 2)


def groups(schema: ActionSchema) -> list[slice]:
    """The slices of an encoded action in which exactly one is set (discrete kinds); else one per button or axis."""
    if schema.kind in ("discrete", "multidiscrete"):
        sizes = schema.nvec or (schema.size,)
        ends = np.cumsum(sizes).tolist()
        return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return [slice(i, i + 1) for i in range(schema.size)]


def loss(schema: ActionSchema, output_BA: Tensor, actions_BA: Tensor) -> Tensor:
    """Training loss of the inverse dynamics for the schema's kind."""
    if schema.kind == "multibinary":
        return F.binary_cross_entropy_with_logits(output_BA, actions_BA)
    if schema.kind == "box":
        return F.smooth_l1_loss(output_BA, actions_BA, beta=0.25)
    terms = [F.cross_entropy(output_BA[:, part], actions_BA[:, part].argmax(1)) for part in groups(schema)]
    return torch.stack(terms).mean()


def right(schema: ActionSchema, output_BA: Tensor, actions_BA: Tensor) -> Tensor:
    """Which parts of each action are named right: bool (B, G)."""
    if schema.kind == "multibinary":
        return (output_BA > 0) == (actions_BA > 0.5)
    if schema.kind == "box":
        return (output_BA - actions_BA).abs() <= TOLERANCE
    parts = [output_BA[:, p].argmax(1) == actions_BA[:, p].argmax(1) for p in groups(schema)]
    return torch.stack(parts, 1)


class Namer:
    """A trained inverse-dynamics network with the schema that it speaks."""

    def __init__(self, network: InverseDynamics, schema: ActionSchema) -> None:
        self.network, self.schema = network.eval(), schema

    @torch.no_grad()
    def __call__(self, frames_ENHWC: Tensor) -> Tensor:
        """Frames (E, N, H, W, 3) -> outputs (E, N-2, A) for the actions that led to frames 2 … N-1."""
        return torch.stack(
            [torch.cat([self.network(part) for part in triples(f[None])[0].split(128)]) for f in frames_ENHWC]
        )


def inverse_dynamics(
    game: RealGame,
    game_id: str,
    cache: Path | None = None,
    plays: int = PLAYS,
    updates: int = UPDATES,
    tick: Callable[[int], None] = lambda count: None,
) -> Namer:
    """Train the network on real play, or take it from `cache` (a folder) where the same one was trained before.

    `tick` is told of each play recorded and each update made.
    """
    schema = game.schema
    recipe = {"version": VERSION, "game": game_id, "schema": schema.to_json(), "plays": plays, "updates": updates}
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    file = cache / f"inverse-{key}.safetensors" if cache else None
    height, width = game.env.observation_space.shape[:2]  # type: ignore[index]
    torch.manual_seed(0)
    network = InverseDynamics(height, width, schema.size)
    if file and file.exists():
        network.load_state_dict(load_file(file))
        return Namer(network, schema)

    frames, actions = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + plays):
        play = game.choose(seed, 2, PLAY_FRAMES)
        tick(1)
        if len(play.frames) >= 3:
            frames.append(torch.from_numpy(np.stack(play.frames)))
            actions.append(torch.from_numpy(np.stack(play.actions)))
    where = [(i, t) for i, a in enumerate(actions) for t in range(1, len(a))]
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=updates)
    draw = np.random.default_rng(0)
    network.train()
    for _ in range(updates):
        picked = [where[i] for i in draw.integers(len(where), size=BATCH)]
        batch = torch.stack([frames[i][t - 1 : t + 2] for i, t in picked])
        error = loss(schema, network(batch), torch.stack([actions[i][t] for i, t in picked]))
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        schedule.step()
        tick(1)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        save_file(network.state_dict(), partial)
        partial.replace(file)
    return Namer(network, schema)


class Control:
    """Collects, per episode, the share of actions named right from real and from dreamt frames."""

    def __init__(self, namer: Namer) -> None:
        self.namer = namer
        self.real: list[np.ndarray] = []  # bool (n, G) an episode
        self.dream: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []  # (n, A)
        self.outputs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, truth: Truth, dream: Dream) -> None:
        """Score a batch of episodes."""
        schema, first = self.namer.schema, truth.prompt + 1  # the action that led to the third frame after the prompt
        for i, length in enumerate(truth.length):
            if length < 3:
                continue
            n = int(length)
            real = self.namer(truth.after[i : i + 1, :n])[0]
            made = self.namer(dream.frames[i : i + 1, :n])[0]
            actions = truth.actions[i, first : first + n - 2]
            self.real.append(right(schema, real, actions).numpy())
            self.dream.append(right(schema, made, actions).numpy())
            self.actions.append(actions.numpy())
            self.outputs.append((real.numpy(), made.numpy()))

    def result(self) -> dict[str, Any]:
        """The card's `control` object."""
        schema = self.namer.schema
        card: dict[str, Any] = {}
        for name, rows in (("real", self.real), ("dream", self.dream)):
            shares = np.array([self._whole(row) for row in rows])
            card[name], card[f"{name}_interval"] = mean(shares), list(bootstrap(shares))
        pairs = np.array([(self._whole(d), self._whole(r)) for d, r in zip(self.dream, self.real, strict=True)])
        card["ratio"], card["ratio_interval"] = ratio(pairs), list(bootstrap(pairs, ratio))
        names = (
            schema.names if schema.kind in ("multibinary", "box") else [f"part {i}" for i in range(len(groups(schema)))]
        )
        if len(names) > 1:
            real, dream = np.concatenate(self.real).mean(0), np.concatenate(self.dream).mean(0)
            card["parts"] = {
                n: {"real": float(r), "dream": float(d)} for n, r, d in zip(names, real, dream, strict=True)
            }
        every = np.concatenate(self.actions)
        if schema.kind == "box":
            spread = np.square(every - every.mean(0)).sum()
            for i, name in enumerate(("real", "dream")):
                off = np.concatenate([pair[i] for pair in self.outputs]) - every
                card[f"{name}_r2"] = float(1 - np.square(off).sum() / max(spread, 1e-9))
        else:
            _, counts = np.unique(every, axis=0, return_counts=True)
            card["chance"] = float(counts.max() / len(every))
        card["frames"] = len(every)
        return card

    def _whole(self, parts: np.ndarray) -> float:
        return float(parts.mean() if self.namer.schema.kind == "box" else parts.all(1).mean())
