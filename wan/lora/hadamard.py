"""LoHa: a change of a weight that is the entry-wise product of two low-rank ones (LyCORIS, `modules/loha.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .updates import LayerPass, Update, frozen, product


class LoHa(Update):
    """delta = alpha / rank * one * two, entry by entry; either is one matrix or the product of two.

    one, two: (outputs, inputs), the kernel of a convolution counted as inputs.
    """

    def __init__(
        self,
        one: Sequence[torch.Tensor],
        two: Sequence[torch.Tensor],
        *,
        rank: int,
        alpha: float,
    ) -> None:
        super().__init__()
        self.one = nn.ParameterList(frozen(part) for part in one)
        self.two = nn.ParameterList(frozen(part) for part in two)
        self._rank, self._alpha = rank, float(alpha)

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def alpha(self) -> float:
        return self._alpha

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        return self._matrix(weight.device).reshape(weight.shape)

    def forward(self, x: torch.Tensor, layer: LayerPass | None = None) -> torch.Tensor:
        del layer
        # Entry by entry, ranks multiply: two of 32 make one of 1024, so the matrix itself is the cheapest to apply.
        # It is made again on every pass, because kept for every layer it would weigh as much as the model.
        return F.linear(x, self._matrix(x.device).to(x)) * self.strength

    def _matrix(self, device: torch.device) -> torch.Tensor:
        one, two = (
            product([part.to(device, torch.float32) for part in parts])
            for parts in (self.one, self.two)
        )
        return one * two * (self._alpha / self._rank)
