"""Distillation: a student that calls the denoiser once or twice a frame learns, on its own rollouts, to agree with a
teacher that calls it many times.

    python -m train distill --config configs/maze/distill.yaml

Student and teacher start from the same weights, unless `--teacher` names others: for a student that is trained further,
its own many calls are worse than its one. The student plays on from real frames (self-forcing, Huang et al., 2025).
From there the teacher goes from the same noise to a clean latent in many steps, and the student must reach that latent
in its few (consistency of endpoints).

The goal is the real latent instead where the teacher's is near it (the student has only drifted) or where memory's view
is (the student could have known). So it learns to correct drift and to use its memory, but not to guess a view that was
forgotten. Two losses may be added: a discriminator on pairs of latents and the action between them, which asks for
sharp frames that follow the action; and distribution matching (Yin et al., 2024), which moves the student's samples
from where its own are dense to where the teacher's are.

Or the steps are halved repeatedly (`progressive`; Salimans & Ho, 2022): a student of half as many steps learns to do in
one what its teacher does in two, and becomes the teacher of the next.

Legend: B windows, K targets, C channels, h, w latent grid, A action vector.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.model.config import COVER
from game_wm.model.convolution import ResidualBlock
from game_wm.model.dynamics import Dynamics
from game_wm.objectives.flow import FlowMatching, Predict, advance, mix
from train.stages.callbacks import average_of, budget_of
from train.stages.dynamics import Batch, DynamicsModule, outcome_loss
from train.stages.module import make_optimizer
from train.stages.moving import weighed


class Discriminator(nn.Module):
    """Successive latents (B, 2C, h, w) and the action between them (B, A) -> realness of each cell (B, 1, h, w)."""

    def __init__(self, channels: int, actions: int, width: int = 128) -> None:
        super().__init__()
        conv_in = nn.Conv2d(2 * channels + actions, width, 3, padding=1)
        blocks = ResidualBlock(width, width), ResidualBlock(width, width)
        self.net = nn.Sequential(conv_in, *blocks, nn.SiLU(), nn.Conv2d(width, 1, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pair_BCHW: Tensor, action_BA: Tensor) -> Tensor:
        action = action_BA[:, :, None, None].expand(-1, -1, *pair_BCHW.shape[2:])
        return self.net(torch.cat((pair_BCHW, action), 1)).float()


def distribution_loss(
    sample_BKCHW: Tensor, teacher: Predict, fake_score: Predict, finest: int
) -> tuple[Tensor, Tensor]:
    """Distribution matching distillation (Yin et al., 2024, equations 7 and 8): the losses of the student and of the
    fake score network, which learns the distribution of the student's samples.

    The student's sample is noised, and both networks predict the clean latent. The difference of their predictions is
    that of the scores of the two distributions, and the student follows it.
    """
    level = torch.rand(sample_BKCHW.shape[:2], device=sample_BKCHW.device).mul(finest).floor() / finest
    stride, part = torch.full_like(level, 1 / finest), slice(0, sample_BKCHW.shape[1])
    sample = sample_BKCHW.detach()
    noisy = mix(torch.randn_like(sample), sample, level)
    fake = fake_score(noisy, level, stride, part)
    with torch.no_grad():
        real = teacher(noisy, level, stride, part)
        scale = (sample - real).abs().mean((2, 3, 4), keepdim=True).clamp_min(1e-3)
        goal = sample - (fake - real) / scale
    return 0.5 * (sample_BKCHW - goal).square().mean(), (fake - sample).square().mean()


def progressive_loss(clean_BKCHW: Tensor, student: Predict, teacher: Predict, flow: FlowMatching, steps: int) -> Tensor:
    """Progressive distillation (Salimans & Ho, 2022, algorithm 2): the loss of a student that takes so many steps,
    from a teacher that takes twice as many.

    The student's goal is the clean latent towards which one of its steps ends where two of the teacher's do. Late steps
    weigh more, as in the flow's own loss.
    """
    batch, targets = clean_BKCHW.shape[:2]
    level = torch.randint(steps, (batch, targets), device=clean_BKCHW.device) / steps
    given, half = (torch.full_like(level, x) for x in (flow.conditioned_stride(2 * steps), 0.5 / steps))
    part = slice(0, targets)
    noisy = mix(torch.randn_like(clean_BKCHW), clean_BKCHW, level)
    with torch.no_grad():
        goal = flow.two_steps(lambda x, at, _, part: teacher(x, at, given, part), noisy, level, half, part)
    made = student(noisy, level, torch.full_like(level, flow.conditioned_stride(steps)), part)
    weight = 1 - flow.ramp * (1 - level)
    return (weight * (made - goal).float().square().mean((2, 3, 4))).mean()


class DistillModule(DynamicsModule):
    """Trains the student, which starts from `--init` (required).

    Args beyond the dynamics' own:
        teacher_steps: denoiser calls a frame of the teacher.
        student_steps: denoiser calls a frame of the student, 1 or 2.
        own: share of the steps on own rollouts; the others are on real frames, where the history can be trusted.
        near: the truth is a cell's goal where the teacher's latent or memory's view is nearer to it than this mean
            squared distance (latents have unit variance); 0: nowhere.
        anchor: weight of the flow-matching loss on the same targets, which keeps other step counts usable.
        adversarial: weight of the discriminator's loss.
        unseen: added to it in cells that no view covers, where the student has to invent. If both are 0 there is no
            discriminator.
        distribution: weight of distribution matching; with 0 there is no fake score network.
        consistency: weight of the distance to the teacher's endpoint.
        progressive: halve the steps from `teacher_steps` to `student_steps` instead, in rounds of equal parts of the
            budget; both must be powers of two. The network then serves that one number of steps, by a loss of its own:
            the other losses must be left as they are.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int] = (8, 8, 8),
        lr: float = 2e-4, context_noise: float = 0.1, rollout: int = 16,
        teacher_steps: int = 8, student_steps: int = 1, own: float = 1.0, near: float = 0.3, anchor: float = 0.5,
        adversarial: float = 0.0, unseen: float = 0.0, distribution: float = 0.0, consistency: float = 1.0,
        progressive: bool = False, **dynamics: Any,
    ) -> None:  # fmt: skip
        super().__init__(latent_shape, lr=lr, context_noise=context_noise, rollout=rollout, **dynamics)
        if not isinstance(self.objective, FlowMatching):
            raise UserError(f"distillation is of flow matching alone, not of {self.objective.kind}")
        if distribution and self.objective.finest == 1:
            raise UserError("distribution matching compares noise levels: set --model.objective.finest to 2 or more")
        if not 1 <= student_steps <= teacher_steps:
            raise UserError(f"student_steps must lie between 1 and teacher_steps {teacher_steps}, not {student_steps}")
        if not progressive and student_steps > 2:
            raise UserError(f"student_steps must be 1 or 2, not {student_steps}, unless progressive is true")
        self.teacher_steps, self.student_steps = teacher_steps, student_steps
        self.own, self.near, self.anchor, self.adversarial, self.unseen = own, near, anchor, adversarial, unseen
        self.distribution, self.consistency, self.progressive = distribution, consistency, progressive
        if progressive and (student_steps == teacher_steps or any(n & (n - 1) for n in (student_steps, teacher_steps))):
            raise UserError("to halve the steps, teacher_steps and student_steps must be different powers of two")
        judged = adversarial or unseen
        if progressive and (
            judged or distribution or self.decodes or self.moving or (near, anchor, consistency) != (0.3, 0.5, 1.0)
        ):
            raise UserError(
                "progressive distillation has a loss of its own: leave adversarial, unseen, distribution, pixels, "
                "perceptual, moving, near, anchor and consistency out"
            )
        if progressive:  # how often the student has become the teacher
            self.halvings: Tensor
            self.register_buffer("halvings", torch.zeros((), dtype=torch.long))
        # The student's single call learns from the teacher, and with bootstrap from the teacher's half steps.
        self.flow = replace(self.objective, one_call=0.0)
        self.teacher: Dynamics | None = None
        self.discriminator = Discriminator(latent_shape[0], self.config.actions) if judged else None
        self.fake_score = copy.deepcopy(self.dynamics.denoiser) if distribution else None

    @property
    def own_share(self) -> float:
        return self.own

    def freeze_teacher(self) -> None:
        """Copy the present weights to the teacher, which is part of the checkpoint so that resuming is exact."""
        self.teacher = copy.deepcopy(self.dynamics).eval().requires_grad_(False)
        if self.fake_score is not None:
            self.fake_score.load_state_dict(self.dynamics.denoiser.state_dict())

    @property
    def steps(self) -> int:
        """The student's steps as of now: half of the teacher's in a round of progressive distillation."""
        return self.teacher_steps >> int(self.halvings) + 1 if self.progressive else self.student_steps

    def halve(self) -> None:
        """Begin the next round when the budget says so: the student's averaged weights become the teacher."""
        assert self.teacher is not None
        rounds = (self.teacher_steps // self.student_steps).bit_length() - 1
        if int(self.halvings) < min(rounds - 1, int(budget_of(self.trainer).progress(self.trainer) * rounds)):
            self.halvings += 1
            average = average_of(self.trainer)
            student = average.dynamics if isinstance(average, DistillModule) else self.dynamics
            self.teacher.load_state_dict(student.state_dict())
            self.dynamics.load_state_dict(student.state_dict())

    def uncapturable(self) -> str | None:
        return "progressive distillation changes its step on the way" if self.progressive else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = make_optimizer(self.dynamics, self.optimizer_kind, self.lr, self.weight_decay)
        for network in (self.discriminator, self.fake_score):
            if network is not None:
                optimizer.add_param_group({"params": list(network.parameters()), "weight_decay": 0.0})
        return optimizer

    def training_step(self, batch: Batch, index: int) -> Tensor:
        if self.teacher is None:
            raise UserError("distillation needs a teacher: name a dynamics checkpoint with --init")
        if self.progressive:
            self.halve()
        latents, actions = batch["latents"], batch["actions"]
        time = latents.shape[1]
        context, first, views = latents, self.config.history, self.recorded_views(batch)
        if self.on_own_rollout():
            context, views = self.roll_out(batch, self.rollout, self.steps)
            first = time - self.rollout
        targets = first + self.sample_targets(time - first)
        views = None if views is None else views[:, targets]
        noise = self.context_noise * torch.rand(len(latents), device=self.device)
        start = torch.randn_like(latents[:, targets])
        # Student and teacher must read the same noised past, so it is noised here, once.
        noised = context + noise[:, None, None, None, None] * torch.randn_like(context)
        reading = self.dynamics(noised, actions, targets, noise, latents, views)
        goals = reading.goals
        outcome = outcome_loss(self.dynamics.context.outcomes(reading.tokens), batch)
        with torch.no_grad():
            teacher = self.teacher(noised, actions, targets, noise, latents, views).predict
        if self.progressive:
            halved = progressive_loss(goals, reading.predict, teacher, self.flow, self.steps)
            loss = halved + self.outcome * outcome
            self.log_dict({"halved": halved.detach(), "calls": float(self.steps)}, prog_bar=True)
            self.log("loss", loss.detach())
            return loss
        with torch.no_grad():
            endpoint = self.objective.sample(teacher, start, self.teacher_steps)
            near = (endpoint - goals).square().mean(2, keepdim=True) < self.near
            for view in [] if views is None else views.split(goals.shape[2] + COVER, 2):
                near |= (view[:, :, :-COVER] - goals).square().mean(2, keepdim=True) < self.near
            endpoint = torch.where(near, goals, endpoint)
        self.log("near", near.float().mean())
        sample, cells = self.student(reading.predict, start), self.cells(batch, targets)
        distance = weighed((sample - endpoint).square(), cells)
        self.log("distance", distance.detach(), prog_bar=True)
        loss = self.consistency * distance + self.outcome * outcome
        if self.decodes:
            loss = loss + self.pixel_loss(sample, endpoint, cells)
        if self.anchor:
            flow = self.flow.loss(reading.predict, goals, teacher, cells)[0].mean()
            self.log("flow", flow.detach(), prog_bar=True)
            loss = loss + self.anchor * flow
        if self.discriminator is not None:
            loss = loss + self.adversarial_loss(latents, context, actions, targets, sample, views)
        if self.fake_score is not None:
            fake_score = reading.predict_with(self.fake_score)
            matched, fake = distribution_loss(sample, teacher, fake_score, self.flow.finest)
            self.log_dict({"matched": matched.detach(), "fake": fake.detach()}, prog_bar=True)
            loss = loss + self.distribution * matched + fake
        self.log("loss", loss.detach())
        return loss

    def student(self, predict: Predict, noise: Tensor) -> Tensor:
        """The student's clean latents from this noise; only the last of its calls has a gradient."""
        x, size = noise, 1 / self.student_steps
        given = x.new_full(x.shape[:2], self.flow.conditioned_stride(self.student_steps))
        stride = x.new_full(x.shape[:2], size)
        for i in range(self.student_steps - 1):
            with torch.no_grad():
                level = x.new_full(x.shape[:2], i * size)
                x = advance(x, predict(x, level, given, slice(0, x.shape[1])), level, stride)
        return predict(x, x.new_full(x.shape[:2], 1 - size), given, slice(0, x.shape[1]))

    def adversarial_loss(
        self, latents: Tensor, context: Tensor, actions: Tensor, targets: Tensor, sample: Tensor, views: Tensor | None
    ) -> Tensor:
        """Hinge losses of discriminator and student in one pass, on pairs of successive latents. Cells are weighted by
        `adversarial` and `unseen`; for the discriminator the weights are scaled to a mean of one."""
        assert self.discriminator is not None
        real = torch.cat((latents[:, targets - 1], latents[:, targets]), dim=2).flatten(0, 1)
        generated = torch.cat((context[:, targets - 1], sample), dim=2).flatten(0, 1)
        previous_action = actions[:, targets - 1].flatten(0, 1)
        weight = self.adversarial + self.unseen * self.uncovered(sample, views)
        each = weight / weight.mean().clamp_min(1e-6)
        realness = [self.discriminator(pair, previous_action) for pair in (real, generated.detach())]
        critic = (each * F.relu(1 - realness[0])).mean() + (each * F.relu(1 + realness[1])).mean()
        self.log("critic", critic.detach(), prog_bar=True)
        self.discriminator.requires_grad_(False)
        generator = -(weight * self.discriminator(generated, previous_action)).mean()
        self.discriminator.requires_grad_(True)
        return critic + generator

    @staticmethod
    def uncovered(sample: Tensor, views: Tensor | None) -> Tensor:
        """Share of each cell (B * K, 1, h, w) that no view covers."""
        covered = sample.new_zeros(len(sample) * sample.shape[1], 1, *sample.shape[3:])
        for view in [] if views is None else views.flatten(0, 1).split(sample.shape[2] + COVER, 1):
            covered = torch.maximum(covered, view[:, -COVER:].mean(1, keepdim=True))
        return 1 - covered

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        if self.teacher is None and any(k.startswith("teacher.") for k in state_dict):
            self.freeze_teacher()
        return super().load_state_dict(state_dict, strict, assign)
