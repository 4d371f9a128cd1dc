"""The state of a batch of dreams: all that is carried from frame to frame, as tensors with the player first.

Legend: B players.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from game_wm.memory.registry import KINDS
from game_wm.model.dynamics import DynamicsState


@dataclass
class WorldState:
    """The dreams of B players: the network's own state, `seeds` (B,) that rule the noise, and what memory holds (the
    `State` of its kind), None in a model without one."""

    dynamics: DynamicsState
    seeds: Tensor
    memory: Any = None

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, players: slice) -> WorldState:
        return _rebuild(self, lambda x: x[players].clone())

    def view(self, players: slice) -> WorldState:
        return _rebuild(self, lambda x: x[players])

    def clone(self) -> WorldState:
        return self[:]

    @staticmethod
    def cat(states: Sequence[WorldState]) -> WorldState:
        flat = [s.to_dict() for s in states]
        return WorldState.from_dict({k: torch.cat([f[k] for f in flat]) for k in flat[0]})

    def to_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor, ready for safetensors. Memory's names begin with `memory.` and its kind."""
        memory = next((kind for kind, each in KINDS.items() if type(self.memory) is each.State), "")
        return {name.replace("memory.", f"memory.{memory}.", 1): x for name, x in _walk(self, "")}

    @staticmethod
    def from_dict(values: dict[str, Tensor]) -> WorldState:
        found = (_read(each.State, values, f"memory.{kind}.") for kind, each in KINDS.items() if each.State)
        memory = next((state for state in found if state is not None), None)
        return WorldState(_read(DynamicsState, values, "dynamics."), values["seeds"], memory)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.to_dict().values())


def from_first_format(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state by today's names: before there were kinds of memory, its parts stood by themselves."""
    own, kind = ("episodic.", "recent."), "memory.first_person."
    renamed = {f"{kind}{name}" if name.startswith(own) else name: x for name, x in values.items()}
    if f"{kind}recent.there" in renamed and f"{kind}latent" not in renamed:
        latest = {"latent": values["dynamics.latents"][:, -1], "count": values["dynamics.context.working.count"]}
        renamed |= {f"{kind}{name}": x.clone() for name, x in latest.items()}
    return renamed


def _walk(node: Any, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for f in fields(node):
        value = getattr(node, f.name)
        if value is None:  # a level of memory that this network has not
            continue
        found += _walk(value, f"{prefix}{f.name}.") if is_dataclass(value) else [(prefix + f.name, value)]
    return found


def _read(kind: Any, values: dict[str, Tensor], prefix: str) -> Any:
    """The inverse for one of these dataclasses; None where the values have nothing of it. KeyError where a part of it
    is missing."""
    if not any(name.startswith(prefix) for name in values):
        return None
    parts = [(prefix + name, inner) for name, inner in _parts(kind).items()]
    return kind(*(_read(inner, values, f"{name}.") if inner else values[name] for name, inner in parts))


@cache
def _parts(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass, and the dataclass that each holds, None where it is a tensor."""
    hints = get_type_hints(kind)
    return {
        f.name: next((t for t in (hints[f.name], *get_args(hints[f.name])) if is_dataclass(t)), None)
        for f in fields(kind)
    }


def _rebuild(node: Any, change: Callable[[Tensor], Tensor]) -> Any:
    values = {f.name: getattr(node, f.name) for f in fields(node)}
    return type(node)(
        **{k: _rebuild(v, change) if is_dataclass(v) else v if v is None else change(v) for k, v in values.items()}
    )
