"""One expert in training: its adapters, its optimizer, and what one of its steps does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

import torch

from ..wan.errors import UserError
from ..wan.expert import Expert
from ..wan.families import Role
from ..wan.flow import mix, velocity_target
from ..wan.lora.adapters import AdapterSet, LoraAdapter
from .alpha_phases import AlphaMover
from .expert_turns import expert_steps
from .layer_settings import fresh_adapters, rate_factors
from .optimizers.averages import WeightAverage
from .optimizers.build import build_optimizer, norm_limit, set_rate
from .optimizers.gradients import GradientSum
from .optimizers.memory import move
from .plans.plan import TrainingPlan
from .samples import EncodedClip, Samples, as_samples, stack_batch
from .schedule import BatchOrder, generator_for, sigmas_at, without_caption
from .seat import Seat
from .start import Factors, StartOf, begin_with
from .velocity_loss import VelocityLoss


class StepResult(NamedTuple):
    """Of one optimizer step."""

    loss: float
    grad_norm: float
    note: str = ""
    """Something of the expert that has changed with it."""


class ExpertTrainer:
    """One expert's adapters and optimizer."""

    def __init__(
        self,
        plan: TrainingPlan,
        expert: Expert,
        clips: Samples,
        start: Mapping[str, Factors] | None = None,
    ) -> None:
        if plan.caption_dropout and clips.empty_context is None:
            raise ValueError("caption dropout needs the embedding of the empty text")
        self.plan, self.expert, self.clips = plan, expert, clips
        self.is_whole = True
        """False where an error came in the midst of an update: some weights have taken the step, and others not."""
        self.role: Role = expert.role
        self.adapters = fresh_adapters(plan, expert)
        self.num_steps = expert_steps(plan).get(self.role, plan.steps)
        phases = plan.alpha_phases
        self.alphas = AlphaMover(phases, self.adapters, self.num_steps) if phases.alphas else None
        # With the alpha of the first phase, before the average and the optimizer look at the weights.
        begin_with(self.adapters, start or {}, self.role)
        parameters = self.adapters.parameters()
        self.rates = plan.rates(self.role)
        factors = rate_factors(plan, self.role, self.adapters)
        self.optimizer = build_optimizer(parameters, plan.optimizer, self.rates, factors)
        self.gradients = GradientSum(parameters)
        self.average = WeightAverage(parameters, plan.optimizer.ema) if plan.optimizer.ema else None
        self.loss = VelocityLoss(plan, self.role)
        self.shapes = clips.shapes
        self.order = BatchOrder(
            clips.shapes,
            plan.batch,
            seed=plan.seed,
            role=self.role,
            repeats=clips.repeats,
            views=clips.views,
        )

    def step(self, index: int, seat: Seat) -> StepResult:
        """The expert's own step `index` (from 0).

        A stop in the middle leaves weights and optimizer as they were.
        """
        try:
            first = index * self.plan.accumulate
            losses = [
                seat.work(self.expert, lambda number=first + i: self._micro_batch(number))
                for i in range(self.plan.accumulate)
            ]
            loss = torch.stack(losses).mean().item()
            largest = norm_limit(self.optimizer, self.plan.optimizer, self.rates)
            norm = self.gradients.clip(largest)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise _not_finite(self.role, loss, norm)
            self._update(index)
        finally:
            self.gradients.clear()
        return StepResult(loss, norm, self.alphas.after(index, loss) if self.alphas else "")

    def _update(self, index: int) -> None:
        self.is_whole = False
        set_rate(self.optimizer, self.rates, index, self.num_steps)
        if self.alphas:
            self.alphas.see_gradients()
        self.optimizer.step()
        if self.average:
            self.average.update(self.adapters.parameters(), index)
        self.is_whole = True

    def to(self, device: torch.device) -> None:
        """Adapters, gradients and the optimizer's memory of them; its step counts stay on the CPU."""
        self.adapters.to(device)
        self.gradients.to(device)
        move(self.optimizer, device)
        if self.average:
            self.average.to(device)

    def averaged(self) -> AdapterSet | None:
        """The adapters as their average has them, where one is kept."""
        if self.average is None:
            return None
        factors = iter(self.average.tensors)
        return AdapterSet(
            {
                n: LoraAdapter(next(factors), next(factors), a.alpha)
                for n, a in self.adapters.items()
            }
        )

    def _micro_batch(self, index: int) -> torch.Tensor:
        plan, device = self.plan, self.expert.device
        chosen = self._clips_of(index)
        batch = stack_batch(chosen, device)
        generator = generator_for(plan.seed, self.role, "noise", index)
        noise = torch.randn(batch.x0.shape, generator=generator).to(device)
        sigma = sigmas_at(plan, self.role, index, plan.batch)[: len(chosen)].to(device)
        with self._seeded_dropout(index):
            levels = batch.levels(sigma)
            x_t = mix(batch.x0, noise, levels)
            velocity = self.expert.velocity(x_t, levels, batch.context, batch.condition)
            target = velocity_target(batch.x0, noise)
            loss = self.loss(batch.learnt(velocity), batch.learnt(target), sigma)
            self._add_gradients(loss / plan.accumulate)
        return loss.detach()

    def _seeded_dropout(self, index: int) -> ExitStack:
        stack = ExitStack()
        if any(adapter.dropout for adapter in self.adapters.values()):
            stack.enter_context(torch.random.fork_rng())
            generator = generator_for(self.plan.seed, self.role, "dropout", index)
            torch.manual_seed(generator.initial_seed())
        return stack

    def _clips_of(self, index: int) -> list[EncodedClip]:
        showings = self.order.at(index)
        chosen = [self.clips.load(clip, view) for clip, view in showings]
        bare = without_caption(self.plan, self.role, index, len(chosen))
        empty = self.clips.empty_context
        return [
            replace(clip, context=empty) if drop and empty is not None else clip
            for clip, drop in zip(chosen, bare, strict=True)
        ]

    def _add_gradients(self, loss: torch.Tensor) -> None:
        """All of a micro-batch's gradients or none: `backward()` would leave a part when it is interrupted."""
        parameters = self.adapters.parameters()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        self.gradients.add(gradients)


def build_trainers(
    plan: TrainingPlan,
    experts: Mapping[Role, Expert],
    clips: Sequence[EncodedClip] | Samples,
    start: StartOf | None = None,
) -> dict[Role, ExpertTrainer]:
    """A trainer for each of the plan's experts; raises before anything is loaded.

    start: what each expert goes on from instead of adapters that change nothing yet.
    """
    samples = as_samples(clips)
    return {
        role: ExpertTrainer(plan, experts[role], samples, start(role) if start else None)
        for role in plan.roles()
    }


def _not_finite(role: Role, loss: float, norm: float) -> UserError:
    return UserError(
        f"The {role} expert's loss is {loss} and its gradient norm {norm}.",
        "Both are finite numbers in a healthy run.",
        "The last good weights are saved. Lower the learning rate, or look for a broken clip in the dataset.",
    )
