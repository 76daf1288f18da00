"""What is measured of each step, against slow obvious references."""

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.events import HeldOut, StepDone
from tandem_wan.training.expert_turns import role_at
from tandem_wan.training.monitors.curves import curves_of, measured
from tandem_wan.training.monitors.measures import Record


def done(step, role="high_noise", loss=0.1, rate=1e-4, weight=0.01, steps=1000):
    return StepDone(
        step=step, steps=steps, role=role, loss=loss, grad_norm=1.0, rate=rate, seconds=1.0,
        weight=weight,
    )  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 10.0)), min_size=1, max_size=250))
def test_each_expert_has_the_mean_and_deviation_of_its_own_last_100_losses(steps):
    record, own = Record(1000), {"high_noise": [], "low_noise": []}
    for number, (is_high, loss) in enumerate(steps, 1):
        role = "high_noise" if is_high else "low_noise"
        own[role].append(loss)
        event = record.step(done(number, role, loss))
        recent = own[role][-100:]
        assert event.loss_mean == pytest.approx(statistics.fmean(recent))
        if len(recent) == 1:
            assert event.loss_std is None
        else:
            assert event.loss_std == pytest.approx(statistics.stdev(recent), abs=1e-9)


def test_ratios_are_of_the_newest_of_both_and_none_before_there_are_both():
    record = Record(1000)
    first = record.step(done(1, "high_noise", rate=4e-4, weight=0.009))
    assert first.weight_ratio is None and first.rate_ratio is None
    second = record.step(done(2, "low_noise", rate=1e-4, weight=0.006))
    assert second.weight_ratio == pytest.approx(1.5) and second.rate_ratio == pytest.approx(4.0)
    third = record.step(done(3, "low_noise", rate=2e-4, weight=0.0045))
    assert third.weight_ratio == pytest.approx(2.0) and third.rate_ratio == pytest.approx(2.0)


def test_growth_is_that_of_a_fifth_of_the_run_and_none_before():
    record = Record(1000)
    events = [record.step(done(step, weight=1.01**step)) for step in range(1, 401)]
    assert [e.weight_growth is None for e in events].index(False) == 200
    assert events[-1].weight_growth == pytest.approx(1.01**200 - 1)


@pytest.mark.parametrize("swap_every", [1, 10, 50])
def test_turns_of_the_experts_do_not_look_like_growth(replays, swap_every):
    """Both experts grow by the same share a fifth; measured between two steps of the run one would often have had a
    turn more than the other."""
    plan = replays.plan(2000, swap_every=swap_every)
    own, record, gaps = {"high_noise": 0, "low_noise": 0}, Record(2000), []
    # 5 % in the steps that each has in a fifth of the run.
    counts = [role_at(plan, step) for step in range(plan.steps)]
    each = {role: 1.05 ** (5 / counts.count(role)) for role in own}
    for step in range(1, plan.steps + 1):
        role = role_at(plan, step - 1)
        own[role] += 1
        record.step(done(step, role, weight=0.01 * each[role] ** own[role], steps=2000))
        gaps.append(record.value("low outgrows high"))
    late = [gap for gap in gaps[len(gaps) // 2 :] if gap is not None]
    assert len(late) == 1000
    assert max(abs(gap) for gap in late) < 0.002 * max(1, swap_every / 10)


def test_the_held_out_loss_has_risen_when_its_last_two_are_above_the_lowest_before():
    record = Record(1000)
    rises = []
    for step, loss in enumerate([0.10, 0.08, 0.09, 0.10, 0.07, 0.14, 0.105]):
        record.held_out(HeldOut(step=step, role="single", loss=loss, trained=0.1 - step / 100))
        rises.append(record.held_out_rise("single"))
    assert rises[:2] == [None, None]
    assert rises[2:] == pytest.approx([-0.2, 0.125, -0.125, -0.125, 0.5])
    # Lowest at step 4, where the other loss was 0.06; now it is 0.04.
    assert record.trained_fall("single") == pytest.approx(1 / 3)
    assert record.measured_at(4) == {"single"} and record.measured_at(9) == set()


# A run as it is written: steps in order, and now and then it goes on from an earlier checkpoint.
restarts = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 100)), min_size=1, max_size=6)


@given(restarts)
def test_every_step_and_held_out_loss_counts_once_however_often_a_run_was_cut_off(parts):
    lines, step, made = [], 0, 0
    for count, back in parts:
        step = max(0, step - back % 7)
        lines.append({"event": "StateChanged", "step": step, "state": "queued"})
        for _ in range(count):
            if step % 3 == 0:
                lines.append(
                    {
                        "event": "HeldOut",
                        "step": step,
                        "role": "single",
                        "loss": made,
                        "trained": 0.0,
                    }
                )
            step, made = step + 1, made + 1
            lines.append(
                {"event": "StepDone", "step": step, "steps": 99, "role": "single", "loss": made,
                 "grad_norm": 1.0, "rate": 0.1, "seconds": 1.0, "time": 0.0}
            )  # fmt: skip
    events = measured(lines)
    steps = [e for e in events if isinstance(e, StepDone)]
    held = [e.step for e in events if isinstance(e, HeldOut)]
    assert [e.step for e in steps] == list(range(1, step + 1))
    assert all(a.loss < b.loss for a, b in pairwise(steps)), "the newest of each step"
    assert held == list(range(0, step, 3))
    assert measured(lines, up_to=2) == [e for e in events if e.step <= 2]


def test_curves_have_a_point_for_each_measure_that_is_there(replays):
    plan, events = replays.healthy(40)
    record = Record(plan.steps)
    curves = curves_of(
        [
            *(record.step(e) for e in events),
            HeldOut(step=40, role="low_noise", loss=0.2, trained=0.1),
        ]
    )
    assert {role: len(points) for role, points in curves.weights.items()} == {
        role: sum(e.role == role for e in events) for role in ("high_noise", "low_noise")
    }
    assert curves.weights.keys() == curves.rates.keys()
    first_low = next(e.step for e in events if e.role == "low_noise")
    assert [step for step, _ in curves.weight_ratio] == list(range(first_low, 41))
    assert curves.held_out == {"low_noise": [(40, 0.2)]}
    assert curves.trained == {"low_noise": [(40, 0.1)]}
