"""The kinds of memory by name: what `kind` in a configuration's `memory` chooses. Without `memory` there is none."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from game_wm.memory.first_person.system import FirstPersonMemory
from game_wm.memory.protocol import Memory, NoMemory
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.memory.scroll.turning import TurningMemory
from game_wm.model.config import DynamicsConfig, build

KINDS: dict[str, type[Memory]] = {
    "first_person": FirstPersonMemory, "scroll": ScrollMemory, "turning": TurningMemory
}  # fmt: skip


def make_memory(config: Any, dynamics: DynamicsConfig) -> Memory:
    if config is None:
        return NoMemory()
    return KINDS[kind_of(config)].build(config, dynamics)


def kind_of(config: Any) -> str:
    return next(kind for kind, memory in KINDS.items() if type(config) is memory.Config)


def to_entries(config: Any) -> dict[str, Any] | None:
    """A memory's configuration as it is written, its kind among the entries."""
    return None if config is None else {"kind": kind_of(config), **asdict(config)}


def from_entries(entries: dict[str, Any] | None) -> Any:
    """The inverse; ValueError for unknown kinds and entries. Before there were kinds, all memory was first-person."""
    if not entries:
        return None
    kind = entries.get("kind", "first_person")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of memory {kind}: this program has {', '.join(KINDS)}")
    return build(KINDS[kind].Config, {name: value for name, value in entries.items() if name != "kind"})
