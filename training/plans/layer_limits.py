"""Settings of a plan's LoRA that are unusual, cannot be, or never happen: patterns, rank, alpha and its phases."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator

from ..alpha_phases import FEWEST_LOSSES
from ..expert_turns import expert_steps
from .examples import PATTERN
from .finding import PlanFinding, outside
from .plan import TrainingPlan

RANKS = (16, 128)
ALPHA_PER_RANK = (0.25, 2.0)


def lora_findings(plan: TrainingPlan) -> Iterator[PlanFinding]:
    """Patterns that are none, then what is unusual."""
    for name, targets in _patterns(plan):
        yield from broken_patterns(name, targets)
    yield from _lora(plan)
    yield from _alpha_phases(plan)


def broken_patterns(name: str, patterns: Iterable[str]) -> Iterator[PlanFinding]:
    """Refusals of those that are no regular expressions."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield PlanFinding(
                "refusal",
                f"{name} has {pattern!r} ({error}). Each is a regular expression for whole layer names.",
                f"Correct it; a usual one, as it is typed in JSON, is {json.dumps(PATTERN)}.",
            )


def _patterns(plan: TrainingPlan) -> list[tuple[str, tuple[str, ...]]]:
    """By the name in the plan."""
    return [
        ("lora.targets", plan.lora.targets),
        ("high.targets", plan.high.targets or ()),
        ("low.targets", plan.low.targets or ()),
        ("alpha_phases.targets", plan.alpha_phases.targets),
        ("patterns", tuple(each.pattern for each in plan.patterns)),
    ]


def _lora(plan: TrainingPlan) -> Iterator[PlanFinding]:
    rank, (name, alpha) = plan.lora.rank, _last_alpha(plan)
    if outside(rank, RANKS):
        yield PlanFinding(
            "warning",
            f"The rank is {rank}. Recipes use {RANKS[0]} to {RANKS[1]}.",
            "Take 16 for a style, 32 for an effect, 64 for general video.",
        )
    if outside(alpha / rank, ALPHA_PER_RANK):
        yield PlanFinding(
            "warning",
            f"alpha is {alpha:g} at rank {rank}, so the update is scaled by {alpha / rank:.2g}. Usual are alpha = rank "
            "and alpha = rank / 2.",
            f"Set {name} to {rank}, or change the rates by as much in the other direction.",
        )


def _last_alpha(plan: TrainingPlan) -> tuple[str, float]:
    """The alpha that the LoRA ends with, and what it is called."""
    moved = plan.alpha_phases
    if moved.alphas and not moved.targets:
        return "the last of alpha_phases.alphas", moved.alphas[-1]
    return "lora.alpha", plan.lora.alpha


def _alpha_phases(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for role, steps in expert_steps(plan).items() if plan.alpha_phases.alphas else ():
        needed = needed_for_phases(plan, steps)
        if 0 < steps < needed:
            yield PlanFinding(
                "warning",
                f"alpha_phases has {len(plan.alpha_phases.alphas)} alphas, and the {role} expert has {steps} steps of "
                f"its own. They need {needed} at least: each phase its share, and never under {FEWEST_LOSSES} steps, "
                "so the last comes too late or never.",
                "Raise steps, lower alpha_phases.least, or take fewer alphas.",
            )


def needed_for_phases(plan: TrainingPlan, steps: int) -> int:
    """An expert's own steps without which, of so many, its last phase of alpha cannot be judged; 0 for one alpha."""
    moved = plan.alpha_phases
    before = len(moved.alphas) - 1
    if before < 1:
        return 0
    # Shares such as 0.1 are not exact in binary.
    shares = (math.ceil(round(share * steps, 6)) for share in moved.least[:before])
    return sum(max(share, FEWEST_LOSSES) for share in shares) + FEWEST_LOSSES
