"""Noise levels for training, drawn inside an expert's range by closed form: nothing is ever rejected."""

from __future__ import annotations

import math

import torch

from .families import SigmaRange
from .flow import unwarp, warp


def draw_sigmas(
    within: SigmaRange, count: int, *, shift: float, generator: torch.Generator
) -> torch.Tensor:
    """`count` float32 sigmas of a shifted uniform schedule cut to `within`: one from each of
    `count` equally likely parts of the range, in random order.

    Cutting the uniform variable before the warp leaves the density inside the range as the whole
    schedule has it.
    """
    low, high = unwarp(within.low, shift), unwarp(within.high, shift)
    strata = torch.randperm(count, generator=generator).double()
    jitter = torch.rand(count, generator=generator, dtype=torch.float64)
    sigma = warp(low + (high - low) * (strata + jitter) / count, shift)
    return _clamp_float32(sigma, within)


def _clamp_float32(sigma: torch.Tensor, within: SigmaRange) -> torch.Tensor:
    """Rounding to float32 must not carry a sigma across the boundary into the other expert."""
    lowest = torch.tensor(within.low, dtype=torch.float32)
    if lowest.item() < within.low:
        lowest = torch.nextafter(lowest, torch.tensor(math.inf))
    highest = torch.tensor(within.high, dtype=torch.float32)
    if within.high < 1.0 and highest.item() >= within.high:
        highest = torch.nextafter(highest, torch.tensor(-math.inf))
    return sigma.float().clamp(lowest, highest)
