"""Which layers of an expert carry a LoRA, and with which rank, alpha, dropout and rate each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from ..wan.errors import UserError
from ..wan.expert import Expert, LinearShape
from ..wan.families import Role
from ..wan.lora.adapters import AdapterSet, new_adapter, pick_layers
from .plans.examples import PATTERN
from .plans.plan import TrainingPlan
from .plans.settings import PatternSettings
from .schedule import generator_for

USUAL = ("blocks.0.self_attn.q", "blocks.0.ffn.2", "blocks.0.cross_attn.k")
"""Layers that every Wan network has."""
ADAPTER_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LayerSettings(NamedTuple):
    """One layer's own: `rate` is a factor on the expert's."""

    rank: int
    alpha: float
    dropout: float
    rate: float = 1.0


def targets_of(plan: TrainingPlan, role: Role) -> tuple[str, ...]:
    """Patterns for the names of the layers that this expert trains."""
    own = plan.rates(role).targets
    return plan.lora.targets if own is None else own


def expert_settings(plan: TrainingPlan, role: Role) -> LayerSettings:
    """What a layer of this expert has where no pattern says otherwise."""
    own, common = plan.rates(role), plan.lora
    return LayerSettings(
        rank=common.rank if own.rank is None else own.rank,
        alpha=common.alpha if own.alpha is None else own.alpha,
        dropout=common.dropout if own.dropout is None else own.dropout,
    )


def layer_settings(
    plan: TrainingPlan, role: Role, layers: Iterable[str]
) -> dict[str, LayerSettings]:
    """The settings of every one of `layers` that is trained, in their order."""
    usual = expert_settings(plan, role)
    patterns = [
        (re.compile(each.pattern), each) for each in plan.patterns if _concerns(plan, role, each)
    ]
    chosen = {}
    for name in pick_layers(layers, targets_of(plan, role)):
        settings = usual
        for pattern, each in patterns:
            if pattern.fullmatch(name):
                settings = _changed(settings, each)
        chosen[name] = settings
    return chosen


def fresh_adapters(plan: TrainingPlan, expert: Expert) -> AdapterSet:
    """Adapters that change nothing yet, with each layer's own settings; equal plans give equal numbers."""
    layers = expert.layers()
    chosen = require_layers(plan, expert.role, layers)
    generator = generator_for(plan.seed, expert.role, "adapters")
    dtype = ADAPTER_DTYPES[plan.lora.dtype]
    return AdapterSet(
        {
            name: new_adapter(
                layers[name],
                rank=own.rank,
                alpha=own.alpha,
                generator=generator,
                dropout=own.dropout,
                dtype=dtype,
            )
            for name, own in chosen.items()
        }
    )


def rate_factors(plan: TrainingPlan, role: Role, adapters: AdapterSet) -> list[float]:
    """What each of the adapters' parameters multiplies the expert's rate with, in the order of `parameters`."""
    own = layer_settings(plan, role, adapters)
    return [own[name].rate for name, adapter in adapters.items() for _ in adapter.parameters()]


def require_layers(
    plan: TrainingPlan, role: Role, layers: Mapping[str, LinearShape]
) -> dict[str, LayerSettings]:
    """The settings by layer. Raises `UserError` where a pattern fits no layer, or a rank is above what a layer can
    hold."""
    chosen = layer_settings(plan, role, layers)
    known = f"The layers of the {role} expert are called {', '.join(usual_layers(layers))}, ..."
    if not chosen:
        raise _no_layers(plan, role, known)
    patterns = [each.pattern for each in plan.patterns if _concerns(plan, role, each)]
    for pattern in (*patterns, *plan.alpha_phases.targets):
        if not pick_layers(chosen, [pattern]):
            raise UserError(
                f"The pattern {json.dumps(pattern)} fits none of the layers that are trained.",
                known,
                f"A pattern is a regular expression for whole names, such as {json.dumps(PATTERN)} in JSON; correct "
                "it, or remove it from the plan.",
            )
    for name, own in chosen.items():
        _require_rank(name, own.rank, layers[name])
    return chosen


def usual_layers(layers: Iterable[str]) -> list[str]:
    """Three of the names, first of those that patterns are usually written for."""
    there = list(layers)
    return list(dict.fromkeys([*(name for name in USUAL if name in there), *there]))[:3]


def _no_layers(plan: TrainingPlan, role: Role, known: str) -> UserError:
    expert = "low" if plan.rates(role) is plan.low else "high"
    name = "lora.targets" if plan.rates(role).targets is None else f"{expert}.targets"
    quoted = ", ".join(map(json.dumps, targets_of(plan, role)))
    return UserError(
        f"No layer of the {role} expert matches the plan's targets {quoted or '(none)'}.",
        known,
        f"Change {name} in the plan, for example to [{json.dumps(PATTERN)}].",
    )


def _concerns(plan: TrainingPlan, role: Role, settings: PatternSettings) -> bool:
    """A single model takes those of the expert that leads, as with the rates."""
    if role == "single":
        leads = "high" if plan.high.rate >= plan.low.rate else "low"
        return settings.expert in ("both", leads)
    return settings.expert in ("both", role.removesuffix("_noise"))


def _changed(settings: LayerSettings, own: PatternSettings) -> LayerSettings:
    given = {
        name: value
        for name in ("rank", "alpha", "dropout")
        if (value := getattr(own, name)) is not None
    }
    return settings._replace(rate=own.rate, **given)


def _require_rank(name: str, rank: int, shape: LinearShape) -> None:
    if rank > min(shape):
        raise UserError(
            f"The plan asks for rank {rank}; {name} has {shape.inputs} inputs and {shape.outputs} outputs.",
            f"Its whole weight has rank {min(shape)}: a higher one only costs memory.",
            f"Set lora.rank (or the rank of the expert or pattern) to {min(shape)} or less; 16 to 128 is usual.",
        )
