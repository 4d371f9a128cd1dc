"""Places that the screen comes back to by another way: a room of a screen that flips, a world that one can go round.

    landmarks = Landmarks(fixed)                        # of one player, while he walks through a prompt
    landmarks.keep(picture, corner)                     # after each frame
    corners = landmarks.find(picture)                   # where the screen may be

A picture is compared with at most `COUNT` kept ones, at the peaks of the phase correlation, so the cost is constant.

Legend: K pictures kept, S steps tried, H, W screen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from game_wm.memory.scroll.path import FAR
from game_wm.memory.scroll.registration import alike, peaks, seen_from

COUNT = 64  # pictures that are kept, at most; the oldest goes
APART = 0.5  # of the screen's side, between the places of two pictures that are kept
SHARED = 0.5  # of the screen, that two pictures must share
SURE = 0.9  # of what they share: where so much agrees, they show the same place
EVERY = 16  # frames between two looks round for a place that the screen has come back to
SAME = 2  # pixels within which two findings are one


class Landmarks:
    """Pictures of where one player was, and their corners."""

    def __init__(self, fixed_HW: Tensor) -> None:
        self.fixed, self.size = fixed_HW, torch.tensor(fixed_HW.shape, device=fixed_HW.device)
        self.pictures, self.corners = list[Tensor](), list[Tensor]()
        self.found: tuple[Tensor, Tensor] | None = None  # see `gone_round`

    def keep(self, picture_HWC: Tensor, corner_2: Tensor) -> None:
        """Keep a picture, unless one from nearby is there."""
        if not self.near(corner_2):
            self.pictures, self.corners = [*self.pictures, picture_HWC][-COUNT:], [*self.corners, corner_2][-COUNT:]

    def near(self, corner_2: Tensor) -> bool:
        """Whether there is a picture from nearby."""
        return any(((corner - corner_2).abs() < APART * self.size).all() for corner in self.corners)

    def find(self, picture_HWC: Tensor, among: Tensor | None = None) -> Tensor:
        """Corners (N, 2) of the screen that shows this picture, the best first; `among` some of the kept ones (K,)."""
        corners, pictures = torch.stack(self.corners), torch.stack(self.pictures)
        if among is not None:
            corners, pictures = corners[among], pictures[among]
        if not len(corners):
            return corners
        steps = peaks(pictures, picture_HWC.expand_as(pictures), self.fixed)
        steps = torch.cat((torch.zeros_like(steps[:, :1]), steps), 1)
        shown, counts = seen_from(pictures, self.fixed, steps)
        count = counts.sum((2, 3))
        agreement = (alike(shown, picture_HWC) & counts).sum((2, 3)) / count.clamp_min(1)
        agreement *= count >= SHARED * (~self.fixed).sum()
        order = agreement.flatten().argsort(descending=True, stable=True)
        kept = order[agreement.flatten()[order] >= SURE]
        return (corners[:, None] + steps).flatten(0, 1)[kept]

    def gone_round(self, picture_HWC: Tensor, corner_2: Tensor, length_2: Tensor) -> Tensor | None:
        """How far away the place is that the screen has come back to, when that has been seen again for as long as the
        screen needs for its own width; None where it has not, or could be in two places. `length`: of a round that is
        known."""

        def from_here(corners_N2: Tensor) -> Tensor:
            return (corners_N2 - corner_2 + length_2 / 2) % length_2 - length_2 / 2

        far = (from_here(torch.stack(self.corners)).abs() >= self.size).any(1)
        away = from_here(self.find(picture_HWC, far))
        if not len(away) or ((away - away[0]).abs() > SAME).any():
            self.found = None
            return None
        if self.found is None or ((away[0] - self.found[0]).abs() > SAME).any():
            self.found = away[0], corner_2.clone()
        return away[0] if ((corner_2 - self.found[1]).abs() >= self.size).any() else None


def recognise(
    marks: Landmarks, picture_HWC: Tensor, corner_2: Tensor, circle_22: Tensor, flipped: bool | None = None
) -> tuple[Tensor, Tensor]:
    """By how much a player's corner is off (2,), and his world's circle (2, 2) as `arrived` takes it, changed where he
    has gone round it. `flipped`: whether the screen has left the place before, if the picture may be of another one."""
    nothing = torch.zeros_like(corner_2)
    if flipped is not None:
        if len(found := marks.find(picture_HWC)):
            return found[0] - corner_2, circle_22
        while flipped and marks.near(corner_2 + nothing):  # of another place that is there
            nothing = nothing + FAR
        return nothing, circle_22
    away = marks.gone_round(picture_HWC, corner_2, circle_22[1])
    if away is None:
        return nothing, circle_22
    marks.found = None
    along = int(away.abs().argmax())
    if away[1 - along].abs() > SAME:
        return away, circle_22
    circle_22 = circle_22.clone()
    circle_22[:, along] = torch.stack((corner_2 + away.clamp_max(0), away.abs()))[:, along]
    nothing[1 - along] = away[1 - along]
    return nothing, circle_22


def arrived(corner_B2: Tensor, circle_B22: Tensor) -> Tensor:
    """Corners (B, 2) within the first round: it begins at `circle[:, 0]` and has the length `circle[:, 1]`."""
    began, length = circle_B22.unbind(1)
    return (corner_B2 - began) % length + began
