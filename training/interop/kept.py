"""What a report says of the values that stand in a comment: those that change the run, and why no key holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...wan.loss_weights import CLAMPED_SNR
from ...wan.timesteps import LOGIT_NORMAL, UNIFORM
from ..expert_turns import expert_steps
from ..optimizers.names import AUTOMAGIC
from ..plans.plan import TrainingPlan
from .carried import plan_values
from .draft import Values
from .experts import OWN
from .layers import joined
from .rates import RESTARTS
from .words import OURS, SAID, WHY_DATA

OTHER = "it has no such value"


def kept_lines_of(
    plan: TrainingPlan,
    visible: Values,
    names: Sequence[str],
    data: Sequence[tuple[str, str]],
    why: Mapping[str, str],
) -> tuple[str, ...]:
    """A line for each of the plan's `names`, and for each (folder, name) of the dataset."""
    values = plan_values(plan)
    silent = {*_idle(plan, values), *_same_in_each_run(plan, values, visible)}
    told = [n for n in names if why.get(n) not in (OURS, SAID) and n not in silent]
    return (
        *(f"{n} = {shown(values[n])}: {why.get(n, OTHER)}" for n in told),
        *(f"{n} of {folder}: {WHY_DATA.get(n, OTHER)}" for folder, n in data),
    )


def shown(value: object) -> str:
    """A plan's value in at most 80 characters."""
    if isinstance(value, list):
        text = ", ".join(map(shown, value)) or "none"
    elif isinstance(value, dict):
        text = " ".join(f"{name} {inner}" for name, inner in value.items() if inner is not None)
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _trained(plan: TrainingPlan) -> tuple[str, ...]:
    """The experts that get steps; a single model takes the settings of one."""
    if plan.roles() == ("single",):
        return ("high",) if plan.rates("single") is plan.high else ("low",)
    return tuple(role.removesuffix("_noise") for role, steps in expert_steps(plan).items() if steps)


def _idle(plan: TrainingPlan, values: Values) -> Iterator[str]:
    """Names of values that do nothing in this plan."""
    yield from (
        name
        for name, works in {
            "phases": plan.order == "sequential",
            "high_share": plan.order != "sequential",
            "swap_every": plan.order == "interleaved",
            "timesteps.std": plan.timesteps.distribution != UNIFORM,
            "timesteps.mean": plan.timesteps.distribution == LOGIT_NORMAL,
            "loss.gamma": plan.loss.weighting == CLAMPED_SNR,
        }.items()
        if not works
    )
    if not plan.alpha_phases.alphas:
        yield from (name for name in values if name.startswith("alpha_phases."))
    for expert, rates in (("high", plan.high), ("low", plan.low)):
        if rates.schedule != RESTARTS:
            yield f"{expert}.cycles"
        if plan.optimizer.name != AUTOMAGIC:
            yield from (f"{expert}.{name}" for name in ("bump", "minimum", "maximum"))
        if expert not in _trained(plan):
            yield from (name for name in values if name.startswith(f"{expert}."))


def _same_in_each_run(plan: TrainingPlan, values: Values, visible: Values) -> Iterator[str]:
    """Names of values that the keys say expert by expert, whichever of both is the common one."""
    said = values | visible
    for name, own in OWN.items():
        owns = [f"{expert}.{own}" for expert in _trained(plan)]
        if name in visible and all(_of(values, n, name) == _of(said, n, name) for n in owns):
            yield from (name, *owns)


def _of(values: Values, own: str, common: str) -> object:
    value = values[common] if values[own] is None else values[own]
    return joined(value) if isinstance(value, list) else value
