"""Settings of a plan that are unusual for its purpose: rates, rank, alpha, batches, dropout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...wan.errors import UserError
from ...wan.lora.adapters import DEFAULT_TARGETS
from ..data.dataset import Counts
from ..expert_turns import expert_steps
from ..monitors.held_out import advised_held_out
from ..optimizers.build import optimizer_notes, require_optimizer
from ..optimizers.names import rate_is_factor
from .plan import TrainingPlan
from .presets import MOTION
from .unused import unused_values

Level = Literal["note", "warning", "refusal"]


@dataclass(frozen=True)
class PlanFinding:
    """Something to know about a plan before it runs."""

    level: Level
    """`refusal`: the trainer does not start."""
    text: str
    """What is, and what can be: two sentences."""
    fix: str
    """What to do."""


# Of the first two lines the ranges are received; the others are our choice around the received number.
RATES: dict[str, tuple[float, float]] = {
    "general video": (1e-4, 3e-4),
    "image style": (1e-4, 4e-4),
    "character": (2.5e-5, 2e-4),
    "video effect": (1e-5, 1e-4),
    "length extension": (5e-5, 2e-4),
}
RATE_RATIO = (3.0, 5.0)
"""How much faster the high-noise expert of a motion learns."""
RANKS = (16, 128)
ALPHA_PER_RANK = (0.25, 2.0)
MOST_DROPOUT = 0.3
LEAST_FACTOR = 0.1
"""What multiplies a rate that the optimizer finds; a smaller one is most likely a rate."""
SHIFTS = (1.0, 12.0)
MANY_SAMPLES_A_STEP = 16
# A sum of decimal fractions may miss the border by a hair.
_HAIR = 1e-9


def setting_findings(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    """Everything but the length of the run."""
    yield from _targets(plan)
    yield from _optimizer(plan)
    yield from _rates(plan)
    yield from _factors(plan)
    yield from _rate_ratio(plan)
    yield from _lora(plan)
    yield from _dropout(plan)
    yield from _held_out(plan, counts)
    yield from _batches(plan, counts)
    yield from _shift(plan)
    yield from _turns(plan)
    for text, fix in unused_values(plan):
        yield PlanFinding("note", text, fix)


def outside(value: float, span: tuple[float, float]) -> bool:
    """Whether a value lies beyond a range by more than rounding."""
    least, most = span
    return value < least * (1 - _HAIR) or value > most * (1 + _HAIR)


def _targets(plan: TrainingPlan) -> Iterator[PlanFinding]:
    named = [
        ("lora.targets", plan.lora.targets),
        ("high.targets", plan.high.targets or ()),
        ("low.targets", plan.low.targets or ()),
        ("alpha_phases.targets", plan.alpha_phases.targets),
        ("patterns", tuple(each.pattern for each in plan.patterns)),
    ]
    for name, target in ((name, target) for name, targets in named for target in targets):
        try:
            re.compile(target)
        except re.error as error:
            yield PlanFinding(
                "refusal",
                f"{name} has {target!r} ({error}). Each is a regular expression for whole layer names.",
                f"Correct it; the usual one is {DEFAULT_TARGETS[0]!r}.",
            )


def _optimizer(plan: TrainingPlan) -> Iterator[PlanFinding]:
    try:
        require_optimizer(plan.optimizer.name, plan.lora.dtype)
    except UserError as error:
        yield PlanFinding("refusal", f"{error.came} {error.can_be}", error.to_do)
    for note in optimizer_notes(plan):
        yield PlanFinding("note", note, "The run goes on all the same.")


def _factors(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for role in plan.roles() if rate_is_factor(plan.optimizer.name) else ():
        rate = plan.rates(role).rate
        if rate < LEAST_FACTOR:
            yield PlanFinding(
                "warning",
                f"{plan.optimizer.name} finds its rate itself and multiplies it by {role}'s {rate:g}. 1 is usual.",
                "Set the rate of each expert to 1.",
            )


def _rates(plan: TrainingPlan) -> Iterator[PlanFinding]:
    span = RATES.get(plan.preset)
    if span is None or plan.optimizer.name == "automagic" or rate_is_factor(plan.optimizer.name):
        return
    for role in plan.roles():
        rate = plan.rates(role).rate
        if outside(rate, span):
            yield PlanFinding(
                "warning",
                f"The rate of {role} is {rate:g}. For {plan.preset} {span[0]:g} to {span[1]:g} are usual.",
                "Too high distorts and overtrains, too low shows nothing: choose one of that range.",
            )


def _rate_ratio(plan: TrainingPlan) -> Iterator[PlanFinding]:
    if plan.preset not in MOTION or len(plan.roles()) < 2:
        return
    ratio = lead(plan)
    if outside(ratio, RATE_RATIO):
        yield PlanFinding(
            "warning",
            f"The high-noise expert learns {_times(ratio)} as fast as the low-noise one. The motion presets have it "
            "lead 3-5 times (one group's runs, not replicated).",
            "Raise high.bump (or high.rate), or lower low.bump; the held-out loss of each expert decides.",
        )


def _times(ratio: float) -> str:
    told = f"{ratio:.2g}"
    return "just" if told == "1" else f"{told} times"


def lead(plan: TrainingPlan) -> float:
    """How many times as fast the high-noise expert learns: by the bumps of automagic, else by the rates."""
    high, low = plan.high, plan.low
    if plan.optimizer.name == "automagic" and high.bump and low.bump:
        return high.bump / low.bump
    return high.rate / low.rate


def _lora(plan: TrainingPlan) -> Iterator[PlanFinding]:
    rank, alpha = plan.lora.rank, plan.lora.alpha
    if outside(rank, RANKS):
        yield PlanFinding(
            "warning",
            f"The rank is {rank}. Recipes use {RANKS[0]} to {RANKS[1]}.",
            "Take 16 for a style, 32 for an effect, 64 for general video.",
        )
    if outside(alpha / rank, ALPHA_PER_RANK):
        yield PlanFinding(
            "warning",
            f"alpha is {alpha:g} at rank {rank}, so the update is scaled by {alpha / rank:.2g}. Usual are alpha = rank "
            "and alpha = rank / 2.",
            f"Set lora.alpha to {rank}, or change the rates by as much in the other direction.",
        )


def _dropout(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for name, value, usual in (
        ("lora.dropout", plan.lora.dropout, "0 to 0.1"),
        ("caption_dropout", plan.caption_dropout, "0 to 0.1"),
    ):
        if value > MOST_DROPOUT:
            yield PlanFinding(
                "warning",
                f"{name} is {value:g}. Usual are {usual}.",
                f"Set {name} to 0.1 or less.",
            )


def _held_out(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    if plan.held_out and counts.clips and plan.held_out > counts.clips // 2:
        yield PlanFinding(
            "refusal",
            f"The plan holds out {plan.held_out} of {counts.clips} clips. At least as many are trained on as are held "
            "out.",
            f"Set held_out to {advised_held_out(counts.clips)}.",
        )


def _batches(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    samples = plan.batch * plan.accumulate
    if counts.shown and plan.batch > counts.shown:
        yield PlanFinding(
            "warning",
            f"batch is {plan.batch}, and an epoch shows {counts.shown:g} samples. Only clips of one size share a "
            "micro-batch, so it is never full.",
            "Lower batch, and raise accumulate instead.",
        )
    elif counts.shown and samples > counts.shown:
        yield PlanFinding(
            "warning",
            f"A step takes {samples} samples, and an epoch shows {counts.shown:g}. Every step sees a clip more than "
            "once.",
            "Lower batch or accumulate.",
        )
    elif samples > MANY_SAMPLES_A_STEP:
        yield PlanFinding(
            "warning",
            f"A step takes {samples} samples (batch {plan.batch} x accumulate {plan.accumulate}). The presets take "
            "1 to 4, and their numbers of steps are meant for that.",
            "Lower accumulate, or count the run in epochs.",
        )


def _shift(plan: TrainingPlan) -> Iterator[PlanFinding]:
    if outside(plan.shift, SHIFTS):
        yield PlanFinding(
            "warning",
            f"shift is {plan.shift:g}. Wan is sampled at 3 to 12: 5 for image-to-video of 2.2.",
            "Set shift to 5.",
        )


def _turns(plan: TrainingPlan) -> Iterator[PlanFinding]:
    for role, steps in expert_steps(plan).items():
        if not steps:
            yield PlanFinding(
                "warning",
                f"The {role} expert gets none of the {plan.steps} steps. Its LoRA would change nothing.",
                f"Set train to {'low' if role == 'high_noise' else 'high'}, lower swap_every, or change phases.",
            )
    if plan.order == "sequential" and len(plan.roles()) < 2:
        yield PlanFinding(
            "note",
            "order is sequential, and one expert is trained. It takes every step.",
            "Set order to interleaved, or train both.",
        )
