"""LoKr: a change of a weight that is a Kronecker product of two small matrices (LyCORIS, `modules/lokr.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .updates import LayerPass, Update, frozen, product


class LoKr(Update):
    """delta = alpha / rank * kron(first, second); either factor is one matrix or the product of two.

    first: (outputs 1, inputs 1). second: (outputs 2, inputs 2), the kernel of a convolution counted as inputs.
    rank, alpha: None where both factors are stored whole; then nothing is scaled.
    """

    def __init__(
        self,
        first: Sequence[torch.Tensor],
        second: Sequence[torch.Tensor],
        *,
        rank: int | None = None,
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        self.first = nn.ParameterList(frozen(part) for part in first)
        self.second = nn.ParameterList(frozen(part) for part in second)
        self._rank, self._alpha = rank, alpha

    @property
    def rank(self) -> int | None:
        return self._rank

    @property
    def alpha(self) -> float | None:
        return self._alpha

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        first, second = (
            product([part.to(weight.device, torch.float32) for part in parts])
            for parts in (self.first, self.second)
        )
        # A kernel is the fastest axis of the weight and of `second`, so it may stay among the inputs.
        return (torch.kron(first, second) * self._ratio).reshape(weight.shape)

    def forward(self, x: torch.Tensor, layer: LayerPass | None = None) -> torch.Tensor:
        del layer
        # kron(A, B) x = A X B^T for x as a matrix X (inputs 1, inputs 2), so the large product is never made.
        first = product([part.to(x) for part in self.first])
        grid = x.reshape(*x.shape[:-1], first.shape[1], -1)
        for part in reversed(self.second):
            grid = F.linear(grid, part.to(x))
        return (first @ grid).flatten(-2) * (self.strength * self._ratio)

    @property
    def _ratio(self) -> float:
        return 1.0 if self._rank is None or self._alpha is None else self._alpha / self._rank
