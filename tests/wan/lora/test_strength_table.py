"""A schedule on a run of two experts, step by step."""

from __future__ import annotations

import pytest
from tandem_wan.wan.flow import warp
from tandem_wan.wan.lora.strength import parse_strength
from tandem_wan.wan.lora.strength_table import strength_run


def run_of(high, low="", *, steps=4, boundary=0.9, strengths=(1.0, 1.0)):
    """A run at shift 5."""
    return strength_run(
        parse_strength(high),
        parse_strength(low or high),
        [warp(1 - step / steps, 5.0) for step in range(steps + 1)],
        boundary=boundary,
        strengths=strengths,
    )


def test_each_step_has_the_strength_of_the_expert_that_takes_it():
    run = run_of("1 0.5", "0 -> 0.9", strengths=(0.8, 2.0))
    assert [run.role(step) for step in range(4)] == ["high_noise"] * 2 + ["low_noise"] * 2
    assert [run.strength(step) for step in range(4)] == pytest.approx([0.8, 0.4, 1.2, 1.8])


def test_a_single_model_takes_every_step_with_the_first_schedule():
    run = run_of("1 0.5", "0", boundary=0.0)
    assert {run.role(step) for step in range(4)} == {"single"}
    assert [run.strength(step) for step in range(4)] == [1, 0.5, 0.5, 0.5]


def test_a_step_at_the_boundary_itself_is_the_high_experts():
    run = strength_run(
        parse_strength("1"), parse_strength("0"), [1.0, 0.8999999762, 0.5, 0.0], boundary=0.9
    )
    assert run.high_steps == 2


def test_the_text_has_a_line_for_each_step():
    assert run_of("1 0.5", "0 -> 0.9").text() == "\n".join(
        [
            "2 high + 2 low of 4 steps, boundary 0.9: the low-noise expert takes over at step 3, sigma 0.833",
            "step   sigma  expert  strength",
            "   1   1.000  high       1.000",
            "   2   0.938  high       0.500",
            "   3   0.833  low        0.600",
            "   4   0.625  low        0.900",
            "high: The list has 2 values and the run 4 steps: the last value, 0.5, holds from step 2 on.",
        ]
    )


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("1", None),
        ("1 1", None),
        ("1 0.9 0.8 0.7", None),
        ("1 0.9 0.8 0.7 0.6", "No step reaches 0.6@s5: the run has 4."),
        ("1@s2, 0@s4", None),
        ("1@s2, 0@s9", "No step reaches 0@s9: the run has 4."),
        ("1@sigma1, 0@sigma0.7", None),
        ("1@sigma1, 0@sigma0.3", "No step reaches 0@sigma0.3: the last one begins at sigma 0.625."),
    ],
)  # fmt: skip
def test_a_note_says_which_values_no_step_reaches(text, note):
    assert run_of(text).notes == ((note,) if note else ())


def test_one_step_is_the_beginning_of_the_run():
    run = run_of("0.2 -> 1", steps=1)
    assert run.high == (0.2,)
    assert run.notes == ("The run has one step, which is place 0.",)
