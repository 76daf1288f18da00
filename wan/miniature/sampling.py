"""Clips from the miniature family without a host: Euler steps, the first ones by the high-noise expert."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from ..flow import warp

Network = Callable[..., torch.Tensor]
"""network(x_t, sigma, context, condition): velocity."""


def schedule(steps: int, shift: float) -> torch.Tensor:
    """`steps` + 1 sigmas from 1 to 0."""
    return warp(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def sample(
    experts: tuple[Network, Network],
    x: torch.Tensor,
    context: torch.Tensor,
    condition: torch.Tensor | None,
    *,
    boundary: float,
    sigmas: torch.Tensor,
) -> torch.Tensor:
    """`x` (batch, 16, frames, height, width) at sigmas[0], carried to the last sigma.

    The first expert takes every step that begins at the boundary or above.
    """
    with torch.no_grad():
        for now, then in itertools.pairwise(sigmas):
            network = experts[0 if now >= boundary else 1]
            x = x + (then - now) * network(x, now.expand(len(x)), context, condition)
    return x
