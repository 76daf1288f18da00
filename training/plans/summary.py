"""A plan in words: what will happen, why, and what to know first."""

from __future__ import annotations

from ..data.dataset import Counts, Dataset
from ..optimizers import STAND_INS
from .budget import epochs_of, expert_budgets, exposures_per_clip, looks
from .limits import PlanFinding, dataset_findings, findings_text, plan_findings
from .plan import TrainingPlan
from .presets import IMAGE_STYLE
from .reasons import plan_reasons


def plan_summary(
    plan: TrainingPlan, counts: Counts, findings: tuple[PlanFinding, ...] | None = None
) -> str:
    """What will happen, in a few lines; `findings` are those of `plan_findings` unless better ones are known."""
    found = plan_findings(plan, counts) if findings is None else findings
    lines = [*budget_lines(plan, counts), *plan.notes, *findings_text(found)]
    return "\n".join(lines)


def full_summary(plan: TrainingPlan, dataset: Dataset) -> str:
    """The same with the reason for each value."""
    counts = dataset.counts()
    lines = [
        *budget_lines(plan, counts),
        *plan.notes,
        *findings_text(dataset_findings(plan, dataset)),
        *(f"Note: {text}" for name, text in STAND_INS.items() if name == plan.optimizer.name),
        "Why:",
        *(f"  {reason.text()}" for reason in plan_reasons(plan, counts)),
    ]
    return "\n".join(lines)


def budget_lines(plan: TrainingPlan, counts: Counts) -> list[str]:
    """Steps, iterations, epochs and exposures of the run and of each expert."""
    lines = [
        f"{plan.preset} for {_clips(plan, counts)}: {plan.steps} steps ({plan.steps * plan.accumulate} iterations at "
        f"batch {plan.batch}, accumulate {plan.accumulate}; {epochs_of(plan, counts):.1f} epochs, each clip shown "
        f"{exposures_per_clip(plan, counts):.1f} times)",
        *(
            f"  {b.role}: {b.steps} steps ({b.steps / plan.steps:.1%}), {b.epochs:.1f} epochs, each clip shown "
            f"{b.exposures:.1f} times, rate {plan.rates(b.role).rate:g}"
            for b in expert_budgets(plan, counts)
        ),
    ]
    if plan.preset == IMAGE_STYLE and counts.clips:
        steps = ", ".join(map(str, looks(plan)))
        lines.append(f"  {plan.steps / counts.clips:.1f} steps per image; look at steps {steps}")
    return [
        *lines,
        f"rank {plan.lora.rank}, alpha {plan.lora.alpha:g}, {plan.optimizer.name}, shift {plan.shift:g}, boundary "
        f"{plan.boundary:g}; a checkpoint every {plan.save_every} steps",
    ]


def settings_line(plan: TrainingPlan) -> str:
    """What does not depend on the dataset, in a line."""
    return (
        f"{plan.steps} steps at batch {plan.batch}, accumulate {plan.accumulate}; rank {plan.lora.rank}, alpha "
        f"{plan.lora.alpha:g}, {plan.optimizer.name}, shift {plan.shift:g}, boundary {plan.boundary:g}; a checkpoint "
        f"every {plan.save_every} steps"
    )


def _clips(plan: TrainingPlan, counts: Counts) -> str:
    words = f"{counts.clips} {'images' if plan.preset == IMAGE_STYLE else 'clips'}"
    if counts.shown != counts.clips:
        words += f", {counts.shown:g} samples an epoch"
    if counts.regularisation:
        words += f" ({counts.regularisation:g} of them regularisation)"
    return words
