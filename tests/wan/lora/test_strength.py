"""Strength over the sampling steps: the syntax, and the factor at each step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.flow import warp
from tandem_wan.wan.lora.strength import (
    Keyframe,
    StrengthSchedule,
    parse_strength,
    schedule_curve,
)

values = st.floats(-100, 100)
parts = st.floats(0, 1).map(lambda place: round(place, 5))


@st.composite
def schedules(draw, numbers=values):
    kind = draw(st.sampled_from(["fraction", "step", "sigma"]))
    places = st.integers(1, 60).map(float) if kind == "step" else parts
    found = sorted(draw(st.sets(places, min_size=2, max_size=6)), reverse=kind == "sigma")
    frames = [Keyframe(draw(numbers), place, draw(st.booleans())) for place in found]
    frames[0] = Keyframe(frames[0].value, frames[0].place)
    return StrengthSchedule(tuple(frames), kind)


@st.composite
def runs(draw):
    """Sigmas of a whole run, as the simple scheduler makes them."""
    shift, steps = draw(st.floats(0.5, 12)), draw(st.integers(1, 40))
    return [warp(1 - step / steps, shift) for step in range(steps + 1)]


def sigmas(steps):
    return [1 - step / steps for step in range(steps + 1)]


def curve(text, steps):
    return schedule_curve(parse_strength(text), sigmas(steps))


@given(schedules())
def test_a_schedule_survives_its_text(schedule):
    assert parse_strength(str(schedule)) == schedule


@given(values)
def test_a_constant_is_constant_and_survives_its_text(value):
    schedule = parse_strength(repr(value))
    assert schedule.constant == value
    assert parse_strength(str(schedule)) == schedule
    assert schedule_curve(schedule, sigmas(7)) == [value] * 7


@given(schedules(), runs())
def test_no_step_leaves_the_range_of_the_keyframes(schedule, run):
    found = schedule_curve(schedule, run)
    numbers = [frame.value for frame in schedule.keyframes]
    assert len(found) == len(run) - 1
    assert min(numbers) <= min(found) and max(found) <= max(numbers)


@given(schedules(), runs(), st.booleans())
def test_rising_keyframes_give_a_rising_curve(schedule, run, falling):
    ordered = sorted((frame.value for frame in schedule.keyframes), reverse=falling)
    frames = [
        Keyframe(value, frame.place, frame.jump)
        for value, frame in zip(ordered, schedule.keyframes, strict=True)
    ]
    found = schedule_curve(StrengthSchedule(tuple(frames), schedule.kind), run)
    assert found == sorted(found, reverse=falling)


@given(schedules(), runs())
def test_ramps_are_what_numpy_interpolates(schedule, run):
    assume(not any(frame.jump for frame in schedule.keyframes))
    steps = len(run) - 1
    now = {
        "fraction": np.arange(steps) / max(1, steps - 1),
        "step": np.arange(steps) + 1.0,
        "sigma": -np.round(run[:-1], 6),
    }[schedule.kind]
    sign = -1 if schedule.kind == "sigma" else 1
    places = [sign * frame.place for frame in schedule.keyframes]
    expected = np.interp(now, places, [frame.value for frame in schedule.keyframes])
    np.testing.assert_allclose(schedule_curve(schedule, run), expected, rtol=1e-9, atol=1e-9)


@given(schedules(st.floats(0, 1)), runs())
def test_a_keyframe_behind_a_bar_holds_the_value_before_it(schedule, run):
    jumps = StrengthSchedule(
        tuple(Keyframe(f.value, f.place, i > 0) for i, f in enumerate(schedule.keyframes)),
        schedule.kind,
    )
    assert set(schedule_curve(jumps, run)) <= {frame.value for frame in schedule.keyframes}


@given(st.text() | st.text(alphabet="0123456789.@,|%sigmate->[] \u03c3;-+"))
def test_any_text_is_a_schedule_or_an_error_for_people(text):
    try:
        schedule = parse_strength(text)
    except UserError as error:
        assert error.came and error.can_be and error.to_do
        return
    assert parse_strength(str(schedule)) == schedule
    assert all(-100 <= value <= 100 for value in schedule_curve(schedule, sigmas(5)))


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("0.8", 3, [0.8, 0.8, 0.8]),
        ("[0.8]", 2, [0.8, 0.8]),
        ("0.2 0.5 1", 5, [0.2, 0.5, 1, 1, 1]),
        ("0.2, 0.5, 1", 3, [0.2, 0.5, 1]),
        ("[0.2, 0.5 , 1]", 2, [0.2, 0.5]),
        ("0.2 -> 1", 5, [0.2, 0.4, 0.6, 0.8, 1]),
        ("1->-1", 3, [1, 0, -1]),
        ("0@0, 1@1", 1, [0]),
        ("0@0, 1@1", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("0@25%, 1@75%", 5, [0, 0, 0.5, 1, 1]),
        ("1@0 | 0@0.5", 5, [1, 1, 0, 0, 0]),
        ("0.2@0, 1@0.5 | 0.4@0.75", 5, [0.2, 0.6, 1, 0.4, 0.4]),
        ("1@s1, 0@s3", 4, [1, 0.5, 0, 0]),
        ("1@step 2, 0@STEP 4", 5, [1, 1, 0.5, 0, 0]),
        ("1@sigma0.75 , 0@sigma 0.25", 4, [1, 1, 0.5, 0]),
        ("1@\u03c31 | 0@\u03c30.5", 4, [1, 1, 0, 0]),
        ("0.5@s7", 2, [0.5, 0.5]),
    ],
)
def test_each_form_gives_its_strengths(text, steps, expected):
    assert curve(text, steps) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [2, 3, 10, 21, 50])
def test_the_first_step_is_0_and_the_last_is_1(steps):
    found = curve("0.25 -> 0.75", steps)
    assert (found[0], found[-1]) == (0.25, 0.75)


def test_a_place_of_float32_sigma_is_reached():
    schedule = parse_strength("1@sigma1 | 0@sigma0.9")
    assert schedule.at(step=3, steps=9, sigma=float(np.float32(0.9))) == 0


@pytest.mark.parametrize(
    ("text", "came", "advice"),
    [
        ("", "is empty", "Write 1"),
        ("strong", "'strong' at position 1", "0.8"),
        ("0.2 x 1", "'x' at position 5", "0.8"),
        ("0.2,,1", "nothing at position 5", "0.8"),
        ("[]", "nothing at position 2", "0.8"),
        ("0.2-1", "'0.2-1' at position 1", "0.8"),
        ("50%", "'50%' at position 1", "0.8"),
        ("101", "'101' at position 1", "0.8"),
        ("1e999@0", "'1e999' at position 1", "0.8"),
        ("1@0, x@1", "'x' at position 6", "1@0.5"),
        ("1@0, 0.5", "'0.5' at position 6", "1@0.5"),
        ("1@0,", "nothing at position 5", "1@0.5"),
        ("1@", "nothing at position 3", "1@50%"),
        ("1@0, 0@2", "'2' at position 8", "1@s3"),
        ("1@s0", "'s0' at position 3", "1@s3"),
        ("1@s1.5", "'s1.5' at position 3", "1@s3"),
        ("1@sigma90%", "'sigma90%' at position 3", "1@sigma0.9"),
        ("1@0, 0@s4", "s4 after 0 at position 8", "0.2@s1, 1@s10"),
        ("1@0.5, 0@0.2", "0.2 after 0.5 at position 10", "0@0.2, 1@0.5"),
        ("1@sigma0.5, 0@sigma0.9", "sigma0.9 after sigma0.5", "0@sigma0.9, 1@sigma0.5"),
        ("1@s2, 0@s2", "s2 after s2 at position 9", "0.2@s1 | 1@s10"),
        ("0 -> 1 -> 0", "a second '->' at position 8", "0.2@0, 1@0.5, 0.4@1"),
        ("0 -> ", "nothing at position 6", "0.8"),
        ("1;0", "';' at position 2", "schedule_low"),
    ],
)  # fmt: skip
def test_an_error_says_where_and_shows_what_would_do(text, came, advice):
    with pytest.raises(UserError) as caught:
        parse_strength(text)
    assert came in caught.value.came
    assert advice in caught.value.to_do


def test_an_error_repeats_only_the_beginning_of_a_long_text():
    with pytest.raises(UserError) as caught:
        parse_strength("1 " * 500 + "x")
    assert len(caught.value.came) < 200 and "position 1001" in caught.value.came
