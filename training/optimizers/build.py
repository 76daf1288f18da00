"""From a plan's settings to an optimizer, its rate at each step, and what a person should know of both."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ..plans.plan import TrainingPlan
from ..plans.settings import ExpertSettings, OptimizerSettings
from . import library, low_bit
from .adamw import CompactAdamW
from .automagic import Automagic
from .names import (
    AUTOMAGIC,
    PRODIGY,
    is_eight_bit,
    is_kahan,
    library_class,
    require_name,
)
from .rate_schedules import rate_factor

BETA1 = 0.9


def require_optimizer(name: str, *, load: bool = False) -> None:
    """Raises `UserError` if this optimizer cannot train: unknown, not installed, or unfit. With `load` torchao is tried
    too, which takes some seconds."""
    require_name(name)
    if load and is_eight_bit(name) and low_bit.is_installed():
        low_bit.quant_functions()
    if wanted := "Prodigy" if name == PRODIGY else library_class(name):
        library.require_class(wanted)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings, rates: ExpertSettings
) -> torch.optim.Optimizer:
    """The optimizer of one expert."""
    weights = list(parameters)
    require_name(settings.name)
    beta2 = settings.beta2 if rates.beta2 is None else rates.beta2
    if settings.name == AUTOMAGIC:
        return _automagic(weights, settings, rates, beta2)
    if settings.name == PRODIGY:
        return library.library_optimizer(
            "Prodigy", weights, lr=rates.rate, weight_decay=settings.weight_decay, beta2=beta2
        )
    if name := library_class(settings.name):
        return library.library_optimizer(
            name, weights, lr=rates.rate, weight_decay=settings.weight_decay, beta2=rates.beta2
        )
    betas = (BETA1, beta2)
    eight_bit = is_eight_bit(settings.name) and low_bit.is_installed()
    kahan = is_kahan(settings.name) and any(w.dtype != torch.float32 for w in weights)
    if eight_bit or kahan:
        return CompactAdamW(
            weights,
            lr=rates.rate,
            betas=betas,
            weight_decay=settings.weight_decay,
            eight_bit=eight_bit,
            kahan=kahan,
        )
    return torch.optim.AdamW(
        weights, lr=rates.rate, betas=betas, weight_decay=settings.weight_decay
    )


def set_rate(
    optimizer: torch.optim.Optimizer, rates: ExpertSettings, step: int, steps: int
) -> None:
    """The rate of an expert's own step (from 0) of `steps`, by its schedule. Automagic moves its rates itself."""
    if isinstance(optimizer, Automagic):
        return
    factor = rate_factor(rates.schedule, step, steps, warmup=rates.warmup, cycles=rates.cycles)
    for group in optimizer.param_groups:
        group["lr"] = rates.rate * factor


def mean_rate(optimizer: torch.optim.Optimizer) -> float:
    """Learning rate, averaged over all weights; where an optimizer finds its own, that one."""
    if isinstance(optimizer, Automagic):
        return optimizer.mean_rate()
    group = optimizer.param_groups[0]
    # Prodigy and the D-Adapt family: the distance that they have found times the factor of the plan.
    return float(group["lr"] * group["d"]) if "d" in group else float(group["lr"])


def norm_limit(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, rates: ExpertSettings
) -> float:
    """Largest gradient norm. Automagic clips its own update instead."""
    if isinstance(optimizer, Automagic):
        return math.inf
    return settings.clip if rates.clip is None else rates.clip


def optimizer_notes(plan: TrainingPlan) -> tuple[str, ...]:
    """Where a plan asks its optimizer for what does nothing, or what is not there."""
    name, dtype = plan.optimizer.name, plan.lora.dtype
    notes = []
    if is_eight_bit(name) and not low_bit.is_installed():
        notes.append(low_bit.MISSING)
    if is_kahan(name) and name != AUTOMAGIC and dtype == "float32":
        notes.append(
            "Kahan summation has nothing to do on float32 adapters; set lora.dtype to bfloat16 for it."
        )
    if not is_kahan(name) and dtype != "float32":
        notes.append(
            f"{name} on {dtype} adapters loses every update below 1/256 of a weight; take an optimizer with kahan, "
            "automagic, or float32."
        )
    for role in plan.roles():
        rates = plan.rates(role)
        if name == AUTOMAGIC and (rates.schedule != "constant" or rates.warmup):
            notes.append(
                f"automagic moves its rates itself: schedule and warm-up of {role} are not used."
            )
    return tuple(notes)


def _automagic(
    weights: list[nn.Parameter], settings: OptimizerSettings, rates: ExpertSettings, beta2: float
) -> Automagic:
    return Automagic(
        weights,
        rate=rates.rate,
        bump=rates.rate if rates.bump is None else rates.bump,
        minimum=rates.rate if rates.minimum is None else rates.minimum,
        maximum=rates.rate if rates.maximum is None else rates.maximum,
        beta2=beta2,
        weight_decay=settings.weight_decay,
        clip=settings.clip if rates.clip is None else rates.clip,
    )
