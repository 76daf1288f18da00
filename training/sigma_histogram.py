"""Which noise levels an expert was trained at so far, beside those that its plan draws in the long run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

from ..wan.families import Role, sigma_range
from ..wan.timesteps import sigma_quantiles
from .plans.plan import TrainingPlan
from .schedule import sigmas_at

BINS = 20
_POINTS = 500 * BINS
"""Equally likely noise levels by which a bin's share is counted: right to 0.01 %."""


@dataclass(frozen=True)
class SigmaHistogram:
    """`BINS` equal parts of an expert's range of sigma, from low to high."""

    edges: tuple[float, ...]
    """BINS + 1."""
    counts: tuple[int, ...]
    """Noise levels drawn in each part."""
    expected: tuple[float, ...]
    """How many would be, of as many, if every part got exactly its share."""


@lru_cache(maxsize=32)
def sigma_histogram(plan: TrainingPlan, role: Role, micro_batches: int) -> SigmaHistogram:
    """Of the first `micro_batches` that an expert was trained on.

    A pure function of plan and counter, as the draws themselves are: a run that was cut off and goes on counts
    every micro-batch once. A micro-batch that is not full draws as many as a full one.
    """
    within = sigma_range(role, plan.boundary)
    edges = torch.linspace(within.low, within.high, BINS + 1, dtype=torch.float64)
    # Those of the first micro-batches, in order, are one long micro-batch.
    drawn = (
        sigmas_at(plan, role, 0, micro_batches * plan.batch) if micro_batches else torch.empty(0)
    )
    shares = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    likely = sigma_quantiles(within, shares, shift=plan.shift, **asdict(plan.timesteps))
    part = len(drawn) / _POINTS
    return SigmaHistogram(
        edges=tuple(edges.tolist()),
        counts=tuple(_counts(drawn, edges)),
        expected=tuple(count * part for count in _counts(likely, edges)),
    )


def _counts(sigmas: torch.Tensor, edges: torch.Tensor) -> list[int]:
    places = torch.bucketize(sigmas.double(), edges[1:-1], right=True)
    return torch.bincount(places, minlength=BINS).tolist()
