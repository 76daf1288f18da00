"""Optimizers by the names that plans use."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from .plans.plan import OptimizerSettings, RateSettings

# Adapters are float32 here, so Kahan summation would change nothing; 8-bit states save little at LoRA size.
STAND_INS = {
    "adamw 8-bit": "8-bit AdamW is not there yet: AdamW with 32-bit states takes its place.",
    "adamw kahan": "Kahan summation has nothing to do on 32-bit adapters: plain AdamW takes its place.",
    "adamw 8-bit kahan": "8-bit AdamW with Kahan summation is not there yet: AdamW on 32-bit adapters takes its place.",
}
AVAILABLE = ("adamw", "automagic", *STAND_INS)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings, rates: RateSettings
) -> torch.optim.Optimizer:
    """The optimizer of one expert."""
    if settings.name == "automagic":
        return Automagic(
            parameters,
            rate=rates.rate,
            bump=rates.rate if rates.bump is None else rates.bump,
            minimum=rates.rate if rates.minimum is None else rates.minimum,
            maximum=rates.rate if rates.maximum is None else rates.maximum,
            beta2=settings.beta2,
            weight_decay=settings.weight_decay,
            clip=settings.clip,
        )
    return torch.optim.AdamW(
        parameters, lr=rates.rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay
    )


def mean_rate(optimizer: torch.optim.Optimizer) -> float:
    """Learning rate, averaged over all weights."""
    if isinstance(optimizer, Automagic):
        return optimizer.mean_rate()
    return optimizer.param_groups[0]["lr"]


class Automagic(torch.optim.Optimizer):
    """A learning rate for every weight: it rises by `bump` while the update keeps its sign, falls when it turns.

    The update is Adafactor's (Shazeer and Stern 2018): the gradient over the root of a factored second
    moment, clipped to an RMS of `clip`. The rates are float32, which keeps every bump.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
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
        """Average of all weights' rates; the starting rate before the first step."""
        rates = [state["rate"] for state in self.state.values() if "rate" in state]
        if not rates:
            return self.param_groups[0]["rate"]
        return float(sum(r.sum() for r in rates) / sum(r.numel() for r in rates))

    def _update(self, weight: nn.Parameter, grad: torch.Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["rate"] = torch.full_like(weight, group["rate"])
            state["rows"] = torch.zeros_like(weight[:, 0])
            state["columns"] = torch.zeros_like(weight[0])
            state["rising"] = torch.zeros_like(weight, dtype=torch.int8)
        update = _adafactor_update(grad, state, group["beta2"])
        update /= (update.square().mean().sqrt() / group["clip"]).clamp(min=1.0)
        rising = (update > 0).to(torch.int8) * 2 - 1
        agree = torch.where(rising == state["rising"], group["bump"], -group["bump"])
        # The first step has no sign to agree with.
        rate = torch.where(state["rising"] == 0, state["rate"], state["rate"] + agree)
        state["rate"] = rate.clamp_(group["minimum"], group["maximum"])
        state["rising"] = rising
        weight -= state["rate"] * (update + group["weight_decay"] * weight)


def _adafactor_update(grad: torch.Tensor, state: dict, beta2: float) -> torch.Tensor:
    square = grad.square() + 1e-30
    state["rows"].lerp_(square.mean(1), 1 - beta2)
    state["columns"].lerp_(square.mean(0), 1 - beta2)
    rows = (state["rows"] / state["rows"].mean()).rsqrt().unsqueeze(1)
    return grad * rows * state["columns"].rsqrt().unsqueeze(0)
