"""Schedules of the rate against their closed forms, and that no step is wasted."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.optimizers.rate_schedules import SCHEDULES, rate_factor


def test_the_forms_are_those_of_their_names():
    assert [rate_factor("constant", t, 4) for t in range(4)] == [1.0] * 4
    assert [rate_factor("linear", t, 4) for t in range(4)] == [1.0, 0.75, 0.5, 0.25]
    half = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]
    assert [rate_factor("cosine", t, 4) for t in range(4)] == pytest.approx(half)
    twice = [rate_factor("cosine with restarts", t, 8, cycles=2) for t in range(8)]
    assert twice == pytest.approx(half * 2)


def test_warm_up_rises_evenly_and_the_schedule_begins_behind_it():
    factors = [rate_factor("cosine", t, 13, warmup=3) for t in range(13)]
    assert factors[:3] == [0.25, 0.5, 0.75]
    assert factors[3:] == [rate_factor("cosine", t, 10) for t in range(10)]


@given(
    schedule=st.sampled_from(SCHEDULES),
    steps=st.integers(1, 5000),
    warmup=st.integers(0, 6000),
    cycles=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=200)
def test_no_step_of_a_run_is_without_a_rate(schedule, steps, warmup, cycles, data):
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < rate_factor(schedule, step, steps, warmup=warmup, cycles=cycles) <= 1


@given(steps=st.integers(2, 5000), cycles=st.integers(1, 12))
@settings(max_examples=100)
def test_restarts_are_as_many_as_the_cycles_and_begin_near_the_full_rate(steps, cycles):
    cycles = min(cycles, steps // 2)
    factors = [rate_factor("cosine with restarts", t, steps, cycles=cycles) for t in range(steps)]
    starts = [t for t in range(1, steps) if factors[t] > factors[t - 1]]
    assert len(starts) == cycles - 1
    slow = [math.ceil(k * steps / cycles) for k in range(1, cycles)]
    assert starts == slow
    assert factors[0] == 1.0


def test_another_name_is_no_schedule():
    with pytest.raises(KeyError):
        rate_factor("step", 0, 10)
