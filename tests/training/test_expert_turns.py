"""Orders of the experts: joint, sequential, a share by hand; each counted step by step."""

from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.expert_turns import expert_steps, role_at, spans, steps_before
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import PHASES, PhaseSettings
from tandem_wan.wan.flow import share_above

TWO = TrainingPlan(family="wan 2.2 A14B", steps=2700, swap_every=10)
PHASE = st.builds(PhaseSettings, train=st.sampled_from(PHASES), steps=st.integers(1, 50))


def turns_of(plan: TrainingPlan) -> list[tuple[str, int]]:
    """Roles in the order of the steps, each with how many steps it keeps."""
    roles = (role_at(plan, step) for step in range(plan.steps))
    return [(role, len(list(group))) for role, group in groupby(roles)]


def test_joint_changes_the_expert_every_step_where_both_have_half():
    plan = replace(TWO, order="joint", high_share=0.5, steps=100)
    assert turns_of(plan) == [("high_noise", 1), ("low_noise", 1)] * 50


def test_joint_keeps_the_share_of_the_shift_and_no_turn_of_the_lesser_expert_is_longer_than_a_step():
    plan = replace(TWO, order="joint", steps=2000)
    turns = turns_of(plan)
    assert {length for role, length in turns if role == "high_noise"} == {1}
    share = expert_steps(plan)["high_noise"] / 2000
    assert share == pytest.approx(share_above(0.9, 5.0), abs=1 / 2000)


def test_the_received_sequence_is_high_then_low_then_both():
    turns = turns_of(replace(TWO, order="sequential"))
    assert turns[:2] == [("high_noise", 1000), ("low_noise", 1500)]
    joint = turns[2:]
    assert sum(length for _, length in joint) == 200
    assert joint[0][0] == "high_noise"
    high = sum(length for role, length in joint if role == "high_noise")
    assert high == pytest.approx(200 * share_above(0.9, 5.0), abs=1)


def test_phases_are_scaled_to_the_steps_of_the_run():
    turns = turns_of(replace(TWO, order="sequential", steps=270))
    assert turns[:2] == [("high_noise", 100), ("low_noise", 150)]


@pytest.mark.parametrize("share", [0.5, 0.25, 0.9])
def test_a_share_by_hand_takes_the_place_of_the_shifts(share):
    plan = replace(TWO, high_share=share, steps=1000)
    assert expert_steps(plan)["high_noise"] == pytest.approx(1000 * share, abs=10)


@given(
    order=st.sampled_from(["interleaved", "joint", "sequential"]),
    phases=st.lists(PHASE, min_size=1, max_size=4).map(tuple),
    share=st.none() | st.floats(0.001, 0.999),
    swap_every=st.integers(1, 20),
    steps=st.integers(1, 300),
)
@settings(max_examples=100)
def test_what_is_counted_in_whole_turns_is_what_counting_gives(
    order, phases, share, swap_every, steps
):
    plan = replace(
        TWO, order=order, phases=phases, high_share=share, swap_every=swap_every, steps=steps
    )
    counts = Counter()
    for step in range(steps):
        assert steps_before(plan, step) == {r: counts[r] for r in ("high_noise", "low_noise")}
        counts[role_at(plan, step)] += 1
    assert expert_steps(plan) == {r: counts[r] for r in ("high_noise", "low_noise")}
    edges = [span.first for span in spans(plan)] + [spans(plan)[-1].end]
    assert edges[0] == 0 and edges[-1] == steps and edges == sorted(edges)


@pytest.mark.parametrize("train", ["high", "low"])
def test_one_expert_alone_takes_every_step_whatever_the_order(train):
    plan = replace(TWO, train=train, order="sequential", steps=40)
    assert expert_steps(plan) == {f"{train}_noise": 40}
