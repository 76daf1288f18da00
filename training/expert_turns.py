"""Which expert takes which optimizer step: pure functions of the plan, so that a resumed run needs no state."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from ..wan.families import Role
from ..wan.flow import share_above
from .plans.plan import TrainingPlan


class Span(NamedTuple):
    """Steps `first` to before `end`, of one expert or, without a role, of both in turns of `turn` steps."""

    first: int
    end: int
    role: Role | None
    turn: int = 1


def high_share(plan: TrainingPlan) -> float:
    """The high-noise expert's share of the steps that both share: by the shift, or as the plan says."""
    if plan.high_share is not None:
        return plan.high_share
    return share_above(plan.boundary, plan.shift)


def role_at(plan: TrainingPlan, step: int) -> Role:
    """The expert of an optimizer step (from 0). Where both take turns the high expert begins."""
    roles = plan.roles()
    if len(roles) == 1:
        return roles[0]
    span = next(span for span in spans(plan) if step < span.end)
    if span.role is not None:
        return span.role
    turn = (step - span.first) // span.turn
    begun = (_high_turns(high_share(plan), number) for number in (turn, turn + 1))
    return "high_noise" if next(begun) < next(begun) else "low_noise"


def expert_steps(plan: TrainingPlan) -> dict[Role, int]:
    """Optimizer steps that each expert gets."""
    return steps_before(plan, plan.steps)


def steps_before(plan: TrainingPlan, step: int) -> dict[Role, int]:
    """How many of the first `step` steps each expert took: as counted from `role_at`, by whole turns."""
    roles = plan.roles()
    if len(roles) == 1:
        return {roles[0]: step}
    taken: Counter[Role] = Counter()
    for span in spans(plan):
        length = min(step, span.end) - span.first
        if length <= 0:
            break
        high = _high_steps(plan, span, length)
        taken.update({"high_noise": high, "low_noise": length - high})
    return {role: taken[role] for role in roles}


@lru_cache(maxsize=64)
def spans(plan: TrainingPlan) -> tuple[Span, ...]:
    """The parts of a run of two experts, in order; together all of its steps."""
    if plan.order == "interleaved":
        return (Span(0, plan.steps, None, plan.swap_every),)
    if plan.order == "joint":
        return (Span(0, plan.steps, None),)
    roles: dict[str, Role | None] = {"high": "high_noise", "low": "low_noise", "joint": None}
    total = sum(phase.steps for phase in plan.phases)
    ends = [round(end * plan.steps / total) for end in accumulate(p.steps for p in plan.phases)]
    parts = zip([0, *ends], ends, plan.phases, strict=False)
    return tuple(Span(first, end, roles[phase.train]) for first, end, phase in parts if first < end)


def _high_steps(plan: TrainingPlan, span: Span, length: int) -> int:
    """The high expert's part of the first `length` steps of a span."""
    if span.role is not None:
        return length if span.role == "high_noise" else 0
    turns, rest = divmod(length, span.turn)
    high = _high_turns(high_share(plan), turns) * span.turn
    if rest and role_at(plan, span.first + length - 1) == "high_noise":
        high += rest
    return high


def _high_turns(share: float, turns: int) -> int:
    """Of the first `turns`, those of the high expert. The offset lets it begin and keeps short runs near the share."""
    # A share that rounding took below 0 is none.
    share = max(0.0, share)
    return math.floor(turns * share + 1 - share / 2) - math.floor(1 - share / 2)
