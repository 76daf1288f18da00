"""Muon: momentum whose every direction is made equally long, for matrices and convolutions.

Jordan et al. 2024 (Muon: an optimizer for hidden layers in neural networks). torch has it for
matrices alone; the VAE is all convolutions, and reaches 3 dB more in its first minute with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

# The quintic of the paper: five rounds bring every singular value near 1.
ROUNDS, FIRST, THIRD, FIFTH = 5, 3.4445, -4.7750, 2.0315
MATCHED_RMS = 0.2
"""Root mean square of an update per unit of learning rate, as AdamW's is (Liu et al. 2025, 2.2)."""


class Muon(torch.optim.Optimizer):
    """`parameters` have two axes or more; all but the first count as inputs."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(mean, group["momentum"]).flatten(1)
                size = MATCHED_RMS * max(ahead.shape) ** 0.5
                parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-group["lr"] * size)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with its singular values brought to about 1 (0.7 to 1.2)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = FIRST * x + (THIRD * square + FIFTH * square @ square) @ x
    return x.T if tall else x
