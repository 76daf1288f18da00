"""A moving average of the weights beside the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


class WeightAverage:
    """An exponential moving average in float32: each step keeps `decay` of it. Trains nothing and changes nothing."""

    def __init__(self, parameters: Iterable[torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.tensors = [p.detach().float().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: Sequence[torch.Tensor], index: int) -> None:
        """After the expert's own step `index` (from 0). The first steps keep less, or a short run's average would be
        mostly the beginning, where the LoRA does nothing."""
        decay = min(self.decay, (1 + index) / (10 + index))
        for average, parameter in zip(self.tensors, parameters, strict=True):
            average.lerp_(parameter.float(), 1 - decay)

    def to(self, device: torch.device) -> None:
        self.tensors = [average.to(device) for average in self.tensors]
