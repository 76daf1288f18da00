"""A run that is cut anywhere and goes on equals the unbroken one to the last bit, for every kind of plan."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.checkpoints import CheckpointStore
from tandem_wan.training.events import Finding, StepDone
from tandem_wan.training.loop import train
from tandem_wan.training.plans.plan import (
    AlphaPhases,
    ExpertSettings,
    LossSettings,
    PatternSettings,
    PhaseSettings,
    TimestepSettings,
)
from tandem_wan.training.samples import ListedSamples
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.lora.files import read_tensors

STEPS, ACCUMULATE = 12, 2
# Pieces of work after which a run is cut: within an accumulation, between steps, within a turn, in an epoch of three.
CUTS = (5, 2, 9)
RISING = AlphaPhases(alphas=(2.0, 4.0, 8.0), least=(0.1, 0.1), stability=0.0, improvement=9.0)
LONG = {"steps": 96, "accumulate": 1, "high_share": 0.5}
"""Enough for both experts to leave two phases of 20 steps."""
COSINE = ExpertSettings(rate=1e-2, schedule="cosine with restarts", warmup=2, cycles=2)
PHASES = tuple(PhaseSettings(train=t, steps=n) for t, n in (("high", 2), ("low", 3), ("joint", 1)))

KINDS = {
    "interleaved": {"swap_every": 2},
    "interleaved by half": {"swap_every": 1, "high_share": 0.5},
    "joint": {"order": "joint"},
    "sequential": {"order": "sequential", "phases": PHASES},
    "high alone": {"train": "high"},
    "low alone": {"train": "low"},
    "single model": {"family": "single model"},
    "average": {"order": "joint", "optimizer__ema": 0.9},
    "caption dropout": {"order": "joint", "caption_dropout": 0.4},
    "dropout": {"order": "joint", "dropout": 0.3},
    "schedules": {"order": "joint", "high": COSINE, "low": COSINE},
    "bf16 kahan": {"optimizer": "adamw kahan", "lora__dtype": "bfloat16"},
    "8-bit": {"optimizer": "adamw 8-bit"},
    "8-bit bf16 kahan": {"optimizer": "adamw 8-bit kahan", "lora__dtype": "bfloat16"},
    "automagic": {"optimizer": "automagic", "order": "joint"},
    "automagic bf16": {"optimizer": "automagic", "lora__dtype": "bfloat16"},
    "prodigy": {"optimizer": "prodigy", "order": "joint"},
    "distributions": {"timesteps": TimestepSettings(distribution="logit-normal", std=0.7)},
    "weighted loss": {"loss": LossSettings(weighting="cosmap"), "batch": 3},
    "patterns": {
        "order": "joint",
        "patterns": (PatternSettings(pattern=r".*ffn\.0", rank=2, alpha=1.0, rate=2.0, dropout=0.2),),
        "high": ExpertSettings(rate=1e-2, rank=3, alpha=2.0),
    },
    "alpha phases": {"order": "joint", "alpha_phases": RISING, **LONG},
    "alpha phases in turns": {"swap_every": 5, "alpha_phases": RISING, "optimizer__ema": 0.9, **LONG},
}  # fmt: skip


class StopAfter(Turns):
    """Ends a run once it has done so many pieces of work; None never."""

    def __init__(self, pieces: int | None) -> None:
        self.left = pieces

    def over(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0

    def wait(self) -> None:
        raise RunStopped


def plan_of(toys, **changes):
    """The toy's plan; `PART__NAME` sets a value of a part."""
    inner = {key: changes.pop(key) for key in list(changes) if "__" in key}
    values = {
        "steps": STEPS,
        "accumulate": ACCUMULATE,
        "batch": 2,
        "swap_every": 2,
        "save_every": 5,
    }
    plan = toys.plan(changes.pop("optimizer", "adamw"), **(values | changes))
    for key, value in inner.items():
        part, name = key.split("__")
        plan = replace(plan, **{part: replace(getattr(plan, part), **{name: value})})
    return plan


def run(toys, plan, store, pieces=None):
    """One process's part of a run: what it told, and its trainers."""
    samples = ListedSamples(
        toys.clips(), repeats=[1, 2, 1, 0.5, 1], empty_context=torch.zeros(5, 6)
    )
    # Wide enough for the codes of 8 bits.
    wide = {"width": 1024} if "8-bit" in plan.optimizer.name else {}
    trainers = toys.trainers(plan, samples, **wide)
    first, told = store.resume(trainers), []

    def save(step, trainers):
        if step > 0:
            store.save(step, trainers, {})

    train(plan, trainers, save=save, listen=told.append, first_step=first, turns=StopAfter(pieces))
    lines = [
        (e.step, e.role, e.loss, e.grad_norm, e.rate, e.weight)
        if isinstance(e, StepDone)
        else e.text
        for e in told
        if isinstance(e, (StepDone, Finding))
    ]
    return lines, trainers


def held(trainer):
    """Everything that the next step depends on."""
    state = trainer.optimizer.state
    weights = trainer.adapters.parameters()
    return [
        *weights,
        *(t for w in weights for _, t in sorted(state[w].items()) if torch.is_tensor(t)),
        *(trainer.average.tensors if trainer.average else ()),
        torch.tensor([adapter.alpha for adapter in trainer.adapters.values()]),
    ]


def assert_goes_on_exactly(toys, plan, folder, *ways):
    """Each of `ways` says after how many pieces of work each process was ended; returns what a whole run tells."""
    whole_store = CheckpointStore(folder / "whole", "x")
    whole, unbroken = run(toys, plan, whole_store)
    for number, cuts in enumerate(ways):
        store, parts = CheckpointStore(folder / str(number), "x"), []
        for seed, pieces in enumerate((*cuts, None)):
            torch.manual_seed(seed)  # a new process has other random numbers
            lines, trainers = run(toys, plan, store, pieces)
            parts += lines
        assert parts == whole, cuts
        for role, trainer in trainers.items():
            ours, theirs = held(trainer), held(unbroken[role])
            assert [t.dtype for t in ours] == [t.dtype for t in theirs]
            assert all(map(torch.equal, ours, theirs)), role
            in_codes = any(t.dtype == torch.uint8 for t in ours)
            assert in_codes == ("8-bit" in plan.optimizer.name), "factors are wide enough for codes"
            file, other = (read_tensors(s.file(plan.steps, role)) for s in (store, whole_store))
            assert file.keys() == other.keys()
            assert all(torch.equal(file[key], other[key]) for key in file)
    return whole


@pytest.mark.parametrize("kind", KINDS)
def test_bar_c06_a_cut_run_equals_the_unbroken_one_for_every_kind_of_plan(toys, tmp_path, kind):
    plan = plan_of(toys, **KINDS[kind])
    cuts = tuple(cut * plan.steps // STEPS for cut in CUTS)
    told = assert_goes_on_exactly(toys, plan, tmp_path, cuts)
    moved = [line for line in told if isinstance(line, str) and "alpha" in line]
    assert len(moved) == (4 if plan.alpha_phases.alphas else 0), "each expert left two phases"


def test_bar_c06_wherever_it_is_cut(toys, tmp_path):
    """At every micro-batch: in and between accumulations, turns of both experts, epochs of five clips."""
    plan = plan_of(toys, dropout=0.2, caption_dropout=0.3, optimizer__ema=0.9)
    assert_goes_on_exactly(toys, plan, tmp_path, *((n,) for n in range(1, STEPS * ACCUMULATE)))


@settings(max_examples=12)
@given(data=st.data())
def test_bar_c06_in_any_mixture(toys, tmp_path_factory, data):
    values = {
        "order": st.sampled_from(["interleaved", "joint", "sequential"]),
        "optimizer": st.sampled_from(["adamw", "adamw kahan", "automagic", "library:Lion"]),
        "lora__dtype": st.sampled_from(["float32", "bfloat16"]),
        "optimizer__ema": st.sampled_from([0.0, 0.99]),
        "caption_dropout": st.sampled_from([0.0, 0.5]),
        "dropout": st.sampled_from([0.0, 0.3]),
        "high_share": st.sampled_from([None, 0.2, 0.5]),
        "swap_every": st.integers(1, 7),
        "accumulate": st.integers(1, 4),
        "batch": st.integers(1, 4),
        "save_every": st.integers(1, 13),
    }
    plan = plan_of(toys, **{name: data.draw(values[name], name) for name in values})
    pieces = plan.steps * plan.accumulate
    cuts = data.draw(st.lists(st.integers(0, pieces), min_size=1, max_size=3), "cuts")
    assert_goes_on_exactly(toys, plan, tmp_path_factory.mktemp("any"), cuts)
