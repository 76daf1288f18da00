"""The training loop: expert by expert, step by step, stoppable at every micro-batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
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
    done = first_step
    own_steps = steps_before(plan, first_step)
    turns = turns or Turns()
    tell = monitor.between(listen, turns) if monitor else listen
    end: End = "done"
    try:
        with ExitStack() as attached, Seat(trainers, turns, give_back) as seat:
            _attach_all(attached, trainers)
            _measure(held_out, monitor, done, trainers, seat, tell)
            if preview and first_step and first_step % preview.every == 0:
                # It was stopped or killed between the checkpoint and its previews.
                _show(preview, plan, done, trainers, seat, listen, again=False)
            for step in range(first_step, plan.steps):
                role = role_at(plan, step)
                worked = seat.seconds
                result = trainers[role].step(own_steps[role], seat)
                own_steps[role] += 1
                done = step + 1
                seconds = seat.seconds - worked
                tell(_step_done(plan, trainers[role], done, result, seconds))
                if result.note:
                    tell(Finding(step=done, kind="note", text=f"{role}: {result.note}."))
                _measure(held_out, monitor, done, trainers, seat, tell)
                if done % plan.save_every == 0 and done < plan.steps:
                    save(done, trainers)
                if preview and done % preview.every == 0:
                    _show(preview, plan, done, trainers, seat, listen)
    except RunStopped:
        end = "stopped"
    except BrokenWeightsError:
        turns.leave()
        raise
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
    *,
    again: bool = True,
) -> None:
    for number in range(1, len(preview.clips) + 1):
        if not again and preview.made(step, number):
            continue
        try:
            preview(plan, step, number, trainers, seat)
        except RunStopped:
            raise
        except Exception as error:  # noqa: BLE001 - a picture is worth less than the run, whatever went wrong
            seat.leave()
            text = (
                f"Preview {number} at step {step} failed ({type(error).__name__}: {error}). "
                "The run goes on."
            )
            listen(Finding(step=step, kind="warning", text=text))


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
