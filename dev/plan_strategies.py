"""Random plans for the tests that hold for any plan."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import strategies as st

from ..training.optimizers.names import AVAILABLE, DTYPES
from ..training.optimizers.rate_schedules import SCHEDULES
from ..training.plans.plan import (
    STOPPABLE,
    TRAINED,
    LoraSettings,
    OptimizerSettings,
    RateSettings,
    TrainingPlan,
)
from ..training.plans.presets import PRESETS
from ..wan.families import FAMILIES
from ..wan.lora.adapters import DEFAULT_TARGETS

POSITIVE = st.floats(1e-8, 10.0)
WRITTEN = {"version"}
"""Fields that a plan has of itself."""


def plans(most: int = 10_000) -> st.SearchStrategy[TrainingPlan]:
    """Plans of which every value varies; counts up to `most`."""
    count = st.integers(1, most)
    values = {
        "preset": st.sampled_from(sorted(PRESETS)),
        "family": st.sampled_from(FAMILIES),
        "train": st.sampled_from(TRAINED),
        "task": st.sampled_from(["i2v", "t2v"]),
        "boundary": st.floats(0.0001, 0.9999),
        "shift": st.floats(0.1, 20) | st.just(1.0),
        **dict.fromkeys(("steps", "batch", "accumulate", "swap_every", "save_every"), count),
        "seed": st.integers(0, 2**40),
        "caption_dropout": st.floats(0, 0.99),
        "allow_long": st.booleans(),
        "held_out": st.integers(0, most),
        "stop_on": st.lists(st.sampled_from(STOPPABLE), unique=True).map(tuple),
        "checkpoint_blocks": st.booleans(),
        "lora": _lora(count),
        "optimizer": _optimizer(),
        "high": _rates(),
        "low": _rates(),
        "notes": st.lists(st.text(), max_size=2).map(tuple),
    }
    return _every_field(TrainingPlan, values)


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


def _rates() -> st.SearchStrategy[RateSettings]:
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
    }
    return _every_field(RateSettings, values)


def _every_field(kind: type, values: dict[str, st.SearchStrategy]) -> st.SearchStrategy:
    """Who adds a field to a plan must say here how it varies, or its tests would pass without it."""
    missing = {field.name for field in fields(kind)} - WRITTEN - set(values)
    assert not missing, f"{kind.__name__}: {', '.join(sorted(missing))}"
    return st.builds(kind, **values)
