"""What a micro-batch is judged by: the squared error of the velocity, weighted by noise level."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch.nn import functional as F

from ..wan.families import Role, sigma_range
from ..wan.loss_weights import NONE, loss_weight
from ..wan.timesteps import sigma_quantiles
from .plans.plan import TrainingPlan

QUANTILES = 4096
"""Noise levels over which the mean of a weight is taken."""


class VelocityLoss:
    """Mean squared error; with a weighting of the plan, each sample's error counts w(sigma) times.

    The weight is divided by its mean over what the expert draws: a weighting tilts the noise levels against each
    other, and leaves the expert's learning rate what it is.
    """

    def __init__(self, plan: TrainingPlan, role: Role) -> None:
        self._settings = plan.loss
        self._mean = 1.0
        if plan.loss.weighting != NONE:
            levels = torch.arange(0.5, QUANTILES, dtype=torch.float64) / QUANTILES
            within = sigma_range(role, plan.boundary)
            drawn = sigma_quantiles(within, levels, shift=plan.shift, **asdict(plan.timesteps))
            self._mean = self._weight(drawn.double()).mean().item()

    def __call__(
        self, velocity: torch.Tensor, target: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """velocity, target: (batch, ...); sigma: (batch,). A scalar."""
        if self._settings.weighting == NONE:
            return F.mse_loss(velocity, target)
        errors = F.mse_loss(velocity, target, reduction="none").flatten(1).mean(1)
        return (self._weight(sigma) / self._mean * errors).mean()

    def _weight(self, sigma: torch.Tensor) -> torch.Tensor:
        return loss_weight(self._settings.weighting, sigma, gamma=self._settings.gamma)
