"""The training loop: expert by expert, step by step, stoppable at every micro-batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol

from ..wan.errors import UserError
from ..wan.families import Role
from .events import Finding, Listener, StepDone
from .expert_trainer import ExpertTrainer, StepResult
from .expert_turns import role_at, steps_before
from .monitors.held_out import HeldOutLoss
from .monitors.monitor import Monitor
from .optimizers.build import mean_rate
from .plans.plan import TrainingPlan
from .preview import Preview
from .seat import GiveBack, Seat
from .turns import RunStopped, Turns

End = Literal["done", "stopped"]


class BrokenWeightsError(UserError):
    """What an optimizer has made of finite gradients is not finite: there is nothing to save."""


class Saver(Protocol):
    """Writes a checkpoint of all experts: all of it or nothing."""

    def __call__(self, step: int, trainers: Mapping[Role, ExpertTrainer]) -> None: ...


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
    turns = turns or Turns()
    course = _Course(
        plan=plan,
        trainers=trainers,
        save=save,
        listen=listen,
        tell=monitor.between(listen, turns) if monitor else listen,
        preview=preview,
        monitor=monitor,
        held_out=held_out,
        done=first_step,
    )
    end: End = "done"
    try:
        with ExitStack() as attached, Seat(trainers, turns, give_back) as seat:
            _attach_all(attached, trainers)
            course.go(seat)
    except RunStopped:
        end = "stopped"
    except BrokenWeightsError:
        turns.leave()
        raise
    except Exception:
        # Out of memory, a broken number, a full disk: the weights are those of the last whole step, unless it came
        # while an optimizer was changing them. Then the last checkpoint is what is left.
        turns.leave()
        if all(trainer.is_whole for trainer in trainers.values()):
            save(course.done, trainers)
        raise
    turns.leave()
    save(course.done, trainers)
    return end


@dataclass(kw_only=True)
class _Course:
    """The steps of a run, and what lies between them."""

    plan: TrainingPlan
    trainers: Mapping[Role, ExpertTrainer]
    save: Saver
    listen: Listener
    tell: Listener
    """Hears steps and losses: the monitors may end the run on them."""
    preview: Preview | None
    monitor: Monitor | None
    held_out: HeldOutLoss | None
    done: int = 0
    """Whole steps."""

    def go(self, seat: Seat) -> None:
        """From the step after `done` to the plan's last."""
        own_steps = steps_before(self.plan, self.done)
        self._measure(seat)
        if self.done:
            # It was stopped or killed between the checkpoint and its previews.
            self._show(seat, again=False)
        for step in range(self.done, self.plan.steps):
            role = role_at(self.plan, step)
            self._step(role, own_steps[role], seat)
            own_steps[role] += 1
            self._measure(seat)
            if self.done % self.plan.save_every == 0 and self.done < self.plan.steps:
                self.save(self.done, self.trainers)
            self._show(seat)

    def _step(self, role: Role, index: int, seat: Seat) -> None:
        trainer, worked = self.trainers[role], seat.seconds
        result = trainer.step(index, seat)
        self.done += 1
        self.tell(_step_done(self.plan, trainer, self.done, result, seat.seconds - worked))
        if result.note:
            self.tell(Finding(step=self.done, kind="note", text=f"{role}: {result.note}."))

    def _measure(self, seat: Seat) -> None:
        """The held-out loss where it is due. One that a run was stopped within is measured when the run goes on."""
        if self.held_out and self.held_out.due(self.done):
            known = self.monitor.record.measured_at(self.done) if self.monitor else ()
            unknown: dict[Role, ExpertTrainer] = {
                r: t for r, t in self.trainers.items() if r not in known
            }
            self.held_out(self.done, unknown, seat, self.tell)

    def _show(self, seat: Seat, *, again: bool = True) -> None:
        """The previews that are due; without `again` those alone that are not there."""
        if self.preview is None or self.done % self.preview.every:
            return
        for number in range(1, len(self.preview.clips) + 1):
            if again or not self.preview.made(self.done, number):
                self._show_one(self.preview, number, seat)

    def _show_one(self, preview: Preview, number: int, seat: Seat) -> None:
        try:
            preview(self.plan, self.done, number, self.trainers, seat)
        except RunStopped:
            raise
        except Exception as error:  # noqa: BLE001 - a picture is worth less than the run, whatever went wrong
            seat.leave()
            text = (
                f"Preview {number} at step {self.done} failed ({type(error).__name__}: {error}). "
                "The run goes on."
            )
            self.listen(Finding(step=self.done, kind="warning", text=text))


def _attach_all(attached: ExitStack, trainers: Mapping[Role, ExpertTrainer]) -> None:
    for trainer in trainers.values():
        trainer.to(trainer.expert.device)
        trainer.expert.attach(trainer.adapters)
        attached.callback(trainer.expert.detach)


def _step_done(
    plan: TrainingPlan, trainer: ExpertTrainer, step: int, result: StepResult, seconds: float
) -> StepDone:
    weight = trainer.adapters.mean_magnitude()
    if not math.isfinite(weight):
        raise BrokenWeightsError(
            f"The weights of the {trainer.role} expert's LoRA are no numbers any more at step {step}.",
            "The gradients were finite, so the optimizer has made them so: its rate is far too high, or it does not "
            "suit these weights.",
            "The last checkpoint before this step is whole. Lower the rate, or choose another optimizer.",
        )
    return StepDone(
        step=step,
        steps=plan.steps,
        role=trainer.role,
        loss=result.loss,
        grad_norm=result.grad_norm,
        rate=mean_rate(trainer.optimizer),
        seconds=seconds,
        weight=weight,
    )
