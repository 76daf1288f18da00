"""From a plan's settings to an optimizer, its rate at each step, and what a person should know of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ..plans.plan import TrainingPlan
from ..plans.settings import ExpertSettings, OptimizerSettings
from . import library
from .adamw import CompactAdamW
from .automagic import Automagic
from .names import (
    AUTOMAGIC,
    PRODIGY,
    is_eight_bit,
    is_kahan,
    library_class,
    rate_is_factor,
    require_name,
)
from .rate_schedules import rate_factor

BETA1 = 0.9
FACTOR = "factor"
"""What a group of weights multiplies the expert's rate with."""


def require_optimizer(name: str, dtype: str = "float32") -> None:
    """Raises `UserError` if this optimizer cannot train adapters of `dtype`: unknown, not installed, or unfit."""
    require_name(name)
    if wanted := "Prodigy" if name == PRODIGY else library_class(name):
        library.require_class(wanted, getattr(torch, dtype))


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: OptimizerSettings,
    rates: ExpertSettings,
    factors: Sequence[float] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of one expert. `factors`: one for each parameter, on its rate, and with automagic on its bump and
    bounds; parameters of one factor are a group. An optimizer that finds its rate has one for all."""
    weights = list(parameters)
    require_name(settings.name)
    if factors is None or rate_is_factor(settings.name):
        factors = [1.0] * len(weights)
    groups = _groups(weights, factors)
    beta2 = settings.beta2 if rates.beta2 is None else rates.beta2
    if settings.name == AUTOMAGIC:
        return _automagic(groups, settings, rates, beta2)
    for group in groups:
        group["lr"] = rates.rate * group[FACTOR]
    if settings.name == PRODIGY:
        return library.library_optimizer(
            "Prodigy", groups, lr=rates.rate, weight_decay=settings.weight_decay, beta2=beta2
        )
    if name := library_class(settings.name):
        return library.library_optimizer(
            name, groups, lr=rates.rate, weight_decay=settings.weight_decay, beta2=rates.beta2
        )
    betas = (BETA1, beta2)
    eight_bit = is_eight_bit(settings.name)
    sixteen_bit = any(weight.dtype != torch.float32 for weight in weights)
    if eight_bit or sixteen_bit:
        # Torch's own would keep the moments in the weights' 16 bits, where a step of beta2 0.999 is rounded away.
        return CompactAdamW(
            groups,
            lr=rates.rate,
            betas=betas,
            weight_decay=settings.weight_decay,
            eight_bit=eight_bit,
            kahan=is_kahan(settings.name) and sixteen_bit,
        )
    return torch.optim.AdamW(groups, lr=rates.rate, betas=betas, weight_decay=settings.weight_decay)


def set_rate(
    optimizer: torch.optim.Optimizer, rates: ExpertSettings, step: int, steps: int
) -> None:
    """The rate of an expert's own step (from 0) of `steps`, by its schedule. Automagic moves its rates itself."""
    if isinstance(optimizer, Automagic):
        return
    factor = rate_factor(rates.schedule, step, steps, warmup=rates.warmup, cycles=rates.cycles)
    for group in optimizer.param_groups:
        group["lr"] = rates.rate * factor * group.get(FACTOR, 1.0)


def mean_rate(optimizer: torch.optim.Optimizer) -> float:
    """Learning rate, averaged over all weights; where an optimizer finds its own, that one."""
    if isinstance(optimizer, Automagic):
        return optimizer.mean_rate()
    groups = optimizer.param_groups
    # Prodigy and the D-Adapt family: the distance that they have found times the factor of the plan.
    found = [float(g["lr"] * g["d"]) if "d" in g else float(g["lr"]) for g in groups]
    if len(found) == 1:
        return found[0]
    counts = [sum(weight.numel() for weight in group["params"]) for group in groups]
    return sum(rate * n for rate, n in zip(found, counts, strict=True)) / sum(counts)


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
    if is_kahan(name) and name != AUTOMAGIC and dtype == "float32":
        notes.append(
            "Kahan summation has nothing to do on float32 adapters; set lora.dtype to bfloat16 for it."
        )
    if not is_kahan(name) and dtype != "float32":
        notes.append(
            f"{name} on {dtype} adapters loses every update below 1/256 of a weight; take an optimizer with kahan, "
            "automagic, or float32."
        )
    if rate_is_factor(name) and any(each.rate != 1 for each in plan.patterns):
        notes.append(f"{name} finds one rate for all layers: the rates of `patterns` are not used.")
    for role in plan.roles():
        rates = plan.rates(role)
        if name == AUTOMAGIC and (rates.schedule != "constant" or rates.warmup):
            notes.append(
                f"automagic moves its rates itself: schedule and warm-up of {role} are not used."
            )
        least, most = (rates.rate if v is None else v for v in (rates.minimum, rates.maximum))
        if name == AUTOMAGIC and least >= most:
            notes.append(
                f"automagic has no room between minimum and maximum of {role}: each of its rates stays {most:g}."
            )
    return tuple(notes)


def _groups(weights: list[nn.Parameter], factors: Sequence[float]) -> list[dict[str, Any]]:
    """The weights by their factor, in the order in which the factors come."""
    groups: dict[float, list[nn.Parameter]] = {}
    for weight, factor in zip(weights, factors, strict=True):
        groups.setdefault(factor, []).append(weight)
    return [{"params": each, FACTOR: factor} for factor, each in groups.items()]


def _automagic(
    groups: list[dict[str, Any]], settings: OptimizerSettings, rates: ExpertSettings, beta2: float
) -> Automagic:
    own = {
        "rate": rates.rate,
        "bump": rates.rate if rates.bump is None else rates.bump,
        "minimum": rates.rate if rates.minimum is None else rates.minimum,
        "maximum": rates.rate if rates.maximum is None else rates.maximum,
    }
    for group in groups:
        group |= {name: value * group[FACTOR] for name, value in own.items()}
    return Automagic(
        groups,
        **own,
        beta2=beta2,
        weight_decay=settings.weight_decay,
        clip=settings.clip if rates.clip is None else rates.clip,
    )
