"""The parts of a geometry that are made after its training: `motion`, `depth`, `atlas` and `obstacles`.

    python -m train depth --latents DIR --geometry CKPT --out FILE

Each is a command of its own, and the next may go on from what the one before wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data_collect.commandline import load
from game_wm.deadline import NEVER, Deadline
from game_wm.memory.first_person.geometry import Geometry
from train.checkpoints import load_geometry, read_checkpoint, save_part
from train.data.latents import LatentStore
from train.first_person.atlas import make_atlas
from train.first_person.depth import learn_depth
from train.first_person.motion import learn_motion
from train.first_person.obstacles import learn_obstacles
from train.report.console import say
from train.report.machine import use_all_cores

# (geometry, latents, share of the episodes held out, steps or pictures, deadline) -> weights; less where that comes
# before. `UserError` where it cannot.
MAKERS: dict[str, Callable[[Geometry, LatentStore, float, int, Deadline], Mapping[str, Tensor]]] = {
    "motion": learn_motion,
    "depth": learn_depth,
    "atlas": make_atlas,
    "obstacles": learn_obstacles,
}


def make_part(
    name: str, latents: str | Path, geometry: Path, out: Path, held_out: float, number: int, deadline: Deadline = NEVER
) -> None:
    """Write a geometry that goes on from another one, with this part made from encoded recordings.

    Args:
        held_out: share of the episodes, the last, that are kept from training.
        number: steps of training, or pictures of the atlas.
        deadline: what does not end before is left out: steps, episodes or the atlas's views.
    """
    use_all_cores()
    torch.manual_seed(0)
    weights = MAKERS[name](load_geometry(geometry), LatentStore(latents), held_out, number, deadline)
    state = read_checkpoint(geometry)
    if name in ("atlas", "obstacles"):  # a geometry need not have them
        state["config"]["geometry"][name] = True
    save_part(state, f"geometry.{name}", dict(weights), out)
    say(f"wrote {out}")


def main(name: str, arguments: list[str]) -> int:
    make_part(name, **vars(load(f"train.commands.tools:{name}")().parse_args(arguments)))
    return 0


motion, depth, atlas, obstacles = (partial(main, name) for name in MAKERS)
