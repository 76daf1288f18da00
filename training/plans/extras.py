"""What a plan asks for beyond the usual, in words: nothing for what every plan has."""

from __future__ import annotations

from collections.abc import Iterator

from .material import number_of
from .plan import TrainingPlan
from .settings import ExpertSettings


def extras(plan: TrainingPlan) -> list[str]:
    """A few words for each value that is not as it usually is."""
    held = [f"{number_of(plan.held_out, 'clip')} held out"] if plan.held_out else []
    return [*held, *_order(plan), *_noise(plan), *_lora(plan), *_memory(plan), *_kept(plan)]


def _order(plan: TrainingPlan) -> Iterator[str]:
    if len(plan.roles()) < 2:
        return
    if plan.order == "joint":
        yield "both experts in single steps, in the share of the high-noise expert"
    if plan.order == "sequential":
        total = sum(phase.steps for phase in plan.phases)
        phases = (f"{p.train} {p.steps * plan.steps / total:.0f}" for p in plan.phases)
        yield f"one after the other: {', '.join(phases)} steps"
    if plan.high_share is not None:
        yield f"high noise has {plan.high_share:.3g} of the steps they share"


def _noise(plan: TrainingPlan) -> Iterator[str]:
    drawn, loss = plan.timesteps, plan.loss
    if drawn.distribution == "logit-normal":
        yield f"noise levels logit-normal (mean {drawn.mean:g}, deviation {drawn.std:g})"
    elif drawn.distribution == "sigmoid":
        yield f"noise levels by a sigmoid (scale {drawn.std:g})"
    if loss.weighting != "none":
        gamma = f" (gamma {loss.gamma:g})" if "snr" in loss.weighting else ""
        yield f"loss weighted by {loss.weighting}{gamma}"


def _lora(plan: TrainingPlan) -> Iterator[str]:
    for name, own in (("high", plan.high), ("low", plan.low)):
        if told := _own(own):
            yield f"{name} noise with {told}"
    if plan.patterns:
        yield f"{number_of(len(plan.patterns), 'pattern')} with settings of their own"
    if plan.alpha_phases.alphas:
        alphas = " -> ".join(f"{alpha:g}" for alpha in plan.alpha_phases.alphas)
        where = " where alpha_phases.targets fit" if plan.alpha_phases.targets else ""
        yield f"alpha {alphas} in phases{where}"


def _own(settings: ExpertSettings) -> str:
    names = ("rank", "alpha", "dropout", "targets")
    values = ((name, getattr(settings, name)) for name in names)
    return ", ".join(
        f"{name} {' '.join(value) if isinstance(value, tuple) else format(value, 'g')}"
        for name, value in values
        if value is not None
    )


def _memory(plan: TrainingPlan) -> Iterator[str]:
    if plan.swap_blocks:
        yield f"{number_of(plan.swap_blocks, 'block')} in RAM"
    if plan.offload_activations:
        yield "activations in RAM"


def _kept(plan: TrainingPlan) -> Iterator[str]:
    if plan.prune.last or plan.prune.every:
        kept = [f"the last {plan.prune.last}"] if plan.prune.last else []
        kept += [f"every {plan.prune.every:,} steps"] if plan.prune.every else []
        yield f"of the checkpoints {' and '.join(kept)} stay, and the best"
