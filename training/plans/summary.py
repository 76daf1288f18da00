"""A plan in words: the verdict first, then what will happen, and why."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.dataset import Counts, Dataset
from .budget import epochs_of, expert_budgets, looks
from .estimate_report import LACKS
from .extras import extras
from .limits import PlanFinding, dataset_findings, findings_text, plan_findings
from .material import material_of, number_of
from .plan import TrainingPlan
from .presets import IMAGE_STYLE
from .reasons import plan_reasons


def plan_summary(plan: TrainingPlan, shown: Counts | Dataset) -> str:
    """What is refused or unwise, what will happen, and what else to know, in a few lines."""
    return "\n".join(said_and_budget(plan, shown, plan.notes))


def run_summary(plan: TrainingPlan, shown: Counts | Dataset) -> str:
    """The same of a run that has begun: what it does first, what is unwise behind it."""
    grave, slight = _findings(plan, shown)
    return "\n".join([*budget_lines(plan, shown), *grave, *plan.notes, *slight])


def said_and_budget(
    plan: TrainingPlan, shown: Counts | Dataset, notes: Sequence[str] = ()
) -> list[str]:
    """Refusals and warnings, the budget, and what else to know."""
    grave, slight = _findings(plan, shown)
    return [*grave, *budget_lines(plan, shown), *notes, *slight]


def full_summary(
    plan: TrainingPlan,
    dataset: Dataset,
    *,
    fit: Sequence[str] = (),
    estimate: Sequence[str] = (),
) -> str:
    """The same after a verdict, with the reason for each value. `fit` says whether the run fits on a machine, a line
    for the verdict and one for each remedy; `estimate` is what it takes there."""
    lines = [
        _verdict(dataset_findings(plan, dataset), fit[:1]),
        *fit[1:],
        *said_and_budget(plan, dataset, plan.notes),
        *estimate,
        "Why:",
        *(f"  {reason.text()}" for reason in plan_reasons(plan, dataset.counts())),
    ]
    return "\n".join(lines)


def _verdict(findings: Sequence[PlanFinding], fit: Sequence[str]) -> str:
    levels = [finding.level for finding in findings]
    parts = [*fit, "refused, the trainer does not start"] if "refusal" in levels else [*fit]
    warnings = levels.count("warning")
    parts += [number_of(warnings, "warning")] if warnings else []
    if not levels.count("refusal") + warnings and not "".join(fit).startswith(LACKS):
        parts.append("nothing to object")
    return f"Verdict: {'; '.join(parts)}."


def _findings(plan: TrainingPlan, shown: Counts | Dataset) -> tuple[list[str], list[str]]:
    """Refusals and warnings, and the notes."""
    of_dataset = isinstance(shown, Dataset)
    found = dataset_findings(plan, shown) if of_dataset else plan_findings(plan, shown)
    grave = tuple(finding for finding in found if finding.level != "note")
    return findings_text(grave), findings_text(found[len(grave) :])


def budget_lines(plan: TrainingPlan, shown: Counts | Dataset) -> list[str]:
    """Steps, iterations, epochs and exposures of the run and of each expert."""
    material = material_of(shown)
    counts, each = material.counts, f"each {material.one()} shown"
    lines = [
        f"{plan.preset} for {_shown(plan, shown)}: {number_of(plan.steps, 'step')} "
        f"({plan.steps * plan.accumulate} iterations at batch {plan.batch}, accumulate {plan.accumulate}; "
        f"{epochs_of(plan, counts):.1f} epochs, {each} {material.times(plan)})",
        *(
            f"  {b.role}: {number_of(b.steps, 'step')} ({b.steps / plan.steps:.1%}), {b.epochs:.1f} epochs, "
            f"{each} {material.times(plan, b.steps / plan.steps)}, rate {plan.rates(b.role).rate:g}"
            for b in expert_budgets(plan, counts)
        ),
    ]
    if plan.preset == IMAGE_STYLE and counts.clips:
        steps = ", ".join(map(str, looks(plan)))
        lines.append(f"  {plan.steps / counts.clips:.1f} steps per image; look at steps {steps}")
    return [*lines, "; ".join([_settings(plan), *_variety(plan, material.views())])]


def settings_line(plan: TrainingPlan) -> str:
    """What does not depend on the dataset, in a line."""
    at = f"{number_of(plan.steps, 'step')} at batch {plan.batch}, accumulate {plan.accumulate}"
    return "; ".join([at, _settings(plan), *_variety(plan, [])])


def _settings(plan: TrainingPlan) -> str:
    parts = [
        f"rank {plan.lora.rank}, alpha {plan.lora.alpha:g}, {plan.optimizer.name}, shift {plan.shift:g}, boundary "
        f"{plan.boundary:g}",
        *extras(plan),
        f"a checkpoint every {number_of(plan.save_every, 'step')}",
    ]
    return "; ".join(parts)


def _variety(plan: TrainingPlan, views: list[str]) -> list[str]:
    dropped = plan.caption_dropout
    left_out = [f"{dropped:.3g} of the samples without their caption (caption_dropout)"]
    return views + (left_out if dropped else [])


def _shown(plan: TrainingPlan, shown: Counts | Dataset) -> str:
    material = material_of(shown)
    counts, words = material.counts, material.shown(plan.preset)
    if counts.shown != counts.clips:
        words += f", {number_of(counts.shown, 'sample')} an epoch"
    if counts.regularisation:
        words += f" ({counts.regularisation:g} of them regularisation)"
    return words
