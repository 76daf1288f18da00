"""Settings of a plan that are unusual for its purpose: rates, rank, alpha, batches, dropout."""

from __future__ import annotations

from collections.abc import Iterator

from ...wan.errors import UserError
from ..data.dataset import Counts
from ..expert_turns import expert_steps
from ..monitors.held_out import advised_held_out
from ..optimizers.build import optimizer_notes, require_optimizer
from .finding import PlanFinding, outside
from .layer_limits import lora_findings
from .material import Material
from .plan import TrainingPlan
from .rate_limits import rate_findings
from .unused import unused_values

MOST_DROPOUT = 0.3
SHIFTS = (1.0, 12.0)
MANY_SAMPLES_A_STEP = 16


def setting_findings(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    """Everything but the length of the run."""
    yield from _optimizer(plan)
    yield from rate_findings(plan)
    yield from lora_findings(plan)
    yield from _dropout(plan)
    yield from _held_out(plan, material.whole)
    yield from _batches(plan, material.counts)
    yield from _shift(plan)
    yield from _turns(plan)
    for text, fix in unused_values(plan):
        yield PlanFinding("note", text, fix)


def _optimizer(plan: TrainingPlan) -> Iterator[PlanFinding]:
    try:
        require_optimizer(plan.optimizer.name, plan.lora.dtype)
    except UserError as error:
        yield PlanFinding("refusal", f"{error.came} {error.can_be}", error.to_do)
    for note in optimizer_notes(plan):
        yield PlanFinding("note", note, "The run goes on all the same.")


def _dropout(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for name, value, usual in (
        ("lora.dropout", plan.lora.dropout, "0 to 0.1"),
        ("caption_dropout", plan.caption_dropout, "0 to 0.1"),
    ):
        if value > MOST_DROPOUT:
            yield PlanFinding(
                "warning",
                f"{name} is {value:g}. Usual are {usual}.",
                f"Set {name} to 0.1 or less.",
            )


def _held_out(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    if plan.held_out and counts.clips and plan.held_out > counts.clips // 2:
        yield PlanFinding(
            "refusal",
            f"The plan holds out {plan.held_out} of {counts.clips} clips. At least as many are trained on as are held "
            "out.",
            f"Set held_out to {advised_held_out(counts.clips)}.",
        )


def _batches(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    samples = plan.batch * plan.accumulate
    if counts.shown and plan.batch > counts.shown:
        yield PlanFinding(
            "warning",
            f"batch is {plan.batch}, and an epoch shows {counts.shown:g} samples. Only clips of one size share a "
            "micro-batch, so it is never full.",
            "Lower batch, and raise accumulate instead.",
        )
    elif counts.shown and samples > counts.shown:
        yield PlanFinding(
            "warning",
            f"A step takes {samples} samples, and an epoch shows {counts.shown:g}. Every step sees a clip more than "
            "once.",
            "Lower batch or accumulate.",
        )
    elif samples > MANY_SAMPLES_A_STEP:
        yield PlanFinding(
            "warning",
            f"A step takes {samples} samples (batch {plan.batch} x accumulate {plan.accumulate}). The presets take "
            "1 to 4, and their numbers of steps are meant for that.",
            "Lower accumulate, or count the run in epochs.",
        )


def _shift(plan: TrainingPlan) -> Iterator[PlanFinding]:
    if outside(plan.shift, SHIFTS):
        yield PlanFinding(
            "warning",
            f"shift is {plan.shift:g}. Wan is sampled at 3 to 12: 5 for image-to-video of 2.2.",
            "Set shift to 5.",
        )


def _turns(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for role, steps in expert_steps(plan).items():
        if not steps:
            yield PlanFinding(
                "warning",
                f"The {role} expert gets none of the {plan.steps} steps. Its LoRA would change nothing.",
                f"Set train to {'low' if role == 'high_noise' else 'high'}, lower swap_every, or change phases.",
            )
    if plan.order == "sequential" and len(plan.roles()) < 2:
        yield PlanFinding(
            "note",
            "order is sequential, and one expert is trained. It takes every step.",
            "Set order to interleaved, or train both.",
        )
