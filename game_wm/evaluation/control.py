"""Controllability: a network that names the action between real frames is asked to name it between generated ones.

    names = inverse_dynamics(game, "maze", cache=Path("runs/evaluation"))
    score = Control(names)
    score.add(model, truth, dream)
    card["control"] = score.result()

The inverse-dynamics network is a small convolutional one over three successive frames (t-1, t, t+1). It is trained on
random-sticky play of the real game, on seeds of its own (80000 and on). It is asked about real and dreamt frames at the
same positions under the same actions, from the third generated frame on, so that no real frame helps.

Some actions always look alike (two opposite buttons, and none). They count as one: on real plays that the network was
not trained on, each action gets the name that it mostly gets (`names`: how many of how many are left). Others look
alike at times (walking against a wall). That costs real and dreamt frames the same, so judge by `ratio`, dream over
real.

`real`, `dream`: share of actions named wholly right: every button, every sub-action; a continuous axis within 0.25 of
its range of 2, averaged over axes. `chance`: what the commonest name alone gets. `tokenised_ratio`: the ratio for
tokenised real frames of the first 16 episodes, which is what the tokenizer's blur alone costs.

Legend: B frames, E episodes, N frames after the prompt, A length of an encoded action, G parts of an action (buttons,
sub-actions or axes).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from data_collect.files import whole
from data_collect.schema import ActionSchema
from game_wm.evaluation.metrics import figure, ratio
from game_wm.evaluation.options import Options
from game_wm.evaluation.report.progress import progress
from game_wm.evaluation.rollout import DreamRollout, in_threes, round_trip
from game_wm.evaluation.truth.game import ATTEMPTS, Pace, RealGame, Tick, TooShort, no_tick
from game_wm.evaluation.truth.plays import Truth
from game_wm.training import descend

VERSION = 2  # of the network and its training; part of the cache's key
FIRST_NAMER_SEED = 80_000
PLAYS, PLAY_FRAMES = 192, 192
UPDATES, BATCH = 3000, 64
TOLERANCE = 0.25
Plays = list[tuple[Tensor, Tensor]]  # frames uint8 (N, H, W, 3) and encoded actions (N-1, A) of each play
LARGEST = 128  # larger frames are shrunk to this many pixels a side


class InverseDynamics(nn.Module):
    """Three successive frames -> what was done between the second and the third, as logits or axis values (B, A)."""

    def __init__(self, height: int, width: int, actions: int) -> None:
        super().__init__()
        widths, layers = (32, 64, 96, 128), list[nn.Module]()
        layers += [nn.Conv2d(9, widths[0], 5, stride=2, padding=2), nn.GroupNorm(4, widths[0]), nn.SiLU()]
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


def lacking(schema: ActionSchema) -> str | None:
    """Why no action of this schema can be told from another, if so."""
    sizes = {"discrete": schema.size, "multidiscrete": max(schema.nvec or (1,)), "multibinary": 1 + schema.size}
    choices = sizes.get(schema.kind, 1 + sum(low < high for low, high in zip(schema.low or (), schema.high or ())))
    return None if choices > 1 else "it has a single action"


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


def named(schema: ActionSchema, output_BA: Tensor) -> Tensor:
    """The encoded action (B, A) that an output of the network names."""
    if schema.kind == "box":
        return output_BA.clamp(-1, 1)
    if schema.kind == "multibinary":
        return (output_BA > 0).float()
    parts = [F.one_hot(output_BA[:, p].argmax(1), p.stop - p.start) for p in groups(schema)]
    return torch.cat(parts, 1).float()


def right(schema: ActionSchema, named_BA: Tensor, actions_BA: Tensor) -> Tensor:
    """Which parts of each action are named right: bool (B, G)."""
    close = (named_BA - actions_BA).abs() <= TOLERANCE
    return torch.stack([close[:, part].all(1) for part in groups(schema)], 1)


class Namer:
    """A trained inverse-dynamics network, the schema that it speaks, and what each action is called.

    `aliases`: encoded action -> the encoded action that looks like it; an action that is not in it is called itself.
    """

    def __init__(self, network: InverseDynamics, schema: ActionSchema) -> None:
        self.network, self.schema, self.aliases = network.eval(), schema, dict[tuple, tuple]()

    @torch.no_grad()
    def __call__(self, frames_NHWC: Tensor) -> Tensor:
        """Successive frames (N, H, W, 3) -> names (N-2, A) of the actions that led to frames 2 … N-1."""
        views = triples(frames_NHWC[None])[0].split(128)
        return self.call(named(self.schema, torch.cat([self.network(view) for view in views])))

    def call(self, actions_BA: Tensor) -> Tensor:
        """The names (B, A) of actions (B, A)."""
        if not self.aliases:
            return actions_BA
        return torch.tensor([self.aliases.get(row, row) for row in map(tuple, actions_BA.tolist())])

    def learn_aliases(self, plays: Plays, least: int = 20) -> None:
        """Call each action what the network mostly says where it is done (at least so many times) in real plays."""
        if self.schema.kind == "box":
            return
        said: dict[tuple, Counter[tuple]] = {}
        for frames, actions in plays:
            for action, name in zip(actions[1:].tolist(), self(frames).tolist(), strict=True):
                said.setdefault(tuple(action), Counter())[tuple(name)] += 1
        enough = {action: counts for action, counts in said.items() if counts.total() >= least}
        self.aliases = {action: counts.most_common(1)[0][0] for action, counts in enough.items()}


def inverse_dynamics(
    game: RealGame, game_id: str, cache: Path | None = None, plays: int = PLAYS, updates: int = UPDATES,
    tick: Tick = no_tick, attempts: int = ATTEMPTS,
) -> Namer:  # fmt: skip
    """The network, trained on real play with `attempts` as in `RealGame.find`, or from the folder `cache` (`trained`).

    `tick` is told of each play recorded and each update made. Raises `TooShort` when no play has three frames.
    """
    schema, kept = game.schema, max(1, plays // 6)  # plays not trained on: they tell what each action is called
    prompt, frames = game.pace.cut(2, PLAY_FRAMES)

    def record(seeds: range) -> Iterator[tuple[Tensor, Tensor]]:
        for seed in seeds:
            play = game.find(seed, prompt, frames, attempts=attempts)
            tick(1)
            if play is not None and len(play.frames) >= 3:
                yield torch.from_numpy(np.stack(play.frames)), torch.from_numpy(np.stack(play.actions))

    heard = list(record(range(FIRST_NAMER_SEED, FIRST_NAMER_SEED + kept)))
    if not heard:
        raise TooShort(game.game_id, 3, game.pace, game.lasted or [1])
    torch.manual_seed(0)
    height, width = heard[0][0].shape[1:3]
    network = InverseDynamics(height, width, schema.size)
    recipe = {"version": VERSION, "game": game_id, "schema": schema.to_json(), "plays": plays, "updates": updates}
    recipe |= {} if game.pace == Pace() else {"pace": [*game.pace.warm_up, frames]}
    recipe |= {} if attempts == ATTEMPTS else {"attempts": attempts}

    def train() -> None:
        learnt = list(record(range(FIRST_NAMER_SEED + kept, FIRST_NAMER_SEED + plays)))
        where = [(i, t) for i, (_, actions) in enumerate(learnt) for t in range(1, len(actions))]
        draw = np.random.default_rng(0)

        def error(_: int) -> Tensor:
            picked = [where[i] for i in draw.integers(len(where), size=BATCH)]
            batch = torch.stack([learnt[i][0][t - 1 : t + 2] for i, t in picked])
            return loss(schema, network(batch), torch.stack([learnt[i][1][t] for i, t in picked]))

        fit(network, "inverse dynamics", 2e-3, updates, error, tick)

    if not trained(network, "inverse", cache, recipe, heard[0][0], train):
        tick(plays - kept + updates)
    namer = Namer(network, schema)
    namer.learn_aliases(heard)
    return namer


def trained_namer(game: RealGame, options: Options) -> Namer:
    """The network that the options ask for, its training shown as it goes."""
    plays = options.inverse_plays or options.share(PLAYS)
    updates = options.inverse_updates or options.share(UPDATES)
    with progress("inverse dynamics", plays + updates, options.deadline) as tick:
        return inverse_dynamics(game, game.game_id, options.cache, plays, updates, tick, options.share(ATTEMPTS))


def trained(
    network: nn.Module, name: str, cache: Path | None, recipe: Any, shown: Tensor, train: Callable[[], None]
) -> bool:
    """Train a network, or take it from `cache` where it was trained by this recipe before; whether it was trained now.

    `shown` are frames of the game, which may have changed under its name.
    """
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    key.update(shown.numpy().tobytes())
    file = cache / f"{name}-{key.hexdigest()[:12]}.safetensors" if cache else None
    if file and file.exists():
        network.load_state_dict(load_file(file))
        return False
    train()
    if file:
        with whole(file) as made:
            made.write(serialised(network.state_dict()))
    return True


def fit(network: nn.Module, name: str, rate: float, updates: int, error: Callable[[int], Tensor], tick: Tick) -> None:
    """Train a network, `name` in messages, with one cycle of learning rates up to `rate`."""
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=updates)

    def after(*_: object) -> None:
        schedule.step()
        tick(1)

    descend(name, optimiser, updates, error, after=after)


class Control:
    """Collects, per episode, what the actions are called and what real and dreamt frames say."""

    def __init__(self, namer: Namer) -> None:
        self.namer = namer
        self.actions: list[Tensor] = []  # (n, A) an episode, as they are called
        self.real: list[Tensor] = []
        self.dream: list[Tensor] = []
        self.tokenised: list[Tensor] = []  # of the first episodes only

    def add(self, model: Any, truth: Truth, dream: DreamRollout) -> None:
        """Score a batch of episodes (of the first one the model is asked for the tokenizer's round trip)."""
        first, tokenise = truth.prompt + 1, not self.actions  # the action that led to the third frame after the prompt
        for i, length in enumerate(truth.length):
            if length >= 3:
                real = truth.after[i, :length]
                self.actions.append(self.namer.call(truth.actions[i, first : first + int(length) - 2]))
                self.real.append(self.namer(real))
                self.dream.append(self.namer(dream.frames[i, :length]))
                if tokenise:
                    rows = in_threes(truth.frames[i : i + 1, : truth.prompt + int(length)])
                    self.tokenised.append(self.namer(round_trip(model, rows[truth.prompt :])))

    def result(self) -> dict[str, Any]:
        """The card's `control` object; {} when no episode has three frames after the prompt.

        The ratios are absent where real frames do not tell the actions apart better than chance does.
        """
        if not self.actions:
            return {}
        schema, card = self.namer.schema, dict[str, Any]()
        parts = {
            side: [right(schema, said, actions).numpy() for said, actions in zip(rows, self.actions)]
            for side, rows in (("real", self.real), ("dream", self.dream), ("tokenised", self.tokenised))
        }
        shares = {side: np.array([self._whole(row) for row in rows]) for side, rows in parts.items()}
        for side in ("real", "dream"):
            card |= figure(side, shares[side])
        if len(groups(schema)) > 1:
            names = schema.names if schema.kind != "multidiscrete" else [f"part {i}" for i in range(len(schema.nvec))]
            both = (np.concatenate(parts[side]).mean(0).tolist() for side in ("real", "dream"))
            card["parts"] = {name: {"real": r, "dream": d} for name, r, d in zip(names, *both, strict=True)}
        every = torch.cat(self.actions)
        if schema.kind == "box":
            spread = (every - every.mean(0)).square().sum().clamp_min(1e-9)
            for side, rows in (("real", self.real), ("dream", self.dream)):
                card[f"{side}_r2"] = float(1 - (torch.cat(rows) - every).square().sum() / spread)
        else:
            counts = every.unique(dim=0, return_counts=True)[1]
            card["chance"] = float(counts.max() / len(every))
            card["names"] = f"{len(set(self.namer.aliases.values()))} of {len(self.namer.aliases)}"
        surely = np.nanmin([card["real"], card["real_interval"][0]])  # a single episode has no interval
        if surely > card["chance"] if "chance" in card else card["real_r2"] > 0:
            for name, side in (("ratio", "dream"), ("tokenised_ratio", "tokenised")):
                pairs = np.stack([shares[side], shares["real"][: len(shares[side])]], 1)
                card |= figure(name, pairs, ratio)
        return card | {"frames": len(every)}

    def _whole(self, parts: np.ndarray) -> float:
        return float(parts.mean() if self.namer.schema.kind == "box" else parts.all(1).mean())
