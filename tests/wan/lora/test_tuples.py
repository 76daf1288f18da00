"""LORA_STACK: three parts an entry, in order, and back again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.experts import Evidence
from tandem_wan.wan.lora.stack import Blend, Row, place_rows
from tandem_wan.wan.lora.tuples import rows_from_tuples, tuples_from_rows

ENTRIES = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 2), st.floats(0, 2)))


def _lists(rows):
    placed = place_rows(rows, lambda _: Evidence())
    return tuples_from_rows(placed, "high"), tuples_from_rows(placed, "low")


@given(ENTRIES, ENTRIES)
def test_two_lists_come_back_as_they_were_but_for_the_text_encoder(high, low):
    expected = tuple(
        [(name, model, model) for name, model, _ in entries] for entries in (high, low)
    )
    assert _lists(rows_from_tuples(high, low)) == expected


@given(ENTRIES)
def test_one_list_is_for_both_experts_unless_a_name_says_otherwise(entries):
    expected = [(name, model, model) for name, model, _ in entries]
    assert _lists(rows_from_tuples(entries)) == (expected, expected)


def test_each_expert_gets_its_own_file_and_strength():
    rows = (
        Row(lora="h", lora_low="l", high=0.8, low=0.6),
        Row(lora="off", on=False),
        Row(lora="q", route="low", low=0.4),
        Row(lora="x", high=1.0, low=0.0),
        Row(lora="m", high=1.0, low=0.5, blend=Blend(lora="n", share=0.25)),
        Row(lora="m", blend=Blend(lora="n", share=0.0)),
    )
    assert _lists(rows) == (
        [("h", 0.8, 0.8), ("x", 1, 1), ("m", 0.75, 0.75), ("n", 0.25, 0.25), ("m", 1, 1)],
        [("l", 0.6, 0.6), ("q", 0.4, 0.4), ("m", 0.375, 0.375), ("n", 0.125, 0.125), ("m", 1, 1)],
    )


def test_the_empty_rows_of_a_stacker_are_skipped():
    assert rows_from_tuples([("None", 1.0, 1.0), (None, 1.0, 1.0), ("x", 0.5, 1.0)]) == (
        Row(lora="x", high=0.5, low=0.5),
    )


@pytest.mark.parametrize(
    "entry",
    [
        ("x", 1.0),
        ("x", 1.0, 1.0, 1.0),
        "x",
        (3, 1.0, 1.0),
        ("x", "1", 1),
        ("x", float("nan"), 1.0),
        ("x", float("-inf"), 1.0),
        ("x", 10**400, 1.0),
    ],
)
def test_an_entry_that_is_none_is_named(entry):
    with pytest.raises(UserError, match=r"Entry 2 of lora_stack is .*\(name, model strength"):
        rows_from_tuples([("a", 1.0, 1.0), entry])


def test_what_is_no_list_is_named():
    with pytest.raises(UserError, match="lora_stack_low is a str"):
        rows_from_tuples([], "x")
