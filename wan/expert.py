"""The door to one network: everything that trains or samples goes through an `Expert`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch

from .conditions import ImageCondition
from .families import Role, SigmaRange
from .lora.adapters import AdapterSet

Attention = Callable[..., torch.Tensor]
"""attention(q, k, v, *, block, grid, sigma): q, k, v as (batch, tokens, heads, head width), returns q's shape."""


class LinearShape(NamedTuple):
    """Width in and out of a layer that can carry a LoRA."""

    inputs: int
    outputs: int


class Expert(Protocol):
    """One of a family's networks, whatever program holds its weights."""

    role: Role
    sigma_range: SigmaRange
    """The noise it is trained on."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def layers(self) -> Mapping[str, LinearShape]:
        """Every linear layer that can carry a LoRA, under Wan's own names (`blocks.0.self_attn.q`)."""
        ...

    def attach(self, adapters: AdapterSet) -> None:
        """Add adapters to the network's forward pass."""
        ...

    def detach(self) -> None:
        """Leave the network as it came."""
        ...

    def in_use(self) -> AbstractContextManager[None]:
        """While entered, the weights are where they compute and gradients can flow through them."""
        ...

    def unload(self) -> None:
        """Takes the weights off the device, which somebody else needs; `in_use` brings them back."""
        ...

    def velocity(
        self,
        x_t: torch.Tensor,
        sigma: torch.Tensor,
        context: torch.Tensor,
        image_condition: ImageCondition | None,
        attention: Attention | None = None,
    ) -> torch.Tensor:
        """Predicted noise - x0, float32, in the shape of `x_t` (batch, channels, frames, height, width).

        sigma: (batch,) or (batch, frames) in [0, 1]. context: (batch, tokens, width) text embedding.
        """
        ...
