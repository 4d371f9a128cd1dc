"""The whole memory of a world that scrolls: where the screen is, and a mosaic of what stands still there.

The step is predicted before a frame is drawn, and is then the step that is taken: the frame shows the world from
there. So a dream does not drift, and going back shows the same pixels again. In a prompt steps are read off the
pictures, or off the poses where the game's own explain the pictures.

A pixel is written when it has stood still in the world while the screen moved: what moves by itself leaves no ghosts.
One that looks as it was remembered keeps its first value, so that a dream makes no copies of copies. Where the latent
of a frame says that nothing but the view is there, the picture has the view's own pixels, so what was seen comes back
sharper than the tokenizer can draw it.

Legend: B players, P prompt frames, H, W screen, C channels, h, w latent grid, M channels of the views, A action vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.protocol import Frame, Memory, NoMemory, Prompt, Recalled
from game_wm.memory.scroll.mosaic import Mosaic, Place, packed, same_colour, unpacked
from game_wm.memory.scroll.motion import BEFORE, FINEST, Motion, ScrollConfig
from game_wm.memory.scroll.path import Path, observe_path
from game_wm.memory.scroll.recognition import EVERY, Landmarks, arrived, recognise
from game_wm.memory.scroll.registration import TOLERANCE, put_right, shifted
from game_wm.memory.views import as_latents, keep_still
from game_wm.model.config import COVER, DynamicsConfig
from game_wm.model.tokenizer import Tokenizer

PART = 64  # pictures that are decoded at once
MOVED, STOOD = 8, 1  # evidence that a pixel belongs to the world: it looks the same after a step, or after none
NEW, CHANGED = 8, 32  # evidence that it takes to write an unknown pixel, and to write over another one
ALIKE = 0.09  # mean square difference of a cell's latent, of variance one, below which it is the view's
FARTHEST = 2.0**18  # pixels: a corner's multiples of `FINEST` are exact up to there


@dataclass
class ScrollState:
    """What B players remember; the player is the first axis of every tensor.

    `corner` (B, 2): row and column, in the world, of the screen's first pixel; the last `picture` uint8
    (B, H, W, 3) and its `latent` (B, C, h, w); `still` uint8 (B, H, W), the evidence that each pixel stands still; the
    last `steps` (B, BEFORE, 2) and their `actions` (B, BEFORE, A); `count` (B,) of the frames; `known` int32
    (B, H, W), what is remembered of the last frame's place, which `store` writes; `circle` (B, 2, 2), where the world
    begins anew, as `recognition.arrived` takes it; the `mosaic`.
    """

    corner: Tensor
    picture: Tensor
    latent: Tensor
    still: Tensor
    steps: Tensor
    actions: Tensor
    count: Tensor
    known: Tensor
    circle: Tensor
    mosaic: Mosaic


class ScrollStep(NamedTuple):
    """How far the screen goes (B, 2), down and right, in pixels: the `motion`, and by how many whole pixels its first
    one is `moved` then, int64. And what is seen there before the frame is drawn:
    `known` int32 (B, H, W), as the mosaic is read; `last` int32 (B, H, W), the last picture and, as the fourth byte,
    the evidence that a pixel stands still; where that reaches, `inside` bool (B, H, W); the `view` int32 (B, H, W), the
    mosaic over the last picture, but not where the screen stands still, since that picture has the sprites too; where
    one of them reaches, `covered` bool (B, H, W). The others are the `Place` of the mosaic that `store` writes to."""

    motion: Tensor
    moved: Tensor
    known: Tensor
    last: Tensor
    inside: Tensor
    view: Tensor
    covered: Tensor
    keys: Tensor
    slots: Tensor
    tiles: Tensor
    seen: Tensor


class ScrollMemory(Memory):
    """What a network reads is one view (`warp`): the mosaic over the last frame as it looks from the next place.
    `fixed` bool (H, W): the screen's own parts, which are not the world's."""

    Config, State, Step, Motion, reaches_back = ScrollConfig, ScrollState, ScrollStep, Motion, True
    fixed: Tensor

    def __init__(self, config: ScrollConfig) -> None:
        super().__init__()
        self.config, self.motion, self.placed = config, self.Motion(config), bool(config.axes)
        self.register_buffer("fixed", torch.zeros(config.height, config.width, dtype=torch.bool))

    @classmethod
    def build(cls, config: ScrollConfig, dynamics: DynamicsConfig) -> ScrollMemory:
        return cls(config)

    @property
    def size(self) -> tuple[int, int]:
        return self.config.height, self.config.width

    @property
    def written_size(self) -> tuple[int, int]:
        """Of the part of the world that a frame is written into."""
        return self.size

    # --- the beginning ---

    def start(self, prompt: Prompt, tokenizer: Tokenizer) -> ScrollState:
        pictures = self.pictures(prompt, tokenizer)
        state = self._state(pictures[:, 0], prompt, 0)
        for state, _ in self.walk(prompt, pictures):  # noqa: B007
            pass
        return state

    def walk(self, prompt: Prompt, pictures_BPHWC: Tensor) -> Iterator[tuple[ScrollState, ScrollStep]]:
        """The state before each frame of a prompt but the first, and the step that leads to it: between successive
        pictures, put right by what is remembered, so that fractions of pixels do not add up. The state is one, and has
        taken in the whole prompt at the end."""
        height, width = self.size
        poses = prompt.poses if self.placed else None
        path = observe_path(pictures_BPHWC, self.fixed) if poses is None else self.path_of(poses)
        landmarks = [Landmarks(self.fixed) for _ in pictures_BPHWC]
        state = self._state(pictures_BPHWC[:, 0], prompt, 0)
        for t, picture in enumerate(pictures_BPHWC[:, 1:].unbind(1)):
            if poses is None:
                self._recognise(state, landmarks, path, t, picture)
            motion = path.steps[:, t]
            if poses is None:
                around = state.mosaic.read(pixel(self._arrived(state, motion)) - 1, (height + 2, width + 2))
                motion = motion + put_right(unpacked(around), picture, self.fixed)
            step = self.step_to(state, motion)
            yield state, step
            self._take(state, step, Frame(prompt.latents[:, t + 1], picture, prompt.actions[:, t]), renews=True)
            self.store(state, step)

    def _recognise(
        self, state: ScrollState, landmarks: Sequence[Landmarks], path: Path, t: int, now_BHWC: Tensor
    ) -> None:
        """Put the corners right, in place, of players who come back to a place by another way than they left it."""
        looks = t % EVERY == 0
        for player, marks in enumerate(landmarks):
            if looks:
                marks.keep(state.picture[player], state.corner[player])
            doubtful, step = bool(path.doubtful[player, t]), path.steps[player, t]
            if looks or doubtful:
                there = state.corner[player] + step
                flipped = bool((step.abs() >= marks.size).any()) if doubtful else None
                off, circle = recognise(marks, now_BHWC[player], there, state.circle[player], flipped)
                state.corner[player], state.circle[player] = state.corner[player] + off, circle
                if doubtful:
                    marks.keep(now_BHWC[player], there + off)

    def path_of(self, poses_BP3: Tensor) -> Path:
        """The steps that the game's own poses tell."""
        axes = torch.tensor(self.config.axes, dtype=torch.float64, device=poses_BP3.device).view(2, 2)
        places = poses_BP3[..., :2].double() @ axes.T
        steps = ((places - places[:, :1]) / FINEST).round().diff(dim=1) * FINEST
        return Path(steps.float(), torch.zeros_like(steps[..., 0], dtype=torch.bool))

    def pictures(self, prompt: Prompt, tokenizer: Tokenizer) -> Tensor:
        """Uint8 (B, P, H, W, 3): those of the prompt, or what its latents decode to."""
        if prompt.frames is not None:
            return prompt.frames
        parts = prompt.latents.flatten(0, 1).split(PART)
        return torch.cat([tokenizer.decode(part) for part in parts]).unflatten(0, prompt.latents.shape[:2])

    def _state(self, picture_BHWC: Tensor, prompt: Prompt, at: int) -> ScrollState:
        """Of players who have seen frame `at` of a prompt and remember nothing else."""
        players, device = len(picture_BHWC), picture_BHWC.device
        none = torch.zeros(players, BEFORE, self.config.ways, device=device)
        actions = prompt.latents.new_zeros(players, BEFORE, self.config.actions)
        still, count = torch.zeros_like(picture_BHWC[..., 0]), torch.full((players,), at + 1, device=device)
        mosaic = Mosaic.start(players, self.config.slots, self.written_size, device)
        picture, latent = picture_BHWC.clone(), _rows(prompt.latents[:, at])
        known = mosaic.pixels.new_zeros(players, *self.written_size)
        circle = torch.tensor([[-FARTHEST] * 2, [2 * FARTHEST] * 2], device=device).expand(players, -1, -1).clone()
        return self.State(none[:, 0].clone(), picture, latent, still, none, actions, count, known, circle, mosaic)

    # --- a frame ---

    def foresee(self, state: ScrollState, action_BA: Tensor) -> ScrollStep:
        with torch.autocast(action_BA.device.type, enabled=False):  # a step is chosen as in training
            motion = self.motion.predict_step(state.picture, action_BA, state.steps, state.actions)
        return self.step_to(state, motion)

    def step_to(self, state: ScrollState, motion_B2: Tensor) -> ScrollStep:
        """The step of this motion. The screen's own parts are those of the last picture."""
        place = state.mosaic.find(pixel(self._arrived(state, motion_B2)), self.size)
        seen = packed(torch.cat((state.picture, state.still[..., None]), 3))
        moved = pixel(state.corner + motion_B2) - pixel(state.corner)
        last, inside = shifted(seen, moved)
        last, known = torch.where(self.fixed, seen, last), place.shown.view_as(seen)
        recalled = (known != 0) & ~self.fixed & (moved != 0).any(1)[:, None, None]
        view, covered = torch.where(recalled, known, last), recalled | inside | self.fixed
        return ScrollStep(motion_B2, moved, known, last, inside | self.fixed, view, covered, *place)

    def _arrived(self, state: ScrollState, motion_B2: Tensor) -> Tensor:
        return arrived(state.corner + motion_B2, state.circle)

    def views(self, state: ScrollState, step: ScrollStep, tokenizer: Tokenizer) -> Tensor:
        picture, known = self.shown(step)
        return as_latents(tokenizer, [(tokenizer.to_unit(picture), known)])

    def shown(self, step: ScrollStep) -> tuple[Tensor, Tensor]:
        """What stands still where the step leads: the mosaic over the last picture, uint8 (B, H, W, 3), and where one
        of them reaches (B, H, W)."""
        return unpacked(step.view)[..., :3], step.covered

    def restore(
        self, state: ScrollState, step: ScrollStep, views_BMhw: Tensor | None, latent_BChw: Tensor, picture_BHWC: Tensor
    ) -> Tensor:
        assert views_BMhw is not None, "this memory always has a view"
        view, cover = views_BMhw.split((latent_BChw.shape[1], COVER), 1)
        same = ((latent_BChw - view).square().mean(1) < ALIKE) & (cover.amin(1) >= 1)
        cell = self.size[0] // same.shape[1], self.size[1] // same.shape[2]
        same = same.repeat_interleave(cell[0], 1).repeat_interleave(cell[1], 2)[..., None]
        return torch.where(same, self.shown(step)[0], picture_BHWC)

    def settle(self, state: ScrollState, step: ScrollStep, latent_BChw: Tensor) -> Tensor:
        return keep_still(latent_BChw, state.latent, step.motion)

    def commit(self, state: ScrollState, step: ScrollStep, frame: Frame) -> None:
        self._take(state, step, frame, renews=False)

    def _take(self, state: ScrollState, step: ScrollStep, frame: Frame, renews: bool) -> None:
        """`renews`: what looks as it was remembered is written, too, since a recorded picture is the truth and its
        light may change. A dream's is a copy."""
        now, known = packed(F.pad(frame.picture, (0, 1), value=1)), step.known != 0
        stands, again = same_colour(torch.stack((step.last, step.known)), now, TOLERANCE)
        stood = (step.moved == 0).all(1)[:, None, None]
        gained = torch.where(stood, STOOD, MOVED).byte()
        evidence = unpacked(step.last)[..., 3].clamp_max(255 - MOVED) + gained
        state.still = evidence * (stands & step.inside & ~self.fixed)
        enough, again = state.still >= torch.where(known, CHANGED, NEW), known & again
        written = ((state.still > 0) & again) | (enough & ~again) if renews else enough & ~again
        state.corner = self._arrived(state, step.motion)
        state.known = self._with_written(state, step, now, written)
        state.picture, state.latent = frame.picture.clone(), _rows(frame.latent)
        state.steps = torch.cat((state.steps[:, 1:], step.motion[:, None]), 1)
        state.actions = torch.cat((state.actions[:, 1:], frame.action[:, None].to(state.actions)), 1)
        state.count = state.count + 1

    def _upright(self, place_B2: Tensor) -> Tensor:
        """The first pixel (B, 2) of the world that a screen shows there, if it stands upright."""
        return pixel(place_B2)

    def _with_written(self, state: ScrollState, step: ScrollStep, picture_BHW: Tensor, written_BHW: Tensor) -> Tensor:
        """What is known of this part of the world, with what is written of a picture."""
        return torch.where(written_BHW, picture_BHW, step.known)

    def store(self, state: ScrollState, step: ScrollStep) -> None:
        place = Place(step.keys, step.slots, step.tiles, step.seen)
        state.mosaic.write(place, state.known, state.count - 1)

    def inspect(self, state: ScrollState, action_BA: Tensor, tokenizer: Tokenizer, player: int = 0) -> Recalled | None:
        if state.mosaic is None:
            return None
        step, size = self.foresee(state, action_BA), self.size
        picture, known = self.shown(step)
        view = picture[player]
        screens = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        away = torch.tensor(screens, device=view.device) * torch.tensor(size, device=view.device)
        corners = self._upright(self._arrived(state, step.motion))[player] + away
        mosaic = Mosaic(*(x[player : player + 1] for x in vars(state.mosaic).values()))
        seen = torch.cat([mosaic.last_visit(corner, size) for corner in corners.split(1)])
        pictures = unpacked(torch.cat([mosaic.read(corner, size) for corner in corners.split(1)]))[..., :3]
        there, trail = seen >= 0, away.flip(1) * torch.tensor((1, -1)) / size[1]
        return Recalled(pictures[there], state.count[player] - seen[there], view, known[player], trail[there])

    # --- training ---

    def for_network(self, dynamics: DynamicsConfig) -> ScrollMemory:
        if dynamics.recall:
            raise UserError("a world that scrolls has one view: in the dynamics, set recall to false and warp to true")
        return self

    def within_window(self) -> Memory:
        """None: the window does not hold what the mosaic does, so views stay as they were drawn."""
        return NoMemory()

    # --- what the rest of the program asks ---

    def weights(self) -> list[Tensor]:
        """The choice of a step is no part of them: recorded frames are drawn from where pictures or poses say."""
        return [self.fixed, *([torch.tensor(self.config.axes)] if self.placed else [])]


def pixel(corner_B2: Tensor) -> Tensor:
    """The pixel of the world, int64 (B, 2), that the screen's first one shows."""
    return (corner_B2 + 0.5).floor().long()


def _rows(latent_BChw: Tensor) -> Tensor:
    """A copy whose values lie row by row, whatever layout the network prefers: rewinding writes into rows."""
    return latent_BChw.clone(memory_format=torch.contiguous_format)
