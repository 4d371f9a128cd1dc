"""The geometry's training: what the first-person memory needs to draw a remembered view, depth and motion.

    python -m train geometry --config configs/maze/geometry.yaml
    python -m train geometry --config configs/own/geometry.yaml     # a game that gives no poses

With recorded poses the camera's focal length is found before training starts (`calibration.py`), depth learns from how
frames give each other (`photometric.py`), and motion from the poses. Without (`poses: false`) all three are learnt from
the pictures alone (`unposed.py`).

Legend: B windows, T frames of a window, C channels, h, w latent grid, H, W pixels.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.memory.first_person.geometry import Geometry, MemoryConfig
from game_wm.memory.first_person.pose import relative
from game_wm.model.tokenizer import Tokenizer
from train.camera.evidence import refuse_others
from train.checkpoints import load_tokenizer
from train.data.recordings import known_recordings
from train.first_person.calibration import focal_length
from train.first_person.photometric import depth_losses
from train.first_person.steps import READ_ERROR, fit, read_off, recorded_steps, usual_loss
from train.first_person.unposed import unposed_losses
from train.report.console import say
from train.stages.callbacks import budget_of
from train.stages.module import Kind, StageModule, make_optimizer

SHORT = 12  # without poses: frames of a window at first
FOCAL = (0.4, 4.0)  # without poses: the least and the largest focal length, in halves of a picture's width
FOCAL_RATE, IMAGE_RATE = 5.0, 0.2  # without poses: learning rates of focal length and image branch, of all others'
TRIED_FROM = 0.2  # without poses: part of the training after which candidate steps are tried


class GeometryModule(StageModule):
    """Trains `Geometry` on windows of latents with poses.

    Args:
        latent_shape, actions: given by the data.
        tokenizer: the checkpoint whose latents these are.
        geometry: sizes of the networks and of the memory that they serve.
        lr, weight_decay, optimizer: of the optimiser.
        smooth: weight of the disparity's slope where the picture has none.
        distant: source frames from anywhere in the window for each target.
        steps: pairs of a window that motion is trained on, whatever the window's length.
        poses: learn motion from recorded poses; `false`: from the pictures alone, together with depth.
        any_camera: train on recordings whose camera is no first-person one, too.
        depth: learn depth; `false` keeps that of `--init` and gives all of the time to motion.
    """

    def __init__(
        self,
        tokenizer: str, latent_shape: tuple[int, int, int] = (8, 8, 8), actions: int = 4,
        geometry: MemoryConfig = MemoryConfig(),
        lr: float = 2e-3, weight_decay: float = 0.01, optimizer: Kind = "adamw",
        smooth: float = 0.002, distant: int = 2, steps: int = 15, poses: bool = True, depth: bool = True,
        any_camera: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(lr, weight_decay, optimizer)
        channels, height, width = latent_shape
        self.config = replace(geometry, channels=channels, height=height, width=width, actions=actions)
        self.geometry = Geometry(self.config)
        self.smooth, self.distant, self.steps, self.poses = smooth, distant, steps, poses
        self.any_camera = any_camera
        self.learns_depth = depth
        self.geometry.depth.requires_grad_(depth)
        if not (poses or depth):
            raise UserError("without poses, motion is learnt from depth: leave --model.depth true")
        if not (poses or self.geometry.motion.free):
            raise UserError("without poses, motion is learnt from what an action mostly does, which is learnt for the "
                            "trail: set --model.geometry.trail 1024")  # fmt: skip
        self.trying = False
        motion = self.geometry.motion
        if poses and motion.inertia:  # learnt before all else, see `prepare`
            for part in (motion.free, motion.turn):
                if part is not None:
                    part.requires_grad_(False)
        if not poses:
            self.geometry.focal.requires_grad_(True)
            for head in (motion.observed, motion.forecast, motion.turn):
                for weights in head[-1].parameters():
                    nn.init.zeros_(weights)  # steps start at zero
        # In a list, so that the frozen tokenizer is no part of the checkpoint.
        self.frozen = [load_tokenizer(tokenizer)]
        if self.frozen[0].config.temporal:
            raise UserError("geometry looks at single frames: train it with a tokenizer that is not temporal")
        if any(self.frozen[0].config.padding):
            factor = self.frozen[0].config.factor
            raise UserError(
                f"geometry wants frames that latents of {factor} pixels divide: record such ones, or leave memory out"
            )

    @property
    def tokenizer(self) -> Tokenizer:
        return self.frozen[0].to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = {"geometry": asdict(self.config)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Without poses, the focal length, one number, learns fastest, since turns are only as exact as it is; and the
        image branch slowest, since obstacles are rare."""
        if self.poses:
            return make_optimizer(self.geometry, self.optimizer_kind, self.lr, self.weight_decay)
        motion = self.geometry.motion
        assert motion.free is not None
        heads = [part for part in (motion.observed, motion.forecast, motion.turn, motion.free) if part is not None]
        others = nn.ModuleList((self.geometry.depth, *heads))
        optimizer = make_optimizer(others, self.optimizer_kind, self.lr, self.weight_decay)
        reading = (motion.conv_in, motion.blocks, motion.gather, motion.read)
        for params, rate, decay in (
            ([p for part in reading for p in part.parameters()], IMAGE_RATE, self.weight_decay),
            ([self.geometry.focal], FOCAL_RATE, 0.0),
        ):
            group = {"params": params, "lr": rate * self.lr, "weight_decay": decay}
            optimizer.add_param_group({**group, "use_fallback": True})  # of Muon
        return optimizer

    def uncapturable(self) -> str | None:
        return None if self.poses else "geometry without poses changes its step on the way"

    def prepare(self, data: Any) -> None:
        """Find the focal length and, with inertia, the free step, once. `UserError` where there is nothing to learn."""
        if data.length < 3:
            raise UserError(f"motion is learnt from windows of 3 frames at least: raise --data.length {data.length}")
        if not self.any_camera and (recordings := known_recordings(data.store)):
            refuse_others(recordings)
        if not self.poses:
            return
        if not data.store.index["pose"]:
            raise UserError(f"{data.latents} has no poses: learn motion without, with --model.poses false")
        if float(self.geometry.focal) == 1.0:
            batches = ({k: v.to(self.device) for k, v in data.batch(i, 16).items()} for i in range(0, 16 * 64, 16))
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
            # The errors of steps add up over a window: windows grow over the first half of the training.
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
        named = {f"val_{name}": value for name, value in figures.items()}
        self.log_dict(named, batch_size=len(batch["latents"]), sync_dist=True)

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
        """The loss and its parts: how well sources give a target, and the motion's errors in its units. These are
        squared: collisions are rare, and a median would ignore them."""
        latents, actions = batch["latents"], batch["actions"]
        if not self.poses:
            weights = self.distant, self.steps, self.smooth, self.trying
            return unposed_losses(self.geometry, self.tokenizer, latents, actions, *weights)
        pose, figures, loss = batch["pose"], dict[str, Tensor](), latents.new_zeros(())
        if self.learns_depth:
            target_at = torch.randint(latents.shape[1], (len(latents), 1), device=self.device)
            found = depth_losses(self.geometry, self.tokenizer, latents, pose, target_at, self.distant)
            photo, distant, rough, _ = found
            loss, figures = photo + distant + self.smooth * rough, {"photo": photo, "distant": distant}
        latents, actions, pose = (x[:, : self.steps + 1] for x in (latents, actions, pose))
        motion = self.geometry.motion
        before, now = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
        truth, previous = relative(pose[:, :-1], pose[:, 1:]), actions[:, :-1]
        pair = motion.pair(before, now).unflatten(0, truth.shape[:2])
        # In play the past consists of estimated steps: half of the windows learn with these. With inertia they are
        # corrected by odometry, and their error is small.
        if motion.inertia:
            read = truth + motion.unit * truth.new_tensor(READ_ERROR) * torch.randn_like(truth)
        else:
            read = motion.reckon(pair, previous)
        known = torch.where(torch.rand(len(truth), 1, 1, device=self.device) < 0.5, truth, read)
        past = motion.pasts(known, previous)  # of each step and of what comes after the last
        observed = motion.estimate_step(*(x.flatten(0, 1) for x in (pair, previous, past[:, :-1]))).view_as(truth)
        # The step after the last pair is not in the window.
        following = past[:, 1:-1].flatten(0, 1)
        forecast = motion.predict_step(pair[:, :-1].flatten(0, 1), previous[:, 1:].flatten(0, 1), following)
        observed, forecast = self.off(observed, truth), self.off(forecast.view_as(truth[:, 1:]), truth[:, 1:])
        if motion.free is not None and not motion.inertia:
            free = usual_loss(motion, previous[:, 1:], past[:, 1:-1], truth[:, 1:])
            loss, figures = loss + 0.1 * free, figures | {"free": free}
        return loss + 0.1 * (observed + forecast), figures | {"was": observed, "coming": forecast}

    def off(self, found: Tensor, truth: Tensor) -> Tensor:
        """The error of steps (..., 3): squared, or with inertia that of `read_off`."""
        off = (found - truth) / self.geometry.motion.unit
        return read_off(off[..., :2]) if self.geometry.motion.inertia else off.square().mean()
