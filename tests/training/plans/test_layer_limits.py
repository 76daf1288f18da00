"""Phases of alpha that cannot happen, patterns that do nothing, rates that destroy."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.alpha_phases import FEWEST_LOSSES, AlphaMover
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.expert_turns import expert_steps
from tandem_wan.training.layer_settings import require_layers
from tandem_wan.training.plans.budget import plan_for
from tandem_wan.training.plans.changes import edited_plan
from tandem_wan.training.plans.layer_limits import needed_for_phases
from tandem_wan.training.plans.limits import plan_findings
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.settings import AlphaPhases, PatternSettings
from tandem_wan.training.plans.summary import settings_line
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.expert import LinearShape
from tandem_wan.wan.lora.adapters import new_adapters

COUNTS = Counts(16, 16.0, 0.0)


def warnings(plan: TrainingPlan) -> list[str]:
    return [f"{f.text} {f.fix}" for f in plan_findings(plan, COUNTS) if f.level == "warning"]


def last_phase(settings: AlphaPhases, steps: int) -> int:
    """How many steps the mover itself gives to the last phase, where nothing holds a phase back."""
    adapters = new_adapters({"x": LinearShape(2, 2)}, rank=1, alpha=1.0, seed=0)
    mover = AlphaMover(settings, adapters, steps)
    left = 0
    for index in range(steps):
        left += mover.phase == len(settings.alphas) - 1
        mover.after(index, 1.0)
    return left


@given(
    st.integers(1, 250),
    st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.4]), min_size=1, max_size=2),
)
def test_phases_are_called_impossible_exactly_when_the_last_has_no_steps_to_be_judged_by(
    steps, least
):
    alphas = tuple(float(8 * n) for n in range(1, len(least) + 2))
    moved = AlphaPhases(alphas=alphas, least=tuple(least), stability=0.0, improvement=1.0)
    plan = TrainingPlan(family="single model", steps=steps, save_every=1, alpha_phases=moved)
    impossible = last_phase(moved, steps) < FEWEST_LOSSES
    assert (steps < needed_for_phases(plan, steps)) == impossible
    assert any("the last comes too late or never" in text for text in warnings(plan)) == impossible


def test_an_alpha_of_one_phase_needs_no_step_and_torch_is_not_asked_to_draw():
    state = torch.random.get_rng_state()
    plan = TrainingPlan(steps=5, alpha_phases=AlphaPhases(alphas=(8.0,)))
    assert not [text for text in warnings(plan) if "alpha_phases has" in text]
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_warning_names_the_expert_and_its_own_steps():
    moved = AlphaPhases(alphas=(4.0, 8.0, 16.0))
    plan = replace(plan_for(COUNTS, "video effect"), alpha_phases=moved, steps=100, high_share=0.2)
    assert expert_steps(plan) == {"high_noise": 24, "low_noise": 76}
    (told,) = [text for text in warnings(plan) if "alpha_phases" in text and "alphas," in text]
    assert "3 alphas, and the high_noise expert has 24 steps of its own" in told
    assert "They need 60 at least" in told


def test_only_the_phases_are_told_where_every_alpha_moves():
    plan = plan_for(COUNTS, "image style")
    moved = AlphaPhases(alphas=(4.0, 8.0, 16.0))
    line = settings_line(replace(plan, alpha_phases=moved))
    assert "alpha 4 -> 8 -> 16 in phases" in line and "alpha 16" not in line
    some = settings_line(replace(plan, alpha_phases=replace(moved, targets=(".*ffn.*",))))
    assert "rank 16, alpha 16, " in some
    assert "alpha 4 -> 8 -> 16 in phases where alpha_phases.targets fit" in some


def test_a_falling_alpha_is_allowed_and_judged_by_its_last():
    plan = replace(plan_for(COUNTS, "motion 4x"), alpha_phases=AlphaPhases(alphas=(16.0, 8.0)))
    assert warnings(plan) == [] and "alpha 16 -> 8 in phases" in settings_line(plan)
    (told,) = warnings(replace(plan, alpha_phases=AlphaPhases(alphas=(16.0, 1.0))))
    assert "alpha is 1 at rank 32" in told and "the last of alpha_phases.alphas" in told


@pytest.mark.parametrize("name", PRESETS)
def test_a_rate_of_5_is_called_destruction_before_any_other_warning(name):
    plan = edited_plan(plan_for(COUNTS, name), {"high.rate": 5.0, "high.maximum": None})
    told = [text for text in warnings(plan) if "The rate of high_noise" in text]
    assert len(told) == 1, "one warning, not two for one value"
    assert told == warnings(plan)[:1]
    assert "will most likely destroy the LoRA" in told[0] and "Set high.rate to" in told[0]


@pytest.mark.parametrize(("rate", "destroys"), [(0.03, False), (0.031, True)])
def test_a_hundred_times_the_largest_usual_rate_is_the_border(rate, destroys):
    plan = edited_plan(plan_for(COUNTS, "general video"), {"low.rate": rate})
    told = "\n".join(warnings(plan))
    assert ("destroy" in told) == destroys
    assert ("0.0001 to 0.0003 are usual" in told) != destroys


def test_a_factor_of_an_optimizer_that_finds_its_rate_is_measured_by_1():
    plan = edited_plan(plan_for(COUNTS, "character"), {"optimizer.name": "prodigy"})
    plan = edited_plan(plan, {"high.rate": 5.0, "low.rate": 1.0})
    assert "destroy" not in "\n".join(warnings(plan))
    assert "destroy" in "\n".join(warnings(edited_plan(plan, {"high.rate": 101.0})))


LAYERS = {
    name: LinearShape(64, 64)
    for name in (
        "text_embedding.0",
        "blocks.0.self_attn.k",
        "blocks.0.self_attn.q",
        "blocks.0.ffn.2",
    )
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patterns": (PatternSettings(pattern=r"ffn\.2", rank=4),)}, r'pattern "ffn\\.2" fits'),
        ({"alpha_phases": AlphaPhases(alphas=(8.0,), targets=("no",))}, 'pattern "no" fits'),
        (
            {"high": replace(TrainingPlan().high, targets=("x y", "z"))},
            'targets "x y", "z". ',
        ),
    ],
)
def test_a_pattern_that_fits_nothing_is_answered_with_usual_names_and_one_as_it_is_typed(
    changes, words
):
    with pytest.raises(UserError) as refused:
        require_layers(replace(TrainingPlan(), **changes), "high_noise", LAYERS)
    said = str(refused.value)
    assert words in said and r'"blocks\\.\\d+\\.ffn\\..*"' in said
    assert "called blocks.0.self_attn.q, blocks.0.ffn.2, text_embedding.0, ..." in said
    if "high" in changes:
        assert "Change high.targets" in said
