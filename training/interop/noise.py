"""How other trainers draw noise levels, in a plan's words.

The warp by a shift multiplies the odds of a sigma, and the sigmoid of a normal variable has odds of e to that
variable: a mean is therefore the same as a shift times e^mean, exactly. Trainers with a shift and no mean have both.
"""

from __future__ import annotations

import math

from ...wan.timesteps import LOGIT_NORMAL, SIGMOID, UNIFORM
from ..plans.plan import TrainingPlan
from .draft import Draft, Values

NARROWEST, WIDEST = 0.1, 10.0
"""The values of `timesteps.std` that a plan can have."""
LARGEST_MEAN = 3.0


def is_uniform(plan: TrainingPlan) -> bool:
    return plan.timesteps.distribution == UNIFORM


def shift_with_mean(plan: TrainingPlan) -> float:
    """The shift that also moves the curve by its mean."""
    if plan.timesteps.distribution != LOGIT_NORMAL:
        return float(plan.shift)
    try:
        both = plan.shift * math.exp(plan.timesteps.mean)
    except OverflowError:
        both = math.inf
    return float(both if 0 < both < math.inf else plan.shift)


def set_uniform(values: Values) -> None:
    values["timesteps.distribution"] = UNIFORM


def set_curve(
    draft: Draft, values: Values, scale: float, *, mean: float | None = None, where: str
) -> None:
    """The sigmoid of a normal variable of this width, and of a mean where the trainer has one; `where` names the key
    in the notes on a value that no plan has."""
    width = abs(scale)
    values["timesteps.distribution"] = SIGMOID if mean is None else LOGIT_NORMAL
    values["timesteps.std"] = _within(draft, f"The width in {where}", width, NARROWEST, WIDEST)
    if mean is not None:
        name = f"The mean in {where}"
        values["timesteps.mean"] = _within(draft, name, mean, -LARGEST_MEAN, LARGEST_MEAN)


def _within(draft: Draft, name: str, value: float, least: float, most: float) -> float:
    taken = min(max(value, least), most)
    if taken != value:
        draft.note(f"{name} is {value:g}; a plan has {least:g} to {most:g}: {taken:g} is taken.")
    return taken
