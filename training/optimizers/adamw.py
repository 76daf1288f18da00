"""AdamW that takes less memory: moments in 8 bits, weights in 16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from . import low_bit
from .kahan import exact_value, store_value

EPS = 1e-8


class CompactAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), computed in float32 and kept in fewer bits.

    eight_bit: both moments as codes with a scale for each block of 256; a tensor that is too small keeps them in
    float32. kahan: what a 16-bit weight rounds away is kept beside it, in 16 bits too.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eight_bit: bool,
        kahan: bool,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.eight_bit, self.kahan = eight_bit, kahan

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        assert closure is None, "the loop computes the loss"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad.float(), group)

    def _update(self, weight: nn.Parameter, grad: torch.Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            self._start(state, "exp_avg", weight, signed=True)
            self._start(state, "exp_avg_sq", weight, signed=False)
        state["step"] += 1
        steps, (beta1, beta2) = int(state["step"]), group["betas"]
        first = _recall(state, "exp_avg", signed=True).lerp(grad, 1 - beta1)
        second = _recall(state, "exp_avg_sq", signed=False).lerp(grad.square(), 1 - beta2)
        _remember(state, "exp_avg", first, signed=True)
        _remember(state, "exp_avg_sq", second, signed=False)
        # From here on the moments as they were computed, not as they were kept.
        root = second.sqrt() / math.sqrt(1 - beta2**steps) + EPS
        value = exact_value(weight, state) * (1 - group["lr"] * group["weight_decay"])
        value = value - group["lr"] * (first / (1 - beta1**steps)) / root
        store_value(weight, value, state, keep=self.kahan)

    def _start(self, state: dict, name: str, weight: torch.Tensor, *, signed: bool) -> None:
        zeros = torch.zeros_like(weight, dtype=torch.float32)
        if self.eight_bit and low_bit.fits_blocks(weight):
            state[f"{name}_codes"], state[f"{name}_scale"] = low_bit.encode(zeros, signed=signed)
        else:
            state[name] = zeros


def _recall(state: dict, name: str, *, signed: bool) -> torch.Tensor:
    if name in state:
        return state[name]
    return low_bit.decode(state[f"{name}_codes"], state[f"{name}_scale"], signed=signed)


def _remember(state: dict, name: str, value: torch.Tensor, *, signed: bool) -> None:
    """In the form that is there: a run that began with 32-bit moments keeps them."""
    if name in state:
        state[name] = value
    else:
        state[f"{name}_codes"], state[f"{name}_scale"] = low_bit.encode(value, signed=signed)
