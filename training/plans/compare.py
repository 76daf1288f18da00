"""Two plans side by side: every value that differs, why each is what it is, and what the difference does."""

from __future__ import annotations

from ..data.dataset import Counts
from .changes import Difference, differing_values
from .limits import findings_text, plan_findings
from .plan import TrainingPlan
from .reasons import reason_for, short
from .summary import budget_lines

# What more of it does; a value that is no number is told as it is.
MORE: dict[str, str] = {
    "steps": "more steps: a stronger effect, and sooner overtrained",
    "batch": "a larger batch: calmer steps, more memory, more samples a step",
    "accumulate": "more samples a step: calmer steps, and more time for each",
    "swap_every": "longer turns: fewer changes of experts, and a rounder share in short runs",
    "save_every": "fewer checkpoints to compare, and less disk",
    "shift": "a higher shift: more of the schedule for the high-noise expert, so more steps for motion and layout",
    "boundary": "a higher boundary: fewer noise levels for the high-noise expert",
    "caption_dropout": "more samples without their caption: a weaker hold of the prompt",
    "lora.rank": "a higher rank: more can be learnt, more memory, larger files",
    "lora.alpha": "a higher alpha: a larger update for the same rates",
    "lora.dropout": "more dropout: slower to memorise",
    "high.rate": "a higher rate: motion and layout are learnt faster, and overtrained faster",
    "low.rate": "a higher rate: detail is learnt faster, and overtrained faster",
    "high.bump": "a higher bump: the rates of the high-noise expert grow faster",
    "low.bump": "a higher bump: the rates of the low-noise expert grow faster",
    "high.maximum": "the rates of the high-noise expert may grow further",
    "low.maximum": "the rates of the low-noise expert may grow further",
}
OTHER: dict[str, str] = {
    "seed": "another order, other noise: the same plan otherwise",
    "optimizer.name": "another rule for the steps: rates are not comparable",
    "train": "other experts are trained",
    "lora.targets": "other layers carry the LoRA",
    "checkpoint_blocks": "on takes less memory and about a third more time",
    "allow_long": "on lets a run go beyond the limit of epochs",
}


def compare_plans(ours: TrainingPlan, theirs: TrainingPlan, counts: Counts | None = None) -> str:
    """Plan A against plan B in words; with `counts` also the budget and the findings of both."""
    found = differing_values(ours, theirs)
    lines = [
        f"{len(found)} values differ."
        if found
        else "The plans are equal; only their notes may differ.",
    ]
    for difference in found:
        lines += _lines(difference, ours, theirs, counts)
    if counts is not None:
        for letter, plan in (("a", ours), ("b", theirs)):
            lines += [f"Plan {letter}:", *budget_lines(plan, counts)]
            lines += findings_text(plan_findings(plan, counts))
    return "\n".join(lines)


def _lines(
    difference: Difference, ours: TrainingPlan, theirs: TrainingPlan, counts: Counts | None
) -> list[str]:
    name, a, b = difference
    lines = [f"{name}: {short(a)} in a, {short(b)} in b"]
    for letter, plan in (("a", ours), ("b", theirs)):
        reason = reason_for(name, plan, counts)
        lines.append(f"  {letter}: {reason.why} ({reason.evidence})")
    if effect := _effect(name, a, b):
        lines.append(f"  {effect}")
    return lines


def _effect(name: str, a: object, b: object) -> str:
    if name in MORE and _is_number(a) and _is_number(b):
        return f"{'b' if b > a else 'a'} has {MORE[name]}"  # type: ignore[operator]
    return OTHER.get(name, "")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
