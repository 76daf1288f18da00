"""Values of a plan that do nothing as the rest of it is: a person who has set one is told so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

from ...wan.loss_weights import CLAMPED_SNR
from ...wan.timesteps import LOGIT_NORMAL, UNIFORM
from ..optimizers.names import library_class
from .plan import SEQUENCE, TrainingPlan
from .settings import (
    AlphaPhases,
    ExpertSettings,
    LossSettings,
    OptimizerSettings,
    PatternSettings,
    TimestepSettings,
)

RESTARTS = "cosine with restarts"


class Unused(NamedTuple):
    """A value that is not as usual, and does nothing."""

    text: str
    """What is, and what uses it: two sentences."""
    fix: str


def unused_values(plan: TrainingPlan) -> Iterator[Unused]:
    """Of those that somebody has set: what every plan has by itself is not named."""
    yield from _noise(plan)
    yield from _order(plan)
    yield from _alphas(plan)
    yield from _experts(plan)
    yield from _rules(plan)
    if plan.prune.every % plan.save_every:
        yield Unused(
            f"prune.every is {plan.prune.every}, and there is a checkpoint every {plan.save_every} steps. Only those "
            "at a multiple of both stay for it.",
            f"Set prune.every to a multiple of {plan.save_every}.",
        )
    if library_class(plan.optimizer.name) and plan.optimizer.beta2 != OptimizerSettings().beta2:
        yield Unused(
            f"optimizer.beta2 is {plan.optimizer.beta2:g}. An optimizer of the library has its own.",
            "Set high.beta2 and low.beta2 instead: those count for it.",
        )


def _noise(plan: TrainingPlan) -> Iterator[Unused]:
    drawn, loss = plan.timesteps, plan.loss
    if drawn.mean != TimestepSettings().mean and drawn.distribution != LOGIT_NORMAL:
        yield _only("timesteps.mean", drawn.mean, "timesteps.distribution", LOGIT_NORMAL)
    if drawn.std != TimestepSettings().std and drawn.distribution == UNIFORM:
        yield _only("timesteps.std", drawn.std, "timesteps.distribution", LOGIT_NORMAL)
    if loss.gamma != LossSettings().gamma and loss.weighting != CLAMPED_SNR:
        yield _only("loss.gamma", loss.gamma, "loss.weighting", CLAMPED_SNR)


def _order(plan: TrainingPlan) -> Iterator[Unused]:
    if plan.phases != SEQUENCE and plan.order != "sequential":
        yield _only("phases", f"a list of {len(plan.phases)}", "order", "sequential")
    joint = plan.order != "sequential" or any(phase.train == "joint" for phase in plan.phases)
    if plan.high_share is not None and not (joint and len(plan.roles()) == 2):
        yield Unused(
            f"high_share is {plan.high_share:g}. It divides the steps that two experts share, and here they share "
            "none.",
            "Remove it, or train both (in a sequential run: with a joint phase).",
        )


def _alphas(plan: TrainingPlan) -> Iterator[Unused]:
    moved = plan.alpha_phases
    if not moved.alphas and moved != AlphaPhases():
        others = (f.name for f in fields(moved) if getattr(moved, f.name) != f.default)
        yield Unused(
            f"alpha_phases has {', '.join(others)}, and no alphas. Without them alpha stays as it is.",
            "Set alpha_phases.alphas, for example to 8, 14, 20.",
        )
    if not moved.alphas or moved.targets:
        return
    own = [f"{e}.alpha" for e in ("high", "low") if getattr(plan, e).alpha is not None]
    own += [f"patterns.{n}.alpha" for n, each in enumerate(plan.patterns) if each.alpha is not None]
    if own:
        yield Unused(
            f"{', '.join(own)} is set, and so are alpha_phases.alphas. The phases set the alpha of every layer.",
            "Name the layers whose alpha is to move in alpha_phases.targets.",
        )


def _experts(plan: TrainingPlan) -> Iterator[Unused]:
    roles = plan.roles()
    trained = {role.removesuffix("_noise") for role in roles}
    if roles == ("single",):
        trained = {"high" if plan.high.rate >= plan.low.rate else "low"}
    for number, each in enumerate(plan.patterns):
        if each == PatternSettings(pattern=each.pattern, expert=each.expert):
            yield Unused(
                f"patterns.{number} has no setting. It names layers, and changes nothing about them.",
                f"Give it rank, alpha, dropout or rate, or remove patterns.{number}.",
            )
        elif each.expert not in ("both", *trained):
            yield Unused(
                f"patterns.{number} is for the {each.expert}-noise expert. This plan trains with the settings of "
                f"{' and '.join(sorted(trained))} alone.",
                f"Set patterns.{number}.expert to both, or remove it.",
            )
    for name in sorted(trained):
        own = getattr(plan, name)
        if own.cycles != ExpertSettings().cycles and own.schedule != RESTARTS:
            yield _only(f"{name}.cycles", own.cycles, f"{name}.schedule", RESTARTS)


def _rules(plan: TrainingPlan) -> Iterator[Unused]:
    named = {*plan.stop_on, *(each.rule for each in plan.rules)}
    if "overtraining" in named and not plan.held_out:
        yield Unused(
            "overtraining is among stop_on or rules, and no clip is held out. It is found by the loss on clips that "
            "are not trained on.",
            "Set held_out to a tenth of the clips, at least 1.",
        )
    if "low overpowers" in named and len(plan.roles()) < 2:
        yield Unused(
            "low overpowers is among stop_on or rules, and one expert is trained. It compares two.",
            "Remove it, or train both.",
        )


def _only(name: str, value: object, other: str, wanted: str) -> Unused:
    return Unused(
        f"{name} is {value}. Only {other} {wanted} uses it.",
        f"Set {other} to {wanted}, or remove {name}.",
    )
