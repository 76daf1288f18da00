"""What one LoRA file changes on one parameter of the network: the common face of every kind of change.

At strength s a parameter W becomes W + s * delta(W). Beside a linear layer the same change is an addition to the
layer's output, so that the weight itself stays as it is, whatever format it is stored in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class LayerPass(NamedTuple):
    """What the weight of a linear layer alone makes of an input, without the bias."""

    output: torch.Tensor
    """x W^T for the input at hand (..., outputs)."""
    again: Callable[[torch.Tensor], torch.Tensor]
    """The same for another input (..., inputs)."""


class Update(nn.Module):
    """The change that one LoRA file makes to one parameter of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.target = ""
        """Name of the parameter inside the network (`blocks.0.self_attn.q.weight`); an `UpdateSet` sets it."""
        self.strength = 1.0
        """Factor of the whole change: row, route and schedule."""

    @property
    def rank(self) -> int | None:
        """Inner width of the factors, or None for a change that has none."""
        return None

    @property
    def alpha(self) -> float | None:
        """The numerator of alpha / rank, or None for a change that is not scaled so."""
        return None

    @property
    def needs_layer(self) -> bool:
        """Whether `prepare` must be called before `forward`, and `forward` be given a `LayerPass`."""
        return False

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Change of the parameter at strength 1: float32, in the shape and on the device of `weight`.

        weight: the parameter of the base model, not quantised; only DoRA looks at its numbers, so for other kinds
        an empty tensor of the right shape will do.
        """
        raise NotImplementedError

    def prepare(self, weight: torch.Tensor) -> None:
        """Looks at the base model's weight (outputs, inputs) once, where `needs_layer` says so."""
        del weight

    def forward(self, x: torch.Tensor, layer: LayerPass | None = None) -> torch.Tensor:
        """What a linear layer's output gains for its input `x` (..., inputs), in x's dtype: s * x delta^T.

        layer: needed where `needs_layer` says so.
        """
        raise NotImplementedError


class Difference(Update):
    """A change that is stored whole: `.diff` of a weight, a bias, a norm or a modulation."""

    def __init__(self, difference: torch.Tensor) -> None:
        super().__init__()
        self.difference = frozen(difference)

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        return self.difference.to(weight.device, torch.float32).reshape(weight.shape)

    def forward(self, x: torch.Tensor, layer: LayerPass | None = None) -> torch.Tensor:
        del layer
        return F.linear(x, self.difference.to(x)) * self.strength


class UpdateSet(Mapping[str, Update]):
    """The changes that one file makes to one network, by the name of the parameter."""

    def __init__(self, updates: Mapping[str, Update]) -> None:
        self._updates = dict(updates)
        for target, update in self._updates.items():
            update.target = target

    def __getitem__(self, target: str) -> Update:
        return self._updates[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self._updates)

    def __len__(self) -> int:
        return len(self._updates)

    def parameters(self) -> list[nn.Parameter]:
        """Every factor, update by update."""
        return [factor for update in self.values() for factor in update.parameters()]

    def to(self, device: torch.device) -> UpdateSet:
        """Moves the factors in place."""
        for update in self.values():
            update.to(device)
        return self

    def num_bytes(self) -> int:
        """Memory that the factors take."""
        return sum(factor.numel() * factor.element_size() for factor in self.parameters())


def frozen(factor: torch.Tensor) -> nn.Parameter:
    """A copy of a file's tensor as a parameter that moves with its module and is never trained."""
    return nn.Parameter(
        factor.detach().clone(memory_format=torch.contiguous_format), requires_grad=False
    )


def product(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """A matrix that is stored whole, or as two factors."""
    return parts[0] if len(parts) == 1 else parts[0] @ parts[1]
