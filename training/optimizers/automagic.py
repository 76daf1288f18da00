"""Automagic: a learning rate for every weight, moved by the sign of its updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from .kahan import exact_value, store_value


class Automagic(torch.optim.Optimizer):
    """A learning rate for every weight: it rises by `bump` while the update keeps its sign, falls when it turns.

    The update is Adafactor's (Shazeer and Stern 2018): the gradient over the root of a factored second
    moment, clipped to an RMS of `clip`. The rates are float32, which keeps every bump; what a 16-bit
    weight rounds away is kept beside it.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        rate: float,
        bump: float,
        minimum: float,
        maximum: float,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        clip: float = 1.0,
    ) -> None:
        defaults = {
            "rate": rate,
            "bump": bump,
            "minimum": minimum,
            "maximum": maximum,
            "beta2": beta2,
            "weight_decay": weight_decay,
            "clip": clip,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        assert closure is None, "the loop computes the loss"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def mean_rate(self) -> float:
        """Average of all weights' rates; of those without a step yet, the rate that they start at."""
        total, count = 0.0, 0
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state.get(weight)
                own = state["rate"].sum() if state else group["rate"] * weight.numel()
                total, count = total + own, count + weight.numel()
        return float(total / count)

    def _update(self, weight: nn.Parameter, grad: torch.Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["rate"] = torch.full_like(weight, group["rate"], dtype=torch.float32)
            for name, shape in _moment_shapes(weight.shape).items():
                state[name] = weight.new_zeros(shape, dtype=torch.float32)
            state["rising"] = torch.zeros_like(weight, dtype=torch.int8)
        update = _adafactor_update(grad.float(), state, group["beta2"])
        update /= (update.square().mean().sqrt() / group["clip"]).clamp(min=1.0)
        rising = (update > 0).to(torch.int8) * 2 - 1
        agree = torch.where(rising == state["rising"], group["bump"], -group["bump"])
        # The first step has no sign to agree with.
        rate = torch.where(state["rising"] == 0, state["rate"], state["rate"] + agree)
        state["rate"] = rate.clamp_(group["minimum"], group["maximum"])
        state["rising"] = rising
        value = exact_value(weight, state)
        store_value(weight, value - state["rate"] * (update + group["weight_decay"] * value), state)


def _moment_shapes(shape: torch.Size) -> dict[str, torch.Size]:
    """Rows and columns of the last two axes; a vector's squares have nothing to be factored into."""
    if len(shape) < 2:
        return {"squares": shape}
    return {"rows": shape[:-1], "columns": shape[:-2] + shape[-1:]}


def _adafactor_update(grad: torch.Tensor, state: dict, beta2: float) -> torch.Tensor:
    square = grad.square() + 1e-30
    if "squares" in state:
        return grad * state["squares"].lerp_(square, 1 - beta2).rsqrt()
    state["rows"].lerp_(square.mean(-1), 1 - beta2)
    state["columns"].lerp_(square.mean(-2), 1 - beta2)
    rows = (state["rows"] / state["rows"].mean(-1, keepdim=True)).rsqrt().unsqueeze(-1)
    return grad * rows * state["columns"].rsqrt().unsqueeze(-2)
