"""A plan in words: the verdict first, then what will happen, what is unwise in it, and why."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.dataset import Counts, Dataset
from .budget import epochs_of, expert_budgets, looks
from .estimate_report import LACKS
from .extras import extras
from .finding import LEVELS, PlanFinding
from .limits import findings_of, findings_text, plan_alone_findings
from .material import Material, material_of, number_of
from .plan import TrainingPlan
from .presets import IMAGE_STYLE
from .reasons import plan_reasons


def plan_summary(plan: TrainingPlan, shown: Counts | Dataset) -> str:
    """What is refused, what will happen, what is unwise, and what else to know, in a few lines: no more than the first
    of them may be seen."""
    return "\n".join(said_and_budget(plan, shown, plan.notes))


def plan_alone_summary(plan: TrainingPlan) -> str:
    """The same where no dataset is known: the settings stand for the budget."""
    found = plan_alone_findings(plan)
    line = f"{plan.preset}: {_named_warnings(found)}{settings_line(plan)}"
    return "\n".join(_ordered(found, [line], plan.notes))


def said_and_budget(
    plan: TrainingPlan, shown: Counts | Dataset, notes: Sequence[str] = ()
) -> list[str]:
    """Refusals, the budget, whose first line names the number of warnings, then those and what else to know."""
    found = findings_of(plan, shown)
    return _ordered(found, budget_lines(plan, shown, _named_warnings(found)), notes)


def full_summary(
    plan: TrainingPlan,
    dataset: Dataset,
    *,
    fit: Sequence[str] = (),
    estimate: Sequence[str] = (),
) -> str:
    """The same after a verdict, with the reason for each value. `fit` says whether the run fits on a machine, a line
    for the verdict and one for each remedy; `estimate` is what it takes there."""
    found = findings_of(plan, dataset)
    budget = [*fit[1:], *budget_lines(plan, dataset)]
    lines = [
        _verdict(found, fit[:1]),
        *_ordered(found, budget, plan.notes),
        *estimate,
        "Why:",
        *(f"  {reason.text()}" for reason in plan_reasons(plan, dataset.counts())),
    ]
    return "\n".join(lines)


def _ordered(
    found: Sequence[PlanFinding], budget: Sequence[str], notes: Sequence[str]
) -> list[str]:
    """Refusals, the budget, warnings, the plan's own notes, and those on it."""
    refused, unwise, slight = (
        findings_text(tuple(f for f in found if f.level == level)) for level in LEVELS
    )
    return [*refused, *budget, *unwise, *notes, *slight]


def _verdict(findings: Sequence[PlanFinding], fit: Sequence[str]) -> str:
    refused = any(finding.level == "refusal" for finding in findings)
    parts = [*fit, "refused, the trainer does not start"] if refused else [*fit]
    warnings = _num_warnings(findings)
    parts += [number_of(warnings, "warning")] if warnings else []
    if not refused and not warnings and not "".join(fit).startswith(LACKS):
        parts.append("nothing to object")
    return f"Verdict: {'; '.join(parts)}."


def _named_warnings(findings: Sequence[PlanFinding]) -> str:
    warnings = _num_warnings(findings)
    return f"{number_of(warnings, 'warning')} below; " if warnings else ""


def _num_warnings(findings: Sequence[PlanFinding]) -> int:
    return sum(finding.level == "warning" for finding in findings)


def budget_lines(plan: TrainingPlan, shown: Counts | Dataset, warnings: str = "") -> list[str]:
    """Steps, iterations, epochs and exposures of the run and of each expert; `warnings` stands before the steps."""
    material = material_of(shown, plan)
    counts, each = material.counts, f"each {material.one()} shown"
    lines = [
        f"{plan.preset} for {_shown(plan, material)}: {warnings}{number_of(plan.steps, 'step')} "
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
        f"rank {plan.lora.rank}{_alpha(plan)}, {plan.optimizer.name}, shift {plan.shift:g}, boundary "
        f"{plan.boundary:g}",
        *extras(plan),
        f"a checkpoint every {number_of(plan.save_every, 'step')}",
    ]
    return "; ".join(parts)


def _alpha(plan: TrainingPlan) -> str:
    """Nothing where every layer's alpha moves: the phases are told among the extras."""
    moved = plan.alpha_phases
    return "" if moved.alphas and not moved.targets else f", alpha {plan.lora.alpha:g}"


def _variety(plan: TrainingPlan, views: list[str]) -> list[str]:
    dropped = plan.caption_dropout
    left_out = [f"{dropped:.3g} of the samples without their caption (caption_dropout)"]
    return views + (left_out if dropped else [])


def _shown(plan: TrainingPlan, material: Material) -> str:
    counts, words = material.counts, material.shown(plan.preset)
    if material.held_out:
        words += f" ({material.held_out} held out)"
    if counts.shown != counts.clips:
        words += f", {number_of(counts.shown, 'sample')} an epoch"
    if counts.regularisation:
        words += f" ({counts.regularisation:g} of them regularisation)"
    return words
