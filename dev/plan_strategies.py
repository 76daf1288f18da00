"""Random plans for the tests that hold for any plan."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import strategies as st

from ..training.optimizers.names import AVAILABLE, DTYPES
from ..training.optimizers.rate_schedules import SCHEDULES
from ..training.plans.checks import ORDERS
from ..training.plans.plan import TrainingPlan
from ..training.plans.presets import PRESETS
from ..training.plans.settings import (
    EXPERTS,
    LEVELS,
    PHASES,
    STOPPABLE,
    AlphaPhases,
    ExpertSettings,
    LoraSettings,
    LossSettings,
    OptimizerSettings,
    PatternSettings,
    PhaseSettings,
    PruneSettings,
    RuleSettings,
    TimestepSettings,
)
from ..wan.families import FAMILIES
from ..wan.lora.adapters import DEFAULT_TARGETS
from ..wan.loss_weights import WEIGHTINGS
from ..wan.timesteps import DISTRIBUTIONS

POSITIVE = st.floats(1e-8, 10.0)
WRITTEN = {"version"}
"""Fields that a plan has of itself."""


def plans(most: int = 10_000) -> st.SearchStrategy[TrainingPlan]:
    """Plans of which every value varies; counts up to `most`."""
    count = st.integers(1, most)
    values = {
        "preset": st.sampled_from(sorted(PRESETS)),
        "family": st.sampled_from(FAMILIES),
        "train": st.sampled_from(EXPERTS),
        "task": st.sampled_from(["i2v", "t2v"]),
        "boundary": st.floats(0.0001, 0.9999),
        "shift": st.floats(0.1, 20) | st.just(1.0),
        **dict.fromkeys(("steps", "batch", "accumulate", "swap_every", "save_every"), count),
        "seed": st.integers(0, 2**40),
        "caption_dropout": st.floats(0, 0.99),
        "allow_long": st.booleans(),
        "held_out": st.integers(0, most),
        "stop_on": st.lists(st.sampled_from(STOPPABLE), unique=True).map(tuple),
        "lora": _lora(count),
        "optimizer": _optimizer(),
        "high": _rates(),
        "low": _rates(),
        "notes": st.lists(st.text(), max_size=2).map(tuple),
        "timesteps": _every_field(TimestepSettings, TIMESTEPS),
        "loss": _every_field(LossSettings, LOSSES),
        "order": st.sampled_from(ORDERS),
        "high_share": st.none() | st.floats(0.01, 0.99),
        "phases": st.lists(_phase(), min_size=1, max_size=4).map(tuple),
        "prune": _every_field(
            PruneSettings, dict.fromkeys(("last", "every"), st.integers(0, most))
        ),
        "rules": st.lists(_rule(), max_size=2).map(tuple),
        "patterns": st.lists(_pattern(count), max_size=2).map(tuple),
        "alpha_phases": _alpha_phases(),
    }
    # Blocks are swapped and activations offloaded only where blocks are checkpointed.
    swapped = st.tuples(st.just(True), st.integers(0, 40), st.booleans())
    memory = swapped | st.tuples(st.booleans(), st.just(0), st.just(False))
    names = ("checkpoint_blocks", "swap_blocks", "offload_activations")
    return memory.flatmap(
        lambda drawn: _every_field(
            TrainingPlan, values | dict(zip(names, map(st.just, drawn), strict=True))
        )
    )


TIMESTEPS = {
    "distribution": st.sampled_from(DISTRIBUTIONS),
    "mean": st.floats(-3, 3),
    "std": st.floats(0.1, 10),
}
LOSSES = {"weighting": st.sampled_from(WEIGHTINGS), "gamma": POSITIVE}


def _phase() -> st.SearchStrategy[PhaseSettings]:
    return _every_field(
        PhaseSettings, {"train": st.sampled_from(PHASES), "steps": st.integers(1, 10_000)}
    )


def _rule() -> st.SearchStrategy[RuleSettings]:
    values = {
        "rule": st.sampled_from(STOPPABLE),
        "level": st.none() | st.sampled_from(LEVELS),
        "measure": st.none(),
        "limit": st.none(),
        "armed_from": st.none() | st.floats(0, 1),
    }
    return _every_field(RuleSettings, values)


def _pattern(count: st.SearchStrategy[int]) -> st.SearchStrategy[PatternSettings]:
    values = {
        "pattern": st.text(min_size=1),
        "expert": st.sampled_from(EXPERTS),
        "rate": POSITIVE,
        **_own(count),
    }
    return _every_field(PatternSettings, values)


def _own(count: st.SearchStrategy[int]) -> dict[str, st.SearchStrategy]:
    return {
        "rank": st.none() | count,
        "alpha": st.none() | POSITIVE,
        "dropout": st.none() | st.floats(0, 0.99),
    }


def _alpha_phases() -> st.SearchStrategy[AlphaPhases]:
    values = {
        "alphas": st.lists(POSITIVE, max_size=3).map(tuple),
        "least": st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
        "stability": st.floats(0, 1),
        "improvement": st.floats(0, 1),
        "fit": st.floats(0, 1),
        "targets": st.lists(st.text(min_size=1), max_size=2).map(tuple),
    }
    return _every_field(AlphaPhases, values)


def _lora(count: st.SearchStrategy[int]) -> st.SearchStrategy[LoraSettings]:
    targets = st.sampled_from([DEFAULT_TARGETS, DEFAULT_TARGETS[:1]])
    values = {
        "rank": count,
        "alpha": POSITIVE,
        "dropout": st.floats(0, 0.99),
        "targets": targets | st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
        "dtype": st.sampled_from(DTYPES),
    }
    return _every_field(LoraSettings, values)


def _optimizer() -> st.SearchStrategy[OptimizerSettings]:
    values = {
        "name": st.sampled_from([*AVAILABLE, "library:Lion"]),
        "beta2": st.floats(0.0, 0.9999),
        "weight_decay": st.floats(0, 1),
        "clip": POSITIVE,
        "ema": st.floats(0, 0.9999),
    }
    return _every_field(OptimizerSettings, values)


def _rates() -> st.SearchStrategy[ExpertSettings]:
    values = {
        "rate": POSITIVE,
        "bump": st.none() | POSITIVE,
        "minimum": st.none() | st.floats(1e-9, 1e-8),
        "maximum": st.none() | st.floats(10.0, 11.0),
        "schedule": st.sampled_from(SCHEDULES),
        "warmup": st.integers(0, 100),
        "cycles": st.integers(1, 9),
        "beta2": st.none() | st.floats(0.0, 0.9999),
        "clip": st.none() | POSITIVE,
        "targets": st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=2).map(tuple),
        **_own(st.integers(1, 10_000)),
    }
    return _every_field(ExpertSettings, values)


def _every_field(kind: type, values: dict[str, st.SearchStrategy]) -> st.SearchStrategy:
    """Who adds a field to a plan must say here how it varies, or its tests would pass without it."""
    missing = {field.name for field in fields(kind)} - WRITTEN - set(values)
    assert not missing, f"{kind.__name__}: {', '.join(sorted(missing))}"
    return st.builds(kind, **values)
