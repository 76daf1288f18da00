"""Values that no plan can have: refused where a plan is made, before anything is read or loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from ...wan.errors import UserError
from ...wan.families import BOUNDARIES, FAMILIES
from ...wan.loss_weights import CLAMPED_SNR, WEIGHTINGS
from ...wan.timesteps import DISTRIBUTIONS
from ..optimizers.names import DTYPES, require_name
from ..optimizers.rate_schedules import SCHEDULES
from .settings import (
    EXPERTS,
    LEVELS,
    PHASES,
    RULE_MEASURES,
    STOPPABLE,
    AlphaPhases,
    ExpertSettings,
    LossSettings,
    OptimizerSettings,
    PatternSettings,
    PhaseSettings,
    RuleSettings,
    TimestepSettings,
)

if TYPE_CHECKING:
    from .plan import TrainingPlan

ORDERS = ("interleaved", "joint", "sequential")
LONGEST_RUN = 1_000_000
"""Steps; some three hundred times what a LoRA needs."""


def require(holds: bool, name: str, value: object, can_be: str) -> None:
    """Raises `UserError` about a plan's value unless `holds`."""
    if not holds:
        raise UserError(
            f"{name} is {value}.", f"It can be {can_be}.", f"Change {name} in the plan."
        )


def check_plan(plan: TrainingPlan) -> None:
    """Raises `UserError` at the first impossible value, by its dotted name."""
    for name in ("steps", "batch", "accumulate", "swap_every", "save_every"):
        require(getattr(plan, name) >= 1, name, getattr(plan, name), "at least 1")
    require(plan.steps <= LONGEST_RUN, "steps", plan.steps, f"at most {LONGEST_RUN:,}")
    require(plan.held_out >= 0, "held_out", plan.held_out, "0 (none) or a number of clips")
    _one_of("train", plan.train, EXPERTS)
    _one_of("family", plan.family, FAMILIES)
    _one_of("task", plan.task, tuple(BOUNDARIES))
    _one_of("order", plan.order, ORDERS)
    for name in plan.stop_on:
        require(name in STOPPABLE, "stop_on", name, f"any of {', '.join(STOPPABLE)}")
    _check_noise(plan)
    _check_share("caption_dropout", plan.caption_dropout)
    _check_phases(plan.phases)
    _check_memory(plan)
    for name in ("last", "every"):
        value = getattr(plan.prune, name)
        require(value >= 0, f"prune.{name}", value, "0 (keeps all) or more")
    _check_lora(plan)
    _check_alpha_phases(plan.alpha_phases)
    _check_optimizer(plan.optimizer)
    _check_expert("high", plan.high)
    _check_expert("low", plan.low)
    for number, rule in enumerate(plan.rules):
        _check_rule(f"rules.{number}", rule)


def _check_noise(plan: TrainingPlan) -> None:
    can_be = "between 0 and 1 (0.9 for I2V, 0.875 for T2V)"
    require(0 < plan.boundary < 1, "boundary", plan.boundary, can_be)
    require(0 < plan.shift < inf, "shift", plan.shift, "above 0 (5 for Wan 2.2 I2V)")
    share = plan.high_share
    can_be = "between 0 and 1, or null for what the shift gives"
    require(share is None or 0 < share < 1, "high_share", share, can_be)
    _check_timesteps(plan.timesteps)
    _check_loss(plan.loss)


def _check_timesteps(settings: TimestepSettings) -> None:
    _one_of("timesteps.distribution", settings.distribution, DISTRIBUTIONS)
    require(-3 <= settings.mean <= 3, "timesteps.mean", settings.mean, "-3 to 3 (0)")
    require(0.1 <= settings.std <= 10, "timesteps.std", settings.std, "0.1 to 10 (1)")


def _check_loss(settings: LossSettings) -> None:
    asked = settings.weighting.lower().replace("-", " ").replace("_", " ")
    if "snr" in asked and asked != CLAMPED_SNR:
        raise UserError(
            f"loss.weighting is {settings.weighting}.",
            "Min-SNR as it is known needs the noise schedule's alphas_cumprod, which flow matching has not: with "
            "x_t = (1 - sigma) x0 + sigma noise the signal-to-noise ratio is ((1 - sigma) / sigma)^2.",
            f"Set loss.weighting to {CLAMPED_SNR}: w(sigma) = min(SNR, gamma) / (SNR + 1) on the velocity, which takes "
            f"its place; gamma is loss.gamma.",
        )
    _one_of("loss.weighting", settings.weighting, WEIGHTINGS)
    require(0 < settings.gamma < inf, "loss.gamma", settings.gamma, "above 0 (5)")


def _check_phases(phases: tuple[PhaseSettings, ...]) -> None:
    require(bool(phases), "phases", "empty", "one phase or more")
    for number, phase in enumerate(phases):
        _one_of(f"phases.{number}.train", phase.train, PHASES)
        can_be = f"1 to {LONGEST_RUN:,}"
        require(1 <= phase.steps <= LONGEST_RUN, f"phases.{number}.steps", phase.steps, can_be)


def _check_memory(plan: TrainingPlan) -> None:
    require(
        plan.swap_blocks >= 0, "swap_blocks", plan.swap_blocks, "0 (none) or a number of blocks"
    )
    for name in ("swap_blocks", "offload_activations"):
        if getattr(plan, name) and not plan.checkpoint_blocks:
            raise UserError(
                f"{name} is {getattr(plan, name)} and checkpoint_blocks is False.",
                "It works block by block: each block's activations are computed again in the backward pass.",
                f"Set checkpoint_blocks to true, or {name} to {type(getattr(plan, name))()}.",
            )


def _check_lora(plan: TrainingPlan) -> None:
    lora = plan.lora
    _check_rank("lora.rank", lora.rank)
    _check_alpha("lora.alpha", lora.alpha)
    _check_share("lora.dropout", lora.dropout)
    _one_of("lora.dtype", lora.dtype, DTYPES)
    for number, settings in enumerate(plan.patterns):
        _check_pattern(f"patterns.{number}", settings)


def _check_pattern(name: str, settings: PatternSettings) -> None:
    _one_of(f"{name}.expert", settings.expert, EXPERTS)
    require(
        0 < settings.rate < inf, f"{name}.rate", settings.rate, "above 0; 1 is the expert's own"
    )
    _check_own(name, settings)


def _check_own(name: str, settings: PatternSettings | ExpertSettings) -> None:
    """Where it differs from `lora`."""
    if settings.rank is not None:
        _check_rank(f"{name}.rank", settings.rank)
    if settings.alpha is not None:
        _check_alpha(f"{name}.alpha", settings.alpha)
    if settings.dropout is not None:
        _check_share(f"{name}.dropout", settings.dropout)


def _check_alpha_phases(settings: AlphaPhases) -> None:
    for alpha in settings.alphas:
        _check_alpha("alpha_phases.alphas", alpha)
    if not settings.alphas:
        return
    least = settings.least
    can_be = (
        f"{len(settings.alphas) - 1} shares, one for every phase but the last, together at most 1"
    )
    fits = len(least) >= len(settings.alphas) - 1 and all(0 <= share <= 1 for share in least)
    used = math.fsum(least[: len(settings.alphas) - 1]) if fits else inf
    require(used <= 1, "alpha_phases.least", list(least), can_be)
    require(0 <= settings.stability <= 1, "alpha_phases.stability", settings.stability, "0 to 1")
    improvement = settings.improvement
    can_be = "a number (0.005): 0 waits until the loss rises"
    require(math.isfinite(improvement), "alpha_phases.improvement", improvement, can_be)
    require(0 <= settings.fit <= 1, "alpha_phases.fit", settings.fit, "0 to 1 (0.005)")


def _check_optimizer(settings: OptimizerSettings) -> None:
    require_name(settings.name)
    _check_beta2("optimizer.beta2", settings.beta2)
    decay = settings.weight_decay
    require(0 <= decay < inf, "optimizer.weight_decay", decay, "0 or more (0.01 is usual)")
    require(settings.clip > 0, "optimizer.clip", settings.clip, "above 0 (1 is usual)")
    require(0 <= settings.ema < 1, "optimizer.ema", settings.ema, "0 to below 1 (0.99 to 0.999)")


def _check_expert(name: str, rates: ExpertSettings) -> None:
    require(0 < rates.rate < inf, f"{name}.rate", rates.rate, "above 0")
    for part in ("bump", "minimum", "maximum"):
        value = getattr(rates, part)
        require(value is None or 0 <= value < inf, f"{name}.{part}", value, "0 or more, or null")
    if rates.minimum is not None and rates.maximum is not None:
        can_be = f"at most {name}.maximum, which is {rates.maximum}"
        require(rates.minimum <= rates.maximum, f"{name}.minimum", rates.minimum, can_be)
    _one_of(f"{name}.schedule", rates.schedule, SCHEDULES)
    require(rates.warmup >= 0, f"{name}.warmup", rates.warmup, "at least 0")
    require(rates.cycles >= 1, f"{name}.cycles", rates.cycles, "at least 1")
    if rates.beta2 is not None:
        _check_beta2(f"{name}.beta2", rates.beta2)
    if rates.clip is not None:
        require(rates.clip > 0, f"{name}.clip", rates.clip, "above 0 (1 is usual)")
    _check_own(name, rates)


def _check_rule(name: str, rule: RuleSettings) -> None:
    _one_of(f"{name}.rule", rule.rule, STOPPABLE)
    if rule.level is not None:
        _one_of(f"{name}.level", rule.level, LEVELS)
    measures = RULE_MEASURES[rule.rule]
    if rule.measure is not None:
        _one_of(f"{name}.measure", rule.measure, measures)
    if (rule.limit is None) != (rule.measure is None):
        raise UserError(
            f"{name} has a {'limit' if rule.measure is None else 'measure'} alone for {rule.rule}.",
            f"limit is the new limit of a measure: {', '.join(measures)}.",
            f'Name both, for example measure "{measures[0]}" and a number as limit.',
        )
    can_be = "a number, for example 1.2, or null"
    require(rule.limit is None or math.isfinite(rule.limit), f"{name}.limit", rule.limit, can_be)
    armed = rule.armed_from
    require(armed is None or 0 <= armed <= 1, f"{name}.armed_from", armed, "0 to 1, or null")


def _check_beta2(name: str, beta2: float) -> None:
    require(0 <= beta2 < 1, name, beta2, "0 to below 1 (0.999)")


def _check_rank(name: str, rank: int) -> None:
    require(rank >= 1, name, rank, "at least 1")


def _check_alpha(name: str, alpha: float) -> None:
    require(0 < alpha < inf, name, alpha, "above 0; at 0 the LoRA would do nothing")


def _check_share(name: str, share: float) -> None:
    require(0 <= share < 1, name, share, "0 to below 1")


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    require(value in known, name, value, f"one of {', '.join(known)}")
