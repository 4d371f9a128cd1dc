"""The memory of a world that turns below the screen, as below a car that is seen from above.

It is that of a world that scrolls, with an angle more: a step is down, right and degrees, a place is that of the
screen's centre (`plane.py`). The mosaic lies as the first frame did. A frame is seen and written at an angle, between
pixels; what agrees is not written again, so nothing blurs from frame to frame.

Legend: B players, P prompt frames, H, W screen, S side of the part of the world round it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from game_wm.memory.protocol import Frame, Prompt
from game_wm.memory.scroll.alignment import align, known_pixels, observe_turns
from game_wm.memory.scroll.mosaic import packed, unpacked
from game_wm.memory.scroll.motion import TurningConfig, TurningMotion
from game_wm.memory.scroll.path import FAR
from game_wm.memory.scroll.plane import Grid, moved, seen_from, step_between
from game_wm.memory.scroll.registration import CUT
from game_wm.memory.scroll.system import ScrollMemory, ScrollState, ScrollStep, pixel

CORRECTED = 1.5  # pixels and degrees, at most, by which what is remembered puts a place right


@dataclass
class TurningState(ScrollState):
    """`corner` (B, 3) is where the screen's centre is, and how it is turned; `steps` are (B, BEFORE, 3); `known` is of
    the part (B, S, S) of the world round the last frame."""


class TurningMemory(ScrollMemory):
    """Poses and places that one comes back to by another way are not used."""

    Config, State, Motion = TurningConfig, TurningState, TurningMotion
    config: TurningConfig

    def __init__(self, config: TurningConfig) -> None:
        super().__init__(config)
        self.placed, self.screen = False, Grid(*self.size, config.aspect)
        self.ground = Grid(self.screen.around, self.screen.around)

    @property
    def written_size(self) -> tuple[int, int]:
        return self.ground.height, self.ground.width

    def walk(self, prompt: Prompt, pictures_BPHWC: Tensor) -> Iterator[tuple[ScrollState, ScrollStep]]:
        steps = self.observed(pictures_BPHWC)
        state = self._state(pictures_BPHWC[:, 0], prompt, 0)
        for t, picture in enumerate(pictures_BPHWC[:, 1:].unbind(1)):
            step = self.step_to(state, self._put_right(state, steps[:, t], picture))
            yield state, step
            self._take(state, step, Frame(prompt.latents[:, t + 1], picture, prompt.actions[:, t]), renews=True)
            self.store(state, step)

    def observed(self, pictures_BPHWC: Tensor) -> Tensor:
        """The steps (B, P - 1, 3) between successive pictures, `FAR` to a place that is not known to be connected."""
        players, count = pictures_BPHWC.shape[:2]
        if count < 2:
            return torch.zeros(players, 0, 3, device=pictures_BPHWC.device)
        before, now = (x.flatten(0, 1) for x in (pictures_BPHWC[:, :-1], pictures_BPHWC[:, 1:]))
        found = observe_turns(before, now, self.fixed, self.config.aspect)
        far = torch.tensor([FAR, FAR, 0.0], device=found.places.device)
        steps = torch.where((found.agreement < CUT)[:, None], far, found.places)
        return steps.unflatten(0, (players, count - 1))

    def _put_right(self, state: ScrollState, step_B3: Tensor, picture_BHWC: Tensor) -> Tensor:
        """The step, put right by what is remembered where it leads."""
        place = moved(state.corner, step_B3)
        around = unpacked(state.mosaic.read(self._origin(place), self.written_size))
        source = known_pixels(around, around[..., 3] > 0)
        offset = self._within(place)
        found = align(source, picture_BHWC, self.fixed, offset, self.ground, self.screen, blurred=0).places
        change = found - offset
        near = (change.abs() <= CORRECTED).all(1, keepdim=True)
        return torch.where(near, step_between(state.corner, place + change), step_B3)

    def _origin(self, place_B3: Tensor) -> Tensor:
        return pixel(place_B3[:, :2]) - self.ground.height // 2

    def _upright(self, place_B3: Tensor) -> Tensor:
        return pixel(place_B3[:, :2]) - torch.tensor(self.size, device=place_B3.device) // 2

    def _within(self, place_B3: Tensor) -> Tensor:
        """A place as seen from the centre of the part of the world round it."""
        centre = self._origin(place_B3) + (self.ground.height - 1) / 2
        return torch.cat((place_B3[:, :2] - centre, place_B3[:, 2:]), 1)

    def _arrived(self, state: ScrollState, motion_B3: Tensor) -> Tensor:
        return moved(state.corner, motion_B3)

    def step_to(self, state: ScrollState, motion_B3: Tensor) -> ScrollStep:
        place = self._arrived(state, motion_B3)
        written = state.mosaic.find(self._origin(place), self.written_size)
        around = unpacked(written.shown.unflatten(1, self.written_size))
        found = seen_from(known_pixels(around, around[..., 3] > 0), self._within(place), self.ground, self.screen)
        known = as_pixels(found, (found[:, 3] > 0.5).byte())
        source = known_pixels(state.picture, ~self.fixed)
        still = (state.still * ~self.fixed).float()[:, None]
        found = seen_from(torch.cat((source, still), 1), motion_B3, self.screen, self.screen)
        inside = found[:, 3] > 0.5
        seen = packed(torch.cat((state.picture, state.still[..., None]), 3))
        turned = (motion_B3 != 0).any(1)
        there = inside & ~self.fixed & turned[:, None, None]
        last = torch.where(there, as_pixels(found, (found[:, 4] / found[:, 3].clamp_min(0.5)).round().byte()), seen)
        recalled = (known != 0) & ~self.fixed & turned[:, None, None]
        inside = inside | self.fixed | ~turned[:, None, None]
        view = torch.where(recalled, known, last)
        return ScrollStep(motion_B3, (motion_B3 != 0).long(), known, last, inside, view, recalled | inside, *written)

    def _with_written(self, state: ScrollState, step: ScrollStep, picture_BHW: Tensor, written_BHW: Tensor) -> Tensor:
        around = step.tiles.gather(1, step.seen).unflatten(1, self.written_size)
        here = self._within(state.corner)
        from_here = step_between(here, torch.zeros_like(here))
        found = seen_from(known_pixels(unpacked(picture_BHW), written_BHW), from_here, self.screen, self.ground)
        return torch.where(found[:, 3] > 0.5, as_pixels(found, torch.ones_like(found[:, 3]).byte()), around)


def as_pixels(found_BCHW: Tensor, fourth_BHW: Tensor) -> Tensor:
    """Int32 (B, H, W) of colours that were seen between pixels of which not all are known, and a fourth byte; 0 where
    none is known."""
    colours = found_BCHW[:, :3] / found_BCHW[:, 3:4].clamp_min(1e-3)
    pixels = torch.cat((colours.round().clamp(0, 255).byte(), fourth_BHW[:, None]), 1).movedim(1, 3).contiguous()
    return packed(pixels) * (found_BCHW[:, 3] > 0.5)
