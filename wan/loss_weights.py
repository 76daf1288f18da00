"""How much an error of the velocity counts at each noise level."""

from __future__ import annotations

import math

import torch

NONE, X0, COSMAP, CLAMPED_SNR = "none", "x0", "cosmap", "clamped snr"
WEIGHTINGS = (NONE, X0, COSMAP, CLAMPED_SNR)


def loss_weight(weighting: str, sigma: torch.Tensor, *, gamma: float = 5.0) -> torch.Tensor:
    """w(sigma) on the squared error of the velocity, in the shape of `sigma` (0 to 1).

    x0: sigma^2, which makes it the squared error of x0 = x_t - sigma v.
    cosmap: 2 / (pi (1 - 2 sigma + 2 sigma^2)) (Esser et al. 2024, section 3.1).
    clamped snr: min(SNR, gamma) / (SNR + 1) with SNR = ((1 - sigma) / sigma)^2, the form that Min-SNR (Hang et al.
    2023, equation 9 for v-prediction) takes with a flow's signal-to-noise ratio. It is 0 at both ends.
    Raises KeyError for another weighting.
    """
    signal, noise = (1 - sigma) ** 2, sigma**2
    return {
        NONE: lambda: torch.ones_like(sigma),
        X0: lambda: noise,
        COSMAP: lambda: 2 / (math.pi * (signal + noise)),
        # Both sides times sigma^2: nothing is divided by 0 where sigma is.
        CLAMPED_SNR: lambda: torch.minimum(signal, gamma * noise) / (signal + noise),
    }[weighting]()
