"""A step's gradients: added up and measured in float32, whatever dtype the adapters have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .kahan import exact_value, store_value


class GradientSum:
    """Adds micro-batches up in the weights' own `grad`. Of 16-bit weights it keeps beside it what rounding takes away
    (see `kahan`): the sum is that of float32, and takes no more memory than one."""

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        self._weights = tuple(weights)
        self._rests: tuple[dict[str, torch.Tensor], ...] = tuple({} for _ in weights)

    @torch.no_grad()
    def add(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """One micro-batch's: one for each weight; None where the loss does not depend on it."""
        for weight, rest, gradient in zip(self._weights, self._rests, gradients, strict=True):
            if gradient is None:
                continue
            if weight.grad is None:
                rest.clear()
                weight.grad = gradient
            elif weight.dtype == torch.float32:
                weight.grad.add_(gradient)
            else:
                store_value(weight.grad, exact_value(weight.grad, rest) + gradient.float(), rest)

    @torch.no_grad()
    def clip(self, limit: float) -> float:
        """The norm of all gradients together, before they are scaled down to `limit`; not finite if one is not."""
        if all(weight.dtype == torch.float32 for weight in self._weights):
            return torch.nn.utils.clip_grad_norm_(self._weights, limit).item()
        found = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = _norm(found)
        if norm > limit and math.isfinite(norm):
            for gradient in found:
                gradient.mul_(limit / (norm + 1e-6))
        return norm

    def clear(self) -> None:
        """Back to no gradient at all."""
        for weight, rest in zip(self._weights, self._rests, strict=True):
            weight.grad = None
            rest.clear()

    def to(self, device: torch.device) -> None:
        """What is kept beside the gradients; these go with their weights."""
        for rest in self._rests:
            rest.update({name: tensor.to(device) for name, tensor in rest.items()})


def _norm(gradients: Sequence[torch.Tensor]) -> float:
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(each, dtype=torch.float32) for each in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)).item()
