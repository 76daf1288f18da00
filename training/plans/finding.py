"""What a look at a plan finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Level = Literal["refusal", "warning", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The gravest first."""


@dataclass(frozen=True)
class PlanFinding:
    """Something to know about a plan before it runs."""

    level: Level
    """`refusal`: the trainer does not start."""
    text: str
    """What is, and what can be: two sentences."""
    fix: str
    """What to do."""


# A sum of decimal fractions may miss the border by a hair.
_HAIR = 1e-9


def outside(value: float, span: tuple[float, float]) -> bool:
    """Whether a value lies beyond a range by more than rounding."""
    least, most = span
    return value < least * (1 - _HAIR) or value > most * (1 + _HAIR)
