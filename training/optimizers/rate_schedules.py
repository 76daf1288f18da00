"""How a learning rate moves over an expert's own steps: pure functions of the step, so that a resume needs no state."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "linear", "cosine", "cosine with restarts")


def rate_factor(schedule: str, step: int, steps: int, *, warmup: int = 0, cycles: int = 1) -> float:
    """What the base rate is multiplied with at `step` (from 0) of the `steps` of one expert; above 0, at most 1.

    warmup: steps over which it rises to 1, before the schedule begins. cycles: falls from 1 towards 0 of `cosine
    with restarts` (SGDR, Loshchilov and Hutter 2017, equation 5, with periods of equal length). Raises KeyError for
    another schedule.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    span = max(1, steps - warmup)
    # 0 would be reached one step after the last: a step at rate 0 would be wasted.
    at = min(step - warmup, span - 1)
    # In whole numbers: a restart that a rounded fraction misses would be a step at rate 0.
    return {
        "constant": lambda: 1.0,
        "linear": lambda: 1 - at / span,
        "cosine": lambda: _half_cosine(at / span),
        "cosine with restarts": lambda: _half_cosine(at * cycles % span / span),
    }[schedule]()


def _half_cosine(part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))
