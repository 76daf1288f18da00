"""What each expert's own run has: its value where a plan gives it one, else the one that both share; and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...wan.families import Role
from ..layer_settings import expert_settings, targets_of
from ..plans.plan import TrainingPlan
from ..plans.settings import ExpertSettings

OWN = {
    "lora.rank": "rank",
    "lora.alpha": "alpha",
    "lora.dropout": "dropout",
    "lora.targets": "targets",
    "optimizer.beta2": "beta2",
    "optimizer.clip": "clip",
}
"""A plan's common values, and what an expert's own is called."""


class RunSettings(NamedTuple):
    """One expert's settings, with nothing left open."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    beta2: float
    clip: float
    rates: ExpertSettings


def run_settings(plan: TrainingPlan, role: Role) -> RunSettings:
    """What the run of this expert has."""
    layer, rates = expert_settings(plan, role), plan.rates(role)
    return RunSettings(
        rank=layer.rank,
        alpha=layer.alpha,
        dropout=layer.dropout,
        targets=targets_of(plan, role),
        beta2=plan.optimizer.beta2 if rates.beta2 is None else rates.beta2,
        clip=plan.optimizer.clip if rates.clip is None else rates.clip,
        rates=rates,
    )


def own_values(expert: str, run: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """An expert's own values by dotted name: null where its run has what is common."""
    return {
        f"{expert}.{own}": None if run[name] == common[name] else run[name]
        for name, own in OWN.items()
        if name in run
    }


def no_own_values() -> dict[str, Any]:
    """Those of two experts that a trainer has one setting for."""
    return {f"{expert}.{own}": None for expert in ("high", "low") for own in OWN.values()}
