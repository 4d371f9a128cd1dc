"""How one frame is generated: each file holds its training loss and its sampler, side by side.

    objective = make_objective({"kind": "diffusion", "sampler": "heun"})      # as a configuration has it

Legend: B sequences, K target frames of each, C channels, h, w latent grid.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, ClassVar, Protocol

from torch import Tensor

from game_wm.model.config import Trunk
from game_wm.objectives.autoregressive import Autoregressive
from game_wm.objectives.cascade import Cascade
from game_wm.objectives.diffusion import Diffusion
from game_wm.objectives.flow import FlowMatching
from game_wm.objectives.masked import Masked


class Objective(Protocol):
    """A frozen dataclass of its options.

    `kind`: its name in a configuration; `trunks`: the trunks that it works with, the default first; `adjustable`:
    whether a player may choose the number of calls a frame.
    """

    kind: ClassVar[str]
    trunks: ClassVar[tuple[Trunk, ...]]
    adjustable: ClassVar[bool]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def calls(self, tokens: int) -> int:
        """Default number of calls of the network for a frame of so many latent cells."""

    def loss(self, predict: Any, clean_BKCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Loss of every target (B, K), and the prediction (B, K, C, h, w) that it judges; None for logits."""

    def sample(self, predict: Any, noise_BKCHW: Tensor, steps: int) -> Tensor:
        """Latents (B, K, C, h, w), a function of the standard normal noise, in `steps` calls of the network."""


KINDS: dict[str, type[Any]] = {kind.kind: kind for kind in (FlowMatching, Diffusion, Cascade, Autoregressive, Masked)}


def make_objective(entries: dict[str, Any]) -> Objective:
    """An objective from its `kind` (flow matching where there is none) and its options.

    Raises ValueError for an unknown kind or option, and for a value of the wrong type.
    """
    options = dict(entries)
    name = options.pop("kind", FlowMatching.kind)
    if name not in KINDS:
        raise ValueError(f"unknown objective {name}: the kinds are {', '.join(KINDS)}")
    defaults = {field.name: field.default for field in fields(KINDS[name])}
    if unknown := sorted(set(options) - set(defaults)):
        raise ValueError(f"{name} has no option {unknown[0]}: its options are {', '.join(defaults)}")
    for option, value in options.items():
        wanted = type(defaults[option])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f"{option} of {name} must be of type {wanted.__name__}, not {value!r}")
    return KINDS[name](**options)


def objective_entries(objective: Objective) -> dict[str, Any]:
    return {"kind": objective.kind, **asdict(objective)}
