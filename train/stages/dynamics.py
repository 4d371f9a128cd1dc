"""The dynamics' training: an objective on recorded frames, then, in a late stage, on the model's own rollouts.

    python -m train dynamics --config configs/maze/dynamics.yaml

Legend: B windows, T frames of a window, N tokens, K targets, M channels of the views, C channels, h, w latent grid, A
action vector.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from game_wm.memory.protocol import Memory, Prompt
from game_wm.model.config import COVER, DynamicsConfig
from game_wm.model.context import two_hot
from game_wm.model.dynamics import Dynamics, Reading
from game_wm.model.features import Features, perceptual_distance
from game_wm.model.tokenizer import Tokenizer, earlier
from game_wm.objectives import FlowMatching, Objective, make_objective, objective_entries
from train.checkpoints import load_memory, load_tokenizer
from train.data.windows import random_below
from train.stages.callbacks import average_of, budget_of
from train.stages.module import Kind, StageModule, make_optimizer
from train.stages.moving import cell_weights, weighed
from train.stages.rollout import Player, Rollout, roll_out
from train.stages.tokenizer import psnr

Batch = dict[str, Tensor]


class DynamicsModule(StageModule):
    """Trains `Dynamics` on windows of latents.

    Args:
        latent_shape, levels, actions: given by the data; `levels` of a discrete tokenizer's channels.
        tokenizer: the checkpoint whose latents these are, for losses on decoded frames, views and sample pictures.
        geometry: the checkpoint of the memory whose views are rendered in own rollouts.
        dynamics: sizes of the network.
        objective: how a frame is generated: its `kind` and its options, see game_wm/objectives.
        lr, weight_decay, optimizer: of the optimiser.
        targets: K, frames of a window that the denoiser is trained on; the context stream reads all of them.
        context_noise: largest deviation of noise on the context; its level is an input (GameNGen, Valevski et al.,
            2024).
        outcome: weight of the reward's and the termination's losses.
        pixels: weight of the L1 distance between decoded prediction and decoded truth, on `pixel_share` of the targets.
        perceptual: weight of their EfficientNet-Lite0 feature distance, on the same targets. A mean over shifted
            textures is a blur: pixels forgive it, features do not.
        rollout: frames at a window's end that the model generates itself before it is trained on them; 0 is off.
        rollout_from: part of the run's budget after which such steps begin: the late stage.
        rollout_share: share of the steps that are on own rollouts then.
        moving: how much more than others those latent cells weigh, in flow matching and on pixels, that differ from the
            frame before or from the median of their episode (`moving.py`); 0 is off.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int] = (8, 8, 8), levels: tuple[int, ...] = (), actions: int = 4,
        tokenizer: str | None = None, geometry: str | None = None,
        dynamics: DynamicsConfig = DynamicsConfig(), objective: dict[str, int | float | str] | None = None,
        lr: float = 1e-3, weight_decay: float = 0.05, optimizer: Kind = "adamw",
        targets: int = 12, context_noise: float = 0.3, outcome: float = 0.02,
        pixels: float = 0.0, perceptual: float = 0.0, pixel_share: float = 0.25,
        rollout: int = 0, rollout_from: float = 0.7, rollout_share: float = 0.5,
        moving: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(lr, weight_decay, optimizer)
        channels, height, width = latent_shape
        self.objective = read_objective(objective or {})
        shape: Any = {"channels": channels, "height": height, "width": width, "levels": levels, "actions": actions}
        try:
            self.config = replace(dynamics, **shape, trunk=self.objective.trunks[0])
        except ValueError as error:
            raise UserError(f"{self.objective.kind}: {error}") from None
        if self.objective.kind == "cascade" and (height % 2 or width % 2):
            raise UserError(
                f"a cascade halves the grid, which {width}x{height} latents have not: take another objective"
            )
        self.dynamics = Dynamics(self.config)
        self.targets, self.context_noise, self.outcome = targets, context_noise, outcome
        self.pixels, self.perceptual, self.pixel_share = pixels, perceptual, pixel_share
        self.rollout, self.rollout_from, self.rollout_share = rollout, rollout_from, rollout_share
        self.moving = moving
        # In lists, so that frozen networks are no part of the checkpoint.
        self.frozen = [load_tokenizer(tokenizer)] if tokenizer else []
        memory = load_memory(geometry if self.config.views else None).for_network(self.config)
        self.frozen_memory = [memory.within_window()]
        self.features = [Features()] if perceptual else []
        if self.decodes and not tokenizer:
            raise UserError("a loss on pixels needs the decoder: set --model.tokenizer")
        if (self.decodes or moving) and not isinstance(self.objective, FlowMatching):
            raise UserError(
                "a loss on pixels or on what moves is flow matching's alone: leave --model.pixels, --model.perceptual "
                "and --model.moving at 0"
            )
        if self.config.warp and not (tokenizer and geometry):
            raise UserError("to warp the last frame, set --model.tokenizer and --model.geometry")
        if self.frozen and self.frozen[0].config.temporal and (self.decodes or self.config.views):
            raise UserError(
                "a temporal tokenizer decodes no single frames: set pixels, perceptual to 0, recall, warp to false"
            )

    @property
    def decodes(self) -> bool:
        """Whether a loss goes through the decoder."""
        return bool(self.pixels or self.perceptual)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The frozen tokenizer, on this module's device."""
        return self.frozen[0].to(self.device) if self.frozen else None

    @property
    def memory(self) -> Memory:
        """The part of the frozen memory that a window suffices for, on this module's device."""
        return self.frozen_memory[0].to(self.device)

    def check_length(self, length: int) -> None:
        """`UserError` when windows of so many frames have no targets, or no recorded frame before own rollouts."""
        least = max(self.config.history, self.rollout) + 1
        if length < least:
            raise UserError(
                f"--data.length {length} is too short for a history of {self.config.history} frames and rollouts of "
                f"{self.rollout}: give at least {least}; for shorter episodes --init none has a history that fits"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = {"dynamics": asdict(self.config), "objective": objective_entries(self.objective)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.dynamics, self.optimizer_kind, self.lr, self.weight_decay)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        latents, actions = batch["latents"], batch["actions"]
        time = latents.shape[1]
        context, first, views = latents, self.config.history, self.recorded_views(batch)
        noise = self.context_noise * torch.rand(len(latents), device=self.device)
        own = self.on_own_rollout()
        if own:
            first = time - self.rollout
            context, views = self.roll_out(batch, self.rollout)
            noise = noise * 0.25
        targets = first + self.sample_targets(time - first)
        views = None if views is None else views[:, targets]
        if self.config.warp and views is not None and not own and self.memory.needs_pictures:
            # In play they are drawn from generated frames, which are not as clean as recorded ones.
            picture = slice(-self.config.channels - COVER, -COVER)
            views[:, :, picture] += noise[:, None, None, None, None] * torch.randn_like(views[:, :, picture])
        noised = context + noise[:, None, None, None, None] * torch.randn_like(context)
        reading = self.dynamics(noised, actions, targets, noise, latents, views)
        cells = self.cells(batch, targets)
        errors, predicted = self.objective_loss(reading, cells)
        loss = errors.mean()
        self.log(self.objective.kind, loss.detach(), prog_bar=True)
        outcome = outcome_loss(self.dynamics.context.outcomes(reading.tokens), batch)
        self.log("outcome", outcome.detach())
        loss = loss + self.outcome * outcome
        if self.decodes and predicted is not None:
            loss = loss + self.pixel_loss(predicted, reading.goals, cells)
        self.log("loss", loss.detach())
        return loss

    @property
    def own_share(self) -> float:
        """Share of the steps, as of now, that are on own rollouts."""
        late = budget_of(self.trainer).progress(self.trainer) >= self.rollout_from
        return self.rollout_share if self.rollout and late else 0.0

    def draw_kind(self) -> bool:
        return bool(self.own_share and float(torch.rand(())) < self.own_share)

    def on_own_rollout(self) -> bool:
        """Whether this step is on own rollouts: at random, or as `decided` says (`cuda_graphs.py`). All processes of a
        run agree: a rollout takes several times as long, and each step waits for the slowest."""
        chance = random_below(2**32, 0, np.array([self.global_step]), 4)[0] / 2**32
        return self.decided if self.decided is not None else bool(chance < self.own_share)

    def sample_targets(self, frames: int) -> Tensor:
        """Frame numbers (K,) below `frames` for a step's targets, shuffled: the first of them train the single call and
        the loss through the decoder, and must come from the whole window."""
        return torch.rand(frames, device=self.device).argsort()[: self.targets]

    def cells(self, batch: Batch, targets: Tensor) -> Tensor | None:
        """How much each cell of the targets weighs (B, K, 1, h, w); None: all alike."""
        if not self.moving:
            return None
        latents = batch["latents"]
        return cell_weights(latents[:, targets], latents[:, targets - 1], batch["median"][:, None], self.moving)

    def objective_loss(self, reading: Reading, cells: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The objective's loss; half steps of flow matching are taken by the averaged weights."""
        average = average_of(self.trainer)
        if not isinstance(self.objective, FlowMatching):
            return self.objective.loss(reading.predict, reading.goals)
        if not self.objective.bootstrap or average is None:
            return self.objective.loss(reading.predict, reading.goals, cells=cells)
        assert isinstance(average, DynamicsModule)
        with torch.no_grad():
            slow = reading.predict_with(average.dynamics.denoiser.to(self.device))
        return self.objective.loss(reading.predict, reading.goals, slow, cells)

    def roll_out(self, batch: Batch, frames: int, steps: int | None = None) -> Rollout:
        """The windows with their last `frames` replaced by the model's own: see `rollout.py`."""
        latents = batch["latents"]
        steps = steps or self.objective.calls(latents[0, 0, 0].numel())
        player = Player(self.dynamics, self.objective, steps, self.memory, self.tokenizer)
        window = Prompt(latents, batch["actions"], None, batch.get("pose"))
        return roll_out(player, window, frames, self.recorded_views(batch))

    def recorded_views(self, batch: Batch) -> Tensor | None:
        """The views of recorded frames (B, T, M, h, w) that this network reads, out of all that were rendered."""
        if not self.config.views:
            return None
        views = batch["views"].split(self.config.channels + COVER, 2)
        if len(views) > self.config.views:
            views = [view for view, read in zip(views, (self.config.recall, self.config.warp), strict=True) if read]
        return torch.cat(views, 2)

    def pixel_loss(self, predicted_BKCHW: Tensor, goals_BKCHW: Tensor, cells: Tensor | None = None) -> Tensor:
        """L1 and feature distance of decoded pictures, weighted, on targets of the single call that plays."""
        targets = predicted_BKCHW.shape[1]
        tokenizer = self.tokenizer
        assert tokenizer is not None and isinstance(self.objective, FlowMatching)
        first = self.objective.single(targets).start
        part = slice(first, first + max(1, round(self.pixel_share * targets)))
        with torch.no_grad():
            truth = tokenizer.decode_images(goals_BKCHW[:, part].flatten(0, 1)).float()
        decoded = tokenizer.decode_images(predicted_BKCHW[:, part].flatten(0, 1)).float()
        weights = None if cells is None else F.interpolate(cells[:, part].flatten(0, 1), decoded.shape[-2:])
        distance = weighed((decoded - truth).abs(), weights)
        self.log("pixels", distance.detach(), prog_bar=True)
        loss = self.pixels * distance
        if self.features:
            distance = perceptual_distance(self.features[0].to(self.device), decoded, truth)
            self.log("feature_distance", distance.detach(), prog_bar=True)
            loss = loss + self.perceptual * distance
        return loss

    @torch.no_grad()
    def validation_step(self, batch: Batch, index: int) -> None:
        latents = batch["latents"]
        frames = min(16, latents.shape[1] - self.config.history)
        made = self.roll_out(batch, frames).frames
        began = latents.shape[1] - frames
        for frame in sorted({1, min(4, frames), frames}):
            at = [(made, began + frame - 1), (latents, began + frame - 1), (latents, began - 1)]
            figures = compare(self.tokenizer, *((x[:, t], x[:, max(0, t - 1)]) for x, t in at))
            named = {f"val_{frame}_{k}": v for k, v in figures.items()}
            self.log_dict(named, batch_size=len(latents), sync_dist=True)

    def sample(self, batch: Batch) -> Tensor:
        """uint8 (rows, T, H, W, 3): truth and rollout in turn, of four windows; black without a tokenizer."""
        if self.tokenizer is None:
            return torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8)
        batch = {name: value[:4] for name, value in batch.items()}
        latents = batch["latents"]
        made = self.roll_out(batch, min(16, latents.shape[1] - self.config.history)).frames
        ends = [[part[:, -16:].flatten(0, 1) for part in (x, earlier(x))] for x in (latents, made)]
        rows = [self.tokenizer.decode(*each).unflatten(0, (len(latents), -1)) for each in ends]
        return torch.stack(rows, dim=1).flatten(0, 1)


def outcome_loss(outcomes: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of termination and two-hot reward; the outcome of step t - 1 is predicted at frame t."""
    termination, reward = (x[:, 1:].float() for x in outcomes)
    ended = F.binary_cross_entropy_with_logits(termination, batch["terminated"][:, :-1])
    goal = two_hot(batch["rewards"][:, :-1])
    return ended - (goal * reward.log_softmax(-1)).sum(-1).mean()


Latents = tuple[Tensor, Tensor]  # of frames (B, C, h, w), and of the frames before them


def compare(tokenizer: Tokenizer | None, made: Latents, truth: Latents, last: Latents) -> dict[str, Tensor]:
    """PSNR and sharpness against the tokenised truth, and PSNR of the last recorded frame; without a tokenizer, latent
    error."""
    if tokenizer is None:
        return {"latent": (made[0] - truth[0]).square().mean()}
    images = [tokenizer.decode_images(*(x.float() for x in pair)).float().clamp(-1, 1) for pair in (made, truth, last)]
    error, repeat = ((x - images[1]).square().mean((1, 2, 3)) for x in (images[0], images[2]))
    slope = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in images[:2]]
    return {"psnr": psnr(error).mean(), "repeat": psnr(repeat).mean(), "sharpness": slope[0] / slope[1]}


def read_objective(entries: dict[str, int | float | str]) -> Objective:
    """`make_objective` of what a user wrote: `UserError` instead of ValueError."""
    try:
        return make_objective(entries)
    except ValueError as error:
        raise UserError(f"--model.objective: {error}") from None
