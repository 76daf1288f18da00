"""The training loop: expert by expert, step by step, stoppable at every micro-batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch.nn import functional as F

from ..wan.errors import UserError
from ..wan.expert import Expert
from ..wan.families import Role
from ..wan.flow import mix, velocity_target
from ..wan.lora.adapters import AdapterSet, LoraAdapter, new_adapters, pick_layers
from .events import Finding, Listener, StepDone
from .expert_turns import expert_steps, role_at, steps_before
from .monitors.held_out import HeldOutLoss
from .monitors.monitor import Monitor
from .optimizers.averages import WeightAverage
from .optimizers.build import build_optimizer, mean_rate, norm_limit, set_rate
from .optimizers.memory import move
from .plans.plan import TrainingPlan
from .preview import Preview
from .samples import EncodedClip, Samples, as_samples, stack_batch
from .schedule import BatchOrder, generator_for, sigmas_at, without_caption
from .seat import GiveBack, Seat
from .turns import RunStopped, Turns

End = Literal["done", "stopped"]
ADAPTER_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Saver(Protocol):
    """Writes a checkpoint of all experts: all of it or nothing."""

    def __call__(self, step: int, trainers: Mapping[Role, ExpertTrainer]) -> None: ...


class ExpertTrainer:
    """One expert's adapters and optimizer."""

    def __init__(self, plan: TrainingPlan, expert: Expert, clips: Samples) -> None:
        if plan.caption_dropout and clips.empty_context is None:
            raise ValueError("caption dropout needs the embedding of the empty text")
        self.plan, self.expert, self.clips = plan, expert, clips
        self.role: Role = expert.role
        self.adapters = _fresh_adapters(plan, expert)
        parameters = self.adapters.parameters()
        self.rates = plan.rates(self.role)
        self.num_steps = expert_steps(plan).get(self.role, plan.steps)
        self.optimizer = build_optimizer(parameters, plan.optimizer, self.rates)
        self.average = WeightAverage(parameters, plan.optimizer.ema) if plan.optimizer.ema else None
        self.shapes = clips.shapes
        self.order = BatchOrder(
            clips.shapes,
            plan.batch,
            seed=plan.seed,
            role=self.role,
            repeats=clips.repeats,
            views=clips.views,
        )

    def step(self, index: int, seat: Seat) -> tuple[float, float]:
        """The expert's own step `index` (from 0); returns loss and gradient norm.

        A stop in the middle leaves weights and optimizer as they were.
        """
        parameters = self.adapters.parameters()
        try:
            first = index * self.plan.accumulate
            losses = [
                seat.work(self.expert, lambda number=first + i: self._micro_batch(number))
                for i in range(self.plan.accumulate)
            ]
            loss = torch.stack(losses).mean().item()
            largest = norm_limit(self.optimizer, self.plan.optimizer, self.rates)
            norm = torch.nn.utils.clip_grad_norm_(parameters, largest).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise _not_finite(self.role, loss, norm)
            set_rate(self.optimizer, self.rates, index, self.num_steps)
            self.optimizer.step()
            if self.average:
                self.average.update(parameters, index)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def to(self, device: torch.device) -> None:
        """Adapters, gradients and the optimizer's memory of them; its step counts stay on the CPU."""
        self.adapters.to(device)
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
        with _seeded_dropout(plan, self.role, index):
            levels = batch.levels(sigma)
            x_t = mix(batch.x0, noise, levels)
            velocity = self.expert.velocity(x_t, levels, batch.context, batch.condition)
            target = velocity_target(batch.x0, noise)
            loss = F.mse_loss(batch.learnt(velocity), batch.learnt(target))
            self._add_gradients(loss / plan.accumulate)
        return loss.detach()

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
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                before = parameter.grad
                parameter.grad = gradient if before is None else before.add_(gradient)


def build_trainers(
    plan: TrainingPlan, experts: Mapping[Role, Expert], clips: Sequence[EncodedClip] | Samples
) -> dict[Role, ExpertTrainer]:
    """A trainer for each of the plan's experts; raises before anything is loaded."""
    samples = as_samples(clips)
    return {role: ExpertTrainer(plan, experts[role], samples) for role in plan.roles()}


def train(
    plan: TrainingPlan,
    trainers: Mapping[Role, ExpertTrainer],
    *,
    save: Saver,
    listen: Listener,
    first_step: int = 0,
    turns: Turns | None = None,
    give_back: GiveBack = "keep",
    preview: Preview | None = None,
    monitor: Monitor | None = None,
    held_out: HeldOutLoss | None = None,
) -> End:
    """Runs steps `first_step` to the plan's last; saves every `save_every` steps, at the end and on a stop.

    `turns` says when the models are somebody else's and when to stop; `give_back`, what leaves the device then.
    `preview` shows a clip now and then; `monitor` looks at every step, and may end the run; `held_out` measures the
    loss on other clips before each checkpoint.
    """
    done = first_step
    own_steps = steps_before(plan, first_step)
    turns = turns or Turns()
    tell = monitor.between(listen, turns) if monitor else listen
    end: End = "done"
    try:
        with ExitStack() as attached, Seat(trainers, turns, give_back) as seat:
            _attach_all(attached, trainers)
            _measure(held_out, monitor, done, trainers, seat, tell)
            for step in range(first_step, plan.steps):
                role = role_at(plan, step)
                worked = seat.seconds
                loss, norm = trainers[role].step(own_steps[role], seat)
                own_steps[role] += 1
                done = step + 1
                seconds = seat.seconds - worked
                tell(_step_done(plan, trainers[role], done, loss, norm, seconds))
                _measure(held_out, monitor, done, trainers, seat, tell)
                if done % plan.save_every == 0 and done < plan.steps:
                    save(done, trainers)
                if preview and done % preview.every == 0:
                    _show(preview, plan, done, trainers, seat, listen)
    except RunStopped:
        end = "stopped"
    except Exception:
        # Out of memory, a broken number, a full disk: the weights are those of the last whole step.
        turns.leave()
        save(done, trainers)
        raise
    turns.leave()
    save(done, trainers)
    return end


def _measure(
    held_out: HeldOutLoss | None,
    monitor: Monitor | None,
    step: int,
    trainers: Mapping[Role, ExpertTrainer],
    seat: Seat,
    listen: Listener,
) -> None:
    """The held-out loss where it is due. One that a run was stopped within is measured when the run goes on."""
    if held_out and held_out.due(step):
        known = monitor.record.measured_at(step) if monitor else ()
        held_out(step, {r: t for r, t in trainers.items() if r not in known}, seat, listen)


def _show(
    preview: Preview,
    plan: TrainingPlan,
    step: int,
    trainers: Mapping[Role, ExpertTrainer],
    seat: Seat,
    listen: Listener,
) -> None:
    try:
        preview(plan, step, trainers, seat)
    except RunStopped:
        raise
    except Exception as error:  # noqa: BLE001 - a picture is worth less than the run, whatever went wrong
        seat.leave()
        text = (
            f"The preview at step {step} failed ({type(error).__name__}: {error}). The run goes on."
        )
        listen(Finding(step=step, kind="warning", text=text))


def _attach_all(attached: ExitStack, trainers: Mapping[Role, ExpertTrainer]) -> None:
    for trainer in trainers.values():
        trainer.to(trainer.expert.device)
        trainer.expert.attach(trainer.adapters)
        attached.callback(trainer.expert.detach)


def _fresh_adapters(plan: TrainingPlan, expert: Expert) -> AdapterSet:
    layers = expert.layers()
    chosen = pick_layers(layers, plan.lora.targets)
    if not chosen:
        raise UserError(
            f"No layer of the {expert.role} expert matches the plan's targets {', '.join(plan.lora.targets)}.",
            f"Its layers are called {', '.join(list(layers)[:3])}, ...",
            "Change lora.targets in the plan.",
        )
    seed = generator_for(plan.seed, expert.role, "adapters").initial_seed()
    shapes = {name: layers[name] for name in chosen}
    return new_adapters(
        shapes,
        rank=plan.lora.rank,
        alpha=plan.lora.alpha,
        seed=seed,
        dropout=plan.lora.dropout,
        dtype=ADAPTER_DTYPES[plan.lora.dtype],
    )


def _seeded_dropout(plan: TrainingPlan, role: Role, index: int) -> ExitStack:
    stack = ExitStack()
    if plan.lora.dropout:
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(generator_for(plan.seed, role, "dropout", index).initial_seed())
    return stack


def _step_done(
    plan: TrainingPlan, trainer: ExpertTrainer, step: int, loss: float, norm: float, seconds: float
) -> StepDone:
    return StepDone(
        step=step,
        steps=plan.steps,
        role=trainer.role,
        loss=loss,
        grad_norm=norm,
        rate=mean_rate(trainer.optimizer),
        seconds=seconds,
        weight=trainer.adapters.mean_magnitude(),
    )


def _not_finite(role: Role, loss: float, norm: float) -> UserError:
    return UserError(
        f"The {role} expert's loss is {loss} and its gradient norm {norm}.",
        "Both are finite numbers in a healthy run.",
        "The last good weights are saved. Lower the learning rate, or look for a broken clip in the dataset.",
    )
