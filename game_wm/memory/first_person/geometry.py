"""Depth and motion from latents: what episodic memory needs to draw a view.

`Geometry` is trained on its own (`train/first_person/geometry.py`): disparity without labels, by drawing frames from
their neighbours (Zhou et al., 2017), motion on recorded poses. In play it alone says where the player is.

Legend: B batch or players, C latent channels, h, w latent grid, A action vector, E features of a pair of frames,
P = BEFORE * (3 + A) the past of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from game_wm.memory.first_person.atlas import Atlas
from game_wm.memory.first_person.obstacles import Obstacles

BEFORE = 2  # steps, with their actions, in a step's past: two show whether the player slides along something
HEARD = 0.25  # units of motion: where pictures correct the past by less, it is noise
FINER = 4  # disparities a latent cell, along each side
NEAREST, FARTHEST = 3.0, 0.001  # disparities, of one over a place's side: a wall at the nose, the sky


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes of episodic memory and of its geometry.

    `place`, `headings`: side of a place in the pose's units, and how many headings make a turn; of every place the
    first and the newest frame are kept, of `slots` places; `views`: frames that a remembered view is drawn from;
    `hidden`: width of the networks that read depth and motion; `inertia`: whether a step depends on the steps
    before it, as of a player who slides to a halt or along a wall; `two_step_inertia`: it is learnt from two steps and
    their actions (without it from the last step alone); `unbounded`: every frame is kept instead of two of a place;
    `trail`: how many of the last poses are kept, where the way is free (0: none, `trail.py`); `obstacles`: whether the
    surfaces in memory predict what blocks a step (`obstacles.py`); `atlas`: whether the level is known before play.
    """

    channels: int = 16
    height: int = 8
    width: int = 8
    actions: int = 4
    place: float = 0.5
    headings: int = 18
    slots: int = 1024
    views: int = 4
    hidden: int = 96
    inertia: bool = False
    unbounded: bool = False
    trail: int = 0
    two_step_inertia: bool = False
    obstacles: bool = False
    atlas: bool = False


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        parts = [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.net = nn.Sequential(*parts, nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.net(x_BCHW)


class Depth(nn.Module):
    """Latents (B, C, h, w) -> disparity (B, 4h, 4w): one over the depth, in sides of a place."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        width = config.hidden
        self.conv_in = nn.Conv2d(config.channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.twice = nn.Conv2d(width, 4 * 64, 3, padding=1)
        self.four = nn.Conv2d(64, 4 * 32, 3, padding=1)
        self.conv_out = nn.Conv2d(32, 1, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.constant_(self.conv_out.bias, -1.8)  # type: ignore[arg-type]

    def forward(self, latents_BChw: Tensor) -> Tensor:
        x = self.conv_in(latents_BChw)
        for block in self.blocks:
            x = block(x)
        x = F.silu(F.pixel_shuffle(self.twice(x), 2))
        x = F.silu(F.pixel_shuffle(self.four(x), 2))
        return FARTHEST + NEAREST * self.conv_out(x).float().sigmoid()[:, 0]


class Motion(nn.Module):
    """Steps on SE(2) (B, 3) in the player's own frame (ahead, aside, turn), from a pair of latents and an action.

    Distances come from the pictures, since there are walls. Turns come from the action alone: a network that also looks
    is biased by a little, which is a quarter turn after a thousand frames. With inertia the pictures only correct what
    the last steps and actions lead to.
    """

    unit: Tensor

    def __init__(self, config: MemoryConfig, features: int = 192) -> None:
        super().__init__()
        width = config.hidden
        self.conv_in = nn.Conv2d(2 * config.channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.gather = nn.Conv2d(width, 16, 1)
        self.read = nn.Linear(16 * config.height * config.width + width, features)
        self.inertia = config.inertia and config.two_step_inertia
        self.last = config.inertia and not config.two_step_inertia
        blind = config.actions + 3 * self.last + self.inertia * BEFORE * (3 + config.actions)
        self.observed, self.forecast = (
            nn.Sequential(nn.Linear(features + blind, 128), nn.SiLU(), nn.Linear(128, 2)) for _ in range(2)
        )
        self.turn = nn.Sequential(nn.Linear(config.actions, 64), nn.SiLU(), nn.Linear(64, 1))
        self.free: nn.Module | None = None
        if self.inertia:  # pushes add up and friction takes a share of the speed: linear, but for turns
            self.free = nn.Linear(2 * (3 + 2 * config.actions), 2, bias=False)
            for weights in (*self.free.parameters(), *self.observed[-1].parameters(), *self.forecast[-1].parameters()):
                nn.init.zeros_(weights)
        elif config.trail:
            self.free = nn.Sequential(nn.Linear(blind, 64), nn.SiLU(), nn.Linear(64, 2))
        unit = torch.tensor([config.place / 10, config.place / 10, 0.1])
        self.register_buffer("unit", unit, persistent=False)

    def pair(self, before_BChw: Tensor, now_BChw: Tensor) -> Tensor:
        """Features (B, E) of two frames that follow each other."""
        x = self.conv_in(torch.cat((now_BChw, now_BChw - before_BChw), 1))
        for block in self.blocks:
            x = block(x)
        return F.silu(self.read(torch.cat((self.gather(x).flatten(1), x.mean((2, 3))), 1)))

    def past(self, steps_BT3: Tensor, actions_BTA: Tensor) -> Tensor:
        """The past (B, P) of the step after these T: the last `BEFORE` steps (zeros where there are fewer) with their
        actions, the latest first, as the player now stands."""
        parts, heading = [], torch.zeros_like(steps_BT3[:, 0, 2]) if steps_BT3.shape[1] else 0.0
        for i in range(1, BEFORE + 1):
            if i > steps_BT3.shape[1]:
                parts.append(steps_BT3.new_zeros(len(steps_BT3), 3 + actions_BTA.shape[-1]))
                continue
            (ahead, aside, turn), action = steps_BT3[:, -i].unbind(-1), actions_BTA[:, -i]
            heading = heading + turn
            cos, sin = heading.cos(), heading.sin()
            step = torch.stack((cos * ahead + sin * aside, cos * aside - sin * ahead, turn), -1)
            parts.append(torch.cat((step / self.unit, action), -1))
        return torch.cat(parts, -1)

    def pasts(self, steps_BT3: Tensor, actions_BTA: Tensor) -> Tensor:
        """The past of each of T steps in a row, and of the one after the last (B, T + 1, P)."""
        padded = (F.pad(x, (0, 0, BEFORE, 0)) for x in (steps_BT3, actions_BTA))
        windows = [x.unfold(1, BEFORE, 1).flatten(0, 1).mT for x in padded]
        return self.past(*windows).unflatten(0, (len(steps_BT3), -1))

    def estimate_step(self, pair_BE: Tensor, action_BA: Tensor, past_BP: Tensor) -> Tensor:
        """The step between the two frames, which `action` led to, estimated after both are known."""
        return self._step(self.observed, action_BA, past_BP, pair_BE)

    @torch.no_grad()
    def reckon(
        self, pairs_BLE: Tensor, actions_BLA: Tensor, settle: Callable[[Tensor], Tensor] = lambda step: step
    ) -> Tensor:
        """The estimated steps (B, L, 3) of pairs in a row; each, as `settle` returns it, is in the next one's past."""
        steps = [torch.zeros(len(pairs_BLE), 3, device=pairs_BLE.device)] * BEFORE
        led = F.pad(actions_BLA, (0, 0, BEFORE, 0))
        for t in range(pairs_BLE.shape[1]):
            past = self.past(torch.stack(steps[-BEFORE:], 1), led[:, t : t + BEFORE])
            steps.append(settle(self.estimate_step(pairs_BLE[:, t], actions_BLA[:, t], past)))
        return torch.stack(steps, 1)[:, BEFORE:]

    def predict_step(self, pair_BE: Tensor, action_BA: Tensor, past_BP: Tensor) -> Tensor:
        """The step that `action` will lead to, predicted from the two frames before; `past` ends with the step between
        them."""
        return self._step(self.forecast, action_BA, past_BP, pair_BE)

    def unhindered(self, action_BA: Tensor, past_BP: Tensor) -> Tensor:
        """The step that `action` leads to after `past` where nothing blocks it."""
        return self._step(None, action_BA, past_BP)

    def _step(
        self, read: nn.Module | None, action_BA: Tensor, past_BP: Tensor, pair_BE: Tensor | None = None
    ) -> Tensor:
        """The free step, and the correction that a head reads off a pair of pictures, if there is a head."""
        with torch.autocast(action_BA.device.type, enabled=False):  # rounding would add up
            past = [past_BP] if self.inertia else [self._unturned(past_BP)] if self.last else []
            action, blind = action_BA.float(), torch.cat((action_BA, *past), 1).float()
            step, turn = torch.zeros_like(action[:, :1]), self.turn(action)
            if read is None or self.inertia:
                assert self.free is not None
                step = self.free(self._turning(blind, action, turn.detach()) if self.inertia else blind)
            if read is not None:
                assert pair_BE is not None
                told = read(torch.cat((pair_BE.float(), blind), 1))
                if self.inertia and not self.training:
                    told = told * (told.norm(dim=1, keepdim=True) > HEARD)
                step = step.detach() + told
        return torch.cat((step, turn), 1) * self.unit

    def _unturned(self, past_BP: Tensor) -> Tensor:
        """The last step, in the frame of the player before it."""
        x, y, turn = past_BP[:, :3].unbind(1)
        cos, sin = (turn * self.unit[2]).cos(), (turn * self.unit[2]).sin()
        return torch.stack((cos * x - sin * y, sin * x + cos * y, turn), 1)

    @staticmethod
    def _turning(blind: Tensor, action: Tensor, turn: Tensor) -> Tensor:
        """Push, last step and its push, and the products of each with its turn.

        With two steps the change of speed would be extrapolated as well, and errors would grow."""
        last = blind[:, action.shape[1] :][:, : 3 + action.shape[1]]
        return torch.cat((action, last, action * turn, last * last[:, 2:3]), 1)


class Geometry(nn.Module):
    """Depth, motion and the camera's focal length (see `camera.py`)."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.depth, self.motion = Depth(config), Motion(config)
        self.obstacles = Obstacles() if config.obstacles else None
        self.atlas = Atlas.empty() if config.atlas else None
        # Learnt where there are no poses (`train/first_person/unposed.py`), fitted where there are (`calibration.py`).
        self.focal = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
