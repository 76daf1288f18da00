"""AdamW that takes less memory: moments in 8 bits, weights in 16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from . import low_bit
from .kahan import exact_value, store_value

EPS = 1e-8
FIRST, SECOND = "exp_avg", "exp_avg_sq"
"""The moments, as torch's AdamW calls them."""
_CODED = {
    FIRST: ("exp_avg_codes", "exp_avg_scale"),
    SECOND: ("exp_avg_sq_root_codes", "exp_avg_sq_scale"),
}


class CompactAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), computed in float32 and kept in fewer bits.

    eight_bit: both moments as codes with a scale for each block of 256; a tensor that is too small keeps them in
    float32, as without it. kahan: what a 16-bit weight rounds away is kept beside it, in 16 bits too.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
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
            self._start(state, FIRST, weight)
            self._start(state, SECOND, weight)
        state["step"] += 1
        steps, (beta1, beta2) = int(state["step"]), group["betas"]
        first = _recall(state, FIRST).lerp(grad, 1 - beta1)
        second = _recall(state, SECOND).lerp(grad.square(), 1 - beta2)
        _remember(state, FIRST, first, steps)
        _remember(state, SECOND, second, steps)
        # From here on the moments as they were computed, not as they were kept.
        root = second.sqrt() / math.sqrt(1 - beta2**steps) + EPS
        value = exact_value(weight, state) * (1 - group["lr"] * group["weight_decay"])
        value = value - group["lr"] * (first / (1 - beta1**steps)) / root
        store_value(weight, value, state, keep=self.kahan)

    def _start(self, state: dict, name: str, weight: torch.Tensor) -> None:
        zeros = torch.zeros_like(weight, dtype=torch.float32)
        if self.eight_bit and low_bit.fits_blocks(weight):
            _encode(state, name, zeros, turn=0)
        else:
            state[name] = zeros


def _recall(state: dict, name: str) -> torch.Tensor:
    if name in state:
        return state[name].float()
    codes, scale = _CODED[name]
    return low_bit.decode(state[codes], state[scale], signed=name == FIRST)


def _remember(state: dict, name: str, value: torch.Tensor, turn: int) -> None:
    """In the form that is there: a run that began with 32-bit moments keeps them."""
    if name in state:
        state[name] = value
    else:
        _encode(state, name, value, turn)


def _encode(state: dict, name: str, value: torch.Tensor, turn: int) -> None:
    codes, scale = _CODED[name]
    state[codes], state[scale] = low_bit.encode(value, signed=name == FIRST, turn=turn)
