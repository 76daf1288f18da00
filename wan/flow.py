"""Flow matching as Wan does it: a straight line from clean (sigma 0) to noise (sigma 1)."""

from __future__ import annotations

from typing import overload

import torch


def mix(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - sigma) x0 + sigma noise; `sigma` is (batch,) in [0, 1], or (batch, frames) for latents
    (batch, channels, frames, height, width)."""
    sigma = sigma.to(x0)
    per_frame = sigma.ndim == 2
    sigma = sigma[:, None, :, None, None] if per_frame else sigma.view(-1, *[1] * (x0.ndim - 1))
    return (1 - sigma) * x0 + sigma * noise


def velocity_target(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What the network is to predict at every sigma: dx_t / dsigma = noise - x0."""
    return noise - x0


@overload
def warp(u: float, shift: float) -> float: ...
@overload
def warp(u: torch.Tensor, shift: float) -> torch.Tensor: ...
def warp(u: float | torch.Tensor, shift: float) -> float | torch.Tensor:
    """Sigma of the uniform position `u` in [0, 1]: s u / (1 + (s - 1) u) (Esser et al. 2024, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


@overload
def unwarp(sigma: float, shift: float) -> float: ...
@overload
def unwarp(sigma: torch.Tensor, shift: float) -> torch.Tensor: ...
def unwarp(sigma: float | torch.Tensor, shift: float) -> float | torch.Tensor:
    """The uniform position that `warp` takes to `sigma`."""
    return sigma / (shift - (shift - 1) * sigma)


def share_above(boundary: float, shift: float) -> float:
    """Part of a schedule with this shift that lies at sigma >= `boundary`: the high expert's work.

    0.9 gives 10 % at shift 1, 25 % at 3, 35.7 % at 5, 47.1 % at 8.
    """
    return 1.0 - unwarp(boundary, shift)
