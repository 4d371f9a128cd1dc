"""How well a geometry estimates the player's pose, against recorded poses: drift, turns and step size.

    python -m train odometry --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt

Steps that were learnt without poses have a free scale, and may be mirrored: one scale and one sign are fitted to all
episodes together. Nothing corrects the estimate by what is seen, as `EpisodicMemory.arrive` does in a prompt.

Legend: E episodes, T steps.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.first_person.geometry import Geometry
from game_wm.memory.first_person.pose import relative, trace, wrap
from game_wm.memory.first_person.recent import features, steady
from train.checkpoints import load_geometry
from train.commands import tools
from train.data.latents import LatentStore
from train.data.spans import Span
from train.report.machine import use_all_cores

HORIZONS = (100, 300, 1000)  # steps after which drift is measured
STRIDE = 100  # steps between two starts
PART = 64


@torch.no_grad()
def reckoned(geometry: Geometry, latents_FChw: Tensor, actions_FA: Tensor) -> Tensor:
    """The steps (F - 1, 3) between the frames of an episode, as the motion network reads them."""
    pairs = zip(latents_FChw[:-1].split(PART), latents_FChw[1:].split(PART), strict=True)
    found = torch.cat([features(geometry, before, now) for before, now in pairs])
    led = actions_FA[None, : len(found)]
    return geometry.motion.reckon(found[None], led, lambda step: steady(geometry, step))[0]


def compare(found_ET3: Tensor, truth_ET3: Tensor) -> dict[str, Any]:
    """`scale` (true units of a reckoned one), `handed` (1, or -1 where left is right), `turn` (reckoned over true),
    `turn_error` (radians a step, root of the mean square), `step_error` (of the true mean step) and, after so many
    steps, mean `drift` (true units) and `heading` (degrees off)."""
    found, truth = found_ET3.double(), truth_ET3.double()
    handed = 1.0 if float((found[..., 2] * truth[..., 2]).sum()) >= 0 else -1.0
    found = found * torch.tensor([1.0, handed, handed], dtype=found.dtype)
    scale = (found[..., :2] * truth[..., :2]).sum() / found[..., :2].square().sum().clamp_min(1e-12)
    found = torch.cat((found[..., :2] * scale, found[..., 2:]), -1)
    off = found - truth
    mean = truth[..., :2].norm(dim=-1).mean().clamp_min(1e-12)
    figures: dict[str, Any] = {
        "scale": float(scale),
        "handed": int(handed),
        "turn": float((found[..., 2] * truth[..., 2]).sum() / truth[..., 2].square().sum().clamp_min(1e-12)),
        "turn_error": float(wrap(off[..., 2]).square().mean().sqrt()),
        "step_error": float(off[..., :2].norm(dim=-1).square().mean().sqrt() / mean),
        "drift": {},
        "heading": {},
    }
    for steps in HORIZONS:
        if steps > found.shape[1]:
            continue
        first = range(0, found.shape[1] - steps + 1, STRIDE)
        away = torch.cat([trace(found[:, i : i + steps])[:, -1] - trace(truth[:, i : i + steps])[:, -1] for i in first])
        figures["drift"][str(steps)] = float(away[:, :2].norm(dim=-1).mean())
        figures["heading"][str(steps)] = math.degrees(float(wrap(away[:, 2]).abs().mean()))
    return figures


def measure(store: LatentStore, geometry: Geometry, episodes: int = 8, held_out: float = 0.04) -> dict[str, Any]:
    """`compare` over held-out episodes, at the longest horizon that any has. `UserError` without poses or long
    episodes."""
    if not store.index["pose"]:
        raise UserError(f"{store.directory} has no poses to compare with: measure on a recording that has them")
    spans = store.split(held_out, validation=True)
    steps = max((n for n in HORIZONS if any(span.frames > n for span in spans)), default=0)
    if not steps:
        raise UserError(f"{store.directory}: no held-out episode has {HORIZONS[0] + 1} frames: record longer ones")
    found, truth = [], []
    for span in [Span(x.episode, x.start, steps + 1) for x in spans if x.frames > steps][:episodes]:
        latents, actions, pose = store.tensors(span, "latents", "actions", "pose")
        found.append(reckoned(geometry, latents, actions))
        truth.append(relative(pose[:-1].double(), pose[1:].double()))
    figures = compare(torch.stack(found), torch.stack(truth))
    return {"episodes": len(found), "place": figures["scale"] * geometry.config.place, **figures}


def main(arguments: list[str]) -> int:
    options = tools.odometry().parse_args(arguments)
    use_all_cores()
    store, geometry = LatentStore(options.latents), load_geometry(options.geometry)
    figures = measure(store, geometry, options.episodes, options.held_out)
    print(json.dumps(figures, indent=1))
    return 0
