"""Time that runs backwards: what each frame wrote over in the state is kept, and put back.

    undo = Undo(state)
    model.step(state, action); undo.note(state, moment)     # after each frame
    moment = undo.back(state)                               # the state is as it was before that frame, bit by bit

A frame changes a few rows of the rings and one place of the episodic memory, and moves the last frames on by one: about
0.16 MB of the maze's 32. How many rows it writes is known beforehand, so the host waits for nothing and a record is one
tensor of fixed size. The log is bounded by its bytes, and forgets the oldest frames first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from game_wm.state import WorldState

REWIND_BYTES = 256 << 20  # bytes: a minute and a half of the maze or of Doom
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
EPISODIC, MOSAICS = "memory.first_person.episodic.", ("memory.scroll.mosaic.", "memory.turning.mosaic.")
RINGS = ("dynamics.context.working.", "dynamics.bottleneck.")  # a frame writes one slot of each layer
MOVE_ON = ("dynamics.latents", "dynamics.actions", "memory.first_person.recent.")  # by one along the second axis
# A place is written together with its time: comparing the pictures of all places would take longer than the frame.
STAMPS = {f"{EPISODIC}{name}": f"{EPISODIC}times" for name in ("pictures", "disparity", "poses")}
STAMPS |= {f"{mosaic}{name}": f"{mosaic}visited" for mosaic in MOSAICS for name in ("keys", "pixels")}


class Undo:
    """The last frames of a state. Holds one copy of it, and at most `limit` bytes of what was written over."""

    def __init__(self, state: WorldState, limit: int = REWIND_BYTES) -> None:
        self.limit, self.nbytes = limit, 0
        self._last = {name: value.clone() for name, value in state.to_dict().items()}
        self._frames: deque[tuple[int, Tensor, Any]] = deque()
        self._most = {name: most_rows(name, self._last) for name in self._last}  # that a frame writes
        self._shapes: list[tuple[torch.Size, torch.dtype]] = []  # of what a record holds, in order

    def __len__(self) -> int:
        """Frames that can be taken back."""
        return len(self._frames)

    def note(self, state: WorldState, moment: Any) -> None:
        """A frame was dreamt; `moment`, what else belongs to the time before it (its size: `nbytes`), comes `back`."""
        self.keep(self.record(state), moment)

    @torch.inference_mode()
    def record(self, state: WorldState) -> Tensor:
        """What the state's last frame wrote over, uint8 (bytes,)."""
        parts = list(self._changes(state.to_dict()))
        self._shapes = [(x.shape, x.dtype) for x in parts]
        return torch.cat([_bytes(x) for x in parts])

    def keep(self, record: Tensor, moment: Any) -> None:
        """The record of a frame, and its `moment`, as `note` takes it."""
        self._frames.append((size := moment.nbytes + record.nbytes, record, moment))
        self.nbytes += size
        while self.nbytes > self.limit:
            self.nbytes -= self._frames.popleft()[0]

    @torch.inference_mode()
    def back(self, state: WorldState) -> Any:
        """Take the last frame back, in place; its `moment`. IndexError where there is none."""
        size, record, moment = self._frames.pop()
        self.nbytes -= size
        parts, now = iter(self._parts(record)), state.to_dict()
        for name, last in self._last.items():
            if not last.numel():
                continue
            if name.startswith(MOVE_ON):
                last.copy_(torch.cat((next(parts), last[:, :-1]), 1))
            elif self._most[name]:
                which, old = next(parts), next(parts)
                _rows(last)[which] = old
                _rows(now[name])[which] = old
                continue
            else:
                last.copy_(next(parts))
            now[name].copy_(last)
        return moment

    def _changes(self, now: dict[str, Tensor]) -> Iterator[Tensor]:
        """The tensors of a record, in the order of the state's; the copy of the state is brought up to date."""
        written = {
            name: _differing(self._last[name], now[name], most)
            for name, most in self._most.items()
            if most and name not in STAMPS and now[name].numel()
        }
        for name, new in now.items():
            last = self._last[name]
            if not last.numel():
                continue
            if self._most[name]:
                which = written[STAMPS.get(name, name)]
                yield which
                yield _rows(last)[which]
                _rows(last)[which] = _rows(new)[which]
                continue
            yield last[:, :1].clone() if name.startswith(MOVE_ON) else last.clone()
            last.copy_(new)

    def _parts(self, record: Tensor) -> list[Tensor]:
        sizes = [(size.numel() * kind.itemsize + 7) // 8 * 8 for size, kind in self._shapes]
        ends = [*accumulate(sizes)]
        found = zip(self._shapes, sizes, ends, strict=True)
        return [
            record[end - size :][: shape.numel() * kind.itemsize].view(kind).view(shape)
            for (shape, kind), size, end in found
        ]


def most_rows(name: str, state: dict[str, Tensor]) -> int:
    """How many rows of this tensor a frame writes at most; 0 for one that is kept whole or moves on."""
    shape = state[name].shape
    if name.startswith(RINGS) and len(shape) > 3:
        return shape[0] * shape[1]
    if name.startswith(EPISODIC) and len(shape) > 1 and not name.endswith(".pose"):
        return shape[0] * {"keys": 1, "trail": shape[-1]}.get(name.removeprefix(EPISODIC), 2)
    if name.startswith(MOSAICS):
        memory = name.partition("mosaic.")[0]
        side = round(state[f"{memory}mosaic.pixels"].shape[3] ** 0.5)
        height, width = state[f"{memory}known"].shape[1:3]
        return shape[0] * min(shape[1] * shape[2], ((height - 1) // side + 2) * ((width - 1) // side + 2))
    return 0


def _rows(x: Tensor) -> Tensor:
    """A view (rows, values): the first axes that number something make the rows."""
    axes = min(3, x.dim())
    return x.view(x.shape[:axes].numel(), -1)


def _differing(old: Tensor, new: Tensor, most: int) -> Tensor:
    """Numbers of `most` rows, those that differ in any bit among them: -0 is not 0 here."""
    bits = BITS[old.element_size()]
    differ = (_rows(old).view(bits) != _rows(new).view(bits)).any(1)
    return differ.byte().topk(most, sorted=False).indices


def _bytes(x: Tensor) -> Tensor:
    """Its bytes, filled up to a multiple of eight."""
    found = x.contiguous().view(-1).view(torch.uint8)
    return torch.nn.functional.pad(found, (0, -len(found) % 8))
