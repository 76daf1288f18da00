"""Noise levels for training, drawn inside an expert's range by closed form: nothing is ever rejected."""

from __future__ import annotations

import math

import torch

from .families import SigmaRange
from .flow import unwarp, warp

UNIFORM, LOGIT_NORMAL, SIGMOID = "uniform", "logit-normal", "sigmoid"
DISTRIBUTIONS = (UNIFORM, LOGIT_NORMAL, SIGMOID)
FAR = -30.0
"""Standard deviations from which on the normal's tail is taken as Rayleigh's; at -38 its share is no number."""


def draw_sigmas(
    within: SigmaRange,
    count: int,
    *,
    shift: float,
    generator: torch.Generator,
    distribution: str = UNIFORM,
    mean: float = 0.0,
    std: float = 1.0,
) -> torch.Tensor:
    """`count` float32 sigmas of a shifted distribution cut to `within`: one from each of `count` equally likely parts
    of the range, in random order. `distribution`, `mean` and `std` as `sigma_quantiles` takes them."""
    strata = torch.randperm(count, generator=generator).double()
    jitter = torch.rand(count, generator=generator, dtype=torch.float64)
    quantiles = (strata + jitter) / count
    return sigma_quantiles(
        within, quantiles, shift=shift, distribution=distribution, mean=mean, std=std
    )


def sigma_quantiles(
    within: SigmaRange,
    quantiles: torch.Tensor,
    *,
    shift: float,
    distribution: str = UNIFORM,
    mean: float = 0.0,
    std: float = 1.0,
) -> torch.Tensor:
    """The float32 sigmas below which these shares (float64, 0 to 1) of an expert's draws lie.

    distribution: of the position u in [0, 1] that the shift warps. uniform; logit-normal: sigmoid(mean + std n) of
    a normal n (Esser et al. 2024, equation 19); sigmoid: the same about 0, as other trainers call it.
    Cutting u before the warp leaves the density inside the range as the whole schedule has it.
    """
    low, high = unwarp(within.low, shift), unwarp(within.high, shift)
    if distribution == UNIFORM:
        u = low + (high - low) * quantiles
    else:
        u = _logit_normal(low, high, quantiles, mean if distribution == LOGIT_NORMAL else 0.0, std)
    return _clamp_float32(warp(u, shift), within)


def _logit_normal(
    low: float, high: float, quantiles: torch.Tensor, mean: float, std: float
) -> torch.Tensor:
    ends = torch.logit(torch.tensor([low, high], dtype=torch.float64))
    below, above = (ends - mean) / std
    # In the upper tail shares lie so near 1 that they lose their digits: the mirror image has them near 0.
    mirrored = bool(below > 0)
    if mirrored:
        below, above, quantiles = -above, -below, 1 - quantiles
    normal = _normal_between(below, above, quantiles)
    return torch.sigmoid(mean + std * (-normal if mirrored else normal))


def _normal_between(
    below: torch.Tensor, above: torch.Tensor, quantiles: torch.Tensor
) -> torch.Tensor:
    """Quantiles of a normal variable that lies between the two; `below` is not above 0."""
    if above < FAR:
        # Rayleigh's tail, by which Marsaglia (1964) draws: beyond so far it is the normal's to 1/1,000.
        least = torch.exp((above.square() - below.square()) / 2)
        return -(above.square() - 2 * torch.log(least + (1 - least) * quantiles)).sqrt()
    # By erfc: torch's ndtr is 1 + erf, which has no digits left at -6 and is 0 from -9 on.
    first, last = torch.special.erfc(-torch.stack([below, above]) / math.sqrt(2)) / 2
    return torch.special.ndtri(first + (last - first) * quantiles)


def _clamp_float32(sigma: torch.Tensor, within: SigmaRange) -> torch.Tensor:
    """Rounding to float32 must not carry a sigma across the boundary into the other expert."""
    lowest = torch.tensor(within.low, dtype=torch.float32)
    if lowest.item() < within.low:
        lowest = torch.nextafter(lowest, torch.tensor(math.inf))
    highest = torch.tensor(within.high, dtype=torch.float32)
    if within.high < 1.0 and highest.item() >= within.high:
        highest = torch.nextafter(highest, torch.tensor(-math.inf))
    return sigma.float().clamp(lowest, highest)
