"""Time that runs backwards: what each frame wrote over in the state is kept, and put back.

    undo = Undo(state)
    model.step(state, action); undo.note(state, moment)     # after each frame
    moment = undo.back(state)                               # the state is as it was before that frame, bit by bit

A frame changes a few rows of the rings and one place of the episodic memory, and moves the last frames on by one: about
0.15 MB of the maze's 32. The log is bounded by its bytes, and forgets the oldest frames first.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from game_wm.state import WorldState

REWIND_BYTES = 256 << 20  # bytes: a minute and a half of the maze or of Doom
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# A place is written together with its time: comparing the pictures of all places would take longer than the frame.
EPISODIC, MOSAIC = "memory.first_person.episodic", "memory.scroll.mosaic"
STAMPS = {f"{EPISODIC}.{name}": f"{EPISODIC}.times" for name in ("pictures", "disparity", "poses")}
STAMPS[f"{MOSAIC}.pixels"] = f"{MOSAIC}.visited"

# Rows of a tensor, and what stood in them; or none, and the first of the entries that have moved on by one.
Change = tuple[Tensor | None, Tensor]


class Undo:
    """The last frames of a state. Holds one copy of it, and at most `limit` bytes of what was written over."""

    def __init__(self, state: WorldState, limit: int = REWIND_BYTES) -> None:
        self.limit, self.nbytes = limit, 0
        self._last = {name: value.clone() for name, value in state.to_dict().items()}
        self._frames: deque[tuple[int, dict[str, Change], Any]] = deque()

    def __len__(self) -> int:
        """Frames that can be taken back."""
        return len(self._frames)

    @torch.inference_mode()
    def note(self, state: WorldState, moment: Any) -> None:
        """A frame was dreamt; `moment`, what else belongs to the time before it (its size: `nbytes`), comes `back`."""
        now = state.to_dict()
        changes: dict[str, Change] = {}
        stamped = {name: _differing(self._last[name], now[name]) for name in set(STAMPS.values()) & now.keys()}
        for name, new in now.items():
            old, stamp = self._last[name], STAMPS.get(name)
            which = stamped[stamp] if stamp in stamped else _differing(old, new)
            if not len(which):
                continue
            if 2 * len(which) > len(_rows(old)) and _moved_on(old, new):
                changes[name] = (None, old[:, :1].clone())
                old.copy_(new)
            else:
                changes[name] = (which, _rows(old)[which])
                _overwrite(old, which, _rows(new)[which])
        size = moment.nbytes + sum(x.nbytes for change in changes.values() for x in change if x is not None)
        self._frames.append((size, changes, moment))
        self.nbytes += size
        while self.nbytes > self.limit:
            self.nbytes -= self._frames.popleft()[0]

    @torch.inference_mode()
    def back(self, state: WorldState) -> Any:
        """Take the last frame back, in place; its `moment`. IndexError where there is none."""
        size, changes, moment = self._frames.pop()
        self.nbytes -= size
        now = state.to_dict()
        for name, (which, old) in changes.items():
            last = self._last[name]
            if which is None:
                last.copy_(torch.cat((old, last[:, :-1]), 1))
                now[name].copy_(last)
            else:
                _overwrite(now[name], which, old)
                _overwrite(last, which, old)
        return moment


def _rows(x: Tensor) -> Tensor:
    """(rows, values), a view where the order in memory allows: the first axes that number something make the rows."""
    axes = min(3, x.dim())
    return x.view(*x.shape[:axes], -1).flatten(0, axes - 1)


def _overwrite(x: Tensor, which: Tensor, values: Tensor) -> None:
    rows = _rows(x)
    rows[which] = values
    if rows.data_ptr() != x.data_ptr():  # a copy, where channels are stored last
        x.copy_(rows.view(x.shape))


def _moved_on(old: Tensor, new: Tensor) -> bool:
    """Whether the entries of the second axis are those behind the first, and a new one."""
    bits = BITS[old.element_size()]
    return old.dim() > 2 and old.shape[1] > 1 and torch.equal(new[:, :-1].view(bits), old[:, 1:].view(bits))


def _differing(old: Tensor, new: Tensor) -> Tensor:
    """Numbers of the rows that differ in any bit: -0 is not 0 here."""
    if not old.numel():
        return torch.zeros(0, dtype=torch.long, device=old.device)
    bits = BITS[old.element_size()]
    return (_rows(old).view(bits) != _rows(new).view(bits)).any(1).nonzero()[:, 0]
