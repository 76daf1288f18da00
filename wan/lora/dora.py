"""DoRA (Liu et al. 2024): direction and length of a weight's rows, or columns, are changed apart."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from .updates import LayerPass, Update, frozen

Axis = Literal["outputs", "inputs"]


class DoRA(Update):
    """W becomes m * (W + D) / ||W + D||, where D is another update and the norm goes over all axes but one.

    axis: what has one length m each. `outputs` is PEFT's (`tuners/lora/dora.py`), and LyCORIS' for a `dora_scale` of
    (outputs, 1); `inputs` is LyCORIS' and OneTrainer's for a `dora_scale` of (1, inputs). All of them divide by the
    norm of W + D.
    """

    def __init__(self, direction: Update, magnitude: torch.Tensor, axis: Axis) -> None:
        super().__init__()
        self.direction = direction
        self.magnitude = frozen(magnitude.flatten())
        self.axis: Axis = axis
        self._growth: nn.Parameter | None = None
        self._whole: nn.Parameter | None = None

    @property
    def rank(self) -> int | None:
        return self.direction.rank

    @property
    def alpha(self) -> float | None:
        return self.direction.alpha

    @property
    def needs_layer(self) -> bool:
        return True

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        if self._whole is not None:
            return self._whole.to(weight.device)
        moved = weight.float() + self.direction.delta(weight)
        axis = 0 if self.axis == "outputs" else 1
        growth = self._growth_of(moved).reshape([-1 if i == axis else 1 for i in range(moved.ndim)])
        return growth * moved - weight.float()

    def prepare(self, weight: torch.Tensor) -> None:
        # Parameters, so that they move with the factors.
        with torch.no_grad():
            if weight.ndim == 2:
                moved = weight.float() + self.direction.delta(weight)
                self._growth = frozen(self._growth_of(moved) - 1)
            else:
                # A convolution's change is applied as a whole; Wan has one, and it is small.
                self._whole = frozen(self.delta(weight))

    def forward(self, x: torch.Tensor, layer: LayerPass | None = None) -> torch.Tensor:
        assert layer is not None and self._growth is not None, "prepare first, and give the layer"
        growth = self._growth.to(x)
        if self.axis == "outputs":
            moved = self.direction(x)
            return (growth * (layer.output + moved) + moved) * self.strength
        change = layer.again(x * growth) + self.direction(x + x * growth)
        return change * self.strength

    def _growth_of(self, moved: torch.Tensor) -> torch.Tensor:
        """m / ||W + D||, one number for each row or column."""
        rows = moved if self.axis == "outputs" else moved.transpose(0, 1)
        norm = rows.flatten(1).norm(dim=1)
        # A row of zeros has no direction to stretch.
        return torch.where(norm > 0, self.magnitude.to(norm) / norm, torch.ones_like(norm))
