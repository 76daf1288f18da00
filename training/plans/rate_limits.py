"""Learning rates of a plan that are unusual for its purpose."""

from __future__ import annotations

from collections.abc import Iterator

from ...wan.families import Role
from ..optimizers.names import rate_is_factor
from .finding import PlanFinding, outside
from .plan import TrainingPlan
from .presets import MOTION, PRESETS

# Of the first two lines the ranges are received; the others are our choice around the received number.
RATES: dict[str, tuple[float, float]] = {
    "general video": (1e-4, 3e-4),
    "image style": (1e-4, 4e-4),
    "character": (2.5e-5, 2e-4),
    "video effect": (1e-5, 1e-4),
    "length extension": (5e-5, 2e-4),
}
RATE_RATIO = (3.0, 5.0)
"""How much faster the high-noise expert of a motion learns."""
LEAST_FACTOR = 0.1
"""What multiplies a rate that the optimizer finds; a smaller one is most likely a rate."""
DESTROYS = 100
"""How many times the largest usual rate nothing is learnt at any more."""


def rate_findings(plan: TrainingPlan) -> Iterator[PlanFinding]:
    """Of each expert, and of both in relation."""
    yield from _rates(plan)
    yield from _factors(plan)
    yield from _rate_ratio(plan)


def destroying_rates(plan: TrainingPlan) -> Iterator[PlanFinding]:
    """Rates at which a LoRA is most likely destroyed: more than `DESTROYS` times what is usual."""
    for role in plan.roles():
        own, most = plan.rates(role), largest_usual(plan, role)
        rate = max(own.rate, own.minimum or 0.0) if _finds_each(plan) else own.rate
        if rate > DESTROYS * most:
            yield PlanFinding(
                "warning",
                f"The rate of {role} is {rate:g}, {rate / most:,.0f} times the largest that is usual ({most:g}). It "
                "will most likely destroy the LoRA within a few steps.",
                f"Set {_named(plan, role)}.rate to {most:g} or less; {most / 2:g} is careful.",
            )


def largest_usual(plan: TrainingPlan, role: Role) -> float:
    """The largest rate that is usual for an expert of this plan's purpose."""
    if rate_is_factor(plan.optimizer.name):
        return 1.0
    if plan.preset in RATES:
        return RATES[plan.preset][1]
    if plan.preset not in PRESETS:
        return max(most for _, most in RATES.values())
    preset = PRESETS[plan.preset]
    own = preset.low if role == "low_noise" else preset.high
    return own.maximum or own.rate


def _factors(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for role in plan.roles() if rate_is_factor(plan.optimizer.name) else ():
        rate = plan.rates(role).rate
        if rate < LEAST_FACTOR:
            yield PlanFinding(
                "warning",
                f"{plan.optimizer.name} finds its rate itself and multiplies it by {role}'s {rate:g}. 1 is usual.",
                "Set the rate of each expert to 1.",
            )


def _rates(plan: TrainingPlan) -> Iterator[PlanFinding]:
    span = RATES.get(plan.preset)
    if span is None or plan.optimizer.name == "automagic" or rate_is_factor(plan.optimizer.name):
        return
    for role in plan.roles():
        rate = plan.rates(role).rate
        if outside(rate, span) and rate <= DESTROYS * span[1]:
            yield PlanFinding(
                "warning",
                f"The rate of {role} is {rate:g}. For {plan.preset} {span[0]:g} to {span[1]:g} are usual.",
                "Too high distorts and overtrains, too low shows nothing: choose one of that range.",
            )


def _rate_ratio(plan: TrainingPlan) -> Iterator[PlanFinding]:
    if plan.preset not in MOTION or len(plan.roles()) < 2:
        return
    ratio = lead(plan)
    if outside(ratio, RATE_RATIO):
        yield PlanFinding(
            "warning",
            f"The high-noise expert learns {_times(ratio)} as fast as the low-noise one. The motion presets have it "
            "lead 3-5 times (one group's runs, not replicated).",
            "Raise high.bump (or high.rate), or lower low.bump; the held-out loss of each expert decides.",
        )


def _times(ratio: float) -> str:
    told = f"{ratio:.2g}"
    return "just" if told == "1" else f"{told} times"


def lead(plan: TrainingPlan) -> float:
    """How many times as fast the high-noise expert learns: by the bumps of automagic, else by the rates."""
    high, low = plan.high, plan.low
    if plan.optimizer.name == "automagic" and high.bump and low.bump:
        return high.bump / low.bump
    return high.rate / low.rate


def _finds_each(plan: TrainingPlan) -> bool:
    """Whether every weight has its own rate."""
    return plan.optimizer.name == "automagic"


def _named(plan: TrainingPlan, role: Role) -> str:
    """The part of the plan that this role's rate is in."""
    return "low" if plan.rates(role) is plan.low else "high"
