"""The training of what episodic memory needs to draw a remembered view: depth without labels, motion on poses, or
without labels as well.

    python -m train geometry --config configs/maze/geometry.yaml
    python -m train geometry --config configs/own/geometry.yaml     # a game that gives no poses

A frame's disparity is right when the frames around it, looked up where it says, give that frame (Zhou et al., 2017; the
better of two sources counts at each pixel, Godard et al., 2019). Frames from far away in a window count as well, where
their own disparity agrees (Bian et al., 2019): memory draws from such frames, and nearby ones forgive what moves these.
Pictures are compared as they are and four times smaller: what is off by more than a pixel finds its way there.
Frames are decoded from latents, as they are in play.
With poses, the camera's focal length is found before training starts (`calibration.py`). Without (`poses: false`) the
motion network's steps take the poses' place in all of this: steps, depth and focal length are learnt together, from how
well frames give each other. So it is learnt what an action does, but not whether something is in the way: that gradient
is mostly noise, and it silences what reads the pictures. By trying (`tried`) it is found which part of the usual step
gives the next frame best.

Legend: B windows, L frames of a window, S sources, C channels, h, w latent grid, H, W pixels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.memory.first_person.camera import project
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig
from game_wm.memory.first_person.pose import relative, trace
from game_wm.model.tokenizer import Tokenizer
from train.checkpoints import load_tokenizer
from train.first_person.calibration import focal_length
from train.first_person.motion import ASTRAY, fit, read_off, recorded_steps
from train.stages.callbacks import budget_of
from train.stages.optimizer import Kind, configure
from train.stages.report import say

SOURCES, NEARBY = 2, 8  # frames that a target is drawn from, at most so many frames before or after it
COARSER = (1, 4)  # times smaller are the pictures that are compared: in small ones what is far off finds its way
LOST = 0.02  # weight of the disparity of what no nearby frame shows
AGREE, AGREE_ABOUT = 0.3, 0.03  # how far disparities of distant frames may differ: relative and absolute
MEAN, SIZE = 0.5, 0.02  # without poses: the mean disparity of a picture, and the weight of its being so
SHORT = 12  # without poses: frames of a window at first
FOCAL = (0.4, 4.0)  # without poses: what the focal length may be
FOCAL_RATE, READ_RATE = 5.0, 0.2  # and the learning rates, of the others', of it and of what reads pairs of pictures
TRIED_FROM, TRIED = 0.2, 4  # without poses: from when on steps are tried out, and how many of a window
ANGLES = (0, 18, -18, 36, -36, 54, -54, 72, -72, 90)  # degrees from the step to where one slides; 90: one is stopped
BETTER = 0.9  # times the error of the usual step: what another one's must be below


class GeometryModule(pl.LightningModule):
    """Trains `Geometry` on windows of latents with poses.

    Args:
        latent_shape, actions: given by the data.
        tokenizer: the checkpoint whose latents these are.
        geometry: sizes of the networks and of the memory that they serve.
        lr, weight_decay, optimizer: of the optimiser.
        smooth: weight of the disparity's slope where the picture has none.
        distant: how many frames from anywhere in the window a target is drawn from as well.
        steps: pairs of a window that motion is trained on, so that a long window costs it no more.
        poses: learn motion from recorded poses; `false`: from the pictures alone, together with depth.
        depth: learn depth; `false` leaves it as `--init` had it, and gives all of the time to motion.
    """

    def __init__(
        self,
        tokenizer: str,
        latent_shape: tuple[int, int, int] = (8, 8, 8),
        actions: int = 4,
        geometry: MemoryConfig = MemoryConfig(),
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        optimizer: Kind = "adamw",
        smooth: float = 0.002,
        distant: int = 2,
        steps: int = 15,
        poses: bool = True,
        depth: bool = True,
    ) -> None:
        super().__init__()
        channels, height, width = latent_shape
        self.config = replace(geometry, channels=channels, height=height, width=width, actions=actions)
        self.geometry = Geometry(self.config)
        self.lr, self.weight_decay, self.optimizer_kind, self.smooth = lr, weight_decay, optimizer, smooth
        self.distant, self.steps, self.poses = distant, steps, poses
        self.learns_depth = depth
        self.geometry.depth.requires_grad_(depth)
        if not (poses or depth):
            raise UserError("without poses, motion is learnt from depth: leave --model.depth true")
        if not (poses or self.geometry.motion.free):
            raise UserError("without poses, motion is learnt from what an action mostly does, which is learnt for the "
                            "trail: set --model.geometry.trail 1024")  # fmt: skip
        self.trying = False
        if poses and self.geometry.motion.inertia:  # learnt before all else, see `prepare`
            for part in (self.geometry.motion.free, self.geometry.motion.turn):
                if part is not None:
                    part.requires_grad_(False)
        if not poses:
            self.geometry.focal.requires_grad_(True)
            motion = self.geometry.motion
            for head in (motion.was, motion.next, motion.turn):
                for weights in head[-1].parameters():
                    nn.init.zeros_(weights)  # nobody has moved, until pictures say so
        # In a list, so that the frozen tokenizer is no part of the checkpoint.
        self.frozen = [load_tokenizer(tokenizer)]
        if self.frozen[0].config.temporal:
            raise UserError("geometry looks at single frames: train it with a tokenizer that is not temporal")

    @property
    def tokenizer(self) -> Tokenizer:
        """The frozen tokenizer, on this module's device."""
        return self.frozen[0].to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = {"geometry": asdict(self.config)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Without poses, the focal length, one number, is learnt faster than all else, since turns are only as exact as
        it is; and what reads pairs of pictures more slowly: that something is in the way is rare."""
        if self.poses:
            return configure(self.geometry, self.optimizer_kind, self.lr, self.weight_decay)
        motion = self.geometry.motion
        assert motion.free is not None
        heads = [part for part in (motion.was, motion.next, motion.turn, motion.free) if part is not None]
        others = nn.ModuleList((self.geometry.depth, *heads))
        optimizer = configure(others, self.optimizer_kind, self.lr, self.weight_decay)
        reading = (motion.enter, motion.blocks, motion.gather, motion.read)
        for params, rate, decay in (
            ([p for part in reading for p in part.parameters()], READ_RATE, self.weight_decay),
            ([self.geometry.focal], FOCAL_RATE, 0.0),
        ):
            group = {"params": params, "lr": rate * self.lr, "weight_decay": decay}
            optimizer.add_param_group({**group, "use_fallback": True})  # of Muon
        return optimizer

    def on_fit_start(self) -> None:
        self.prepare(self.trainer.datamodule)  # type: ignore[attr-defined]

    def prepare(self, data: Any) -> None:
        """Find the focal length, and with inertia what steps lead to, once."""
        if data.length < 3:
            raise UserError(f"motion is learnt from windows of 3 frames at least: raise --data.length {data.length}")
        if not self.poses:
            return
        if not data.store.index["pose"]:
            raise UserError(f"{data.latents} has no poses: learn motion without, with --model.poses false")
        if float(self.geometry.focal) == 1.0:
            batches = (
                {name: data.batch(first, 16)[name].to(self.device) for name in ("latents", "pose")}
                for first in range(0, 16 * 64, 16)
            )
            self.geometry.focal.fill_(focal_length(self.tokenizer, batches, self.config.place, str(data.latents)))
        motion = self.geometry.motion
        if isinstance(motion.free, nn.Linear) and not motion.free.weight.any():  # inertia
            spans = data.store.split(data.held_out, False)
            off = fit(motion.cpu(), recorded_steps(data.store, spans))
            motion.to(self.device)
            say(f"{data.latents}: where nothing is in the way half of the steps are known to {off / 10:.4f} places")

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        if not self.poses:
            with torch.no_grad():
                focal = self.geometry.focal
                focal.copy_(focal.abs().clamp(*FOCAL) * focal.sign())
            progress = budget_of(self.trainer).progress(self.trainer)
            self.trying = progress > TRIED_FROM
            # Steps add up over a window, and so does what is wrong with them: windows grow over the first half.
            length, grown = batch["latents"].shape[1], min(1.0, 2 * progress)
            length = min(length, round(SHORT + (length - SHORT) * grown))
            batch = {name: batch[name][:, :length] for name in ("latents", "actions")}
        loss, figures = self.losses(batch)
        self.log_dict({name: value.detach() for name, value in figures.items()}, prog_bar=True)
        self.log("loss", loss.detach())
        return loss

    @torch.no_grad()
    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            figures = self.losses(batch)[1]
        self.log_dict({f"val_{name}": value for name, value in figures.items()}, batch_size=len(batch["latents"]))

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Tensor:
        """uint8 (rows, T, H, W, 3): frames and their disparity in turn, of four windows."""
        latents = batch["latents"][:4]
        frames = self.tokenizer.decode(latents.flatten(0, 1))
        near = self.geometry.depth(latents.flatten(0, 1))[:, None]
        near = F.interpolate(near.sqrt() / near.amax().sqrt(), size=frames.shape[1:3]) * 255
        grey = near.to(torch.uint8).permute(0, 2, 3, 1).expand_as(frames)
        shape = (len(latents), latents.shape[1])
        return torch.stack([x.unflatten(0, shape) for x in (frames, grey)], dim=1).flatten(0, 1)

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What is trained on, and its parts: how well sources give a target, and the motion's errors in its units.

        Those are squared: collisions are rare, and their median is what the buttons say.
        """
        latents, actions = batch["latents"], batch["actions"]
        if not self.poses:
            return self.odometry_losses(latents, actions)
        pose, figures, loss = batch["pose"], dict[str, Tensor](), latents.new_zeros(())
        if self.learns_depth:
            target_at = torch.randint(latents.shape[1], (len(latents), 1), device=self.device)
            photo, distant, smooth, _ = self.depth_losses(latents, pose, target_at)
            loss, figures = photo + distant + self.smooth * smooth, {"photo": photo, "distant": distant}
        latents, actions, pose = (x[:, : self.steps + 1] for x in (latents, actions, pose))
        motion = self.geometry.motion
        before, now = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
        truth, led = relative(pose[:, :-1], pose[:, 1:]), actions[:, :-1]
        pair = motion.pair(before, now).unflatten(0, truth.shape[:2])
        # In play the steps before are what was read off the pictures: half of the windows learn with that. With inertia
        # the pictures are looked at once more (memory/odometry.py), and little of it is wrong.
        read = (
            truth + motion.unit * truth.new_tensor(ASTRAY) * torch.randn_like(truth)
            if self.geometry.motion.inertia
            else motion.reckon(pair, led)
        )
        known = torch.where(torch.rand(len(truth), 1, 1, device=self.device) < 0.5, truth, read)
        past = motion.pasts(known, led)  # of each step and of what comes after the last
        was = motion.led_here(*(x.flatten(0, 1) for x in (pair, led, past[:, :-1]))).view_as(truth)
        # What comes after the last pair is not in the window.
        following = past[:, 1:-1].flatten(0, 1)
        coming = motion.to_come(pair[:, :-1].flatten(0, 1), led[:, 1:].flatten(0, 1), following)
        was, coming = self.off(was, truth), self.off(coming.view_as(truth[:, 1:]), truth[:, 1:])
        if motion.free is not None and not self.geometry.motion.inertia:
            free = self.usual_loss(led[:, 1:], past[:, 1:-1], truth[:, 1:])
            loss, figures = loss + 0.1 * free, figures | {"free": free}
        return loss + 0.1 * (was + coming), figures | {"was": was, "coming": coming}

    def off(self, found: Tensor, truth: Tensor) -> Tensor:
        """How far steps (..., 3) are off: squared, with inertia as `read_off` has it."""
        off = (found - truth) / self.geometry.motion.unit
        return read_off(off[..., :2]) if self.geometry.motion.inertia else off.square().mean()

    def usual_loss(self, actions: Tensor, past: Tensor, truth: Tensor) -> Tensor:
        """Of the step that an action mostly leads to, the median, on steps (B, L, 3) that followed on others."""
        motion = self.geometry.motion
        usual = motion.unhindered(actions.flatten(0, 1), past.flatten(0, 1)).view_as(truth)
        return ((usual - truth) / motion.unit)[..., :2].abs().mean()

    def odometry_losses(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `losses`, of windows without poses: the motion network's steps lead from frame to frame, and are right if
        these give each other. The size of the world is free; the mean disparity pins it. So it is learnt how far an
        action leads, at first; from then on only how far it turns, and by trying what the pictures say of a step."""
        motion, (batch, time) = self.geometry.motion, latents.shape[:2]
        target_at = torch.randint(time, (batch, 1), device=self.device)
        pair = self.pairs(latents, target_at)
        pair = pair if self.trying else pair.detach()
        led = actions[:, :-1]
        past = motion.pasts(motion.reckon(pair, led), led)
        was = motion.led_here(*(x.flatten(0, 1) for x in (pair, led, past[:, :-1]))).unflatten(0, led.shape[:2])
        steps = torch.cat((was[..., :2].detach(), was[..., 2:]), -1) if self.trying else was
        photo, distant, smooth, near = self.depth_losses(latents, trace(steps), target_at)
        # What each step was, the one before it foretells.
        goal = steps.detach()[:, 1:].flatten(0, 1)
        known = motion.pasts(steps.detach(), led)[:, 1:-1].flatten(0, 1)
        coming = motion.to_come(pair[:, :-1].flatten(0, 1), led[:, 1:].flatten(0, 1), known)
        coming = ((coming - goal) / motion.unit)[..., :2].square().mean()
        size = (near.mean((1, 2)).log().mean() - math.log(MEAN)).square()
        moved = steps.detach()[..., :2].norm(dim=-1).mean() / self.config.place
        figures = {"photo": photo, "distant": distant, "coming": coming, "size": size, "moved": moved}
        figures |= {"focal": self.geometry.focal.detach().clone()}
        loss = photo + distant + self.smooth * smooth + 0.1 * coming + SIZE * size
        if not self.trying:
            return loss + 0.1 * self.usual_loss(led, past[:, :-1], steps.detach()), figures
        count = min(TRIED, time - 1)
        at = target_at.clamp_max(time - 1 - count) + torch.arange(count + 1, device=self.device)
        rows = torch.arange(batch, device=self.device)[:, None]
        actions, past, was = (x[rows, at[:, :-1]].flatten(0, 1) for x in (actions, past, was))
        goal = self.tried(latents[rows, at], motion.unhindered(actions, past))
        found = ((was - goal) / motion.unit)[..., :2].square().mean()
        return loss + 0.1 * found, figures | {"was": found}

    @torch.no_grad()
    def tried(self, latents: Tensor, usual: Tensor) -> Tensor:
        """The steps (N, 3) from frame to frame of windows (B, L, C, h, w), by trying: an action's usual one (N, 3), or
        what is left of it where something is in the way, if that gives the one picture from the other better.

        Who slides along something loses what goes against it: what is left lies on a circle, from all to nothing.
        """
        angle = torch.tensor(ANGLES, device=self.device).deg2rad()[:, None]
        along, (ahead, aside) = usual[:, None, :2], usual[:, None, :2].unbind(-1)
        across = torch.stack((-aside, ahead), -1)
        left = angle.cos().square() * along + angle.cos() * angle.sin() * across  # (N, K, 2)
        steps = torch.cat((left, usual[:, None, 2:].expand(-1, len(ANGLES), -1)), -1)
        near = self.geometry.depth(latents[:, 1:].flatten(0, 1))
        frames = self.tokenizer.decode_images(latents.flatten(0, 1)).float().clamp(-1, 1)
        frames = F.interpolate(frames, size=near.shape[-2:], mode="area").unflatten(0, latents.shape[:2])
        then, shown = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        away = relative(steps, torch.zeros_like(steps)).flatten(0, 1)
        away = torch.cat((away[:, :2] / self.config.place, away[:, 2:]), 1)
        each = lambda x: x[:, None].expand(-1, len(ANGLES), *x.shape[1:]).flatten(0, 1)  # noqa: E731
        place, _, seen = project(each(near), away, self.geometry.focal)
        given = F.grid_sample(each(then), place, padding_mode="border", align_corners=False)
        inside = seen & (place.abs() < 1).all(-1)
        error = ((given - each(shown)).abs().mean(1) * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
        error = error.view(-1, len(ANGLES))
        error[:, 0] *= BETTER
        return steps[torch.arange(len(steps), device=self.device), error.argmin(1)]

    def pairs(self, latents: Tensor, target_at: Tensor) -> Tensor:
        """The motion network's features (B, L - 1, E) of frames that follow each other; it learns from those `steps`
        around each window's target (B, 1)."""
        pair, last = self.geometry.motion.pair, latents.shape[1] - 1
        rows = torch.arange(len(latents), device=self.device)[:, None]
        near = (target_at - self.steps // 2).clamp(0, max(0, last - self.steps))
        near = near + torch.arange(min(self.steps, last), device=self.device)
        found = pair(latents[rows, near].flatten(0, 1), latents[rows, near + 1].flatten(0, 1)).unflatten(0, near.shape)
        if last == near.shape[1]:
            return found
        with torch.no_grad():
            whole = pair(latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)).unflatten(0, (len(latents), last))
        return whole.scatter(1, near[..., None].expand_as(found), found.to(whole))

    def depth_losses(self, latents: Tensor, pose: Tensor, target_at: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How the frame `target_at` (B, 1) of each window differs from what nearby frames give and from what distant
        ones do, how rough its disparity is, and that disparity (B, 4h, 4w)."""
        batch, time = latents.shape[:2]
        count = SOURCES + self.distant
        rows = torch.arange(batch, device=self.device)[:, None]
        apart = 1 + torch.rand(batch, 2 * NEARBY, device=self.device).argsort(1)[:, :SOURCES] - NEARBY
        near = target_at + apart - (apart <= 0).long()  # never the target itself
        near = torch.where((near < 0) | (near >= time), 2 * target_at - near, near).clamp(0, time - 1)
        far = torch.randint(time, (batch, self.distant), device=self.device)
        order = torch.cat((target_at, near, far), 1)
        with torch.no_grad():
            frames = self.tokenizer.decode_images(latents[rows, order].flatten(0, 1)).float().clamp(-1, 1)
            target, sources = frames.unflatten(0, (batch, -1)).split((1, count), 1)
            theirs = self.geometry.depth(latents[rows, far].flatten(0, 1))[:, None]
        disparity = self.geometry.depth(latents[rows, target_at].flatten(0, 1))[:, None]
        away = relative(pose[rows, target_at], pose[rows, order[:, 1:]]).flatten(0, 1)
        away = torch.cat((away[:, :2] / self.config.place, away[:, 2:]), 1)
        pooled = lambda x, by: F.avg_pool2d(x.flatten(0, 1), by).unflatten(0, x.shape[:2])  # noqa: E731
        losses = [self.looked_up(pooled(target, by), pooled(sources, by), disparity, theirs, away) for by in COARSER]
        photo, distant = (torch.stack(part).mean() for part in zip(*losses, strict=True))
        small = F.interpolate(target[:, 0], size=disparity.shape[-2:], mode="area")
        rough = disparity.new_zeros(())
        for axis in (-1, -2):
            edge = small.diff(dim=axis).abs().mean(1, keepdim=True)
            rough = rough + (disparity.diff(dim=axis).abs() * (-4 * edge).exp()).mean()
        return photo, distant, rough / disparity.mean(), disparity[:, 0]

    def looked_up(
        self, target: Tensor, sources: Tensor, disparity: Tensor, theirs: Tensor, away: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How frames (B, 1, 3, H, W) differ from what sources (B, S, 3, H, W) give, `SOURCES` nearby ones and distant
        ones, where `disparity` (B, 1, h, w) says: of the nearby ones, of the distant ones, whose own is `theirs`
        (B * distant, 1, h, w). `away` (B * S, 3) are their poses as the target sees them."""
        batch, count = sources.shape[:2]
        whole = F.interpolate(disparity, size=target.shape[-2:], mode="bilinear", align_corners=False)
        place, there, seen = project(whole.expand(-1, count, -1, -1).flatten(0, 1), away, self.geometry.focal)
        given = F.grid_sample(sources.flatten(0, 1), place, padding_mode="border", align_corners=False)
        error = difference(given, target.expand(-1, count, -1, -1, -1).flatten(0, 1))
        inside = seen & (place.abs() < 1).all(-1)
        split = (SOURCES, self.distant)
        nearby, distant = error.unflatten(0, (batch, count)).split(split, 1)
        inside, inside_far = inside.unflatten(0, (batch, count)).split(split, 1)
        best, found = nearby.masked_fill(~inside, 9.0).amin(1), inside.any(1)
        # What is hidden from a distant frame is not told apart by the lesser error of two: its own disparity tells.
        place, there = (x.unflatten(0, (batch, count))[:, SOURCES:].flatten(0, 1) for x in (place, there))
        own = F.grid_sample(theirs, place, padding_mode="border", align_corners=False)[:, 0]
        same = (there.detach() - own).abs() < AGREE * torch.maximum(there.detach(), own) + AGREE_ABOUT
        agree = inside_far & same.unflatten(0, (batch, self.distant))
        # What is so near that no frame shows it would never be judged again.
        lost = (whole[:, 0] * ~found).mean()
        photo = (best * found).sum() / found.sum().clamp_min(1) + LOST * lost
        return photo, (distant * agree).sum() / agree.sum().clamp_min(1)


def difference(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """How two pictures in [-1, 1] differ at each pixel (B, H, W): half L1, half structural (Wang et al., 2004)."""
    mean = lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)  # noqa: E731
    a, b = mean(a_BCHW), mean(b_BCHW)
    spread = mean(a_BCHW * a_BCHW) - a * a + mean(b_BCHW * b_BCHW) - b * b
    alike = (2 * a * b + 4e-4) * (2 * (mean(a_BCHW * b_BCHW) - a * b) + 3.6e-3)
    alike = alike / ((a * a + b * b + 4e-4) * (spread + 3.6e-3))
    return 0.5 * (a_BCHW - b_BCHW).abs().mean(1) + 0.25 * (1 - alike.mean(1))
